"""A tracefs instance of our own: its events, its buffer, its end. Nobody else's tracing is touched.

tracefs is mounted in a private mount namespace for a moment, only to get a descriptor of its root; all else goes
through that (Documentation/trace/ftrace.rst, "Instances"). An instance outlives its maker, so its name begins with that
of the run, and `find_instances` finds it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from harness.errors import HostError
from harness.kernel import shim
from harness.kernel.mounts import MountNamespace
from harness.kernel.ringbuffer import Format, TraceEvent, decode_page, parse_format

MOUNT_POINT = "/sys/kernel/tracing"  # made by the kernel where it has tracefs
DEFAULT_PAGE_BYTES = 4096
NOBODY = 2**22 - 1  # the last pid that there can be (PID_MAX_LIMIT)
BUFFER_KIB = 8192  # for each CPU; a start of runsc (14,700 events) takes 600 KiB of all together


def open_root() -> int:
    """A descriptor of tracefs's root directory, which is mounted nowhere by the time this returns. Raises HostError."""

    def mount_and_open() -> int:
        shim.mount("none", MOUNT_POINT, "tracefs")
        try:
            return os.open(MOUNT_POINT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            shim.umount(MOUNT_POINT, shim.MNT_DETACH)

    try:
        with MountNamespace() as namespace:
            return namespace.call(mount_and_open)
    except OSError as error:
        why = "this kernel has none" if error.errno in (errno.ENOENT, errno.ENODEV) else error.strerror
        raise HostError(f"no tracefs here: {why}") from None


def _read(root: int, path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
    with open(fd, encoding="utf-8", errors="replace") as file:
        return file.read()


def _write(root: int, path: str, text: str) -> None:
    # truncated: that is what clears a list or a buffer
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, dir_fd=root)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _names(root: int, path: str) -> list[str]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        return [entry.name for entry in os.scandir(fd)]
    finally:
        os.close(fd)


class Recording(Struct, frozen=True):
    """The buffer's content as it was, so that taking it costs little; `decode` it when there is time."""

    pages: tuple[tuple[int, bytes], ...]  # (CPU, sub-buffer)
    formats: Mapping[int, Format]
    dropped: int  # events that did not fit into the buffer, by its own count

    def decode(self) -> tuple[list[TraceEvent], int]:
        """(the events in the order of time, how many were lost). Raises ValueError for what is no sub-buffer."""
        decoded = [decode_page(page, cpu, self.formats) for cpu, page in self.pages]
        events = [event for page in decoded for event in page.events]
        events.sort(key=lambda event: event.time_ns)
        # a gap before a sub-buffer is counted by the buffer as well
        return events, self.dropped or sum(1 if page.missed is None else page.missed for page in decoded)


class TraceInstance:
    """instances/NAME. As a context manager it is removed at the end. Raises HostError where it cannot be made.

    `events` are SYSTEM/EVENT, or SYSTEM for all of a system; `blocked_stacks` adds the kernel's stack whenever a task
    goes to sleep uninterruptibly. Nothing is recorded until `on`, and then only of tasks that are followed.
    """

    def __init__(
        self,
        name: str,
        events: Iterable[str],
        *,
        clock: str = "mono",
        buffer_kib: int = BUFFER_KIB,
        blocked_stacks: bool = False,
    ) -> None:
        self.name = name
        self._root = open_root()
        self._fd = -1
        self._dropped_before = 0
        self._followed: tuple[int, ...] = ()
        try:
            os.mkdir(f"instances/{name}", 0o700, dir_fd=self._root)
            self._fd = os.open(f"instances/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
            self._prepare(tuple(events), clock, buffer_kib, blocked_stacks)
        except OSError as error:
            self.close()
            raise HostError(f"no trace instance {name}: {error.strerror or error}") from None
        except BaseException:
            self.close()
            raise

    def _prepare(self, events: tuple[str, ...], clock: str, buffer_kib: int, blocked_stacks: bool) -> None:
        self.write("tracing_on", "0")
        self.write("trace_clock", clock)
        # what does not fit is the end, and counted; overwriting would take the beginning
        self.write("options/overwrite", "0")
        self.write("options/event-fork", "1")
        self.write("buffer_size_kb", str(buffer_kib))
        self.cpus = tuple(sorted(int(name.removeprefix("cpu")) for name in _names(self._fd, "per_cpu")))
        self.page_bytes = _page_bytes(self._root)
        self.formats = dict(_formats(self._root, events))
        self.follow(())
        if blocked_stacks:
            self.write("events/sched/sched_switch/trigger", "stacktrace if prev_state & 2")
            stack = parse_format(_read(self._root, "events/ftrace/kernel_stack/format"))
            self.formats[stack.number] = stack
        for event in events:
            self.write(f"events/{event}/enable", "1")

    def write(self, path: str, text: str) -> None:
        _write(self._fd, path, text)

    def follow(self, threads: Sequence[int]) -> None:
        """Record these threads and all that they start from now on (set_event_pid with event-fork)."""
        # an empty list would mean everybody; nothing is written twice, for that waits for a grace period of RCU
        wanted = tuple(threads) or (NOBODY,)
        if wanted != self._followed:
            self.write("set_event_pid", " ".join(map(str, wanted)))
            self._followed = wanted

    def on(self) -> None:
        self.write("tracing_on", "1")

    def off(self) -> None:
        self.write("tracing_on", "0")

    def take(self) -> Recording:
        """All that was recorded since the last call. Tracing must be off."""
        # reading empties the buffer; to clear it would wait for a grace period of RCU, and so disturb what runs next
        pages = tuple((cpu, page) for cpu in self.cpus for page in self._pages(cpu))
        dropped = sum(self._dropped(cpu) for cpu in self.cpus)
        recording = Recording(pages, self.formats, dropped - self._dropped_before)
        self._dropped_before = dropped
        return recording

    def _pages(self, cpu: int) -> list[bytes]:
        pages = []
        fd = os.open(f"per_cpu/cpu{cpu}/trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            with contextlib.suppress(BlockingIOError):
                while page := os.read(fd, self.page_bytes):
                    pages.append(page)
        finally:
            os.close(fd)
        return pages

    def _dropped(self, cpu: int) -> int:
        facts = dict(line.split(": ") for line in _read(self._fd, f"per_cpu/cpu{cpu}/stats").splitlines())
        return sum(int(facts.get(name, 0)) for name in ("overrun", "commit overrun", "dropped events"))

    def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self.off()
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(f"instances/{self.name}", dir_fd=self._root)
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __enter__(self) -> TraceInstance:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _page_bytes(root: int) -> int:
    """Size of a sub-buffer with its header: the last field of events/header_page, which is its data."""
    for line in _read(root, "events/header_page").splitlines():
        if "field: char data;" in line:
            facts = dict(part.split(":") for part in line.split("\t")[-1].split(";") if part.count(":") == 1)
            with contextlib.suppress(KeyError, ValueError):
                return int(facts["offset"]) + int(facts["size"])
    return DEFAULT_PAGE_BYTES


def _formats(root: int, events: Sequence[str]) -> Iterable[tuple[int, Format]]:
    for event in events:
        system, _, name = event.partition("/")
        for one in [name] if name else _names(root, f"events/{system}"):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # `enable` and `filter` are files
                known = parse_format(_read(root, f"events/{system}/{one}/format"))
                yield known.number, known


def find_instances(prefix: str) -> list[str]:
    """Names of the trace instances that begin with `prefix`; none where there is no tracefs."""
    try:
        root = open_root()
    except HostError:
        return []
    try:
        return sorted(name for name in _names(root, "instances") if name.startswith(prefix))
    except OSError:
        return []
    finally:
        os.close(root)


def remove_instance(name: str) -> None:
    """Remove an instance with all that it holds; fine when it is not there. Raises OSError (EBUSY: it is in use)."""
    root = open_root()
    try:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(f"instances/{name}", dir_fd=root)
    finally:
        os.close(root)
