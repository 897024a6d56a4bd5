"""The cpu and cpuacct controllers: which files are read, and one shape for v1 and v2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from harness.cgroup.contents import Contents
from harness.cgroup.parsers import Limit, parse_bool, parse_cpu_max

V1_CPU: Final = (
    "cpu.stat",
    "cpu.shares",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpu.cfs_burst_us",
    "cpu.idle",
)
V1_CPUACCT: Final = ("cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys")
V2: Final = ("cpu.stat", "cpu.weight", "cpu.max", "cpu.max.burst", "cpu.idle")


class Cpu(Struct, frozen=True):
    """CPU time of a cgroup and its descendants in microseconds, and its limits. "max" is no limit; None is absent.

    Source: Documentation/scheduler/sched-bwc.rst, admin-guide/cgroup-v1/cpuacct.rst, and cgroup-v2.rst "CPU
    Interface Files". cpu.stat of v2 is there without the controller too, then only with the first three values.
    """

    version: int | None
    usage_usec: int | None
    user_usec: int | None  # v1: sampled by the timer tick, does not add up to usage
    system_usec: int | None
    nr_periods: int | None  # enforcement periods passed
    nr_throttled: int | None  # of these, throttled ones
    throttled_usec: int | None  # summed over CPUs
    nr_bursts: int | None
    burst_usec: int | None
    shares: int | None  # v1, 2..262144, default 1024
    weight: int | None  # v2, 1..10000, default 100; 0: idle
    quota_usec: Limit | None  # CPU time in each period
    period_usec: int | None
    burst_limit_usec: int | None
    idle: bool | None
    absent: Mapping[str, str]


def decode(contents: Contents) -> Cpu:
    """Raises ParseError."""
    return _v1(contents) if contents.version == 1 else _v2(contents)


def _v1(c: Contents) -> Cpu:
    c.absent["weight"] = "cpu.weight: v1 has cpu.shares"
    stat = c.flat("cpu.stat")
    throttled = c.key("throttled_usec", "cpu.stat", stat, "throttled_time")  # ns
    burst = c.key("burst_usec", "cpu.stat", stat, "burst_time", "Linux before 5.14")  # ns
    return Cpu(
        version=1,
        usage_usec=c.usec("usage_usec", "cpuacct.usage"),
        user_usec=c.usec("user_usec", "cpuacct.usage_user"),
        system_usec=c.usec("system_usec", "cpuacct.usage_sys"),
        nr_periods=c.key("nr_periods", "cpu.stat", stat, "nr_periods"),
        nr_throttled=c.key("nr_throttled", "cpu.stat", stat, "nr_throttled"),
        throttled_usec=None if throttled is None else throttled // 1000,
        nr_bursts=c.key("nr_bursts", "cpu.stat", stat, "nr_bursts", "Linux before 5.14"),
        burst_usec=None if burst is None else burst // 1000,
        shares=c.value("shares", "cpu.shares"),
        weight=None,
        quota_usec=c.limit("quota_usec", "cpu.cfs_quota_us"),
        period_usec=c.value("period_usec", "cpu.cfs_period_us"),
        burst_limit_usec=c.value("burst_limit_usec", "cpu.cfs_burst_us", "Linux before 5.14"),
        idle=c.parse("idle", "cpu.idle", parse_bool, "Linux before 5.15"),
        absent=c.reasons(Cpu),
    )


def _v2(c: Contents) -> Cpu:
    c.absent["shares"] = "cpu.shares: v2 has cpu.weight"
    stat = c.flat("cpu.stat")
    off = "the cpu controller is not enabled here"
    limits = c.parse("quota_usec", "cpu.max", parse_cpu_max)
    if limits is None:
        c.absent["period_usec"] = c.absent["quota_usec"]
    return Cpu(
        version=2,
        usage_usec=c.key("usage_usec", "cpu.stat", stat, "usage_usec"),
        user_usec=c.key("user_usec", "cpu.stat", stat, "user_usec"),
        system_usec=c.key("system_usec", "cpu.stat", stat, "system_usec"),
        nr_periods=c.key("nr_periods", "cpu.stat", stat, "nr_periods", off),
        nr_throttled=c.key("nr_throttled", "cpu.stat", stat, "nr_throttled", off),
        throttled_usec=c.key("throttled_usec", "cpu.stat", stat, "throttled_usec", off),
        nr_bursts=c.key("nr_bursts", "cpu.stat", stat, "nr_bursts", f"Linux before 5.14, or {off}"),
        burst_usec=c.key("burst_usec", "cpu.stat", stat, "burst_usec", f"Linux before 5.14, or {off}"),
        shares=None,
        weight=c.value("weight", "cpu.weight"),
        quota_usec=None if limits is None else limits[0],
        period_usec=None if limits is None else limits[1],
        burst_limit_usec=c.value("burst_limit_usec", "cpu.max.burst"),
        idle=c.parse("idle", "cpu.idle", parse_bool),
        absent=c.reasons(Cpu),
    )
