"""The memory controller: which files are read, and one shape for v1 and v2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from harness.cgroup.contents import Contents
from harness.cgroup.parsers import MAX, Limit, parse_bool

V1: Final = (
    "memory.usage_in_bytes",
    "memory.max_usage_in_bytes",
    "memory.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.memsw.usage_in_bytes",
    "memory.memsw.max_usage_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.memsw.failcnt",
    "memory.failcnt",
    "memory.oom_control",
    "memory.stat",
)
V2: Final = (
    "memory.current",
    "memory.peak",
    "memory.max",
    "memory.high",
    "memory.low",
    "memory.min",
    "memory.swap.current",
    "memory.swap.peak",
    "memory.swap.max",
    "memory.events",
    "memory.oom.group",
    "memory.stat",
)

_NOT_IN_V1: Final = {
    "high_bytes": "memory.high: v1 has no such file",
    "low_bytes": "memory.low: v1 has no such file",
    "min_bytes": "memory.min: v1 has no such file",
    "swap_peak_bytes": "memory.swap.peak: v1 has memory.memsw.max_usage_in_bytes",
    "high_count": "memory.events: v1 has no such file",
    "oom_count": "memory.events: v1 has no such file",
    "oom_group": "memory.oom.group: v1 has no such file",
}
_NOT_IN_V2: Final = {
    "soft_limit_bytes": "memory.soft_limit_in_bytes: v2 has no such file",
    "memsw_current_bytes": "memory.memsw.*: v2 counts swap alone, memory.swap.*",
    "memsw_peak_bytes": "memory.memsw.*: v2 counts swap alone, memory.swap.*",
    "memsw_limit_hit_count": "memory.memsw.*: v2 counts swap alone, memory.swap.*",
    "memsw_limit_bytes": "memory.memsw.*: v2 counts swap alone, memory.swap.*",
    "under_oom": "memory.oom_control: v2 has no such file",
    "oom_kill_disable": "memory.oom_control: v2 has no such file",
}


class Memory(Struct, frozen=True):
    """Memory of a cgroup and its descendants, in bytes. "max" is no limit; None is absent, see `absent`.

    Source: Documentation/admin-guide/cgroup-v1/memory.rst, and cgroup-v2.rst "Memory Interface Files".
    """

    version: int | None
    current_bytes: int | None
    peak_bytes: int | None
    limit_bytes: Limit | None
    high_bytes: Limit | None  # v2: throttled above it
    low_bytes: Limit | None  # v2: best effort protection
    min_bytes: Limit | None  # v2: hard protection
    soft_limit_bytes: Limit | None  # v1
    swap_current_bytes: int | None
    swap_peak_bytes: int | None
    swap_limit_bytes: Limit | None  # v1: memsw.limit less memory.limit
    memsw_current_bytes: int | None  # v1: memory and swap together
    memsw_peak_bytes: int | None
    memsw_limit_bytes: Limit | None
    anon_bytes: int | None  # v1: total_rss
    file_bytes: int | None  # v1: total_cache; shmem is in it
    inactive_file_bytes: int | None
    limit_hit_count: int | None  # v1: failcnt; v2: memory.events max
    memsw_limit_hit_count: int | None  # v1; Linux 6.18 leaves it 0, and failcnt too where both limits are the same
    high_count: int | None  # v2: times throttled above high
    oom_count: int | None  # v2: times reclaim failed at the limit
    oom_kill_count: int | None  # v1: this cgroup's own only, descendants' not
    under_oom: bool | None  # v1: tasks wait for memory now
    oom_kill_disable: bool | None  # v1
    oom_group: bool | None  # v2: kill all of the cgroup at once
    stat: Mapping[str, int] | None  # the whole of memory.stat, with the kernel's keys of this version
    absent: Mapping[str, str]


def decode(contents: Contents) -> Memory:
    """Raises ParseError."""
    return _v1(contents) if contents.version == 1 else _v2(contents)


def _flag(value: int | None) -> bool | None:
    return None if value is None else value != 0


def _v1(c: Contents) -> Memory:
    c.absent.update(_NOT_IN_V1)
    stat = c.flat("memory.stat")
    oom = c.flat("memory.oom_control")
    limit = c.limit("limit_bytes", "memory.limit_in_bytes")
    accounting = "swap accounting is off"
    memsw_limit = c.limit("memsw_limit_bytes", "memory.memsw.limit_in_bytes", accounting)
    swap_limit: Limit | None = None
    if memsw_limit is None or limit is None:
        c.absent["swap_limit_bytes"] = c.absent["memsw_limit_bytes" if memsw_limit is None else "limit_bytes"]
    elif memsw_limit == MAX or limit == MAX:  # noqa: PLR1714 - mypy narrows these, not `in`
        swap_limit = MAX
    else:
        swap_limit = max(memsw_limit - limit, 0)  # two reads: a limit may have moved between them
    return Memory(
        version=1,
        current_bytes=c.value("current_bytes", "memory.usage_in_bytes"),
        peak_bytes=c.value("peak_bytes", "memory.max_usage_in_bytes"),
        limit_bytes=limit,
        high_bytes=None,
        low_bytes=None,
        min_bytes=None,
        soft_limit_bytes=c.limit("soft_limit_bytes", "memory.soft_limit_in_bytes"),
        swap_current_bytes=c.key("swap_current_bytes", "memory.stat", stat, "total_swap", accounting),
        swap_peak_bytes=None,
        swap_limit_bytes=swap_limit,
        memsw_current_bytes=c.value("memsw_current_bytes", "memory.memsw.usage_in_bytes", accounting),
        memsw_peak_bytes=c.value("memsw_peak_bytes", "memory.memsw.max_usage_in_bytes", accounting),
        memsw_limit_bytes=memsw_limit,
        anon_bytes=c.key("anon_bytes", "memory.stat", stat, "total_rss"),
        file_bytes=c.key("file_bytes", "memory.stat", stat, "total_cache"),
        inactive_file_bytes=c.key("inactive_file_bytes", "memory.stat", stat, "total_inactive_file"),
        limit_hit_count=c.value("limit_hit_count", "memory.failcnt"),
        memsw_limit_hit_count=c.value("memsw_limit_hit_count", "memory.memsw.failcnt", accounting),
        high_count=None,
        oom_count=None,
        oom_kill_count=c.key("oom_kill_count", "memory.oom_control", oom, "oom_kill", "Linux before 4.13"),
        under_oom=_flag(c.key("under_oom", "memory.oom_control", oom, "under_oom")),
        oom_kill_disable=_flag(c.key("oom_kill_disable", "memory.oom_control", oom, "oom_kill_disable")),
        oom_group=None,
        stat=_keep(c, stat),
        absent=c.reasons(Memory),
    )


def _v2(c: Contents) -> Memory:
    c.absent.update(_NOT_IN_V2)
    stat = c.flat("memory.stat")
    events = c.flat("memory.events")
    return Memory(
        version=2,
        current_bytes=c.value("current_bytes", "memory.current"),
        peak_bytes=c.value("peak_bytes", "memory.peak", "Linux before 5.19, or the root cgroup"),
        limit_bytes=c.limit("limit_bytes", "memory.max"),
        high_bytes=c.limit("high_bytes", "memory.high"),
        low_bytes=c.limit("low_bytes", "memory.low"),
        min_bytes=c.limit("min_bytes", "memory.min"),
        soft_limit_bytes=None,
        swap_current_bytes=c.value("swap_current_bytes", "memory.swap.current"),
        swap_peak_bytes=c.value("swap_peak_bytes", "memory.swap.peak", "Linux before 6.5"),
        swap_limit_bytes=c.limit("swap_limit_bytes", "memory.swap.max"),
        memsw_current_bytes=None,
        memsw_peak_bytes=None,
        memsw_limit_bytes=None,
        anon_bytes=c.key("anon_bytes", "memory.stat", stat, "anon"),
        file_bytes=c.key("file_bytes", "memory.stat", stat, "file"),
        inactive_file_bytes=c.key("inactive_file_bytes", "memory.stat", stat, "inactive_file"),
        limit_hit_count=c.key("limit_hit_count", "memory.events", events, "max"),
        memsw_limit_hit_count=None,
        high_count=c.key("high_count", "memory.events", events, "high"),
        oom_count=c.key("oom_count", "memory.events", events, "oom"),
        oom_kill_count=c.key("oom_kill_count", "memory.events", events, "oom_kill"),
        under_oom=None,
        oom_kill_disable=None,
        oom_group=c.parse("oom_group", "memory.oom.group", parse_bool),
        stat=_keep(c, stat),
        absent=c.reasons(Memory),
    )


def _keep(c: Contents, stat: Mapping[str, int] | None) -> Mapping[str, int] | None:
    if stat is None:
        c.absent["stat"] = c.absent["memory.stat"]
    return stat
