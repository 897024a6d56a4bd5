"""config-linux.md, Control groups: where the container is, and each limit as the kernel says it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from msgspec import Struct

from harness.cgroup.hierarchy import cgroup_paths
from harness.compat.conformance.claims import claim
from harness.compat.conformance.lab import Lab, Running
from harness.compat.conformance.needs import whole_disk
from harness.kernel import shim

PATH = "config-linux.md#configLinuxCgroupsPath"
UNIFIED = "config-linux.md#configLinuxUnified"
MIB = 1 << 20
DISK = whole_disk() or "0:0"
MEMORY, CPU, IO, PIDS = (f"config-linux.md#configLinux{name}" for name in ("Memory", "CPU", "BlockIO", "PIDS"))
HUGE = "config-linux.md#configLinuxHugePageLimits"


def cgroups(lab: Lab, running: Running) -> dict[str, str]:
    """{controller, or "" for v2: path below the mount point}."""
    return {key: path for key, (_, path) in cgroup_paths(running.pid, lab.session.layout).items()}


def value_of(lab: Lab, running: Running, controller: str, file: str) -> str:
    """A file of the container's cgroup, read through the shim. Fails the case when it is not there."""
    hierarchy, path = cgroup_paths(running.pid, lab.session.layout)[controller]
    root = lab.session.namespace.call(hierarchy.open)
    try:
        directory = shim.open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY)
    finally:
        os.close(root)
    try:
        data = shim.read_files([directory], [file])[0]
    finally:
        os.close(directory)
    assert not isinstance(data, OSError), f"{controller} {path}/{file}: {data}"
    return data.decode().strip()


@claim(
    PATH,
    "In the case of an absolute path (starting with `/`), the runtime MUST take the path to be relative to the "
    "cgroups mount "
    "point.",
    "other:/linux/cgroupsPath",
    needs=("host-process:",),
)
def test_cgroups_path_absolute(lab: Lab) -> None:
    """In every hierarchy where it has one of its own."""
    running = lab.run({"linux": {"cgroupsPath": f"/{lab.session.workspace.cgroup}/absolute/{lab.runtime.name}"}})
    found = {path for key, path in cgroups(lab, running).items() if not key.startswith("name=") and path}
    assert found == {f"{lab.session.workspace.cgroup}/absolute/{lab.runtime.name}"}


@claim(
    PATH,
    "If the value is specified, the runtime MUST consistently attach to the same place in the cgroups hierarchy "
    "given the "
    "same value of `cgroupsPath`.",
    "random:/linux/cgroupsPath",
    needs=("host-process:",),
)
@pytest.mark.parametrize("start", ["", "/"])
def test_cgroups_path_consistent(lab: Lab, start: str) -> None:
    """The same place for two containers one after the other; the name shows where it is for who cleans up."""
    patch = {"linux": {"cgroupsPath": f"{start}{lab.session.workspace.cgroup}/again-{lab.runtime.name}"}}
    places = []
    for _ in range(2):
        running = lab.run(patch)
        places.append(cgroups(lab, running))
        assert running.container.clean_up() == []
    assert places[0] == places[1]
    assert any(path.endswith(f"again-{lab.runtime.name}") for path in places[0].values())


class Limit(Struct, frozen=True):
    """One field of linux.resources: what is set, and what is read back of each version of cgroups."""

    section: str
    sentence: str
    resources: dict[str, Any]
    v1: tuple[str, str, str] | None = None  # controller, file, value
    v2: tuple[str, str, str] | None = None


def _rate(rate: int) -> list[dict[str, int]]:
    major, minor = map(int, DISK.split(":"))
    return [{"major": major, "minor": minor, "rate": rate}]


