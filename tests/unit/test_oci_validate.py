"""Type problems and rules of config.json."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError, Problem
from harness.oci import pointer
from harness.oci.recipe import load_recipe
from harness.oci.shape import shape_problems
from harness.oci.spec import Config, Spec
from harness.oci.validate import Finding, rule_problems, type_problems, validate

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def _config(*settings_: tuple[str, Any]) -> Config:
    """The default recipe with places changed."""
    config = Config(load_recipe("default").config)
    for place, value in settings_:
        config.set(place, copy.deepcopy(value))
    return config


def _places(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.pointer, finding.severity) for finding in findings]


# type problems


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("/process/args/0", 5, "/process/args/0: expected a string, found number 5"),
        ("/process/args", "sh", '/process/args: expected an array, found string "sh"'),
        ("/process/args/0", None, "/process/args/0: expected a string, found null"),
        ("/process/terminal", "true", '/process/terminal: expected true or false, found string "true"'),
        ("/process/terminal", 1, "/process/terminal: expected true or false, found number 1"),
        ("/process/user/uid", True, "/process/user/uid: expected an integer from 0 to 4294967295, found boolean true"),
        ("/process/user/uid", -1, "/process/user/uid: expected an integer from 0 to 4294967295, found number -1"),
        ("/process/user/uid", 1.0, "/process/user/uid: expected an integer from 0 to 4294967295, found number 1.0"),
        ("/process", [], "/process: expected an object, found an array"),
        ("/ociVersion", None, "/ociVersion: expected a string, found null"),
        ("/annotations", {"a/b": 1}, "/annotations/a~1b: expected a string, found number 1"),
        (
            "/linux/resources/memory/limit",
            2**63,
            "/linux/resources/memory/limit: expected an integer from -9223372036854775808 to 9223372036854775807, "
            "found number 9223372036854775808",
        ),
        (
            "/linux/resources/cpu/shares",
            2**64,
            "/linux/resources/cpu/shares: expected an integer from 0 to 18446744073709551615, "
            "found number 18446744073709551616",
        ),
        ("/mounts/-", {}, "/mounts/6/destination: missing; expected a string"),
        ("/linux/seccomp", {}, "/linux/seccomp/defaultAction: missing; expected a string"),
    ],
)
def test_a_type_error_is_told_with_its_pointer(place: str, value: object, problem: str) -> None:
    """One wrong value gives one problem that says what is there and what is expected."""
    assert [str(each) for each in type_problems(_config((place, value)).document)] == [problem]


def test_all_type_errors_are_told() -> None:
    """Not only the first error is told, and missing required fields are among them."""
    document = {"root": {}, "process": {"args": [1, "a", 2], "user": {"uid": "0"}}, "mounts": [{"options": "ro"}, 7]}
    assert sorted(each.pointer for each in type_problems(document)) == [
        "/mounts/0/destination",
        "/mounts/0/options",
        "/mounts/1",
        "/ociVersion",
        "/process/args/0",
        "/process/args/2",
        "/process/cwd",
        "/process/user/gid",
        "/process/user/uid",
        "/root/path",
    ]


def test_unknown_fields_and_null_are_no_type_errors() -> None:
    """Unknown fields are kept without a word; null in an optional place is as good as absent."""
    assert type_problems(_config(("/x-new", [1]), ("/linux/y", {"z": None}), ("/hostname", None)).document) == []


@pytest.mark.parametrize("value", [None, 1, "x", [], True])
def test_a_document_that_is_no_object_is_one_problem(value: object) -> None:
    """Whatever is at the top, there is an answer."""
    (problem,) = type_problems(value)
    assert isinstance(problem, Problem)
    assert problem.pointer == ""
    assert problem.message.startswith("expected an object, found")


@settings(max_examples=60, deadline=None, database=None)
@given(st.data())
def test_type_problems_never_raise_and_agree_with_msgspec(data: st.DataObject) -> None:
    """For any JSON there is an answer, and a document without problems can be read as a Spec."""
    keys = [field.encode_name for field in msgspec.structs.fields(Spec)]
    keys += ["path", "args", "cwd", "namespaces", "resources", "type", "memory", "limit", "seccomp"]
    value = data.draw(
        st.recursive(
            JSON,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner, max_size=5),
            max_leaves=8,
        )
    )
    if not type_problems(value):
        msgspec.convert(value, Spec)
    if isinstance(value, dict):
        with_version = {**value, "ociVersion": "1.0.2"}
        if not type_problems(with_version):
            msgspec.convert(with_version, Spec)
        rule_problems(Config(with_version))


@settings(max_examples=40, deadline=None, database=None)
@given(st.data())
def test_rules_never_raise_for_broken_values(data: st.DataObject) -> None:
    """Rules pass over any value of a wrong type in any place of a good document."""
    config = _config(
        ("/linux/seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "b"}]}),
        ("/linux/uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}]),
        ("/linux/devices", [{"path": "/dev/x", "type": "c"}]),
        ("/linux/resources/memory", {"limit": 1, "swap": 2}),
        ("/linux/sysctl", {"net.a": "1"}),
    )
    places = list(_all_pointers(config.document, ""))
    config.set(data.draw(st.sampled_from(places)), data.draw(JSON))
    rule_problems(config)
    type_problems(config.document)


def _all_pointers(value: Any, at: str) -> list[str]:
    children: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = [(str(index), child) for index, child in enumerate(value)]
    own = [f"{at}/{key}" for key, _ in children]
    return own + [place for key, child in children for place in _all_pointers(child, f"{at}/{key}")]


def test_shape_problems_refuse_a_type_that_they_do_not_know() -> None:
    """A type out of reach is a programmer's error, not silence."""
    with pytest.raises(TypeError, match="does not know"):
        shape_problems("x", bytes)


