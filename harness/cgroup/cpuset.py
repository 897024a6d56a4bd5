"""The cpuset controller: which files are read, and one shape for v1 and v2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from harness.cgroup.contents import Contents
from harness.cgroup.parsers import parse_cpu_list

V1: Final = ("cpuset.cpus", "cpuset.mems", "cpuset.effective_cpus", "cpuset.effective_mems")
V2: Final = (
    "cpuset.cpus",
    "cpuset.mems",
    "cpuset.cpus.effective",
    "cpuset.mems.effective",
    "cpuset.cpus.partition",
)


class Cpuset(Struct, frozen=True):
    """CPUs and memory nodes, as rising numbers. () when not configured: v2 takes the parent's, v1 refuses tasks.

    Source: Documentation/admin-guide/cgroup-v1/cpusets.rst, and cgroup-v2.rst "Cpuset Interface Files".
    """

    version: int | None
    cpus: tuple[int, ...] | None
    mems: tuple[int, ...] | None
    effective_cpus: tuple[int, ...] | None
    effective_mems: tuple[int, ...] | None
    partition: str | None  # v2: "member", "root", "isolated", "root invalid (reason)", ...
    absent: Mapping[str, str]


def _partition(data: bytes, _path: str) -> str:
    return data.decode("ascii", "backslashreplace").rstrip("\n")


def decode(c: Contents) -> Cpuset:
    """Raises ParseError."""
    v1 = c.version == 1
    if v1:
        c.absent["partition"] = "cpuset.cpus.partition: v1 has no such file"
    return Cpuset(
        version=c.version,
        cpus=c.parse("cpus", "cpuset.cpus", parse_cpu_list),
        mems=c.parse("mems", "cpuset.mems", parse_cpu_list),
        effective_cpus=c.parse(
            "effective_cpus", "cpuset.effective_cpus" if v1 else "cpuset.cpus.effective", parse_cpu_list
        ),
        effective_mems=c.parse(
            "effective_mems", "cpuset.effective_mems" if v1 else "cpuset.mems.effective", parse_cpu_list
        ),
        partition=None if v1 else c.parse("partition", "cpuset.cpus.partition", _partition),
        absent=c.reasons(Cpuset),
    )