LIMITS: dict[str, Limit] = {
    "/memory/limit": Limit(
        MEMORY,
        "sets limit of memory usage",
        {"memory": {"limit": 64 * MIB}},
        ("memory", "memory.limit_in_bytes", str(64 * MIB)),
        ("memory", "memory.max", str(64 * MIB)),
    ),
    "/memory/reservation": Limit(
        MEMORY,
        "sets soft limit of memory usage",
        {"memory": {"reservation": 48 * MIB}},
        ("memory", "memory.soft_limit_in_bytes", str(48 * MIB)),
        ("memory", "memory.low", str(48 * MIB)),
    ),
    "/memory/swap": Limit(
        MEMORY,
        "sets limit of memory+Swap usage",
        {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}},
        ("memory", "memory.memsw.limit_in_bytes", str(96 * MIB)),
        ("memory", "memory.swap.max", str(32 * MIB)),
    ),
    "/memory/swappiness": Limit(
        MEMORY,
        "sets swappiness parameter of vmscan (See sysctl's vm.swappiness)",
        {"memory": {"swappiness": 33}},
        ("memory", "memory.swappiness", "33"),
    ),
    "/memory/disableOOMKiller": Limit(
        MEMORY,
        "enables or disables the OOM killer.",
        {"memory": {"disableOOMKiller": True}},
        ("memory", "memory.oom_control", "oom_kill_disable 1"),
    ),
    "/cpu/shares": Limit(
        CPU,
        "specifies a relative share of CPU time available to the tasks in a cgroup",
        {"cpu": {"shares": 512}},
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.weight", "20|59"),  # linear from 2..262144 to 1..10000, or by the curve through 1024 and 100
    ),
    "/cpu/quota": Limit(
        CPU,
        "specifies the total amount of time in microseconds for which all tasks in a cgroup can run during one period",
        {"cpu": {"quota": 40000, "period": 80000}},
        ("cpu", "cpu.cfs_quota_us", "40000"),
        ("cpu", "cpu.max", "40000 80000"),
    ),
    "/cpu/period": Limit(
        CPU,
        "specifies a period of time in microseconds for how regularly a cgroup's access to CPU resources should be "
        "reallocated",
        {"cpu": {"quota": 40000, "period": 80000}},
        ("cpu", "cpu.cfs_period_us", "80000"),
        ("cpu", "cpu.max", "40000 80000"),
    ),
    "/cpu/burst": Limit(
        CPU,
        "specifies the maximum amount of accumulated time in microseconds for which all tasks in a cgroup can run "
        "additionally for burst during one period",
        {"cpu": {"quota": 40000, "period": 80000, "burst": 20000}},
        ("cpu", "cpu.cfs_burst_us", "20000"),
        ("cpu", "cpu.max.burst", "20000"),
    ),
    "/cpu/realtimePeriod": Limit(
        CPU,
        "same as `period` but applies to realtime scheduler only",
        {"cpu": {"realtimeRuntime": 0, "realtimePeriod": 500000}},
        ("cpu", "cpu.rt_period_us", "500000"),
    ),
    "/cpu/idle": Limit(
        CPU,
        "cgroups are configured with minimum weight, 0: default behavior, 1: SCHED_IDLE.",
        {"cpu": {"idle": 1}},
        ("cpu", "cpu.idle", "1"),
        ("cpu", "cpu.idle", "1"),
    ),
    "/cpu/cpus": Limit(
        CPU,
        "list of CPUs the container will run on.",
        {"cpu": {"cpus": "0"}},
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.cpus", "0"),
    ),
    "/cpu/mems": Limit(
        CPU,
        "list of memory nodes the container will run on.",
        {"cpu": {"mems": "0"}},
        None,  # the parent's value is inherited, and a host with one node has no other
        ("cpuset", "cpuset.mems", "0"),
    ),
    "/pids/limit": Limit(
        PIDS,
        "specifies the maximum number of tasks in the cgroup",
        {"pids": {"limit": 55}},
        ("pids", "pids.max", "55"),
        ("pids", "pids.max", "55"),
    ),
    "/blockIO/weight": Limit(
        IO,
        "specifies per-cgroup weight.",
        {"blockIO": {"weight": 350}},
        ("blkio", "blkio.bfq.weight", "350"),
        ("io", "io.bfq.weight", "default 350"),
    ),
    **{
        f"/blockIO/{name}": Limit(
            IO,
            f"an array of per-device {'IO' if 'IOPS' in name else 'bandwidth'} rate limits.",
            {"blockIO": {name: _rate(1048576)}},
            ("blkio", f"blkio.throttle.{v1}_device", f"{DISK} 1048576"),
            ("io", "io.max", f"{v2}=1048576"),
        )
        for name, v1, v2 in (
            ("throttleReadBpsDevice", "read_bps", "rbps"),
            ("throttleWriteBpsDevice", "write_bps", "wbps"),
            ("throttleReadIOPSDevice", "read_iops", "riops"),
            ("throttleWriteIOPSDevice", "write_iops", "wiops"),
        )
    },
    "/hugepageLimits": Limit(
        HUGE,
        "limit in bytes of hugepagesize HugeTLB reservations (if supported) or usage.",
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]},
        ("hugetlb", "hugetlb.2MB.limit_in_bytes", str(4 * MIB)),
        ("hugetlb", "hugetlb.2MB.max", str(4 * MIB)),
    ),
    "/network/classID": Limit(
        "config-linux.md#configLinuxNetwork",
        "is the network class identifier the cgroup's network packets will be tagged with",
        {"network": {"classID": 1048577}},
        ("net_cls", "net_cls.classid", "1048577"),
    ),
    "/unified/memory.high": Limit(
        UNIFIED,
        "Each key in the map refers to a file in the cgroup unified hierarchy.",
        {"unified": {"memory.high": str(80 * MIB)}},
        None,
        ("memory", "memory.high", str(80 * MIB)),
    ),
    "/unified/cgroup.max.depth": Limit(
        UNIFIED,
        "Configuration unknown to the runtime MUST still be written to the relevant file.",
        {"unified": {"cgroup.max.depth": "7"}},
        None,
        ("", "cgroup.max.depth", "7"),
    ),
}


