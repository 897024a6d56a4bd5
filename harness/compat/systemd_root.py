"""A small root file system in which systemd is PID 1: made once with debootstrap, kept in the cache, shared by guests.

No guest writes to it: each lays a memory file system over it. Runtimes, Python and this package are not in it; they
are the host's, which the guest has besides (see initramfs).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.errors import HostError
from harness.process.command import run

SUITE = "bookworm"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "kmod", "apparmor")
MAKE_TIMEOUT_S = 900.0


def path(cache: Path) -> Path:
    return cache / "roots" / f"{SUITE}-systemd"


def present(cache: Path) -> Path | None:
    """The root, if it has been made."""
    root = path(cache)
    return root if (root / "lib/systemd/systemd").exists() else None


def make(cache: Path, note: Callable[[str], None] = lambda _: None) -> Path:
    """The root, made now if it is not there: some 40 s and 300 MB. Raises HostError."""
    if (root := present(cache)) is not None:
        return root
    root = path(cache)
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    debootstrap = shutil.which("debootstrap", path=search)
    if debootstrap is None:
        raise HostError("no debootstrap on this host, which makes the root for systemd; apt-get install debootstrap")
    unshare = shutil.which("unshare", path=search)
    if unshare is None:
        raise HostError("no unshare on this host; apt-get install util-linux")
    note(f"making a root with systemd in {root}")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".make-", dir=root.parent) as work:
            tree = Path(work) / "root"
            # it mounts a /proc, which must not outlive it, whatever ends it
            command = [unshare, "--mount", "--propagation", "private"]
            command += [debootstrap, "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(tree)]
            made = run("debootstrap", command, env=(f"PATH={search}",), timeout_s=MAKE_TIMEOUT_S)
            if made.exit_status != 0:
                last = made.stdout.decode(errors="replace").strip().splitlines()[-1:] or [made.message]
                raise HostError(f"debootstrap failed (exit status {made.exit_status}): {last[0]}")
            for useless in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"):
                shutil.rmtree(tree / useless, ignore_errors=True)
            (tree / "mnt").mkdir(exist_ok=True)
            tree.rename(root)
    except OSError as error:
        raise HostError(f"{error.filename or root}: {error.strerror}; choose another place with --cache") from None
    return root
