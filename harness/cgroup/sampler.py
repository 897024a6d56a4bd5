"""Watch a few values of a cgroup every millisecond or so, from one thread that stays in C between two samples."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from harness.cgroup.files import CgroupFiles
from harness.cgroup.parsers import ParseError, parse_flat, parse_value
from harness.errors import HostError
from harness.kernel import shim

_CHUNK = 1000  # samples of one C call; between two calls some 5 ms pass without a sample


def _usec(data: bytes, path: str) -> int:
    return parse_value(data, path) // 1000


def _usage(data: bytes, path: str) -> int:
    flat = parse_flat(data, path)
    if "usage_usec" not in flat:
        raise ParseError(path, 1, data, "a file with usage_usec")
    return flat["usage_usec"]


# {field: (section, {version: (file, parser)})}
FIELDS: Final[dict[str, tuple[str, dict[int, tuple[str, Callable[[bytes, str], int]]]]]] = {
    "memory_current_bytes": (
        "memory",
        {1: ("memory.usage_in_bytes", parse_value), 2: ("memory.current", parse_value)},
    ),
    "cpu_usage_usec": ("cpu", {1: ("cpuacct.usage", _usec), 2: ("cpu.stat", _usage)}),
    "pids_current": ("pids", {1: ("pids.current", parse_value), 2: ("pids.current", parse_value)}),
}


class Sample(Struct, frozen=True):
    """Values at one moment; None: not asked for, or the file could not be read (Sampler.absent has the reason)."""

    t_ns: int  # CLOCK_MONOTONIC before the reads
    memory_current_bytes: int | None = None
    cpu_usage_usec: int | None = None
    pids_current: int | None = None


class Sampler:
    """Samples `fields` of an open CgroupFiles every `period_s` between start() and stop(); a context manager.

    A late sample is not made up for. After stop(): `samples`, `cpu_share` (CPU time of the sampling thread by wall
    time) and `absent` {field: reason}. Raises ValueError for an unknown field, HostError when none is there.
    """

    def __init__(self, files: CgroupFiles, period_s: float = 0.001, fields: Sequence[str] = tuple(FIELDS)) -> None:
        unknown = [field for field in fields if field not in FIELDS]
        if unknown or not fields or period_s <= 0:
            raise ValueError(f"fields are {', '.join(FIELDS)}, not {unknown}; period_s is above 0")
        self.samples: list[Sample] = []
        self.cpu_share: float | None = None
        self.absent: dict[str, str] = {}
        self._files = files
        self._period_ns = int(period_s * 1e9)
        self._plan: list[tuple[str, str, Callable[[bytes, str], int]]] = []
        for field in fields:
            section, by_version = FIELDS[field]
            version = files.versions.get(section)
            file, parser = by_version[version] if version else ("", parse_value)
            if file in files.names:
                self._plan.append((field, file, parser))
            else:
                self.absent[field] = f"{file or section}: not in any hierarchy of this cgroup"
        if not self._plan:
            raise HostError(f"nothing to sample: {self.absent}")
        self._thread: threading.Thread | None = None
        self._stop_fd = -1
        self._chunks: list[list[tuple[int, shim.FileBatch]]] = []
        self._error: BaseException | None = None
        self._cpu_ns = 0
        self._wall_ns = 0

    def start(self) -> None:
        """Raises RuntimeError when it was started before."""
        if self._thread is not None:
            raise RuntimeError("a Sampler runs once")
        files = self._files.open_files([file for _, file, _ in self._plan])
        self._stop_fd = os.eventfd(0)
        self._thread = threading.Thread(target=self._run, args=(files,), name="cgroup-sampler", daemon=True)
        self._thread.start()

    def _run(self, files: shim.OpenFiles) -> None:
        wall, cpu = time.monotonic_ns(), time.thread_time_ns()
        try:
            with files:
                while True:
                    samples, _ = files.sample(self._period_ns, self._stop_fd, _CHUNK)
                    self._chunks.append(samples)
                    if not samples or shim.poll(self._stop_fd, shim.POLLIN, 0):
                        return
        except BaseException as error:
            self._error = error
        finally:
            self._cpu_ns = time.thread_time_ns() - cpu
            self._wall_ns = time.monotonic_ns() - wall

    def stop(self) -> list[Sample]:
        """End sampling and decode. Raises what went wrong in the thread, ParseError; RuntimeError before start()."""
        if self._thread is None:
            raise RuntimeError("start() comes first")
        if self._stop_fd >= 0:
            os.eventfd_write(self._stop_fd, 1)
            self._thread.join()
            os.close(self._stop_fd)
            self._stop_fd = -1
            if self._error is not None:
                raise self._error
            self.cpu_share = self._cpu_ns / max(self._wall_ns, 1)
            self.samples = [self._decode(t, batch) for chunk in self._chunks for t, batch in chunk]
            self._chunks = []
        return self.samples

    def _decode(self, t_ns: int, batch: shim.FileBatch) -> Sample:
        values: dict[str, int] = {}
        for at, (field, file, parser) in enumerate(self._plan):
            data = batch[at]
            if isinstance(data, bytes):
                values[field] = parser(data, file)
            else:
                self.absent[field] = f"{file}: {data.strerror}"
        return Sample(t_ns, **values)

    def __enter__(self) -> Sampler:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
