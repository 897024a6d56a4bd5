"""Which version of the runtime-spec a config.json needs, from the fields that it uses.

A runtime may refuse a version that it does not know, whatever the fields: crun 1.8.1 refuses 1.2.0 and later. So a
bundle should carry the oldest version that its fields need.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from harness.oci.pointer import select

OLDEST = "1.0.2"  # older 1.0 releases bring nothing: each runtime that takes 1.0.0 takes 1.0.2 too


class Need(Struct, frozen=True):
    """`pattern` (see pointer.select) came with `version`; with `values`, only these values of it did."""

    version: str
    pattern: str
    values: frozenset[str] | None = None


# Read from the texts of the tags v1.0.2, v1.1.0, v1.2.0, v1.2.1 and v1.3.0 of runtime-spec and its ChangeLog.
# Not in here: relative mount destinations, which the text allows from 1.2.0 on but runtimes always took.
NEEDS = (
    Need("1.1.0", "/domainname"),
    Need("1.1.0", "/mounts/*/uidMappings"),
    Need("1.1.0", "/mounts/*/gidMappings"),
    Need("1.1.0", "/process/scheduler"),
    Need("1.1.0", "/process/ioPriority"),
    Need("1.1.0", "/linux/namespaces/*/type", frozenset({"time"})),
    Need("1.1.0", "/linux/timeOffsets"),
    Need("1.1.0", "/linux/resources/unified"),
    Need("1.1.0", "/linux/resources/cpu/burst"),
    Need("1.1.0", "/linux/resources/cpu/idle"),
    Need("1.1.0", "/linux/resources/memory/checkBeforeUpdate"),
    Need("1.1.0", "/linux/intelRdt/enableCMT"),
    Need("1.1.0", "/linux/intelRdt/enableMBM"),
    Need("1.1.0", "/linux/seccomp/defaultErrnoRet"),
    Need("1.1.0", "/linux/seccomp/listenerPath"),
    Need("1.1.0", "/linux/seccomp/listenerMetadata"),
    Need("1.1.0", "/linux/seccomp/syscalls/*/errnoRet"),
    Need(
        "1.1.0",
        "/linux/seccomp/defaultAction",
        frozenset({"SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_NOTIFY"}),
    ),
    Need(
        "1.1.0",
        "/linux/seccomp/syscalls/*/action",
        frozenset({"SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_NOTIFY"}),
    ),
    Need("1.1.0", "/linux/seccomp/flags/*", frozenset({"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"})),
    Need("1.1.0", "/linux/seccomp/architectures/*", frozenset({"SCMP_ARCH_RISCV64"})),
    Need("1.1.0", "/zos"),
    Need("1.2.0", "/mounts/*/options/*", frozenset({"idmap", "ridmap"})),
    Need("1.2.1", "/process/execCPUAffinity"),
    Need(
        "1.2.1",
        "/linux/seccomp/architectures/*",
        frozenset({"SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB"}),
    ),
    Need("1.2.1", "/windows/resources/cpu/affinity"),
    Need("1.2.1", "/zos/namespaces"),
    Need("1.3.0", "/linux/netDevices"),
    Need("1.3.0", "/linux/memoryPolicy"),
    Need("1.3.0", "/linux/intelRdt/schemata"),
    Need("1.3.0", "/linux/intelRdt/enableMonitoring"),
    Need("1.3.0", "/vm/hwConfig"),
    Need("1.3.0", "/vm/hwconfig"),  # the spelling of the Go type
    Need("1.3.0", "/freebsd"),
)


def version_needs(document: dict[str, Any]) -> list[tuple[str, str]]:
    """(pointer, version) of each field that needs more than OLDEST, in the table's order. Never raises."""
    return [
        (pointer, need.version)
        for need in NEEDS
        for kind in (str, bool, int, float, list, dict)  # all but null, which is as good as absent
        for pointer, value in select(document, need.pattern, kind)
        if need.values is None or (isinstance(value, str) and value in need.values)
    ]


def minimum_version(document: dict[str, Any]) -> str:
    """The oldest ociVersion that the fields of `document` need, at least "1.0.2". Never raises."""
    return max([OLDEST, *(version for _, version in version_needs(document))], key=release)


def release(version: str) -> tuple[int, ...]:
    """`1.0.2-dev` -> (1, 0, 2), to compare by. Raises ValueError for text that is no version."""
    return tuple(int(part) for part in version.partition("+")[0].partition("-")[0].split("."))
