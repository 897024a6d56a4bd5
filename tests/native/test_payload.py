"""The static payload: it stamps first, then does what it is told."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from harness.kernel import shim
from harness.oci.rootfs import is_static, payload_binary

PATH = str(payload_binary())


class Payload:
    """A running payload with its stdout as a pipe."""

    def __init__(self, *args: str) -> None:
        self.reader, writer = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR)
        self.child = shim.spawn(PATH, ["/payload", *args], (), fds=[null, writer, null])
        os.close(writer)
        os.close(null)

    def read(self) -> bytes:
        assert shim.poll(self.reader, shim.POLLIN, 10_000_000_000)
        return os.read(self.reader, 4096)

    def wait(self) -> shim.Exit:
        return shim.wait(self.child.pid, self.child.pidfd, 10_000_000_000)


@contextlib.contextmanager
def running(*args: str) -> Iterator[Payload]:
    payload = Payload(*args)
    try:
        yield payload
    finally:
        with contextlib.suppress(OSError):
            shim.pidfd_send_signal(payload.child.pidfd)
            payload.wait()
        os.close(payload.child.pidfd)
        os.close(payload.reader)


@pytest.mark.parametrize(
    ("args", "status"),
    [
        ((), 0),
        (("exit",), 0),
        (("exit", "0"), 0),
        (("exit", "7"), 7),
        (("exit", "255"), 255),
        (("exit", "7x"), 7),
        (("unknown",), 0),
    ],
)
def test_stamp_and_exit(args: tuple[str, ...], status: int) -> None:
    """One decimal line of CLOCK_MONOTONIC on stdout, within our own clock's readings, then exit N."""
    with running(*args) as payload:
        ended = payload.wait()
        text = payload.read()
        assert ended.status == status
        assert text.endswith(b"\n")
        assert text[:-1].isdigit()
        assert text.count(b"\n") == 1
        assert not text.startswith(b"0")
        assert payload.child.start_ns <= int(text) <= ended.end_ns
        assert payload.read() == b""


@pytest.mark.parametrize("args", [("pause",), ("memory", "4096")])
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_ends_on_signal(args: tuple[str, ...], sig: signal.Signals) -> None:
    """pause and memory stay until SIGTERM or SIGINT, sent as soon as the stamp is seen, and then end with 0."""
    for _ in range(20):
        with running(*args) as payload:
            assert payload.read()[:-1].isdigit()
            with pytest.raises(TimeoutError):
                shim.wait(payload.child.pid, payload.child.pidfd, 0)
            shim.pidfd_send_signal(payload.child.pidfd, sig)
            assert payload.wait().status == 0


def test_pause_survives_other_signals() -> None:
    """Being stopped and continued does not end pause; SIGKILL does, as a signal's death."""
    with running("pause") as payload:
        payload.read()
        for sig in (signal.SIGSTOP, signal.SIGCONT, signal.SIGCHLD, signal.SIGWINCH):
            shim.pidfd_send_signal(payload.child.pidfd, sig)
        with pytest.raises(TimeoutError):
            shim.wait(payload.child.pid, payload.child.pidfd, 5_000_000)
        shim.pidfd_send_signal(payload.child.pidfd, signal.SIGKILL)
        assert payload.wait().status == -signal.SIGKILL


def rss_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


@pytest.mark.parametrize("size", [1, 1 << 20, 48 << 20])
def test_memory_is_touched(size: int) -> None:
    """memory BYTES makes that much resident, and no more than a little beside it."""
    with running("memory", str(size)) as payload:
        payload.read()
        while rss_kib(payload.child.pid) < size // 1024:
            with pytest.raises(TimeoutError):
                shim.wait(payload.child.pid, payload.child.pidfd, 0)
        assert rss_kib(payload.child.pid) < size // 1024 + 1024
        shim.pidfd_send_signal(payload.child.pidfd, signal.SIGTERM)
        assert payload.wait().status == 0


def test_memory_that_cannot_be_had() -> None:
    """Memory that the kernel refuses is exit 1, after the stamp."""
    with running("memory", str(1 << 60)) as payload:
        assert payload.wait().status == 1
        assert payload.read()[:-1].isdigit()


def test_closed_stdout() -> None:
    """A stdout that nobody reads, or that is not open, changes nothing of the exit status."""
    null = os.open("/dev/null", os.O_RDWR)
    child = shim.spawn(PATH, ["payload", "exit", "3"], (), fds=[null, -1, null])
    assert shim.wait(child.pid, child.pidfd).status == 3
    os.close(child.pidfd)
    os.close(null)


def test_small_and_static() -> None:
    """The binary is under 4 KiB, executable, and has no loader."""
    path = payload_binary()
    assert path.stat().st_size < 4096
    assert path.stat().st_mode & 0o777 == 0o755
    assert is_static(path)
    assert b"/ld-" not in path.read_bytes()
