"""config-linux.md: namespaces new, inherited and joined, user namespace mappings, time offsets."""

from __future__ import annotations

import os
from typing import Any

import pytest

from harness.compat.conformance.claims import claim
from harness.compat.conformance.lab import DEV, NAMESPACES, PROC, STATUS, Lab, Running, namespace, read
from harness.compat.conformance.needs import NAMESPACE_LINKS
from harness.kernel.namespaces import namespaces_of

SECTION = "config-linux.md#configLinuxNamespaces"
MAPPINGS = "config-linux.md#configLinuxUserNamespaceMappings"
KINDS = {kind: name for kind, name in NAMESPACE_LINKS.items() if kind != "user"}
OTHERS = [kind for kind in KINDS if kind not in ("pid", "mount")]  # those that BASE does not have
MAPPING = {"containerID": 0, "hostID": 100000, "size": 2000}
# Devices and their links are made in a file system of the container's own: its root cannot write to a root of ours.
USER: dict[str, Any] = {
    "mounts": [PROC, DEV[0]],
    "linux": {
        "namespaces": [*NAMESPACES, {"type": "user"}],
        "uidMappings": [MAPPING],
        "gidMappings": [{**MAPPING, "hostID": 200000}],
    },
}


# Without one for pids: how a runtime gets into both is another matter, see test_new_namespaces_together.
TIME: dict[str, Any] = {"linux": {"namespaces": [{"type": "mount"}, {"type": "time"}]}}


def ours(kind: str) -> str:
    """The runtime's namespace, as a link in /proc would say it: that of this process, which starts the runtime."""
    found = namespaces_of(os.getpid())[KINDS[kind]]
    assert found is not None
    return f"{KINDS[kind]}:[{found.inode}]"


def with_namespaces(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"linux": {"namespaces": [*NAMESPACES, *entries]}}


@claim(
    SECTION,
    "If `path` is not specified, the runtime MUST create a new container namespace of type `type`.",
    "/linux/namespaces/type={kind}",
    needs=("namespace:{kind}",),
)
@pytest.mark.parametrize("kind", list(KINDS))
def test_new_namespace(lab: Lab, kind: str) -> None:
    question = namespace(KINDS[kind])
    patch: dict[str, Any] = {} if kind in ("pid", "mount") else with_namespaces({"type": kind})
    if kind == "time":
        patch = TIME
    own = ours(kind)
    if kind == "mount":  # the runtime runs in the session's
        own = str(lab.session.namespace.call(os.readlink, "/proc/thread-self/ns/mnt"))
    assert lab.run(patch, question).text(question) != own


@claim(
    SECTION,
    "If `path` is not specified, the runtime MUST create a new container namespace of type `type`.",
    *(f"/linux/namespaces/type={kind}" for kind in KINDS),
    needs=("namespace:time",),
)
def test_new_namespaces_together(lab: Lab) -> None:
    questions = {kind: namespace(name) for kind, name in KINDS.items() if kind != "mount"}
    running = lab.run({"linux": {"namespaces": [{"type": kind} for kind in KINDS]}}, *questions.values())
    assert [kind for kind, question in questions.items() if running.text(question) == ours(kind)] == []


@claim(
    SECTION,
    "If a namespace type is not specified in the `namespaces` array, the container MUST inherit the runtime "
    "namespace of "
    "that type.",
    "add:/linux/namespaces/type={kind}",
    needs=("namespace:{kind}",),
)
@pytest.mark.parametrize("kind", OTHERS)
def test_inherited_namespace(lab: Lab, kind: str) -> None:
    question = namespace(KINDS[kind])
    assert lab.run({}, question).text(question) == ours(kind)


