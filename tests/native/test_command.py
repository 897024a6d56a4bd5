"""command.run: one command to its end, whatever it does, and nothing of it left."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.kernel import procfs, shim
from harness.kernel.mounts import MountNamespace
from harness.process import capture, command
from harness.process.capture import LIMIT_BYTES
from harness.process.command import Place, Stdio, dev_null, nothing_to_read, own_null, run
from harness.process.operation import Operation

Require = Callable[..., None]
SHELL = "/bin/sh"


def open_fds() -> set[int]:
    """Numbers of our open descriptors; opens none itself."""

    def is_open(fd: int) -> bool:
        try:
            os.fstat(fd)
        except OSError:
            return False
        return True

    return {fd for fd in range(512) if is_open(fd)}


def prepared_fds() -> set[int]:
    """Captures that lie ready for the next command: two at most, and no leak."""
    assert len(capture._prepared) <= 2
    return {each.fd for each in capture._prepared}


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Every test here leaves neither a descriptor nor a child, zombies included."""
    dev_null()
    nothing_to_read()
    own_null()
    before = open_fds() - prepared_fds()
    yield
    left = [(stat.comm, stat.state) for pid in procfs.children(os.getpid()) if (stat := procfs.process_stat(pid))]
    while found := procfs.children(os.getpid()):  # the failure of one test is not that of the next
        for pid in found:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert left == []
    assert open_fds() - prepared_fds() == before


def shell(script: str, **more: object) -> Operation:
    return run("test", [SHELL, "-c", script], **more)  # type: ignore[arg-type]  # passed on


def test_capture_and_status() -> None:
    """stdout and stderr are kept apart, with the exit status, argv and times that belong together."""
    before = shim.monotonic_ns()
    operation = shell("echo out; echo err >&2; exit 7")
    assert (operation.stdout, operation.stderr, operation.exit_status) == (b"out\n", b"err\n", 7)
    assert operation.verb == "test"
    assert operation.argv == (SHELL, "-c", "echo out; echo err >&2; exit 7")
    assert before <= operation.start_ns < operation.end_ns <= shim.monotonic_ns()
    assert operation.duration_ns == operation.end_ns - operation.start_ns
    assert (operation.timed_out, operation.truncated, operation.killed, operation.log) == (False, False, (), ())


def test_killed_by_signal() -> None:
    """A death by signal is a negative status, not an exception."""
    assert shell("kill -TERM $$").exit_status == -signal.SIGTERM


def test_stdin_is_dev_null() -> None:
    """stdin is empty unless one is given, and never the host's /dev/null, whose owner a runtime may change."""
    link, size = shell("readlink /proc/self/fd/0; wc -c").stdout.split(b"\n")[:2]
    assert (b"null" in link, size) == (False, b"0")
    reader, writer = os.pipe()
    os.write(writer, b"four")
    os.close(writer)
    assert shell("cat", stdio=Stdio(stdin=reader)).stdout == b"four"
    os.close(reader)


def test_given_streams_are_not_captured() -> None:
    """With a descriptor for stdout or stderr the bytes go there and the operation has none."""
    out, err = os.memfd_create("out"), os.memfd_create("err")
    operation = shell("echo out; echo err >&2", stdio=Stdio(stdout=out, stderr=err))
    assert (operation.stdout, operation.stderr) == (b"", b"")
    assert (os.pread(out, 10, 0), os.pread(err, 10, 0)) == (b"out\n", b"err\n")
    os.close(out)
    os.close(err)


def test_extra_descriptors() -> None:
    """extra_fds become 3, 4, ... in order; there are no others."""
    files = [os.memfd_create(name) for name in "ab"]
    os.write(files[0], b"first")
    os.write(files[1], b"second")
    for fd in files:
        os.lseek(fd, 0, os.SEEK_SET)
    listing = "n=0; while [ $n -lt 20 ]; do [ -e /proc/$$/fd/$n ] && printf '%s ' $n; n=$((n+1)); done"
    operation = shell(f"cat <&4; cat <&3; {listing}", extra_fds=files)
    for fd in files:
        os.close(fd)
    assert operation.stdout == b"secondfirst0 1 2 3 4 "


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default only the variables named in KEPT_ENVIRONMENT pass; with `env` just those given do."""
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("LANG", "C.UTF-8")
    seen = run("env", ["/usr/bin/env"]).stdout.decode().splitlines()
    names = {line.partition("=")[0] for line in seen}
    assert names <= set(command.KEPT_ENVIRONMENT)
    assert {"PATH", "LANG"} <= names
    assert run("env", ["/usr/bin/env"], env=("A=1",)).stdout == b"A=1\n"
    assert run("env", ["/usr/bin/env"], env=()).stdout == b""


def test_place(tmp_path: Path, require: Require) -> None:
    """cwd and mount namespace of the place are the command's."""
    require("root")
    with MountNamespace() as namespace:
        namespace.call(shim.mount, "none", str(tmp_path), "tmpfs")
        namespace.call((tmp_path / "f").write_text, "inside")
        place = Place(mount_ns_fd=namespace.fd, cwd=str(tmp_path))
        assert shell("pwd; cat f", place=place).stdout == f"{tmp_path}\ninside".encode()
        assert shell("cat f", place=Place(cwd=str(tmp_path))).exit_status == 1


