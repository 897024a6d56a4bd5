"""The pids controller: which files are read, and one shape for v1 and v2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from harness.cgroup.contents import Contents
from harness.cgroup.parsers import Limit

# The two versions have the same files.
FILES: Final = ("pids.current", "pids.peak", "pids.max", "pids.events")


class Pids(Struct, frozen=True):
    """Tasks (threads, not processes) of a cgroup and its descendants.

    Source: Documentation/admin-guide/cgroup-v1/pids.rst, and cgroup-v2.rst "PID Interface Files".
    """

    version: int | None
    current: int | None
    peak: int | None
    limit: Limit | None
    limit_hit_count: int | None  # pids.events max: forks refused
    absent: Mapping[str, str]


def decode(c: Contents) -> Pids:
    """Raises ParseError."""
    events = c.flat("pids.events")
    return Pids(
        version=c.version,
        current=c.value("current", "pids.current"),
        peak=c.value("peak", "pids.peak", "Linux before 6.1"),
        limit=c.limit("limit", "pids.max"),
        limit_hit_count=c.key("limit_hit_count", "pids.events", events, "max"),
        absent=c.reasons(Pids),
    )
