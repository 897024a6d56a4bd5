"""config-linux.md: sysctl, masked and readonly paths, rootfs propagation, personality, IntelRdt."""

from __future__ import annotations

import errno
import os

import pytest

from harness.compat.conformance.claims import claim
from harness.compat.conformance.lab import MOUNTS, NAMESPACES, Lab, opened, read
from harness.kernel import shim
from harness.runtime.container import Container

MASKED = "config-linux.md#configLinuxMaskedPaths"
READONLY = "config-linux.md#configLinuxReadonlyPaths"
PROPAGATION = "config-linux.md#configLinuxRootfsMountPropagation"
SYSCTLS = {
    "net.core.somaxconn": ("333", "network"),
    "kernel.msgmax": ("9001", "ipc"),
    "fs.mqueue.msg_max": ("11", "ipc"),
}
MS_SHARED = 1 << 20  # mount(2)


@claim(
    "config-linux.md#configLinuxSysctl",
    "allows kernel parameters to be modified at runtime for the container.",
    "/linux/sysctl/{name}",
)
@pytest.mark.parametrize("name", list(SYSCTLS))
def test_sysctl(lab: Lab, name: str) -> None:
    value, kind = SYSCTLS[name]
    question = read("/proc/sys/" + name.replace(".", "/"))
    patch = {"linux": {"namespaces": [*NAMESPACES, {"type": kind}], "sysctl": {name: value}}}
    assert lab.run(patch, question).text(question) == value + "\n"


@claim(
    MASKED,
    "will mask over the provided paths inside the container so that they cannot be read.",
    "/linux/maskedPaths/=~1secret",
)
def test_masked_file(lab: Lab) -> None:
    question = read("/secret")
    assert lab.run({"linux": {"maskedPaths": ["/secret", "/no/such/path"]}}, question).answers[question][1] == ""


@claim(
    MASKED,
    "will mask over the provided paths inside the container so that they cannot be read.",
    "/linux/maskedPaths/=~1secrets",
)
def test_masked_directory(lab: Lab) -> None:
    question = opened("/secrets/file")
    assert lab.run({"linux": {"maskedPaths": ["/secrets"]}}, question).result(question) == -errno.ENOENT


@claim(READONLY, "will set the provided paths as readonly inside the container.", "/linux/readonlyPaths/0")
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_readonly_path(lab: Lab, kind: str) -> None:
    path = {"directory": "/writable", "file": "/writable/file"}[kind]
    write, look = opened("/writable/file", os.O_WRONLY), read("/writable/file")
    running = lab.run({"linux": {"readonlyPaths": [path, "/no/such/path"]}}, write, look)
    assert running.result(write) == -errno.EROFS
    assert running.text(look) == "plain\n"


ROOT_MOUNT = {"shared": {"shared"}, "slave": {"master"}, "private": set[str](), "unbindable": {"unbindable"}}


@claim(
    PROPAGATION, "Its value is either `shared`, `slave`, `private` or `unbindable`.", "other:/linux/rootfsPropagation"
)
@pytest.mark.parametrize("value", list(ROOT_MOUNT))
def test_rootfs_propagation(lab: Lab, value: str) -> None:
    """The bundle's rootfs is a shared mount here, so that each value makes a difference."""

    def share(container: Container) -> None:
        lab.session.namespace.call(shim.mount, None, str(container.bundle.path / "rootfs"), None, MS_SHARED)

    running = lab.run({"linux": {"rootfsPropagation": value}}, MOUNTS, prepare=share)
    found = {word.partition(":")[0] for word in running.mount("/").optional}
    wanted = ROOT_MOUNT[value]
    # a shared one may be the slave of another group as well: it is a new group
    assert found == wanted or (value == "shared" and found == {"shared", "master"})


@claim("config-linux.md#configLinuxPersonality", "sets the Linux execution personality.", "/linux/personality")
def test_personality(lab: Lab) -> None:
    question = read("/proc/self/personality")
    running = lab.run({"linux": {"personality": {"domain": "LINUX32"}}}, question)
    assert int(running.text(question), 16) & 0xFF == 8  # PER_LINUX32


@claim(
    "config-linux.md#configLinuxIntelRdt",
    "If no mounted `resctrl` pseudo-filesystem is available in the runtime mount namespace, the runtime MUST "
    "generate an "
    "error.",
    "/linux/intelRdt",
    needs=("absent:/sys/fs/resctrl/schemata",),
)
def test_intel_rdt_without_resctrl(lab: Lab) -> None:
    lab.refused({"linux": {"intelRdt": {"closID": "oci-harness", "l3CacheSchema": "L3:0=1"}}})