# rules: one change to the good default recipe, and exactly these findings

USER_NS = [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount", "user")]
MAP = [{"containerID": 0, "hostID": 1000, "size": 100}]
USER = [("/linux/namespaces", USER_NS), ("/linux/uidMappings", MAP), ("/linux/gidMappings", MAP)]


def _seccomp(**fields: Any) -> list[tuple[str, Any]]:
    # 1.1.0, so that the fields of that release are no finding themselves
    return [("/ociVersion", "1.1.0"), ("/linux/seccomp", {"defaultAction": "SCMP_ACT_ALLOW", **fields})]


def _mount(**fields: Any) -> list[tuple[str, Any]]:
    return [("/ociVersion", "1.2.0"), ("/mounts/-", {"destination": "/data", **fields})]


E, W = "error", "warning"

BAD: list[tuple[list[tuple[str, Any]], list[tuple[str, str]]]] = [
    ([("/ociVersion", "1.0")], [("/ociVersion", E)]),
    ([("/ociVersion", "01.0.2")], [("/ociVersion", E)]),
    ([("/ociVersion", "2.0.0")], [("/ociVersion", E)]),
    ([("/ociVersion", "1.0." + "9" * 5000)], [("/ociVersion", E)]),
    ([("/domainname", "d")], [("/ociVersion", W)]),
    ([("/root", None)], [("/root", E)]),
    ([("/root/path", "")], [("/root/path", E)]),
    ([("/process", None)], [("/process", W)]),
    ([("/process/args", [])], [("/process/args", E)]),
    ([("/process/args", None)], [("/process/args", E)]),
    ([("/process/args", ["", "x"])], [("/process/args/0", E)]),
    ([("/process/args", ["a\0b"])], [("/process/args/0", E)]),
    ([("/process/cwd", "tmp")], [("/process/cwd", E)]),
    ([("/process/cwd", "")], [("/process/cwd", E)]),
    ([("/process/env", ["A=1", "B"])], [("/process/env/1", E)]),
    ([("/process/env", ["=1"])], [("/process/env/0", E)]),
    ([("/process/consoleSize", {"height": 1, "width": 1})], [("/process/consoleSize", W)]),
    ([("/process/oomScoreAdj", -1001)], [("/process/oomScoreAdj", E)]),
    ([("/process/oomScoreAdj", 1001)], [("/process/oomScoreAdj", E)]),
    ([("/process/rlimits", [{"type": "NOFILE", "soft": 1, "hard": 1}])], [("/process/rlimits/0/type", E)]),
    ([("/process/rlimits", [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}])], [("/process/rlimits/0/soft", E)]),
    ([("/process/rlimits", [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}] * 2)], [("/process/rlimits/1/type", E)]),
    ([("/process/capabilities/bounding/0", "CHOWN")], [("/process/capabilities/bounding/0", W)]),
    ([("/process/capabilities/effective/0", "CAP_BPF")], [("/process/capabilities/effective/0", E)]),
    ([("/process/capabilities/ambient", ["CAP_CHOWN"])], [("/process/capabilities/ambient/0", W)]),
    ([("/hostname", "h" * 65)], [("/hostname", E)]),
    ([("/hostname", "ü" * 33)], [("/hostname", E)]),
    ([("/hooks", {"createRuntime": [{"path": "hook"}]})], [("/hooks/createRuntime/0/path", E)]),
    ([("/hooks", {"poststop": [{"path": "/h", "timeout": 0}]})], [("/hooks/poststop/0/timeout", E)]),
    ([("/mounts/0/destination", "proc")], [("/mounts/0/destination", W)]),
    ([("/mounts/0/destination", "")], [("/mounts/0/destination", E)]),
    (_mount(source="/nonexistent-source", options=["rbind"]), [("/mounts/6/source", W)]),
    (_mount(type="bind", source="/nonexistent-source"), [("/mounts/6/source", W)]),
    (_mount(options=["bind"]), [("/mounts/6/source", E)]),
    (_mount(uidMappings=MAP, options=["idmap"]), [("/mounts/6/gidMappings", E)]),
    (_mount(uidMappings=MAP, gidMappings=MAP), [("/mounts/6/uidMappings", W)]),
    (_mount(options=["idmap"]), [("/mounts/6/options/0", E)]),
    ([("/linux/namespaces/-", {"type": "pid"})], [("/linux/namespaces/5/type", E)]),
    ([("/linux/namespaces/-", {"type": "net"})], [("/linux/namespaces/5/type", E)]),
    ([("/linux/namespaces/0/path", "ns/pid")], [("/linux/namespaces/0/path", E)]),
    ([("/linux/namespaces/3", {"type": "cgroup"})], [("/hostname", E)]),
    ([("/linux/namespaces/4", {"type": "cgroup"})], [("/linux/maskedPaths", E), ("/linux/readonlyPaths", E)]),
    ([("/linux/uidMappings", MAP)], [("/linux/uidMappings", E)]),
    ([("/linux/namespaces", USER_NS)], [("/linux/uidMappings", E), ("/linux/gidMappings", E)]),
    ([*USER, ("/linux/uidMappings/0/size", 0)], [("/linux/uidMappings/0/size", E)]),
    (
        [*USER, ("/linux/uidMappings/-", {"containerID": 99, "hostID": 5000, "size": 1})],
        [("/linux/uidMappings/1/containerID", E)],
    ),
    (
        [*USER, ("/linux/gidMappings/-", {"containerID": 100, "hostID": 999, "size": 2})],
        [("/linux/gidMappings/1/hostID", E)],
    ),
    ([*USER, ("/linux/uidMappings/0/hostID", 2**32 - 1)], [("/linux/uidMappings/0/hostID", E)]),
    ([*USER, ("/process/user/uid", 100)], [("/process/user/uid", E)]),
    (
        [("/ociVersion", "1.1.0"), ("/linux/timeOffsets", {"monotonic": {"secs": 1}})],
        [("/linux/timeOffsets", E)],
    ),
    (
        [
            ("/ociVersion", "1.1.0"),
            ("/linux/namespaces/-", {"type": "time"}),
            ("/linux/timeOffsets", {"realtime": {}, "boottime": {"nanosecs": 10**9}}),
        ],
        [("/linux/timeOffsets/boottime/nanosecs", E), ("/linux/timeOffsets/realtime", E)],
    ),
    ([("/linux/sysctl", {"vm.swappiness": "1"})], [("/linux/sysctl/vm.swappiness", E)]),
    ([("/linux/sysctl", {"kernel.hostname": "h"})], [("/linux/sysctl/kernel.hostname", E)]),
    ([("/linux/sysctl", {"kernel.semx": "1"})], [("/linux/sysctl/kernel.semx", E)]),
    (
        [("/linux/namespaces/1", {"type": "cgroup"}), ("/linux/sysctl", {"net/ipv4/ip_forward": "1"})],
        [("/linux/sysctl/net~1ipv4~1ip_forward", E)],
    ),
    (
        [("/linux/namespaces/2", {"type": "cgroup"}), ("/linux/sysctl", {"fs.mqueue.msg_max": "1", "kernel.sem": "1"})],
        [("/linux/sysctl/fs.mqueue.msg_max", E), ("/linux/sysctl/kernel.sem", E)],
    ),
    ([("/linux/devices", [{"path": "/dev/x", "type": "d", "major": 1, "minor": 1}])], [("/linux/devices/0/type", E)]),
    ([("/linux/devices", [{"path": "/dev/x", "type": "c", "major": 1}])], [("/linux/devices/0/minor", E)]),
    ([("/linux/devices", [{"path": "x", "type": "p"}])], [("/linux/devices/0/path", E)]),
    ([("/linux/devices", [{"path": "/x", "type": "p", "fileMode": 666}])], [("/linux/devices/0/fileMode", W)]),
    ([("/linux/resources/devices/0/access", "rx")], [("/linux/resources/devices/0/access", E)]),
    ([("/linux/resources/devices/0/type", "p")], [("/linux/resources/devices/0/type", E)]),
    ([("/linux/cgroupsPath", "")], [("/linux/cgroupsPath", W)]),
    ([("/linux/cgroupsPath", "/a/../b")], [("/linux/cgroupsPath", W)]),
    ([("/linux/cgroupsPath", "../../x")], [("/linux/cgroupsPath", W)]),
    ([("/linux/rootfsPropagation", "rslave")], [("/linux/rootfsPropagation", W)]),
    ([("/linux/rootfsPropagation", "bound")], [("/linux/rootfsPropagation", E)]),
    ([("/linux/maskedPaths/0", "proc/acpi")], [("/linux/maskedPaths/0", E)]),
    ([("/linux/readonlyPaths/0", "")], [("/linux/readonlyPaths/0", E)]),
    ([("/linux/resources/memory", {"limit": -5})], [("/linux/resources/memory/limit", E)]),
    ([("/linux/resources/memory", {"limit": 9, "swap": 8})], [("/linux/resources/memory/swap", E)]),
    ([("/linux/resources/memory", {"limit": -1, "swap": 8})], [("/linux/resources/memory/swap", E)]),
    ([("/linux/resources/memory", {"swap": 8})], [("/linux/resources/memory/swap", W)]),
    ([("/linux/resources/memory", {"swappiness": 101})], [("/linux/resources/memory/swappiness", E)]),
    ([("/linux/resources/cpu", {"shares": 1})], [("/linux/resources/cpu/shares", W)]),
    ([("/linux/resources/cpu", {"quota": 999})], [("/linux/resources/cpu/quota", E)]),
    ([("/linux/resources/cpu", {"period": 1_000_001})], [("/linux/resources/cpu/period", E)]),
    ([("/linux/resources/cpu", {"cpus": "0-"})], [("/linux/resources/cpu/cpus", E)]),
    (
        [("/ociVersion", "1.1.0"), ("/linux/resources/cpu", {"quota": 5000, "burst": 5001, "idle": 2})],
        [("/linux/resources/cpu/idle", E), ("/linux/resources/cpu/burst", E)],
    ),
    (
        [("/linux/resources/cpu", {"realtimeRuntime": 2, "realtimePeriod": 1})],
        [("/linux/resources/cpu/realtimeRuntime", E)],
    ),
    ([("/linux/resources/pids", {"limit": -2})], [("/linux/resources/pids/limit", E)]),
    (
        [("/linux/resources/hugepageLimits", [{"pageSize": "2M", "limit": 0}])],
        [("/linux/resources/hugepageLimits/0/pageSize", E)],
    ),
    (
        [("/linux/resources/blockIO", {"weightDevice": [{"major": 8, "minor": 0}]})],
        [("/linux/resources/blockIO/weightDevice/0", E)],
    ),
    ([("/linux/resources/rdma", {"mlx5_1": {}})], [("/linux/resources/rdma/mlx5_1", E)]),
    (_seccomp(defaultAction="ALLOW"), [("/linux/seccomp/defaultAction", E)]),
    (_seccomp(architectures=["X86_64"]), [("/linux/seccomp/architectures/0", E)]),
    (_seccomp(flags=["LOG"]), [("/linux/seccomp/flags/0", E)]),
    (_seccomp(defaultErrnoRet=1), [("/linux/seccomp/defaultErrnoRet", E)]),
    (_seccomp(listenerMetadata="x"), [("/linux/seccomp/listenerMetadata", E)]),
    (
        _seccomp(syscalls=[{"names": [], "action": "SCMP_ACT_KILL", "errnoRet": 1}]),
        [("/linux/seccomp/syscalls/0/errnoRet", E), ("/linux/seccomp/syscalls/0/names", E)],
    ),
    (
        _seccomp(syscalls=[{"names": ["a"], "action": "SCMP_ACT_NOTIFY"}]),
        [("/linux/seccomp/syscalls/0/action", E)],
    ),
    (
        _seccomp(
            syscalls=[
                {"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_IS"}]}
            ]
        ),
        [("/linux/seccomp/syscalls/0/args/0/op", E), ("/linux/seccomp/syscalls/0/args/0/index", E)],
    ),
    (
        [("/ociVersion", "1.3.0"), ("/linux/namespaces/1", {"type": "cgroup"}), ("/linux/netDevices", {"eth0": {}})],
        [("/linux/netDevices", E)],
    ),
    (
        [("/ociVersion", "1.1.0"), ("/process/ioPriority", {"class": "IOPRIO_CLASS_RT", "priority": 8})],
        [("/process/ioPriority/priority", E)],
    ),
    (
        [("/ociVersion", "1.1.0"), ("/process/scheduler", {"policy": "FIFO", "nice": 20})],
        [("/process/scheduler/policy", E), ("/process/scheduler/nice", E)],
    ),
]

