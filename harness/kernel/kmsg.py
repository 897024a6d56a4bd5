"""The kernel's own log lines of a moment, from /dev/kmsg (Documentation/ABI/testing/dev-kmsg)."""

from __future__ import annotations

import os

from msgspec import Struct


class KernelLine(Struct, frozen=True):
    """One record: `time_us` is microseconds since boot."""

    time_us: int
    level: int  # 0 emergency to 7 debug
    text: str


def parse_record(record: str) -> KernelLine | None:
    """`6,339,5140900,-;text` and its continuation lines; None for what is no record."""
    head, separator, text = record.partition(";")
    fields = head.split(",")
    if not separator or len(fields) < 3 or not (fields[0].isdigit() and fields[2].isdigit()):
        return None
    return KernelLine(int(fields[2]), int(fields[0]) & 7, text.split("\n")[0])


class KernelLog:
    """Reads what the kernel has logged since this object was made, or since the last `read`."""

    def __init__(self) -> None:
        try:
            self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError:
            self._fd = -1  # not permitted here: no lines, and `available` says so

    @property
    def available(self) -> bool:
        return self._fd >= 0

    def read(self) -> list[KernelLine]:
        lines = []
        while self._fd >= 0:
            try:
                line = parse_record(os.read(self._fd, 8192).decode(errors="replace"))
            except BlockingIOError:
                break
            except BrokenPipeError:  # the ring has overtaken us: what is left can still be read
                continue
            if line is not None:
                lines.append(line)
        return lines

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