def _limits(version: int) -> list[Any]:
    """Each as parameters, with the claim of its own row of the table."""
    found = []
    for field, limit in LIMITS.items():
        read_back = limit.v1 if version == 1 else limit.v2
        if read_back is not None:
            controller, file, _ = read_back
            needs = [f"cgroup-v{version}:{controller}/{file}"] + (["disk:"] if "throttle" in field else [])
            mark = claim(limit.section, limit.sentence, f"/linux/resources{field}", needs=tuple(needs))
            found.append(pytest.param(field, marks=mark))
    return found


def _check(lab: Lab, field: str, version: int) -> None:
    limit = LIMITS[field]
    read_back = limit.v1 if version == 1 else limit.v2
    assert read_back is not None
    controller, file, wanted = read_back
    found = value_of(lab, lab.run({"linux": {"resources": limit.resources}}), controller, file)
    # exactly, or one line or word of a file that has several
    assert {found, *found.splitlines(), *found.split()} & set(wanted.split("|")), f"{file} is {found!r}, not {wanted}"


@pytest.mark.parametrize("field", _limits(1))
def test_limit_v1(lab: Lab, field: str) -> None:
    _check(lab, field, 1)


@pytest.mark.parametrize("field", _limits(2))
def test_limit_v2(lab: Lab, field: str) -> None:
    _check(lab, field, 2)


@claim(
    PIDS,
    "with `-1` indicating no limit (`max`).",
    "refuse:/linux/resources/pids/limit",
    needs=("host-process:",),
)
def test_pids_unlimited(lab: Lab) -> None:
    version = lab.session.layout.version("pids")
    if version is None:
        pytest.skip("needs the pids controller")
    running = lab.run({"linux": {"resources": {"pids": {"limit": -1}}}})
    assert value_of(lab, running, "pids", "pids.max") == "max"


@claim(
    UNIFIED,
    "The runtime MUST generate an error when the configuration refers to a cgroup controller that is not present "
    "or that "
    "cannot be enabled.",
    "/linux/resources/unified",
    needs=("host-process:",),
)
def test_unified_without_controller(lab: Lab) -> None:
    lab.refused({"linux": {"resources": {"unified": {"nocontroller.max": "1"}}}})