GOOD: list[list[tuple[str, Any]]] = [
    [("/ociVersion", "1.0.2-dev")],
    [("/ociVersion", "1.1.0"), ("/domainname", "d")],
    [("/process/args", ["sh", ""]), ("/process/env", ["A=", "B=c=d", "C=a\nb"])],
    [("/process/consoleSize", {"height": 1, "width": 1}), ("/process/terminal", True)],
    [("/process/oomScoreAdj", -1000)],
    [
        (
            "/process/rlimits",
            [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}, {"type": "RLIMIT_AS", "soft": 0, "hard": 1}],
        )
    ],
    [("/process/capabilities/ambient", ["CAP_CHOWN"]), ("/process/capabilities/inheritable", ["CAP_CHOWN"])],
    [("/hostname", "h" * 64)],
    [("/linux/namespaces/3", {"type": "cgroup"}), ("/hostname", "")],
    _mount(source="/", options=["rbind", "ro"]),
    _mount(source="data", options=["bind"]),
    _mount(source="/nonexistent-source", type="ext4"),
    _mount(uidMappings=MAP, gidMappings=MAP, source="/", options=["bind", "idmap"]),
    [*USER, *_mount(source="/", options=["bind", "ridmap"])],
    USER,
    [*USER, ("/linux/uidMappings/-", {"containerID": 100, "hostID": 1100, "size": 1})],
    [("/linux/namespaces/-", {"type": "user", "path": "/proc/1/ns/user"})],
    [("/linux/sysctl", {"net.ipv4.ip_forward": "1", "kernel.shmmax": "1", "fs.mqueue.msg_max": "1"})],
    [("/linux/sysctl", {"kernel.domainname": "d", "kernel/sem": "1"})],
    [("/linux/devices", [{"path": "/dev/p", "type": "p"}, {"path": "/c", "type": "u", "major": 1, "minor": 0}])],
    [("/linux/cgroupsPath", "/a..b/..c/d..")],
    [("/linux/cgroupsPath", "system.slice:a:b")],
    [("/linux/resources/memory", {"limit": 8, "swap": 8, "reservation": 9})],
    [("/linux/resources/memory", {"limit": -1, "swap": -1})],
    [("/linux/resources/cpu", {"shares": 2, "quota": -1, "period": 1000, "cpus": "0-3,7", "mems": ""})],
    [("/linux/resources/pids", {"limit": 0})],
    [("/linux/resources/hugepageLimits", [{"pageSize": "64KB", "limit": 0}])],
    _seccomp(defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=38),
    _seccomp(syscalls=[{"names": ["a"], "action": "SCMP_ACT_NOTIFY"}], listenerPath="/s", listenerMetadata="m"),
    [("/hooks", {"createRuntime": [{"path": "/h", "timeout": 1}]})],
]


