"""shim.wait and wait_until: how a child ended, what it used, deadlines, signals of ours meanwhile."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.kernel import procfs, shim
from harness.process.children import deadline_ns, wait_until

PYTHON = str(Path(sys.executable).resolve())


@pytest.fixture(scope="module")
def null() -> Iterator[int]:
    fd = os.open("/dev/null", os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def held(null: int) -> Iterator[tuple[shim.Spawned, int]]:
    """A `cat` that ends when the descriptor given with it is closed."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = shim.spawn("/bin/cat", ["cat"], (), fds=[reader, null, null])
    os.close(reader)
    yield child, writer
    os.close(child.pidfd)


def ended(null: int, *argv: str, cwd: str | None = None) -> shim.Exit:
    child = shim.spawn(argv[0], argv, ("PATH=/usr/bin:/bin",), fds=[null] * 3, cwd=cwd)
    try:
        return shim.wait(child.pid, child.pidfd, 20_000_000_000)
    finally:
        os.close(child.pidfd)


@pytest.mark.parametrize("status", [0, 1, 2, 126, 127, 128, 137, 255])
def test_exit_status(null: int, status: int) -> None:
    """The exit status is the child's own, also those that look like a shell's report of a signal."""
    assert ended(null, "/bin/sh", "-c", f"exit {status}").status == status


@pytest.mark.parametrize("name", ["KILL", "TERM", "INT", "HUP", "PIPE", "SEGV", "ABRT"])
def test_killed_by_signal(null: int, name: str, tmp_path: Path) -> None:
    """A death by signal N is status -N."""
    argv = ("/bin/sh", "-c", f"ulimit -c 0; kill -{name} $$")
    assert ended(null, *argv, cwd=str(tmp_path)).status == -signal.Signals[f"SIG{name}"]


def test_core_dump_is_a_death_like_any(null: int, tmp_path: Path) -> None:
    """Whether a core was dumped changes nothing: the status is -N."""
    argv = ("/bin/sh", "-c", "ulimit -S -c $(ulimit -H -c); kill -QUIT $$")
    assert ended(null, *argv, cwd=str(tmp_path)).status == -signal.SIGQUIT


def test_deadline(held: tuple[shim.Spawned, int]) -> None:
    """At the deadline comes TimeoutError and the child lives on, to be waited for once more."""
    child, writer = held
    before = shim.monotonic_ns()
    with pytest.raises(TimeoutError):
        shim.wait(child.pid, child.pidfd, 20_000_000)
    assert shim.monotonic_ns() - before >= 20_000_000
    with pytest.raises(TimeoutError):
        shim.wait(child.pid, child.pidfd, 0)
    with pytest.raises(TimeoutError):
        wait_until(child.pid, child.pidfd, deadline_ns(0.0))
    os.close(writer)
    assert shim.wait(child.pid, child.pidfd).status == 0


def test_deadline_in_the_past_still_reaps(null: int) -> None:
    """A child that has ended is collected even when the deadline has passed."""
    child = shim.spawn("/bin/true", ["true"], (), fds=[null] * 3)
    assert shim.poll(child.pidfd, shim.POLLIN, 10_000_000_000)
    assert wait_until(child.pid, child.pidfd, shim.monotonic_ns() - 1_000_000_000).status == 0
    os.close(child.pidfd)


def test_no_deadline(null: int) -> None:
    """-1 and None wait for as long as it takes."""
    assert deadline_ns(None) == -1
    child = shim.spawn("/bin/sh", ["sh", "-c", "exit 5"], (), fds=[null] * 3)
    assert wait_until(child.pid, child.pidfd, -1).status == 5
    os.close(child.pidfd)


def test_without_pidfd(null: int) -> None:
    """A pid alone can be waited for as well."""
    child = shim.spawn("/bin/sh", ["sh", "-c", "exit 6"], (), fds=[null] * 3)
    os.close(child.pidfd)
    assert shim.wait(child.pid, -1).status == 6


def test_signal_interrupts_wait(held: tuple[shim.Spawned, int]) -> None:
    """A signal ends shim.wait with InterruptedError; its Python handler has run by then."""
    child, writer = held
    ran: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: ran.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(InterruptedError):
            shim.wait(child.pid, child.pidfd, 10_000_000_000)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ran == [signal.SIGALRM]
    os.close(writer)
    assert shim.wait(child.pid, child.pidfd).status == 0