@claim(
    SECTION,
    "The runtime MUST place the container process in the namespace associated with that `path`.",
    "/linux/namespaces/type={kind}/path",
    needs=("host-process:",),
)
@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "cgroup"])
def test_joined_namespace(lab: Lab, kind: str) -> None:
    """That of a container which has one of each."""
    question = namespace(KINDS[kind])
    new = [{"type": each} for each in ("network", "ipc", "uts", "cgroup")]
    other = lab.share(with_namespaces(*new), *(namespace(KINDS[each]) for each in KINDS if each != "time"))
    entry = {"type": kind, "path": f"/proc/{other.pid}/ns/{KINDS[kind]}"}
    patch = {"linux": {"namespaces": [*(each for each in NAMESPACES if each["type"] != kind), entry]}}
    assert lab.run(patch, question).text(question) == other.text(question)


@claim(
    SECTION,
    "The runtime MUST generate an error if `path` is not associated with a namespace of type `type`.",
    "/linux/namespaces/type=network/path",
)
@pytest.mark.parametrize("path", ["another-type", "regular-file", "missing"])
def test_joined_namespace_of_another_type(lab: Lab, path: str) -> None:
    paths = {"another-type": "/proc/self/ns/ipc", "regular-file": "/etc/passwd", "missing": "/no/such/namespace"}
    lab.refused(with_namespaces({"type": "network", "path": paths[path]}))


@claim(
    SECTION,
    "This value MUST be an absolute path in the runtime mount namespace.",
    "/linux/namespaces/type=network/path",
)
def test_joined_namespace_relative(lab: Lab) -> None:
    """Relative to wherever the runtime is started, this one would lead to its own."""
    lab.refused(with_namespaces({"type": "network", "path": "../../../../../../../../proc/self/ns/net"}))


@claim(
    SECTION,
    "If a `namespaces` field contains duplicated namespaces with same `type`, the runtime MUST generate an error.",
    "/linux/namespaces/3",
)
def test_namespace_twice(lab: Lab) -> None:
    lab.refused(with_namespaces({"type": "network"}, {"type": "network"}))


# the user namespace


def mapped(lab: Lab, name: str) -> tuple[Running, list[list[str]]]:
    question = read(f"/proc/self/{name}")
    running = lab.run(USER, question)
    return running, [line.split() for line in running.text(question).splitlines()]


@claim(
    SECTION,
    "the container will be able to remap user and group IDs from the host to local users and groups within the "
    "container.",
    "/linux/namespaces/type=user",
)
def test_new_user_namespace(lab: Lab) -> None:
    question = namespace("user")
    own = namespaces_of(os.getpid())["user"]
    assert own is not None
    assert lab.run(USER, question).text(question) != f"user:[{own.inode}]"


@claim(MAPPINGS, "describes the user namespace uid mappings from the host to the container.", "/linux/uidMappings")
def test_uid_mappings(lab: Lab) -> None:
    assert mapped(lab, "uid_map")[1] == [["0", "100000", "2000"]]


@claim(MAPPINGS, "describes the user namespace gid mappings from the host to the container.", "/linux/gidMappings")
def test_gid_mappings(lab: Lab) -> None:
    assert mapped(lab, "gid_map")[1] == [["0", "200000", "2000"]]


@claim(
    MAPPINGS,
    "is the starting uid/gid on the host to be mapped to containerID.",
    "/linux/uidMappings",
    needs=("host-process:",),
)
def test_user_as_seen_outside(lab: Lab) -> None:
    running = lab.run({**USER, "process": {"user": {"uid": 5, "gid": 6}}}, STATUS)
    status = os.stat(f"/proc/{running.pid}")
    assert running.status("Uid").split() == ["5"] * 4
    assert (status.st_uid, status.st_gid) == (100005, 200006)


@claim(
    "config-linux.md#configLinuxTimeOffset",
    "sets the offset for Time Namespace.",
    "/linux/timeOffsets/{clock}",
    needs=("namespace:time",),
)
@pytest.mark.parametrize("clock", ["monotonic", "boottime"])
def test_time_offset(lab: Lab, clock: str) -> None:
    question = read("/proc/self/timens_offsets")
    patch = {"linux": {**TIME["linux"], "timeOffsets": {clock: {"secs": 86400, "nanosecs": 5000}}}}
    lines = [line.split() for line in lab.run(patch, question).text(question).splitlines()]
    assert [clock, "86400", "5000"] in lines
