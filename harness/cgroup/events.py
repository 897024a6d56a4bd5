"""Wait until the kernel says that something changed in a cgroup: poll in v2, eventfd in v1."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping

from harness.cgroup.parsers import parse_flat
from harness.kernel import shim

_FILE_BYTES = 65536


def _poll(fd: int, events: int, deadline: float | None) -> bool:
    """Whether `fd` became ready by `deadline` (time.monotonic; None: no deadline)."""
    while True:
        left_ns = -1 if deadline is None else max(int((deadline - time.monotonic()) * 1e9), 0)
        try:
            return shim.poll(fd, events, left_ns) != 0
        except InterruptedError:  # its Python handler has run; wait on
            continue


def wait_events(
    directory: int | str,
    predicate: Callable[[Mapping[str, int]], bool],
    *,
    timeout_s: float | None,
    file: str = "cgroup.events",
) -> dict[str, int]:
    """v2: wait until a flat keyed event file satisfies `predicate`; returns its content then.

    `directory` is the cgroup, a descriptor or a path; `file` is cgroup.events, memory.events, pids.events, ... No
    wake-up is lost: a read takes note of the file's event counter, and poll(2) returns at once if it moved since
    (fs/kernfs/file.c, kernfs_generic_poll). The kernel may hold a notification back for 10 ms
    (CGROUP_FILE_NOTIFY_MIN_INTV).
    Raises TimeoutError at the deadline, OSError ENODEV when the cgroup was removed, ParseError.
    Source: cgroup-v2.rst, "(Un)populated Notification".
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    if isinstance(directory, int):
        fd = shim.open_beneath(directory, file)
    else:
        fd = os.open(f"{directory}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            values = parse_flat(os.pread(fd, _FILE_BYTES, 0), file)
            if predicate(values):
                return values
            if not _poll(fd, shim.POLLPRI, deadline):
                raise TimeoutError(errno.ETIMEDOUT, f"{file} is still {values} after {timeout_s} s")
    finally:
        os.close(fd)


class EventCounter:
    """v1: an eventfd that the kernel adds to at each event; a context manager.

    The kernel adds to it too when the cgroup is removed (Documentation/admin-guide/cgroup-v1/memory.rst, section
    9), so look whether the cgroup is still there before you take a wake-up for the event.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def wait(self, timeout_s: float | None) -> int:
        """Events since the last call, at least 1. Raises TimeoutError when none came by the deadline."""
        if not _poll(self._fd, shim.POLLIN, None if timeout_s is None else time.monotonic() + timeout_s):
            raise TimeoutError(errno.ETIMEDOUT, f"no event in {timeout_s} s")
        return os.eventfd_read(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> EventCounter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def memory_oom(directory: int) -> EventCounter:
    """v1: an event at each OOM of the memory cgroup `directory` (a descriptor). Raises OSError; EINVAL for the root.

    Source: Documentation/admin-guide/cgroup-v1/memory.rst, section 10.
    """
    return _register(directory, "memory.oom_control", "")


def memory_threshold(directory: int, threshold_bytes: int) -> EventCounter:
    """v1: an event whenever the usage crosses `threshold_bytes` in either direction. Raises OSError.

    The kernel looks every 128 pages charged on a CPU, so it may be late by half a MiB per CPU.
    Source: Documentation/admin-guide/cgroup-v1/memory.rst, section 9.
    """
    return _register(directory, "memory.usage_in_bytes", str(threshold_bytes))


def _register(directory: int, file: str, args: str) -> EventCounter:
    control = shim.open_beneath(directory, "cgroup.event_control", os.O_WRONLY)
    try:
        target = shim.open_beneath(directory, file)
        try:
            return EventCounter(shim.cgroup_eventfd(control, target, args))
        finally:
            os.close(target)
    finally:
        os.close(control)
