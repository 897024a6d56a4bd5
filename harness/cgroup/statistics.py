"""A snapshot of one cgroup: raw bytes when it is taken, typed values when they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeVar

from msgspec import Struct, to_builtins

from harness.cgroup import cpu, cpuset, freezer, hugetlb, io, memory, pids, pressure
from harness.cgroup.contents import Contents, nothing
from harness.kernel.shim import FileBatch

T = TypeVar("T")

SECTIONS: Final = ("memory", "cpu", "pids", "io", "cpuset", "hugetlb", "freezer", "pressure")


class Plan(Struct, frozen=True):
    """What a batch holds: made once for a cgroup, shared by all of its snapshots."""

    index: Mapping[str, int]  # place of each file in the batch
    versions: Mapping[str, Literal[1, 2]]  # of each section that is read
    unread: Mapping[str, str]  # file, or section without any: the reason
    page_sizes: tuple[str, ...]  # of huge pages


class CgroupSnapshot:
    """One reading of all files of a cgroup; `t_ns` is CLOCK_MONOTONIC before the first of them.

    The files are read one after the other, so values of different files may be some microseconds apart. Each
    section is decoded when it is first asked for; that may raise ParseError. A value that the kernel does not offer
    is None and has its reason in the section's `absent`.
    """

    __slots__ = ("_batch", "_decoded", "_plan", "t_ns")

    def __init__(self, t_ns: int, batch: FileBatch, plan: Plan) -> None:
        self.t_ns = t_ns
        self._batch = batch
        self._plan = plan
        self._decoded: dict[str, Any] | None = None

    def _section(self, name: str, shape: type[T], decode: Callable[[Contents], T]) -> T:
        if self._decoded is None:
            self._decoded = {}
        section: T | None = self._decoded.get(name)
        if section is None:
            plan = self._plan
            version = plan.versions.get(name)
            if version is None:
                section = nothing(shape, plan.unread[name])
            else:
                section = decode(Contents(version, self._batch, plan.index, plan.unread))
            self._decoded[name] = section
        return section

    @property
    def memory(self) -> memory.Memory:
        return self._section("memory", memory.Memory, memory.decode)

    @property
    def cpu(self) -> cpu.Cpu:
        return self._section("cpu", cpu.Cpu, cpu.decode)

    @property
    def pids(self) -> pids.Pids:
        return self._section("pids", pids.Pids, pids.decode)

    @property
    def io(self) -> io.Io:
        return self._section("io", io.Io, io.decode)

    @property
    def cpuset(self) -> cpuset.Cpuset:
        return self._section("cpuset", cpuset.Cpuset, cpuset.decode)

    @property
    def hugetlb(self) -> hugetlb.Hugetlb:
        sizes = self._plan.page_sizes
        return self._section("hugetlb", hugetlb.Hugetlb, lambda contents: hugetlb.decode(contents, sizes))

    @property
    def freezer(self) -> freezer.Freezer:
        return self._section("freezer", freezer.Freezer, freezer.decode)

    @property
    def pressure(self) -> pressure.Pressure:
        return self._section("pressure", pressure.Pressure, pressure.decode)

    @property
    def absent(self) -> dict[str, str]:
        """{"memory.peak_bytes": reason, ...} of all sections."""
        return {
            f"{section}.{field}": reason
            for section in SECTIONS
            for field, reason in getattr(self, section).absent.items()
        }

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that were tried."""
        return tuple(self._plan.index)

    def raw(self, file: str) -> bytes | OSError:
        """What the kernel said, as evidence. Raises KeyError for a file that was not tried."""
        return self._batch[self._plan.index[file]]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers, strings and None; the same names as the attributes."""
        return {"t_ns": self.t_ns, **{section: to_builtins(getattr(self, section)) for section in SECTIONS}}
