"""Snapshots decoded from recorded files of v1 and v2, without a cgroup."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from harness.cgroup import hugetlb
from harness.cgroup.files import TABLE
from harness.cgroup.parsers import MAX, ParseError
from harness.cgroup.statistics import SECTIONS, CgroupSnapshot, Plan
from harness.kernel.shim import FileBatch

PAGES = ("2MB",)

V1: dict[str, bytes] = {
    "memory.usage_in_bytes": b"4096\n",
    "memory.max_usage_in_bytes": b"8192\n",
    "memory.limit_in_bytes": b"1048576\n",
    "memory.soft_limit_in_bytes": b"9223372036854771712\n",
    "memory.memsw.usage_in_bytes": b"5000\n",
    "memory.memsw.max_usage_in_bytes": b"9000\n",
    "memory.memsw.limit_in_bytes": b"3145728\n",
    "memory.failcnt": b"7\n",
    "memory.memsw.failcnt": b"8\n",
    "memory.oom_control": b"oom_kill_disable 0\nunder_oom 1\noom_kill 3\n",
    "memory.stat": b"cache 1\nrss 2\ntotal_cache 10\ntotal_rss 20\ntotal_swap 30\ntotal_inactive_file 40\n",
    "cpu.stat": b"nr_periods 10\nnr_throttled 4\nthrottled_time 5000000\nnr_bursts 1\nburst_time 3000\n",
    "cpu.shares": b"512\n",
    "cpu.cfs_quota_us": b"50000\n",
    "cpu.cfs_period_us": b"100000\n",
    "cpu.cfs_burst_us": b"0\n",
    "cpu.idle": b"0\n",
    "cpuacct.usage": b"123456789\n",
    "cpuacct.usage_user": b"100000000\n",
    "cpuacct.usage_sys": b"23456789\n",
    "pids.current": b"3\n",
    "pids.peak": b"5\n",
    "pids.max": b"20\n",
    "pids.events": b"max 2\n",
    "blkio.throttle.io_service_bytes_recursive": b"8:0 Read 512\n8:0 Write 1024\n8:0 Discard 0\nTotal 1536\n",
    "blkio.throttle.io_serviced_recursive": b"8:0 Read 1\n8:0 Write 2\n8:0 Discard 0\n8:16 Read 9\nTotal 12\n",
    "blkio.throttle.read_bps_device": b"8:0 1048576\n",
    "blkio.throttle.write_bps_device": b"",
    "blkio.throttle.read_iops_device": b"",
    "blkio.throttle.write_iops_device": b"8:0 100\n",
    "cpuset.cpus": b"0-1\n",
    "cpuset.mems": b"\n",
    "cpuset.effective_cpus": b"0-1\n",
    "cpuset.effective_mems": b"0\n",
    "hugetlb.2MB.usage_in_bytes": b"2097152\n",
    "hugetlb.2MB.max_usage_in_bytes": b"4194304\n",
    "hugetlb.2MB.limit_in_bytes": b"9223372036852678656\n",
    "hugetlb.2MB.failcnt": b"1\n",
    "freezer.state": b"FREEZING\n",
    "freezer.self_freezing": b"0\n",
    "freezer.parent_freezing": b"1\n",
}
V2: dict[str, bytes] = {
    "memory.current": b"4096\n",
    "memory.peak": b"8192\n",
    "memory.max": b"1048576\n",
    "memory.high": b"max\n",
    "memory.low": b"0\n",
    "memory.min": b"0\n",
    "memory.swap.current": b"30\n",
    "memory.swap.max": b"2097152\n",
    "memory.events": b"low 0\nhigh 6\nmax 7\noom 4\noom_kill 3\noom_group_kill 0\n",
    "memory.oom.group": b"1\n",
    "memory.stat": b"anon 20\nfile 10\ninactive_file 40\n",
    "cpu.stat": b"usage_usec 123456\nuser_usec 100000\nsystem_usec 23456\nnr_periods 10\nnr_throttled 4\n"
    b"throttled_usec 5000\nnr_bursts 1\nburst_usec 3\n",
    "cpu.weight": b"100\n",
    "cpu.max": b"50000 100000\n",
    "cpu.max.burst": b"0\n",
    "cpu.idle": b"0\n",
    "pids.current": b"3\n",
    "pids.peak": b"5\n",
    "pids.max": b"20\n",
    "pids.events": b"max 2\n",
    "io.stat": b"8:0 rbytes=512 wbytes=1024 rios=1 wios=2 dbytes=0 dios=0\n",
    "io.max": b"8:0 rbps=1048576 wbps=max riops=max wiops=100\n",
    "io.bfq.weight": b"default 100\n",
    "cpuset.cpus": b"\n",
    "cpuset.mems": b"\n",
    "cpuset.cpus.effective": b"0-1\n",
    "cpuset.mems.effective": b"0\n",
    "cpuset.cpus.partition": b"member\n",
    "hugetlb.2MB.current": b"2097152\n",
    "hugetlb.2MB.max": b"max\n",
    "hugetlb.2MB.events": b"max 1\n",
    "cgroup.freeze": b"1\n",
    "cgroup.events": b"populated 1\nfrozen 0\n",
    "cpu.pressure": b"some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
}


def snapshot(version: Literal[1, 2], contents: Mapping[str, bytes]) -> CgroupSnapshot:
    """A snapshot of all files of `version`; those not in `contents` do not exist."""
    names = [name for s, by in TABLE.items() if s != "hugetlb" for _, files in by.get(version, ()) for name in files]
    names += hugetlb.files(version, PAGES)
    lengths = [len(contents[name]) if name in contents else -errno.ENOENT for name in names]
    batch = FileBatch(b"".join(contents.get(name, b"") for name in names), lengths)
    versions = {section: version for section, by in TABLE.items() if version in by}
    unread = {section: f"{section}: nowhere" for section in SECTIONS if section not in versions}
    return CgroupSnapshot(1, batch, Plan({name: i for i, name in enumerate(names)}, versions, unread, PAGES))


def test_same_values_from_both_versions() -> None:
    """The same state written by v1 and v2 has the same values under the same names."""
    one, two = snapshot(1, V1), snapshot(2, V2)
    common = {
        "memory": (
            "current_bytes",
            "peak_bytes",
            "limit_bytes",
            "swap_current_bytes",
            "swap_limit_bytes",
            "anon_bytes",
            "file_bytes",
            "inactive_file_bytes",
            "limit_hit_count",
            "oom_kill_count",
        ),
        "cpu": (
            "usage_usec",
            "user_usec",
            "system_usec",
            "nr_periods",
            "nr_throttled",
            "throttled_usec",
            "nr_bursts",
            "burst_usec",
            "quota_usec",
            "period_usec",
            "burst_limit_usec",
            "idle",
        ),
        "pids": ("current", "peak", "limit", "limit_hit_count"),
        "io": ("limits",),
        "cpuset": ("mems", "effective_cpus", "effective_mems"),
        "freezer": ("frozen",),
    }
    for section, names in common.items():
        for name in names:
            value = getattr(getattr(one, section), name)
            assert value is not None, name
            assert value == getattr(getattr(two, section), name), name
    assert one.io.devices is not None
    assert two.io.devices is not None
    assert one.io.devices["8:0"] == two.io.devices["8:0"]
    assert (one.memory.version, two.memory.version, one.pressure.version) == (1, 2, None)


def test_values_of_v1() -> None:
    """What only v1 has, or has in other units, comes out in the units of the field's name."""
    found = snapshot(1, V1)
    assert (found.memory.current_bytes, found.memory.memsw_limit_bytes, found.memory.swap_limit_bytes) == (
        4096,
        3145728,
        2097152,
    )
    assert found.memory.soft_limit_bytes == MAX
    assert (found.memory.limit_hit_count, found.memory.memsw_limit_hit_count) == (7, 8)
    assert (found.memory.under_oom, found.memory.oom_kill_disable) == (True, False)
    assert (found.cpu.usage_usec, found.cpu.throttled_usec, found.cpu.shares) == (123456, 5000, 512)
    assert found.io.devices is not None
    assert (found.io.devices["8:16"].read_bytes, found.io.devices["8:16"].read_count) == (None, 9)
    assert (found.cpuset.cpus, found.cpuset.mems) == ((0, 1), ())
    assert (found.freezer.frozen, found.freezer.self_freezing, found.freezer.parent_freezing) == (False, False, True)
    assert found.hugetlb.pages is not None
    assert (found.hugetlb.pages["2MB"].limit_bytes, found.hugetlb.pages["2MB"].peak_bytes) == (MAX, 4194304)


