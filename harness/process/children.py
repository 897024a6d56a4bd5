"""Children of this process: wait for them with a deadline, end them with all that they started.

The harness is the child subreaper (prctl(2)), so a container's init whose runtime has exited becomes its child: the
exit status is known, and `delete` never has to wait for a zombie that nobody reaps.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from functools import cache

from harness.errors import HostError
from harness.kernel import procfs, shim

NANOSECONDS = 1_000_000_000
# A wait looks up this often: the kernel may hand a signal to another thread, and Python's handler runs in the main one.
WAKE_NS = NANOSECONDS
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

# Children that somebody in this process waits for, and the births under way of which the pid is not known yet
# ({token: earliest start in clock ticks since boot}); together they are what reap_orphans must not touch.
_owned: set[int] = set()
_expected: dict[object, int] = {}


@cache
def become_subreaper() -> None:
    """Make this process the parent of orphans among its descendants; once is enough, and it lasts.

    Raises HostError where processes cannot be held by a pidfd: before anything is started that could not be ended.
    """
    import prctl

    try:
        os.close(shim.pidfd_open(os.getpid()))
    except OSError as error:
        raise HostError(f"pidfd_open(2) does not work here: {error.strerror}; it needs Linux 5.3") from None
    prctl.set_child_subreaper(True)


def deadline_ns(timeout_s: float | None) -> int:
    """The CLOCK_MONOTONIC moment `timeout_s` from now; -1: never."""
    return -1 if timeout_s is None else shim.monotonic_ns() + int(timeout_s * NANOSECONDS)


def wait_until(pid: int, pidfd: int, deadline: int) -> shim.Exit:
    """Wait for a child and reap it; signals of this process are served meanwhile. Raises TimeoutError."""
    while True:
        left = WAKE_NS if deadline < 0 else min(WAKE_NS, max(0, deadline - shim.monotonic_ns()))
        try:
            return shim.wait(pid, pidfd, left)
        except InterruptedError:
            continue
        except TimeoutError:
            if 0 <= deadline <= shim.monotonic_ns():
                raise TimeoutError(f"process {pid} did not end by its deadline") from None


def ticks_now() -> int:
    """In which clock tick since boot a process that starts now starts."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * CLOCK_TICKS)


@contextlib.contextmanager
def expecting_child() -> Iterator[None]:
    """While a child of ours is being born and its pid is not in our hands, nobody else reaps it."""
    token = object()
    _expected[token] = ticks_now() - 1
    try:
        yield
    finally:
        del _expected[token]


def own(pid: int) -> None:
    """Declare that somebody waits for this child, until `disown`."""
    _owned.add(pid)


def disown(pid: int) -> None:
    _owned.discard(pid)


