"""Where a command's output goes: a sealed memory file, so that no pipe can fill up and no reader has to wait."""

from __future__ import annotations

import fcntl
import os

LIMIT_BYTES = 16 * 1024 * 1024


PREPARED = 2  # stdout and stderr of one command
_prepared: list[Capture] = []


class Capture:
    """A memory file of at most LIMIT_BYTES; a writer that goes on gets EPERM (memfd_create(2), F_SEAL_GROW).

    Nobody waits for end of file, so a child that inherited the descriptor and lives on does no harm.
    """

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd = os.memfd_create("oci-harness", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, LIMIT_BYTES)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)

    @classmethod
    def ready(cls) -> Capture:
        """One that was made beforehand if there is one; see `prepare`."""
        try:
            return _prepared.pop()
        except IndexError:
            return cls()

    @staticmethod
    def prepare() -> None:
        """Make captures for the next command: called while one runs, so that nobody waits for it."""
        while len(_prepared) < PREPARED:
            _prepared.append(Capture())

    def take(self, *, again: bool = False) -> tuple[bytes, bool]:
        """What was written and whether it hit the limit; closes the file.

        `again`: nobody can hold it any more, so an untouched one is kept for the next command instead.
        """
        # the writer shares this descriptor's file offset, and may have moved it anywhere
        size = min(os.lseek(self.fd, 0, os.SEEK_CUR), LIMIT_BYTES)
        text = os.pread(self.fd, size, 0) if size else self._positioned()
        if again and not text and not size and len(_prepared) < PREPARED:
            _prepared.append(self)
        else:
            os.close(self.fd)
        return text, size >= LIMIT_BYTES

    def _positioned(self) -> bytes:
        """What a writer has left that keeps an offset of its own (gVisor's sentry: pwritev2), up to the last byte."""
        try:
            start = os.lseek(self.fd, 0, os.SEEK_DATA)
        except OSError:  # ENXIO: no data at all
            return b""
        end = os.lseek(self.fd, start, os.SEEK_HOLE)
        return os.pread(self.fd, end, 0).rstrip(b"\0")