def test_wait_until_goes_on_after_signals(held: tuple[shim.Spawned, int]) -> None:
    """wait_until serves signals and waits on: here the fifth one's handler is what lets the child end."""
    child, writer = held
    ran: list[int] = []

    def on_alarm(number: int, _: object) -> None:
        ran.append(number)
        if len(ran) == 5:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.close(writer)

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        assert wait_until(child.pid, child.pidfd, deadline_ns(10)).status == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(ran) == 5


def test_exception_of_handler_leaves_wait_until(held: tuple[shim.Spawned, int]) -> None:
    """What a signal handler raises comes out of wait_until, and the child can still be waited for."""
    child, writer = held

    def on_alarm(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the timer must start inside
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            wait_until(child.pid, child.pidfd, -1)
    finally:
        signal.signal(signal.SIGALRM, before)
    os.close(writer)
    assert wait_until(child.pid, child.pidfd, -1).status == 0


def test_not_our_child(null: int) -> None:
    """Somebody else's child gives ChildProcessError once it has ended, and so does one that was waited for."""
    script = "exec 3<&0; sh -c 'read x <&3' & echo $!; wait"
    parent = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    pidfd = shim.pidfd_open(pid)
    with pytest.raises(TimeoutError):
        shim.wait(pid, pidfd, 0)
    parent.communicate("x\n")
    with pytest.raises(ChildProcessError):
        shim.wait(pid, pidfd, 10_000_000_000)
    os.close(pidfd)
    child = shim.spawn("/bin/true", ["true"], (), fds=[null] * 3)
    assert shim.wait(child.pid, child.pidfd).status == 0
    with pytest.raises(ChildProcessError):
        shim.wait(child.pid, child.pidfd)
    os.close(child.pidfd)


def test_reaped(null: int) -> None:
    """After the wait there is no zombie."""
    child = shim.spawn("/bin/true", ["true"], (), fds=[null] * 3)
    shim.wait(child.pid, child.pidfd)
    os.close(child.pidfd)
    assert procfs.process_stat(child.pid) is None


def test_cpu_time(null: int) -> None:
    """The CPU time is what the child burnt: as it measured itself, no less and not much more."""
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    used = ended(null, PYTHON, "-I", "-S", "-c", burn)
    assert 290_000 <= used.user_us + used.system_us < 600_000
    idle = ended(null, "/bin/true")
    assert idle.user_us + idle.system_us < 100_000


def test_usage_counts_grandchildren(null: int) -> None:
    """CPU time of children that the child waited for is in it."""
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    used = ended(null, "/bin/sh", "-c", f'"{PYTHON}" -I -S -c "{burn}"; exit 0')
    assert used.user_us + used.system_us >= 190_000


def test_memory_and_faults(null: int) -> None:
    """Peak memory is in KiB and covers what the child touched; page faults and context switches are counted."""
    size = 96 * 1024 * 1024 + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    used = ended(null, PYTHON, "-I", "-S", "-c", f"b'x' * {size}")
    assert size // 1024 <= used.maxrss_kib < size // 1024 + 64 * 1024
    assert used.minflt > 0
    assert used.majflt >= 0
    assert used.nvcsw + used.nivcsw >= 0


def test_end_is_read_at_the_end(null: int) -> None:
    """end_ns lies between the start of the child and our own clock after the wait."""
    child = shim.spawn("/bin/true", ["true"], (), fds=[null] * 3)
    used = shim.wait(child.pid, child.pidfd)
    assert child.start_ns < used.end_ns <= shim.monotonic_ns()
    os.close(child.pidfd)


def test_pidfd_of_nobody() -> None:
    """A process that is gone has no pidfd, and a signal to a reaped one says so."""
    child = subprocess.Popen(["true"])
    pidfd = shim.pidfd_open(child.pid)
    child.wait()
    with pytest.raises(ProcessLookupError):
        shim.pidfd_open(child.pid)
    with pytest.raises(ProcessLookupError):
        shim.pidfd_send_signal(pidfd, 0)
    os.close(pidfd)
    fd = shim.pidfd_open(os.getpid())
    assert os.get_inheritable(fd) is False
    os.close(fd)


def test_poll() -> None:
    """poll gives the ready events, 0 at the deadline, and waits without one."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    assert shim.poll(reader, shim.POLLIN, 0) == 0
    before = shim.monotonic_ns()
    assert shim.poll(reader, shim.POLLIN, 5_000_000) == 0
    assert shim.monotonic_ns() - before >= 5_000_000
    os.write(writer, b"x")
    assert shim.poll(reader, shim.POLLIN, -1) & shim.POLLIN
    os.close(reader)
    os.close(writer)