class Child:
    """A child of this process, held by its pidfd from now on; its exit is collected once and kept."""

    __slots__ = ("exit", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int | None = None) -> None:
        self.pid = pid
        own(pid)
        try:
            self.pidfd = shim.pidfd_open(pid) if pidfd is None else pidfd
        except OSError:
            disown(pid)
            raise
        self.exit: shim.Exit | None = None

    def wait(self, timeout_s: float | None = None) -> shim.Exit:
        """Raises TimeoutError, and ChildProcessError when somebody else is its parent."""
        if self.exit is None:
            self.exit = wait_until(self.pid, self.pidfd, deadline_ns(timeout_s))
            self.forget()
        return self.exit

    def signal(self, sig: int) -> None:
        """Send a signal; a child that is gone already is fine."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                shim.pidfd_send_signal(self.pidfd, sig)

    def kill(self, timeout_s: float = 10.0) -> shim.Exit:
        self.signal(signal.SIGKILL)
        return self.wait(timeout_s)

    def forget(self) -> None:
        """Let go of it without waiting."""
        disown(self.pid)
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def kill_tree(pid: int) -> list[int]:
    """Stop `pid`, then all its descendants as they are found, then kill them all; returns the pids.

    Stopping first keeps the tree from growing while it is read. Who was our child, or becomes it, is reaped here, but
    for `pid` itself: its owner waits for it.
    """
    seen: dict[int, int] = {}
    tried: set[int] = set()
    todo = [pid]
    while todo:
        current = todo.pop()
        if current not in tried:
            tried.add(current)
            with contextlib.suppress(OSError):  # gone meanwhile
                seen[current] = shim.pidfd_open(current)
                shim.pidfd_send_signal(seen[current], signal.SIGSTOP)
                todo += procfs.children(current)
        if not todo:  # one more look at all of them, now that they stand still
            todo = [child for parent in seen for child in procfs.children(parent) if child not in tried]
    kill_all(seen)
    wait_all({other: pidfd for other, pidfd in seen.items() if other != pid}, deadline_ns(5.0), after=seen.get(pid))
    for pidfd in seen.values():
        os.close(pidfd)
    return list(seen)


def kill_all(pidfds: dict[int, int]) -> None:
    """SIGKILL to each, and SIGCONT so that a stopped one dies too; {pid: pidfd}."""
    for pidfd in pidfds.values():
        for sig in (signal.SIGKILL, signal.SIGCONT):
            with contextlib.suppress(OSError):
                shim.pidfd_send_signal(pidfd, sig)


def kill_processes(stats: list[procfs.ProcessStat], timeout_s: float = 5.0) -> list[int]:
    """SIGKILL to just these processes (a recycled pid is spared), wait until they are gone; reaps those that are ours.

    Returns the pids that would not die by the deadline.
    """
    pidfds: dict[int, int] = {}
    for stat in stats:
        with contextlib.suppress(OSError):
            pidfd = shim.pidfd_open(stat.pid)
            now = procfs.process_stat(stat.pid)
            if now is not None and now.start_ticks == stat.start_ticks:
                pidfds[stat.pid] = pidfd
            else:
                os.close(pidfd)
    kill_all(pidfds)
    stubborn = wait_all(pidfds, deadline_ns(timeout_s))
    for pidfd in pidfds.values():
        os.close(pidfd)
    return stubborn


def wait_all(pidfds: dict[int, int], deadline: int, after: int | None = None) -> list[int]:
    """Wait for processes in the order in which they die, and reap those that are ours; {pid: pidfd}.

    In that order, for the init of a pid namespace does not end before all that lives in it is reaped
    (kernel/pid_namespace.c, zap_pid_ns_processes). `after`: the pidfd of one to see dead first, who is not reaped
    here: its children become ours then. Returns the pids that would not die by the deadline.
    """
    if after is not None:
        with contextlib.suppress(TimeoutError):
            poll_until({after: after}, deadline)
    left = {pidfd: pid for pid, pidfd in pidfds.items()}
    foreign: dict[int, int] = {}
    while left:
        try:
            dead = poll_until(left, deadline)
        except TimeoutError:
            break
        for pidfd in dead:
            pid = left.pop(pidfd)
            try:
                wait_until(pid, pidfd, 0)
            except OSError:
                foreign[pidfd] = pid
    for pidfd, pid in foreign.items():  # once more, for it is ours if its parent has died after it
        with contextlib.suppress(OSError):  # not our child: its death is all that matters
            wait_until(pid, pidfd, 0)
    return list(left.values())


def poll_until(pidfds: Iterable[int], deadline: int) -> list[int]:
    """Those that have died, as soon as there is one. Raises TimeoutError."""
    poller = select.poll()
    for pidfd in pidfds:
        poller.register(pidfd, select.POLLIN)
    left_ms = None if deadline < 0 else max(0, deadline - shim.monotonic_ns()) / 1_000_000
    dead = [pidfd for pidfd, _ in poller.poll(left_ms)]
    if not dead:
        raise TimeoutError("not ended by the deadline")
    return dead


def adopt_naming(text: str) -> list[Child]:
    """Take hold of those of our children, not owned yet, that have `text` in their command line."""
    found = []
    for pid in procfs.children(os.getpid()):
        if pid not in _owned and text in procfs.command_line(pid):
            with contextlib.suppress(OSError):
                found.append(Child(pid))
    return found


def adopt_in_pid_namespace(init: int) -> list[Child]:
    """Take hold of those of our children, not owned yet, that are in the pid namespace of `init`.

    Nobody when that is our own. Zombies as well: the namespace's init does not end before they are reaped.
    """
    namespace = _namespace(init, "pid")
    if namespace is None or namespace == _namespace(os.getpid(), "pid"):
        return []
    found = []
    for pid in procfs.children(os.getpid()):
        if pid not in _owned and _namespace(pid, "pid") == namespace:
            with contextlib.suppress(OSError):
                found.append(Child(pid))
    return found


def _namespace(pid: int, kind: str) -> int | None:
    """The inode of a process's namespace; None of a zombie, which is in no mount namespace any more."""
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return None


def wait_with_others(child: Child, others: Iterable[Child], timeout_s: float | None) -> shim.Exit:
    """Wait for `child`, and reap `others` as they die: it may not be able to end before. Raises TimeoutError."""
    deadline = deadline_ns(timeout_s)
    waiting = {other.pidfd: other for other in others if other.exit is None and other.pidfd >= 0}
    while child.exit is None and waiting and child.pidfd >= 0:
        dead = poll_until([child.pidfd, *waiting], deadline)
        for pidfd in dead:
            if pidfd == child.pidfd:
                waiting.clear()
            elif pidfd in waiting:
                waiting.pop(pidfd).wait(0)
    return child.wait(None if deadline < 0 else max(0, deadline - shim.monotonic_ns()) / NANOSECONDS)


def orphans(comms: Collection[str], since: int = 0, mount_namespace: int | None = None) -> list[procfs.ProcessStat]:
    """Our children whose command name is one of `comms`, zombies as well, or that live in `mount_namespace` (inode).

    Of those only the ones that started at `since` (clock ticks since boot) or later, and none that somebody else in
    this process waits for. By name or place, because a program that uses this package may have children of its own.
    """
    born_before = min(_expected.values(), default=sys.maxsize)
    found = []
    for pid in procfs.children(os.getpid()):
        stat = procfs.process_stat(pid)
        if stat is None or pid in _owned or not since <= stat.start_ticks < born_before:
            continue
        if stat.comm in comms or (mount_namespace is not None and _namespace(pid, "mnt") == mount_namespace):
            found.append(stat)
    return found


def reap_orphans(comms: Collection[str]) -> None:
    """Reap the zombies among these."""
    for stat in orphans(comms):
        if stat.state == "Z":
            with contextlib.suppress(OSError):
                shim.wait(stat.pid, -1)
