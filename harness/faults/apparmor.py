"""AppArmor profiles of our own: loaded and removed with apparmor_parser, which reads them from its stdin."""

from __future__ import annotations

import os
import shutil

from harness.errors import HostError
from harness.process.command import Stdio, run


def load(name: str, rules: str) -> None:
    """Load or replace the profile. Raises HostError."""
    _parse("--replace", name, rules)


def remove(name: str) -> None:
    _parse("--remove", name, "")


def _parse(option: str, name: str, rules: str) -> None:
    parser = shutil.which("apparmor_parser")
    if parser is None:
        raise HostError("no apparmor_parser on this host; apt-get install apparmor")
    # of what it is not attached to it sees paths of other mount namespaces (apparmor.d(5), flags)
    text = f"profile {name} flags=(attach_disconnected,mediate_deleted) {{\n{rules}\n}}\n"
    source = os.memfd_create("oci-harness-profile", os.MFD_CLOEXEC)
    try:
        os.write(source, text.encode())
        os.lseek(source, 0, os.SEEK_SET)
        parsed = run("apparmor_parser", [parser, option, "--skip-cache"], stdio=Stdio(stdin=source))
    finally:
        os.close(source)
    if parsed.exit_status != 0:
        raise HostError(f"apparmor_parser {option} of profile {name} failed: {parsed.message}")
