"""Children of this process: wait for them with a deadline, end them with all that they started.

The harness is the child subreaper (prctl(2)), so a container's init whose runtime has exited becomes its child: the
exit status is known, and `delete` never has to wait for a zombie that nobody reaps.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import cache

from harness.kernel import procfs, shim

NANOSECONDS = 1_000_000_000
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

# Children that somebody in this process waits for, and the births under way of which the pid is not known yet
# ({token: earliest start in clock ticks since boot}); together they are what reap_orphans must not touch.
_owned: set[int] = set()
_expected: dict[object, int] = {}


@cache
def become_subreaper() -> None:
    """Make this process the parent of orphans among its descendants; once is enough, and it lasts."""
    import prctl

    prctl.set_child_subreaper(True)


def deadline_ns(timeout_s: float | None) -> int:
    """The CLOCK_MONOTONIC moment `timeout_s` from now; -1: never."""
    return -1 if timeout_s is None else shim.monotonic_ns() + int(timeout_s * NANOSECONDS)


def wait_until(pid: int, pidfd: int, deadline: int) -> shim.Exit:
    """Wait for a child and reap it; signals of this process are served meanwhile. Raises TimeoutError."""
    while True:
        left = -1 if deadline < 0 else max(0, deadline - shim.monotonic_ns())
        with contextlib.suppress(InterruptedError):
            return shim.wait(pid, pidfd, left)


@contextlib.contextmanager
def expecting_child() -> Iterator[None]:
    """While a child of ours is being born and its pid is not in our hands, nobody else reaps it."""
    token = object()
    _expected[token] = int(time.clock_gettime(time.CLOCK_BOOTTIME) * CLOCK_TICKS) - 1
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
    todo = [pid]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        try:
            pidfd = shim.pidfd_open(current)
        except OSError:
            continue
        seen[current] = pidfd
        with contextlib.suppress(OSError):
            shim.pidfd_send_signal(pidfd, signal.SIGSTOP)
        todo += procfs.children(current)
        if not todo:  # one more look at all of them, now that they stand still
            todo = [child for parent in seen for child in procfs.children(parent) if child not in seen]
    kill_all(seen)
    for other, pidfd in seen.items():
        if other != pid:
            with contextlib.suppress(OSError):
                wait_until(other, pidfd, deadline_ns(5.0))
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
    stubborn = []
    end = deadline_ns(timeout_s)
    for pid, pidfd in pidfds.items():
        try:
            wait_until(pid, pidfd, end)
        except TimeoutError:
            stubborn.append(pid)
        except OSError:  # not our child: its death is all that matters
            pass
        os.close(pidfd)
    return stubborn


def adopt_naming(text: str) -> list[Child]:
    """Take hold of those of our children, not owned yet, that have `text` in their command line."""
    found = []
    for pid in procfs.children(os.getpid()):
        if pid not in _owned and text in procfs.command_line(pid):
            with contextlib.suppress(OSError):
                found.append(Child(pid))
    return found


def reap_orphans(comms: frozenset[str]) -> None:
    """Reap zombies among our children whose command name is one of `comms`.

    By name, because a program that uses this package may have children of its own; and none that somebody else in this
    process waits for.
    """
    born_before = min(_expected.values(), default=sys.maxsize)
    for pid in procfs.children(os.getpid()):
        stat = procfs.process_stat(pid)
        if stat is None or stat.state != "Z" or stat.comm not in comms:
            continue
        if pid not in _owned and stat.start_ticks < born_before:
            with contextlib.suppress(OSError):
                shim.wait(pid, -1)