def test_values_of_v2() -> None:
    """What only v2 has comes out too."""
    found = snapshot(2, V2)
    assert (found.memory.high_bytes, found.memory.low_bytes, found.memory.oom_group) == (MAX, 0, True)
    assert (found.memory.high_count, found.memory.oom_count) == (6, 4)
    assert (found.cpu.weight, found.io.weight, found.cpuset.partition) == (100, 100, "member")
    assert found.pressure.cpu is not None
    assert found.pressure.cpu.some is not None
    assert (found.pressure.cpu.some.avg10, found.pressure.cpu.some.total_usec) == (1.5, 9)
    assert (found.freezer.frozen, found.freezer.self_freezing) == (False, True)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("full", [True, False], ids=["recorded", "nothing"])
def test_none_and_absent_are_the_same_fields(version: Literal[1, 2], full: bool) -> None:
    """Exactly the fields that are None have a reason, and an absent value is never 0."""
    found = snapshot(version, (V1 if version == 1 else V2) if full else {})
    for section in SECTIONS:
        part = getattr(found, section)
        none = {f.name for f in fields(part) if getattr(part, f.name) is None and f.name != "version"}
        for size, pages in (part.pages or {}).items() if section == "hugetlb" else ():
            none |= {f"{size}.{f.name}" for f in fields(pages) if getattr(pages, f.name) is None}
        assert none == set(part.absent), section
        assert all(part.absent.values())


