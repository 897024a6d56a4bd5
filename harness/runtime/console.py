"""Console sockets: a runtime sends the master of a container's terminal through one (runc docs/terminals.md)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType


class ConsoleSocket:
    """A listening unix socket in `directory`; `receive` gives the terminal's master. Use as a context manager.

    `path` goes through a descriptor of this process, for a unix socket's path has at most 107 bytes.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / "console.sock"
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        self.path = f"/proc/{os.getpid()}/fd/{self._directory}/{self._file.name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(self.path)
            self._socket.listen(1)
        except OSError:
            self.close()
            raise

    def receive(self, timeout_s: float = 10.0) -> int:
        """The master's descriptor; the caller closes it. Raises TimeoutError."""
        self._socket.settimeout(timeout_s)
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(timeout_s)
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        if not fds:
            raise OSError("the runtime sent no terminal through the console socket")
        return fds[0]

    def close(self) -> None:
        self._socket.close()
        os.close(self._directory)
        self._file.unlink(missing_ok=True)

    def __enter__(self) -> ConsoleSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def copy_size(source: int, target: int) -> None:
    """Give one terminal the size of another; nothing where one of them is none."""
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)


@contextlib.contextmanager
def _raw(fd: int, on_resize: Callable[[], None]) -> Iterator[None]:
    """Our own terminal passes every key on; its size follows. Nothing is changed when `fd` is no terminal."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)

    def resized(_number: int, _frame: FrameType | None) -> None:
        on_resize()

    handler = signal.signal(signal.SIGWINCH, resized)
    on_resize()
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)
        signal.signal(signal.SIGWINCH, handler)


def attach(master: int, stdin: int, stdout: int) -> None:
    """Join our stdin and stdout with a container's terminal until its last process has closed it."""
    sources = {master, stdin}
    with _raw(stdin, lambda: copy_size(stdin, master)):
        while True:
            ready, _, _ = select.select(sorted(sources), [], [])
            if master in ready:
                try:
                    data = os.read(master, 65536)
                except OSError:  # EIO: the other side is closed
                    return
                if not data:
                    return
                _write_all(stdout, data)
            if stdin in ready:
                data = os.read(stdin, 65536)
                if data:
                    _write_all(master, data)
                else:
                    sources.discard(stdin)
                    _write_all(master, b"\x04")  # end of input, as typed: Ctrl-D


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
