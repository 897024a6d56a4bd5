"""Ending what was started: trees that resist, stopped processes, daemons that left their parent, recycled pids."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from harness.kernel import procfs, shim
from harness.process import children
from harness.process.children import Child, become_subreaper, kill_processes, kill_tree, reap_orphans, wait_until

PYTHON = str(Path(sys.executable).resolve())
ENV = ("PATH=/usr/bin:/bin",)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """No test leaves a child, zombies included, nor a claim to one."""
    become_subreaper()
    yield
    left = [(stat.comm, stat.state) for pid in procfs.children(os.getpid()) if (stat := procfs.process_stat(pid))]
    owned = set(children._owned)
    children._owned.clear()
    while found := procfs.children(os.getpid()):  # the failure of one test is not that of the next
        for pid in found:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert (left, owned, children._expected) == ([], set(), {})


class Started:
    """A command and its stdout as a pipe, line by line."""

    def __init__(self, *argv: str) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR)
        self.spawned = shim.spawn(argv[0], argv, ENV, fds=[null, writer, null])
        self.pid = self.spawned.pid
        for fd in (writer, null):
            os.close(fd)
        self.lines = os.fdopen(reader)

    def expect(self, count: int) -> list[str]:
        """The next `count` lines; what has said a line is up."""
        return [self.lines.readline().strip() for _ in range(count)]

    def end(self) -> shim.Exit:
        """Wait for the command itself, as its owner does after kill_tree."""
        ended = wait_until(self.pid, self.spawned.pidfd, shim.monotonic_ns() + 10_000_000_000)
        os.close(self.spawned.pidfd)
        self.lines.close()
        return ended


def gone(pid: int) -> bool:
    """Whether nothing of it is left, not even a zombie."""
    return procfs.process_stat(pid) is None


def state_of(pid: int) -> str:
    stat = procfs.process_stat(pid)
    return stat.state if stat is not None else ""


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; a test that waits for ten seconds fails."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "the condition did not come about"
        os.sched_yield()


# Each level ignores what it can, starts the next one twice, says its pid and stays.
TREE = """trap '' TERM HUP INT QUIT
[ $1 -gt 0 ] && { sh -c "$2" sh $(($1 - 1)) "$2" & sh -c "$2" sh $(($1 - 1)) "$2" & }
echo $$
while :; do sleep 1000; done
"""


def test_tree_that_ignores_signals() -> None:
    """A tree of 15 shells that ignore every signal they can, and their sleeps, is dead and reaped as a whole."""
    tree = Started("/bin/sh", "-c", TREE, "sh", "3", TREE)
    pids = [int(line) for line in tree.expect(15)]
    killed = kill_tree(tree.pid)
    assert tree.end().status == -signal.SIGKILL
    assert set(pids) <= set(killed)
    assert killed[0] == tree.pid
    assert len(killed) == len(set(killed))
    assert all(gone(pid) for pid in killed)


def test_tree_that_grows() -> None:
    """A shell that forks without end is caught with all it has made."""
    marker = f"grow-{secrets.token_hex(6)}"
    loop = f": {marker}; while :; do (: {marker}; sleep 1000) & echo; done"
    tree = Started("/bin/sh", "-c", loop)
    tree.expect(30)
    killed = kill_tree(tree.pid)
    assert tree.end().status == -signal.SIGKILL
    assert len(killed) > 30
    assert procfs.processes_naming(marker, ignore=frozenset({os.getpid()})) == []


def test_stopped_processes() -> None:
    """Stopped processes, parent and child, die as well."""
    tree = Started("/bin/sh", "-c", "sh -c 'echo $$; kill -STOP $$; sleep 1000' & echo $$; kill -STOP $$; wait")
    pids = [int(line) for line in tree.expect(2)]
    until(lambda: all(state_of(pid) == "T" for pid in pids))
    assert set(pids) <= set(kill_tree(tree.pid))
    assert tree.end().status == -signal.SIGKILL
    assert all(gone(pid) for pid in pids)


def test_child_dies_before_a_slow_parent() -> None:
    """A parent that takes long to die does not leave its child, dead before it, as a zombie with us."""
    script = "import os, time; x = b'x' * 700_000_000; p = os.fork(); print(os.getpid(), flush=True); time.sleep(1000)"
    tree = Started(PYTHON, "-I", "-S", "-c", script)
    tree.expect(2)
    killed = kill_tree(tree.pid)
    assert len(killed) == 2
    assert tree.end().status == -signal.SIGKILL
    assert procfs.children(os.getpid()) == []


def test_single_and_dead() -> None:
    """kill_tree of a process without children gives its pid; of one that has been reaped, nothing."""
    single = Started("/bin/sleep", "1000")
    assert kill_tree(single.pid) == [single.pid]
    assert single.end().status == -signal.SIGKILL
    assert kill_tree(single.pid) == []


def test_zombie_root() -> None:
    """A root that has exited already but is not waited for is left to its owner with its own exit status."""
    done = Started("/bin/sh", "-c", "exit 5")
    assert shim.poll(done.spawned.pidfd, shim.POLLIN, 10_000_000_000)
    kill_tree(done.pid)
    assert done.end().status == 5


def test_one_goes_while_the_tree_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is gone by the time it is its turn does not end the search for those born meanwhile."""
    tree = Started("/bin/sh", "-c", "sleep 1000 & echo $!; sleep 1000")
    tree.expect(1)
    until(lambda: len(procfs.children(tree.pid)) == 2)
    real = procfs.children
    looks: list[int] = []

    def seen(pid: int) -> list[int]:
        """At the first look at the root there is just one child, and that one has gone since."""
        looks.append(pid)
        return [2**22 - 1] if len(looks) == 1 else real(pid)

    monkeypatch.setattr(procfs, "children", seen)
    killed = kill_tree(tree.pid)
    monkeypatch.undo()
    left = real(tree.pid)
    for pid in [*left, *[p for p in real(os.getpid()) if p != tree.pid]]:  # keep the failure to this test
        os.kill(pid, signal.SIGKILL)
    tree.end()
    for pid in real(os.getpid()):
        os.waitpid(pid, 0)
    assert len(killed) == 3