@pytest.mark.parametrize("more", [{}, {"stdio": Stdio(stdout=1)}, {"place": Place(cwd="/nope")}])
def test_cannot_be_started(more: dict[str, object]) -> None:
    """A command that cannot be started raises OSError and leaves nothing."""
    with pytest.raises(FileNotFoundError):
        run("test", ["/nope/nope"], **more)  # type: ignore[arg-type]  # passed on
    with pytest.raises(ValueError, match="null"):
        run("test", ["/bin/true", "a\0b"])


def test_large_output_is_cut() -> None:
    """Of 100 MB no more than the limit is kept, it is told, and our memory stays bounded."""
    tracemalloc.start()
    try:
        operation = shell("head -c 100000000 /dev/zero; head -c 100 /dev/zero >&2; exit 4")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(operation.stdout) == LIMIT_BYTES
    assert operation.truncated
    assert b"\0" * 100 in operation.stderr
    assert operation.exit_status == 4
    assert peak < 2.5 * LIMIT_BYTES
    assert shell("head -c 1000 /dev/zero").truncated is False


def test_output_of_a_background_process_is_not_waited_for() -> None:
    """A process that the command left behind with its stdout keeps nobody waiting."""
    operation = shell("sleep 1000 & echo $!", timeout_s=20)
    pid = int(operation.stdout)
    assert (operation.exit_status, operation.timed_out) == (0, False)
    # it is ours now, for we are the subreaper
    pidfd = shim.pidfd_open(pid)
    shim.pidfd_send_signal(pidfd)
    assert shim.wait(pid, pidfd).status == -signal.SIGKILL
    os.close(pidfd)


def test_deadline() -> None:
    """At the deadline the command and all it started are killed, and what it had said is kept."""
    script = "trap '' TERM; echo said; (trap '' TERM; sleep 1000; sleep 1000) & echo $!; sleep 1000"
    operation = shell(script, timeout_s=0.2)
    assert operation.timed_out
    assert operation.exit_status == -signal.SIGKILL
    said, background = operation.stdout.split()
    assert said == b"said"
    assert int(background) in operation.killed
    assert len(operation.killed) == 4
    assert all(procfs.process_stat(pid) is None for pid in operation.killed)
    assert 0.2e9 <= operation.duration_ns < 10e9


def test_no_deadline() -> None:
    """timeout_s=None waits for as long as it takes."""
    assert shell("exit 3", timeout_s=None).exit_status == 3