@pytest.mark.parametrize(("changes", "expected"), BAD, ids=lambda value: json.dumps(value)[:90])
def test_a_broken_rule_is_found_where_it_is(changes: list[tuple[str, Any]], expected: list[tuple[str, str]]) -> None:
    """One change to a good bundle gives exactly the findings of the rule that it breaks."""
    config = _config(*changes)
    assert _places(rule_problems(config)) == expected


@pytest.mark.parametrize(
    ("place", "bad", "good"),
    [
        ("/process/scheduler/flags/0", "RECLAIM", "SCHED_FLAG_RECLAIM"),
        ("/process/ioPriority/class", "BE", "IOPRIO_CLASS_BE"),
        ("/linux/personality/domain", "LINUX64", "LINUX32"),
        ("/linux/seccomp/syscalls/0/action", "KILL", "SCMP_ACT_KILL"),
        ("/linux/memoryPolicy/mode", "BIND", "MPOL_BIND"),
        ("/linux/memoryPolicy/flags/0", "MPOL_STATIC", "MPOL_F_STATIC_NODES"),
        ("/linux/gidMappings/0/size", 0, 1),
        ("/mounts/0/uidMappings/0/size", 0, 1),
        ("/mounts/0/gidMappings/0/size", 0, 1),
        ("/linux/resources/memory/reservation", -2, -1),
        ("/linux/resources/memory/swap", -2, -1),
        ("/linux/resources/memory/kernel", -2, -1),
        ("/linux/resources/memory/kernelTCP", -2, -1),
        ("/process/execCPUAffinity/initial", "0,,1", "0,1"),
        ("/process/execCPUAffinity/final", "a", "3"),
        ("/linux/resources/cpu/mems", "0-1-2", "0-1"),
        ("/linux/memoryPolicy/nodes", "all", "0-3,7"),
        ("/linux/intelRdt/memBwSchema", "L3:0=f", "MB:0=20"),
        ("/linux/intelRdt/schemata/0", "a\nb", "a"),
        ("/root/path", "a\0", "a"),
        ("/hostname", "a\0", "a"),
        ("/domainname", "a\0", "a"),
        ("/process/cwd", "/a\0", "/a"),
        ("/process/env/0", "A=\0", "A="),
        ("/mounts/0/destination", "/a\0", "/a"),
        ("/mounts/0/source", "/a\0", "/a"),
        ("/mounts/0/options/0", "ro\0", "ro"),
        ("/hooks/prestart/0/path", "/a\0", "/a"),
        ("/linux/cgroupsPath", "/a\0", "/a"),
    ],
)
def test_a_single_value_is_checked_in_each_of_its_places(place: str, bad: object, good: object) -> None:
    """Each row of the tables finds its bad value and lets the good one pass."""
    document: dict[str, Any] = {}
    pointer.set(document, place.replace("/0", "/-"), bad)
    assert place in _places_of_values(document)
    pointer.set(document, place, good)
    assert place not in _places_of_values(document)


