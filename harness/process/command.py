"""Run one command to its end: timed in the shim, output captured, killed with its children at a deadline."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import stat
import tempfile
from collections.abc import Sequence
from functools import cache

from msgspec import Struct

from harness.kernel import shim
from harness.kernel.mounts import MountNamespace
from harness.process.capture import LIMIT_BYTES, Capture
from harness.process.children import (
    become_subreaper,
    deadline_ns,
    disown,
    expecting_child,
    kill_tree,
    own,
    wait_until,
)
from harness.process.operation import Operation, Usage, parse_log

# What a runtime gets to see of our environment: enough to find its helpers, nothing that could change its ways unseen.
KEPT_ENVIRONMENT = ("PATH", "HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "LANG", "TERM")


NULL_DEVICE = os.makedev(1, 3)  # Documentation/admin-guide/devices.txt
# What these start lives on with the descriptors that it was given.
LASTING = frozenset({"create", "run", "exec"})


class Stdio(Struct, frozen=True):
    """Descriptors for a command's 0, 1 and 2; None captures (1, 2) or is an empty file (0)."""

    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None


class Place(Struct, frozen=True):
    """Where a command runs."""

    mount_ns_fd: int = -1
    cgroup_fd: int = -1  # cgroup v2 directory to be born into
    join_fds: tuple[int, ...] = ()  # cgroup v1 directories to join before the exec
    cwd: str | None = None


HERE = Place()
_dev_null = -1
_empty = -1


def dev_null() -> int:
    """One descriptor of /dev/null for the whole process."""
    global _dev_null  # noqa: PLW0603 - opened once, lives as long as the process
    if _dev_null < 0:
        _dev_null = os.open("/dev/null", os.O_RDWR)
    return _dev_null


def nothing_to_read() -> int:
    """One empty memory file for the whole process, as stdin of runtimes.

    Not /dev/null: crun and runsc give what they get as 0, 1 and 2 to the container's user, and that is the host's node.
    """
    global _empty  # noqa: PLW0603 - as above
    if _empty < 0:
        _empty = os.memfd_create("oci-harness-empty", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(_empty, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return _empty


@cache
def own_null() -> int | None:
    """A null device that is ours alone, on a tmpfs that nobody else can see; None where we may not make one."""
    with tempfile.TemporaryDirectory(prefix="oci-harness-") as directory:

        def make() -> int:
            shim.mount("none", directory, "tmpfs", shim.MS_NOSUID, "size=4k,mode=700")
            os.mknod(f"{directory}/null", stat.S_IFCHR | 0o666, NULL_DEVICE)
            return os.open(f"{directory}/null", os.O_RDWR | os.O_CLOEXEC)

        try:
            with MountNamespace() as namespace:
                return namespace.call(make)
        except OSError:
            return None


def _spared(fd: int) -> int:
    """Another null device for the host's: see nothing_to_read."""
    if os.fstat(fd).st_rdev != NULL_DEVICE:
        return fd
    own = own_null()
    return fd if own is None else own


def runtime_environment() -> tuple[str, ...]:
    return tuple(f"{name}={os.environ[name]}" for name in KEPT_ENVIRONMENT if name in os.environ)


def own_peak_rss_kib() -> int:
    """Peak resident memory of this process so far, KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def read_limited(path: str) -> tuple[bytes, bool]:
    """At most LIMIT_BYTES of a file and whether there was more; b"" when there is no file."""
    try:
        size = os.stat(path).st_size
        if size == 0:
            return b"", False
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return b"", False
    try:
        parts = []
        left = LIMIT_BYTES
        while left and (part := os.read(fd, min(left, size + 1))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts), size > LIMIT_BYTES
    finally:
        os.close(fd)


def _abandon(child: shim.Spawned) -> None:
    """The same as on an exception while waiting, for a child that has not been handed over yet."""
    kill_tree(child.pid)
    shim.kill_abandoned(child)


def run(
    verb: str,
    argv: Sequence[str],
    *,
    stdio: Stdio = Stdio(),
    extra_fds: Sequence[int] = (),
    place: Place = HERE,
    env: tuple[str, ...] | None = None,
    log_path: str | None = None,
    timeout_s: float | None = 30.0,
) -> Operation:
    """Run `argv` (argv[0] an absolute path) and wait for its end; extra_fds become descriptors 3, 4, ...

    Never raises for what the command does: look at exit_status and timed_out. Raises OSError when it cannot be started.
    On any exception while waiting (Ctrl-C) the command and its children are killed first.
    """
    become_subreaper()
    out = Capture.ready() if stdio.stdout is None else None
    err = Capture.ready() if stdio.stderr is None else None
    fds = [
        nothing_to_read() if stdio.stdin is None else _spared(stdio.stdin),
        _spared(stdio.stdout) if stdio.stdout is not None else out.fd if out is not None else None,
        _spared(stdio.stderr) if stdio.stderr is not None else err.fd if err is not None else None,
        *extra_fds,
    ]
    child: shim.Spawned | None = None
    killed: list[int] = []
    try:
        with expecting_child():
            child = shim.spawn(
                argv[0],
                argv,
                runtime_environment() if env is None else env,
                fds=[fd for fd in fds if fd is not None],
                cwd=place.cwd,
                cgroup_fd=place.cgroup_fd,
                join_fds=place.join_fds,
                mount_ns_fd=place.mount_ns_fd,
                flags=shim.SPAWN_PDEATHSIG,
                abandon=_abandon,
            )
            own(child.pid)
        if verb in LASTING:  # while it runs: what would otherwise be paid before the next command
            Capture.prepare()
        rss_floor_kib = own_peak_rss_kib()
        try:
            ended = wait_until(child.pid, child.pidfd, deadline_ns(timeout_s))
        except TimeoutError:
            killed = kill_tree(child.pid)
            ended = wait_until(child.pid, child.pidfd, -1)
    except BaseException:
        if child is not None:
            kill_tree(child.pid)
            with contextlib.suppress(OSError):
                wait_until(child.pid, child.pidfd, -1)
        for capture in (out, err):
            if capture is not None:
                capture.take()
        raise
    finally:
        if child is not None:
            disown(child.pid)
            os.close(child.pidfd)
    again = verb not in LASTING and not killed
    stdout, cut_out = out.take(again=again) if out is not None else (b"", False)
    stderr, cut_err = err.take(again=again) if err is not None else (b"", False)
    log, cut_log = read_limited(log_path) if log_path is not None else (b"", False)
    return Operation(
        verb=verb,
        argv=tuple(argv),
        start_ns=child.start_ns,
        end_ns=ended.end_ns,
        exit_status=ended.status,
        usage=Usage(
            ended.user_us,
            ended.system_us,
            ended.maxrss_kib if ended.maxrss_kib > rss_floor_kib else None,
            ended.minflt,
            ended.majflt,
            ended.nvcsw,
            ended.nivcsw,
        ),
        stdout=stdout,
        stderr=stderr,
        log=parse_log(log) if log else (),
        truncated=cut_out or cut_err or cut_log,
        timed_out=bool(killed),
        killed=tuple(killed),
    )
