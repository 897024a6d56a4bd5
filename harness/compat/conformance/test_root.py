"""config.md: specification version, root, hostname, domainname, annotations, extensibility and valid values."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from harness.compat.conformance.claims import claim
from harness.compat.conformance.lab import DEV, MOUNTS, NAMESPACES, PROC, Lab, build_rootfs, opened, read

ROOT = "config.md#configRoot"
VALID = "config.md#configExtensibility"  # "Valid values" follows it, without an anchor of its own
WRITE = opened("/writable/file", os.O_WRONLY)
UTS = [*NAMESPACES, {"type": "uts"}]


@claim(
    "config.md#configSpecificationVersion",
    "(string, REQUIRED) MUST be in SemVer v2.0.0 format and specifies the version of the Open Container "
    "Initiative Runtime "
    "Specification with which the bundle complies.",
    "/ociVersion",
)
@pytest.mark.parametrize("version", ["one", "1", "01.0.2"])
def test_version_that_is_none(lab: Lab, version: str) -> None:
    lab.refused({"ociVersion": version})


@claim(ROOT, "`path` is either an absolute path or a relative path to the bundle.", "/root/path")
def test_root_path_absolute(lab: Lab) -> None:
    """Another directory than the bundle's rootfs: what is there is what the container sees.

    It is on the file system of the workspace, which may be one without devices, as systemd's /run is; so /dev is not.
    """
    other = lab.session.workspace.path / "rootfs" / f"absolute-{lab.runtime.name}"
    if not other.exists():
        build_rootfs(other)
        (other / "which").write_text("absolute")
        (other / "which").chmod(0o644)
    question = read("/which")
    patch = {"root": {"path": str(other)}, "mounts": [PROC, *DEV]}
    assert lab.run(patch, question).text(question) == "absolute"


@claim(ROOT, "`path` is either an absolute path or a relative path to the bundle.", "other:/root/path")
def test_root_path_relative(lab: Lab) -> None:
    question = read("/secret")
    assert lab.run({"root": {"path": "rootfs"}}, question).text(question) == "plain\n"


@claim(ROOT, "A directory MUST exist at the path declared by the field.", "/root/path")
def test_root_path_missing(lab: Lab) -> None:
    lab.refused({"root": {"path": "no-such-directory"}})


@claim(
    ROOT,
    "If true then the root filesystem MUST be read-only inside the container, defaults to false.",
    "/root/readonly",
)
def test_root_readonly(lab: Lab) -> None:
    running = lab.run({"root": {"readonly": True}}, WRITE, MOUNTS)
    assert running.result(WRITE) == -errno.EROFS
    assert "ro" in running.mount("/").options


@claim(
    ROOT,
    "If true then the root filesystem MUST be read-only inside the container, defaults to false.",
    "add:/root/readonly",
)
def test_root_writable_by_default(lab: Lab) -> None:
    assert lab.run({}, WRITE).result(WRITE) >= 0


@claim(
    "config.md#configHostname",
    "specifies the container's hostname as seen by processes running inside the container.",
    "/hostname",
)
def test_hostname(lab: Lab) -> None:
    question = read("/proc/sys/kernel/hostname")
    assert (
        lab.run({"hostname": "mrsdalloway", "linux": {"namespaces": UTS}}, question).text(question) == "mrsdalloway\n"
    )


@claim(
    "config.md#configDomainname",
    "specifies the container's domainname as seen by processes running inside the container.",
    "/domainname",
)
def test_domainname(lab: Lab) -> None:
    question = read("/proc/sys/kernel/domainname")
    patch = {"domainname": "foobarbaz.test", "linux": {"namespaces": UTS}}
    assert lab.run(patch, question).text(question) == "foobarbaz.test\n"


@claim(
    "config.md#configAnnotations",
    "Runtimes MUST handle unknown annotation keys like any other unknown property.",
    "refuse:/annotations",
)
def test_unknown_annotation(lab: Lab) -> None:
    lab.run({"annotations": {"org.opencontainers.nobody.knows": "1", "without-a-domain": "2"}})


@claim(
    "config.md#configExtensibility",
    "Runtimes MAY log unknown properties but MUST otherwise ignore them.",
    "refuse:{pointer}/unknownToAll",
)
@pytest.mark.parametrize("pointer", ["", "/process", "/process/user", "/root", "/linux", "/mounts/0"])
def test_unknown_property(lab: Lab, pointer: str) -> None:
    patch: dict[str, Any] = {"mounts": [{**PROC, "unknownToAll": 1}]} if pointer == "/mounts/0" else {"unknownToAll": 1}
    for name in reversed([] if pointer == "/mounts/0" else pointer.split("/")[1:]):
        patch = {name: patch}
    lab.run(patch)


INVALID: dict[str, tuple[str, dict[str, Any]]] = {
    "namespace-type": ("/linux/namespaces/type=bogus", {"linux": {"namespaces": [*NAMESPACES, {"type": "bogus"}]}}),
    "rootfs-propagation": ("/linux/rootfsPropagation", {"linux": {"rootfsPropagation": "bogus"}}),
    "seccomp-action": ("/linux/seccomp", {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_BOGUS"}}}),
    "seccomp-architecture": (
        "/linux/seccomp",
        {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_BOGUS"]}}},
    ),
    "seccomp-operator": (
        "/linux/seccomp",
        {
            "linux": {
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [
                        {
                            "names": ["getpgid"],
                            "action": "SCMP_ACT_ERRNO",
                            "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_BOGUS"}],
                        }
                    ],
                }
            }
        },
    ),
    "device-type": (
        "/linux/devices",
        {"linux": {"devices": [{"type": "x", "path": "/dev/x", "major": 1, "minor": 5}]}},
    ),
    "personality": ("/linux/personality", {"linux": {"personality": {"domain": "BOGUS"}}}),
    "scheduler-policy": ("/process/scheduler", {"process": {"scheduler": {"policy": "SCHED_BOGUS"}}}),
    "io-priority-class": ("/process/ioPriority", {"process": {"ioPriority": {"class": "BOGUS", "priority": 0}}}),
    "memory-swappiness": ("/linux/resources/memory", {"linux": {"resources": {"memory": {"swappiness": 101}}}}),
    "hugepage-size": (
        "/linux/resources/hugepageLimits",
        {"linux": {"resources": {"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}}},
    ),
    "mount-type": (
        "/mounts/type=bogus",
        {"mounts": [PROC, {"destination": "/m", "type": "bogus", "source": "none"}]},
    ),
}


def _invalid() -> list[Any]:
    sentence = "Runtimes MUST generate an error when invalid or unsupported values are encountered."
    return [pytest.param(name, marks=claim(VALID, sentence, field)) for name, (field, _) in INVALID.items()]


@pytest.mark.parametrize("value", _invalid())
def test_invalid_value(lab: Lab, value: str) -> None:
    lab.refused(INVALID[value][1], at_start=value in ("scheduler-policy", "io-priority-class"))