def _places_of_values(document: dict[str, Any]) -> list[str]:
    findings = rule_problems(Config(document))
    return [each.pointer for each in findings if not each.message.startswith("needs a namespace")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("net.core.somaxconn", "network"),
        ("fs.mqueue.msg_max", "ipc"),
        ("kernel.auto_msgmni", "ipc"),
        ("kernel.msgmax", "ipc"),
        ("kernel.msgmnb", "ipc"),
        ("kernel.msgmni", "ipc"),
        ("kernel.msg_next_id", "ipc"),
        ("kernel.sem", "ipc"),
        ("kernel.sem_next_id", "ipc"),
        ("kernel.shmall", "ipc"),
        ("kernel.shmmax", "ipc"),
        ("kernel.shmmni", "ipc"),
        ("kernel.shm_next_id", "ipc"),
        ("kernel.shm_rmid_forced", "ipc"),
        ("kernel.domainname", "uts"),
        ("user.max_user_namespaces", "user"),
    ],
)
def test_a_sysctl_needs_its_own_namespace(name: str, kind: str) -> None:
    """With all namespaces but its own a sysctl is an error that names the one; with it alone there is none."""
    place = f"/linux/sysctl/{name}"
    others = [each for each in USER_NS if each["type"] != kind]
    document = {"linux": {"sysctl": {name: "1"}, "namespaces": others}}
    (finding,) = [each for each in rule_problems(Config(document)) if each.pointer == place]
    assert finding.message.startswith(f"needs a namespace of type {kind},")
    document["linux"]["namespaces"] = [{"type": kind}]
    assert place not in [each.pointer for each in rule_problems(Config(document))]