def test_descriptors() -> None:
    """Killing a tree leaks no descriptor."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        tree = Started("/bin/sh", "-c", TREE, "sh", "1", TREE)
        tree.expect(3)
        kill_tree(tree.pid)
        tree.end()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_double_forked_daemon() -> None:
    """A daemon in a session of its own, whose parents are gone, is ours to find by its name, to kill and to reap."""
    marker = f"daemon-{secrets.token_hex(6)}"
    script = (
        "import os, sys, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        "os.closerange(3, 50)\n"
        "print(os.getpid(), flush=True); time.sleep(1000)"
    )
    start = Started(PYTHON, "-I", "-S", "-c", script, marker)
    assert wait_until(start.pid, start.spawned.pidfd, -1).status == 0
    os.close(start.spawned.pidfd)
    (line,) = start.expect(1)
    daemon = int(line)
    start.lines.close()
    until(lambda: len(procfs.processes_naming(marker)) == 1)
    (stat,) = procfs.processes_naming(marker)
    assert (stat.pid, stat.ppid) == (daemon, os.getpid())
    assert kill_processes([stat]) == []
    assert gone(daemon)
    for pid in procfs.children(os.getpid()):  # the middle one, a zombie of ours
        os.waitpid(pid, 0)


def test_recycled_pid_is_spared() -> None:
    """A process whose pid is right but whose start time is another is left alone."""
    process = Started("/bin/sleep", "1000")
    stat = procfs.process_stat(process.pid)
    assert stat is not None
    before = len(list(Path("/proc/self/fd").iterdir()))
    for ticks in (stat.start_ticks - 1, stat.start_ticks + 1, 0):
        assert kill_processes([replace(stat, start_ticks=ticks)]) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert procfs.is_alive(process.pid, stat.start_ticks)
    assert kill_processes([stat]) == []
    assert gone(process.pid)
    os.close(process.spawned.pidfd)
    process.lines.close()


def test_kill_processes_that_resist_or_have_gone() -> None:
    """Stopped ones, ones that ignore signals, and ones that have gone since are all dealt with in one call."""
    one = Started("/bin/sh", "-c", "trap '' TERM INT; echo up; while :; do sleep 1000; done")
    two = Started("/bin/sh", "-c", "echo up; kill -STOP $$")
    three = Started("/bin/sh", "-c", "echo up; read x < /dev/null")
    for each in (one, two, three):
        each.expect(1)
    stats = [stat for each in (one, two, three) if (stat := procfs.process_stat(each.pid)) is not None]
    three.end()
    until(lambda: state_of(two.pid) == "T")
    assert kill_processes(stats) == []
    for each in (one, two):
        assert gone(each.pid)
        os.close(each.spawned.pidfd)
        each.lines.close()
    for pid in procfs.children(os.getpid()):  # the sleep of the first
        kill_tree(pid)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("order", [1, -1], ids=["parent-first", "child-first"])
def test_kill_parent_and_child(order: int) -> None:
    """Parent and child in one call, in either order, leave no zombie, though the child is not ours when it dies."""
    script = "import os, time; x = b'x' * 300_000_000; p = os.fork(); print(os.getpid(), flush=True); time.sleep(1000)"
    tree = Started(PYTHON, "-I", "-S", "-c", script)
    pids = sorted((int(line) for line in tree.expect(2)), key=lambda pid: pid != tree.pid)[::order]
    stats = [stat for pid in pids if (stat := procfs.process_stat(pid)) is not None]
    assert kill_processes(stats) == []
    assert all(gone(pid) for pid in pids)
    os.close(tree.spawned.pidfd)
    tree.lines.close()


def test_foreign_process() -> None:
    """A process that is not our child is killed as well; its parent reaps it."""
    parent = Started("/bin/sh", "-c", "sleep 1000 & echo $!; wait; read x < /dev/null; exit 9")
    pid = int(parent.expect(1)[0])
    stat = procfs.process_stat(pid)
    assert stat is not None
    assert stat.ppid == parent.pid
    assert kill_processes([stat]) == []
    assert parent.end().status == 9
    assert gone(pid)


def test_child_collects_once() -> None:
    """A Child's exit is kept: a second wait gives the same, and its descriptor is closed after the first."""
    process = Started("/bin/sh", "-c", "exit 4")
    process.lines.close()
    child = Child(process.pid, process.spawned.pidfd)
    assert process.pid in children._owned
    ended = child.wait(10)
    assert ended.status == 4
    assert child.wait(0) is ended
    assert child.exit is ended
    assert child.pidfd == -1
    child.signal(signal.SIGTERM)  # gone already: fine
    assert child.kill() is ended
    child.forget()


