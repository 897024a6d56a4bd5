"""Capture: what a command writes is kept up to a limit, and nobody waits for anybody."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from harness.process.capture import LIMIT_BYTES, Capture


def write(capture: Capture, script: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python code with the capture as its stdout."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], stdout=capture.fd, stderr=subprocess.PIPE, check=False
    )


def test_keeps_what_was_written() -> None:
    """Writes of several processes come one after the other, and nothing is marked as cut."""
    capture = Capture()
    for word in ("one ", "two ", "three"):
        assert subprocess.run(["printf", "%s", word], stdout=capture.fd, check=True).returncode == 0
    assert capture.take() == (b"one two three", False)


def test_nothing_written() -> None:
    """No output is no bytes."""
    assert Capture().take() == (b"", False)


def test_zero_bytes_and_binary() -> None:
    """NUL bytes and anything else come back as they were, also at the very end."""
    capture = Capture()
    os.write(capture.fd, bytes(range(256)) + b"\0" * 10)
    assert capture.take() == (bytes(range(256)) + b"\0" * 10, False)


def test_eperm_at_the_limit() -> None:
    """A writer gets the whole limit and then EPERM; what it wrote so far is there, and it is told as cut."""
    capture = Capture()
    script = (
        "import os\n"
        "total = 0\n"
        "try:\n"
        "    while True: total += os.write(1, b'x' * 100_003)\n"
        "except OSError as error: os.write(2, f'{error.errno} {total}'.encode())"
    )
    done = write(capture, script)
    assert done.stderr == f"{errno.EPERM} {LIMIT_BYTES}".encode()
    assert capture.take() == (b"x" * LIMIT_BYTES, True)


def test_size_is_fixed() -> None:
    """The file can be made neither longer nor shorter."""
    capture = Capture()
    for size in (0, LIMIT_BYTES + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(capture.fd, size)
    capture.take()


@pytest.mark.parametrize("offset", [LIMIT_BYTES, LIMIT_BYTES + 1, 1 << 40, (1 << 63) - 1])
def test_seek_beyond(offset: int) -> None:
    """A writer that moves the shared offset far away costs no memory and raises nothing."""
    capture = Capture()
    os.write(capture.fd, b"start")
    assert write(capture, f"import os; os.lseek(1, {offset}, 0)").returncode == 0
    tracemalloc.start()
    try:
        data, cut = capture.take()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert data[:5] == b"start"
    assert len(data) <= LIMIT_BYTES
    assert cut
    assert peak < 3 * LIMIT_BYTES


def test_take_closes() -> None:
    """take gives the descriptor back, and a child that lives on with it does no harm and is not waited for."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    capture = Capture()
    assert os.get_inheritable(capture.fd) is False
    argv = ["sh", "-c", "echo early; read x; echo late"]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=capture.fd)
    while os.lseek(capture.fd, 0, os.SEEK_CUR) < len("early\n"):
        os.sched_yield()
    assert capture.take() == (b"early\n", False)
    child.communicate(b"\n")
    assert child.returncode == 0
    assert len(list(Path("/proc/self/fd").iterdir())) == before