@pytest.mark.parametrize(
    ("place", "value", "kind"),
    [
        ("/hostname", "h", "uts"),
        ("/domainname", "d", "uts"),
        ("/linux/timeOffsets", {"monotonic": {}}, "time"),
        ("/linux/uidMappings", MAP, "user"),
        ("/linux/gidMappings", MAP, "user"),
        ("/linux/netDevices", {"eth0": {}}, "network"),
        ("/linux/maskedPaths", ["/a"], "mount"),
        ("/linux/readonlyPaths", ["/a"], "mount"),
    ],
)
def test_what_belongs_to_a_namespace_needs_it(place: str, value: object, kind: str) -> None:
    """Without a namespace of its kind a field is an error, with it none."""
    document: dict[str, Any] = {}
    pointer.set(document, place, value)
    wanted = Finding(place, f"needs a namespace of type {kind}; add it or take this out", "error")
    assert wanted in rule_problems(Config(document))
    pointer.set(document, "/linux/namespaces", [{"type": kind}])
    assert place not in [each.pointer for each in rule_problems(Config(document))]


@pytest.mark.parametrize("changes", GOOD, ids=lambda value: json.dumps(value)[:90])
def test_what_the_spec_allows_gives_no_finding(changes: list[tuple[str, Any]]) -> None:
    """Values at the edge of each rule pass, by rules and types alike."""
    config = _config(*changes)
    assert rule_problems(config) == []
    assert type_problems(config.document) == []


