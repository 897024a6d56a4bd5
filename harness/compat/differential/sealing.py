"""The host's files, read-only for the runtimes of a session: whatever a hostile config.json makes them do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.cgroup.hierarchy import FSTYPES, Mount, parse_mountinfo
from harness.errors import HostError
from harness.kernel import shim
from harness.runtime.session import Session

SCRATCH: Final = "/tmp"
_OWN_MOUNTS: Final = "/proc/thread-self/mountinfo"
_KEPT: Final = {"nosuid": shim.MS_NOSUID, "nodev": shim.MS_NODEV, "noexec": shim.MS_NOEXEC}
# Runtimes write here, to what is theirs: cgroups, and /proc/PID of their own processes.
_WRITABLE: Final = frozenset({*FSTYPES, "proc"})


def _mounts() -> list[Mount]:
    return parse_mountinfo(os.fsdecode(Path(_OWN_MOUNTS).read_bytes()), _OWN_MOUNTS)


def _seal(directory: str, spared: frozenset[str]) -> None:
    shim.mount(directory, directory, flags=shim.MS_BIND)
    for mount in _mounts():
        if mount.mount_point in spared or mount.fstype in _WRITABLE:
            continue
        flags = shim.MS_REMOUNT | shim.MS_BIND | shim.MS_RDONLY
        for option in mount.options:
            flags |= _KEPT.get(option, 0)
        # one that another covers cannot be reached by anybody
        with contextlib.nullcontext() if mount.mount_point == "/" else contextlib.suppress(OSError):
            shim.mount(None, mount.mount_point, flags=flags)
    if not Path(directory).is_relative_to(SCRATCH):  # runc keeps what it copies for `tmpcopyup` there
        layers = f"lowerdir={SCRATCH},upperdir={directory}/scratch,workdir={directory}/scratch-work"
        with contextlib.suppress(OSError):  # read-only is good enough where the kernel refuses
            shim.mount("overlay", SCRATCH, "overlay", shim.MS_NOSUID | shim.MS_NODEV, layers)


def seal(session: Session) -> None:
    """In the private mount namespace of a session: the host's files are read-only, but for what is written to /tmp.

    Raises HostError where the kernel refuses.
    """
    directory = str(session.workspace.path)
    covers = {step.target for step in session.choice.steps if step.action == "mount"}  # of the view; nobody else's
    for name in ("scratch", "scratch-work"):
        (session.workspace.path / name).mkdir()
        (session.workspace.path / name).chmod(0o1777)
    try:
        session.namespace.call(_seal, directory, frozenset({directory, *covers}))
    except OSError as error:
        raise HostError(f"the host's files cannot be made read-only for the runtimes: {error.strerror}") from None


def mount_watch(session: Session) -> Callable[[], int]:
    """A function that unmounts what has appeared in the session's own namespace since, and says how many that were.

    A container without a mount namespace of its own mounts in that of the session, where the next one would find it.
    """
    known = {mount.mount_id for mount in session.namespace.call(_mounts)}

    def restore() -> int:
        new = [mount for mount in _mounts() if mount.mount_id not in known]
        for mount in reversed(new):
            with contextlib.suppress(OSError):
                shim.umount(mount.mount_point, shim.MNT_DETACH)
        return len(new)

    return lambda: session.namespace.call(restore)
