"""Run the probe program (bundles/payload/probe.c), which tries each thing in a process of its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from harness.errors import HostError
from harness.oci.recipe import data_root
from harness.process.children import reap_orphans
from harness.process.command import run

NOBODY = 65534  # user and group that a rootless runtime is tried as
TIMEOUT_S = 5.0  # the program's own deadline is 2.5 s


class Try(Struct, frozen=True):
    """One thing that was tried. `reason` says why it does not work; None when it works."""

    name: str  # GROUP:WHAT, as in probe.c
    error: int | None  # errno of the step that failed; None: there is none
    reason: str | None

    @property
    def works(self) -> bool:
        return self.reason is None

    @property
    def late(self) -> bool:
        """Whether it had to be killed."""
        return self.reason is not None and self.reason.startswith("no end of")

    def to_json(self) -> dict[str, Any]:
        return {"works": self.works, "reason": self.reason}


def program() -> str:
    """The compiled probe program. Raises HostError when the project was never built."""
    path = Path(str(data_root() / "payload" / "probe"))
    if not path.is_file():
        raise HostError(f"the probe program is not built ({path}); run: pip install -e . in the checkout")
    return str(path)


def parse(text: str) -> dict[str, Try]:
    """`NAME TAB OUTCOME TAB STEP` lines -> {name: Try}. Raises ValueError for any other line."""
    found = {}
    for line in text.splitlines():
        parts = line.split("\t")
        if len(parts) != 3 or not parts[0]:
            raise ValueError(f"no line of the probe program: {line[:80]!r}")
        name, outcome, step = parts
        found[name] = Try(name, *_outcome(outcome, step))
    return found


def _outcome(outcome: str, step: str) -> tuple[int | None, str | None]:
    if outcome == "0":
        return 0, None
    if outcome == "nothing":
        return None, f"no effect: not so that {step}"
    if outcome == "late":
        return None, f"no end of: {step or 'the first step'}"
    if outcome.startswith("signal "):
        return None, f"{step or 'the first step'}: killed by {outcome}"
    number = int(outcome)
    return number, f"{step}: {errno.errorcode.get(number, outcome)} ({os.strerror(number)})"


def try_all(
    names: Sequence[str] = (),
    *,
    rootless: int | None = None,
    directory: Path | None = None,
    cgroup: str | None = None,
    idmap: Sequence[str] = (),
    prefix: Sequence[str] = (),
) -> dict[str, Try]:
    """{name: Try} of the named probes, or of all, in well under a second.

    `rootless`: as this user, in a user namespace of its own. `directory`: an empty one to make overlays in;
    `cgroup`: an empty directory of cgroup v2: the caller removes both. `idmap`: directories to mount idmapped.
    `prefix`: a command to run the program through. Raises HostError when it cannot be run or says something else.
    """
    argv = [*prefix, program()]
    argv += ["-r", str(rootless)] if rootless is not None else []
    argv += ["-d", str(directory)] if directory is not None else []
    argv += ["-c", cgroup] if cgroup is not None else []
    argv += [word for each in idmap for word in ("-i", each)]
    try:
        done = run("probe", [*argv, *names], timeout_s=TIMEOUT_S)
        reap_orphans(frozenset({"probe"}))  # what a try leaves to end by itself
        if done.exit_status != 0 or done.timed_out:
            raise HostError(f"the probe program ended with status {done.exit_status}: {' '.join(argv)}")
        return parse(done.stdout.decode(errors="replace"))
    except OSError as error:
        raise HostError(f"the probe program cannot be run: {error}") from None
    except ValueError as error:
        raise HostError(str(error)) from None