def test_each_message_says_what_to_do_in_one_line() -> None:
    """No finding is empty, and none breaks a line."""
    for changes, _ in BAD:
        for finding in rule_problems(_config(*changes)):
            assert len(finding.message) > 15
            assert "\n" not in str(finding)


def test_a_wrong_version_names_the_field_and_the_version() -> None:
    """The warning names what needs the newer version, so that either can be changed."""
    (finding,) = rule_problems(_config(("/linux/netDevices", {})))
    assert finding.message == "1.0.2 does not know /linux/netDevices; write 1.3.0 or take the field out"


# validate: on disk


def test_a_good_bundle_has_no_findings(tmp_path: Path) -> None:
    """A saved recipe with its rootfs directory is clean."""
    (tmp_path / "rootfs").mkdir()
    _config().save(tmp_path / "config.json")
    assert validate(tmp_path) == []


def test_paths_are_looked_for_from_the_bundle(tmp_path: Path) -> None:
    """A missing rootfs is an error, a missing relative bind source a warning, both from the bundle directory."""
    _config(*_mount(source="data", options=["bind"])).save(tmp_path / "config.json")
    assert _places(validate(tmp_path)) == [("/root/path", "error"), ("/mounts/6/source", "warning")]
    (tmp_path / "rootfs").touch()
    (tmp_path / "data").touch()
    (finding,) = validate(str(tmp_path))
    assert finding.message == f"{tmp_path}/rootfs is not a directory; correct the path"


def test_an_absolute_rootfs_need_not_be_in_the_bundle(tmp_path: Path) -> None:
    """root.path may be absolute."""
    (tmp_path / "b").mkdir()
    _config(("/root/path", str(tmp_path))).save(tmp_path / "b" / "config.json")
    assert validate(tmp_path / "b") == []


@pytest.mark.parametrize("path", ["x" * 5000, "\ud800", "a/" * 3000])
def test_paths_that_no_file_system_takes_are_told(tmp_path: Path, path: str) -> None:
    """A path that cannot be looked up is a finding, not a traceback."""
    config = _config(("/root/path", path), *_mount(source="/" + path, options=["bind"]))
    assert ("/root/path", E) in _places(rule_problems(config, tmp_path))


def test_type_errors_come_first_and_once(tmp_path: Path) -> None:
    """A value of a wrong type is told as such and not again by a rule."""
    (tmp_path / "rootfs").mkdir()
    _config(("/root", 5), ("/process/cwd", 1), ("/process/env", ["A"])).save(tmp_path / "config.json")
    assert _places(validate(tmp_path)) == [("/root", E), ("/process/cwd", E), ("/process/env/0", E)]


@pytest.mark.parametrize(("text", "reason"), [(None, "cannot be read"), ("{", "not JSON"), ("[]", "top level")])
def test_what_cannot_be_read_is_an_input_error(tmp_path: Path, text: str | None, reason: str) -> None:
    """No file, no JSON and no object are told with the path."""
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        validate(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)