def test_reason_names_file_and_error() -> None:
    """A reason says which file was missing, and what is there instead."""
    found = snapshot(2, {}).absent
    assert found["memory.peak_bytes"] == "memory.peak: no such file (Linux before 5.19, or the root cgroup)"
    assert found["memory.anon_bytes"] == "memory.stat: no such file"
    assert snapshot(2, {**V2, "memory.stat": b"file 1\n"}).absent["memory.anon_bytes"] == "memory.stat: no key anon"
    assert snapshot(1, V1).absent["cpu.weight"] == "cpu.weight: v1 has cpu.shares"
    assert snapshot(1, V1).absent["pressure.cpu"] == "pressure: nowhere"


def test_reason_for_other_errors() -> None:
    """An error other than a missing file is named, and not explained as one."""
    names = ("pids.current", "pids.peak", "pids.max", "pids.events")
    plan = Plan({name: i for i, name in enumerate(names)}, {"pids": 2}, {}, ())
    found = CgroupSnapshot(0, FileBatch(b"", [-errno.ENODEV] * 4), plan).pids
    assert found.absent["peak"] == "pids.peak: no such device (ENODEV)"


def test_decoding_is_lazy() -> None:
    """A file that is not understood hurts only when its section is asked for, and only that section."""
    found = snapshot(1, {**V1, "memory.stat": b"rubbish\n"})
    assert found.pids.current == 3
    with pytest.raises(ParseError, match=r"memory\.stat:1: "):
        _ = found.memory
    assert found.pids is found.pids


@pytest.mark.parametrize("version", [1, 2])
def test_json(version: Literal[1, 2]) -> None:
    """A snapshot becomes plain JSON that says the same: "max", null, lists, nested names."""
    found = snapshot(version, V1 if version == 1 else V2)
    back = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert set(back) == {"t_ns", *SECTIONS}
    assert back["memory"]["limit_bytes"] == 1048576
    assert back["memory"]["soft_limit_bytes" if version == 1 else "high_bytes"] == "max"
    assert back["cpuset"]["effective_cpus"] == [0, 1]
    assert back["memory"]["absent"] == found.memory.absent
    assert back["io"]["limits"]["8:0"]["read_bytes_per_s"] == 1048576


def test_raw_evidence() -> None:
    """The kernel's own bytes stay at hand, an error as a value."""
    found = snapshot(1, V1)
    assert found.raw("memory.failcnt") == b"7\n"
    missing = found.raw("blkio.bfq.weight")
    assert isinstance(missing, FileNotFoundError)
    with pytest.raises(KeyError):
        found.raw("no.such.file")


@given(st.sampled_from([1, 2]), st.data())
def test_damaged_files(version: Literal[1, 2], data: st.DataObject) -> None:
    """Whatever stands in the files, decoding ends in values or ParseError."""
    recorded = V1 if version == 1 else V2
    damaged = dict(recorded)
    for name in data.draw(st.sets(st.sampled_from(sorted(recorded)), max_size=3)):
        damaged[name] = data.draw(st.binary(max_size=20) | st.just(recorded[name][:-3]) | st.just(recorded[name] * 2))
    found = snapshot(version, damaged)
    for section in SECTIONS:
        with suppress(ParseError):
            getattr(found, section)