@contextlib.contextmanager
def alarm_raises() -> Iterator[None]:
    def on_alarm(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_interrupt_while_waiting(tmp_path: Path) -> None:
    """Ctrl-C while the command runs kills it with its children, and leaks nothing."""
    script = f"sleep 1000 & echo $! $$ > {tmp_path}/pids; kill -ALRM $PPID; wait"
    with alarm_raises(), pytest.raises(KeyboardInterrupt):
        shell(script)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert all(procfs.process_stat(pid) is None for pid in pids)


def test_interrupt_by_timer() -> None:
    """The same when the signal comes from a timer of ours."""
    with alarm_raises(), pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the timer starts inside
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        shell("sleep 1000; sleep 1000")


def test_interrupt_before_spawn_returns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ctrl-C when the child is under way already, with children of its own, but we have not got its pid yet."""
    real_lib, file = vars(shim)["lib"], tmp_path / "pids"

    class Late:
        """The shim, but spawn comes back with the signal and late: a busy machine runs the child first."""

        def __getattr__(self, name: str) -> object:
            return getattr(real_lib, name)

        def oh_spawn(self, *arguments: object) -> int:
            result: int = real_lib.oh_spawn(*arguments)
            while not file.exists():
                os.sched_yield()
            signal.raise_signal(signal.SIGALRM)
            return result

    monkeypatch.setattr(shim, "lib", Late())
    script = f"(sleep 1000 & echo $! $$ > {file}.new; mv {file}.new {file}; wait) & wait"
    with alarm_raises(), pytest.raises(KeyboardInterrupt):
        shell(script)
    assert all(procfs.process_stat(int(pid)) is None for pid in file.read_text().split())


def test_interrupt_during_spawn(tmp_path: Path) -> None:
    """Ctrl-C between the clone and the exec: the child is killed as soon as it is there, and nothing leaks."""
    os.mkfifo(tmp_path / "cgroup.procs")
    directory = os.open(tmp_path, os.O_RDONLY)
    main = threading.main_thread().native_id
    children = Path(f"/proc/self/task/{main}/children")

    def meddle() -> None:
        while not children.read_text().split():  # the child hangs in opening the fifo
            os.sched_yield()
        os.kill(os.getpid(), signal.SIGALRM)
        fifo = os.open(tmp_path / "cgroup.procs", os.O_RDONLY | os.O_NONBLOCK)
        shim.poll(fifo, shim.POLLIN, 5_000_000_000)  # it has written: both ends were open
        os.close(fifo)

    thread = threading.Thread(target=meddle)
    with alarm_raises(), pytest.raises(KeyboardInterrupt):  # noqa: PT012 - both belong together
        thread.start()
        run("test", ["/bin/sleep", "1000"], place=Place(join_fds=(directory,)))
    thread.join()
    os.close(directory)


def test_log(tmp_path: Path) -> None:
    """The log that the command wrote is parsed, a broken line is kept as text; a missing one is no record."""
    path = tmp_path / "log.json"
    lines = '{"level":"error","msg":"no","time":"t"}\n{"level":"err\nplain\n'
    operation = shell(f"printf '%s' '{lines}' > {path}; exit 1", log_path=str(path))
    assert [(record.level, record.msg) for record in operation.log] == [
        ("error", "no"),
        (None, '{"level":"err'),
        (None, "plain"),
    ]
    assert shell("true", log_path=str(tmp_path / "none")).log == ()
    path.write_bytes(b"")
    assert shell("true", log_path=str(path)).log == ()


def test_large_log_is_cut(tmp_path: Path) -> None:
    """A log is read up to the limit, and the operation says that it was cut."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(b"x" * 100 + b"\n")
        file.truncate(LIMIT_BYTES + 1)
    data, cut = command.read_limited(str(path))
    assert (len(data), cut) == (LIMIT_BYTES, True)
    path.write_bytes(b"y" * 10)
    assert command.read_limited(str(path)) == (b"y" * 10, False)
    assert command.read_limited(str(tmp_path / "none")) == (b"", False)


def test_usage() -> None:
    """The usage is the command's; peak memory is None when it cannot be told from ours."""
    floor = command.own_peak_rss_kib()
    size = floor * 1024 + 64 * 1024 * 1024
    big = run("test", [sys.executable, "-I", "-S", "-c", f"b'x' * {size}"], timeout_s=60)
    assert big.usage.maxrss_kib is not None
    assert big.usage.maxrss_kib >= size // 1024
    assert shell("true").usage.maxrss_kib is None
    burnt = run("test", [sys.executable, "-I", "-S", "-c", "import time\nwhile time.process_time() < .1: pass"]).usage
    assert burnt.user_us + burnt.system_us >= 90_000


def test_dies_with_us(tmp_path: Path) -> None:
    """When the harness is killed, the command that it waits for dies as well."""
    script = (
        "from harness.process.command import run\n"
        f"run('test', ['/bin/sh', '-c', 'echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; sleep 1000'])"
    )
    null = dev_null()
    caller = shim.spawn(sys.executable, [sys.executable, "-c", script], command.runtime_environment(), fds=[null] * 3)
    while not (tmp_path / "pid").exists():
        assert procfs.is_alive(caller.pid, getattr(procfs.process_stat(caller.pid), "start_ticks", 0))
        os.sched_yield()
    pidfd = shim.pidfd_open(int((tmp_path / "pid").read_text()))
    shim.pidfd_send_signal(caller.pidfd)
    shim.wait(caller.pid, caller.pidfd)
    assert shim.poll(pidfd, shim.POLLIN, 10_000_000_000)
    for fd in (pidfd, caller.pidfd):
        os.close(fd)
    # as the subreaper we inherit what is left of it: the shell, and the sleep that it started
    while left := procfs.children(os.getpid()):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