def test_child_signal_kill_and_forget() -> None:
    """signal reaches the child, kill ends it, forget lets go of it without a wait."""
    script = (
        "import signal, os\nsignal.signal(signal.SIGUSR1, lambda *_: os._exit(3))\nprint(flush=True)\nsignal.pause()"
    )
    process = Started(PYTHON, "-I", "-S", "-c", script)
    process.expect(1)
    process.lines.close()
    child = Child(process.pid, process.spawned.pidfd)
    with pytest.raises(TimeoutError):
        child.wait(0.01)
    assert child.pidfd >= 0
    child.signal(signal.SIGUSR1)
    assert child.wait(10).status == 3
    process = Started("/bin/sleep", "1000")
    process.lines.close()
    child = Child(process.pid)
    child.forget()
    child.forget()
    assert child.pidfd == -1
    again = Child(process.pid, process.spawned.pidfd)
    assert again.kill().status == -signal.SIGKILL


def test_child_of_nobody() -> None:
    """A pid that does not exist raises ProcessLookupError and is not claimed."""
    process = Started("/bin/true")
    process.end()
    with pytest.raises(ProcessLookupError):
        Child(process.pid)
    assert children._owned == set()


def orphan(name: str) -> int:
    """A process of ours that is not our child by birth and has ended: a zombie with the command name `name`."""
    script = (
        "import os, sys\n"
        "r = os.getpid()\n"
        "pid = os.fork()\n"
        "if pid: print(pid, flush=True); os._exit(0)\n"
        "open('/proc/self/comm', 'w').write(sys.argv[1])\n"
        "while os.getppid() == r: pass\n"
        "os._exit(0)"
    )
    process = Started(PYTHON, "-I", "-S", "-c", script, name)
    pid = int(process.expect(1)[0])
    process.end()
    until(lambda: state_of(pid) == "Z")
    return pid


def test_reap_orphans_by_name() -> None:
    """Zombies with one of the names are reaped, others are not."""
    ours, others = [orphan("oh-test-a"), orphan("oh-test-b")], orphan("oh-test-c")
    reap_orphans(frozenset({"oh-test-a", "oh-test-b", "runc"}))
    assert all(gone(pid) for pid in ours)
    assert state_of(others) == "Z"
    os.waitpid(others, 0)


def test_reap_orphans_spares() -> None:
    """Running children, and zombies that somebody holds as a Child, are not taken away."""
    held = orphan("oh-test-a")
    child = Child(held)
    running = Started("/bin/sleep", "1000")
    reap_orphans(frozenset({"oh-test-a", "sleep"}))
    assert state_of(held) == "Z"
    assert state_of(running.pid) in ("S", "R", "D")
    assert child.wait(1).status == 0
    kill_tree(running.pid)
    running.end()


def test_reap_orphans_spares_a_birth_under_way() -> None:
    """While a child is being born, zombies younger than that are left: one may be that child, its pid not yet known."""
    old = orphan("oh-test-a")
    until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) - ticks(old) / children.CLOCK_TICKS > 0.05)
    with children.expecting_child():
        young = orphan("oh-test-a")
        reap_orphans(frozenset({"oh-test-a"}))
        assert gone(old)
        assert state_of(young) == "Z"
    reap_orphans(frozenset({"oh-test-a"}))
    assert gone(young)


def ticks(pid: int) -> int:
    stat = procfs.process_stat(pid)
    assert stat is not None
    return stat.start_ticks


def test_subreaper() -> None:
    """become_subreaper makes us the parent of orphans below us, and may be called again and again."""
    become_subreaper()
    become_subreaper()
    process = Started("/bin/sh", "-c", "(echo up; read x; sleep 1000) < /dev/zero & echo $!")
    lines = process.expect(2)
    pid = int(next(line for line in lines if line != "up"))
    process.end()
    stat = procfs.process_stat(pid)
    assert stat is not None
    assert stat.ppid == os.getpid()
    kill_tree(pid)
    os.waitpid(pid, 0)
