"""What `RUNTIME features` prints: what is compiled in, not what works on this host.

Source: runtime-spec features.md and features-linux.md up to 1.3.0. None is "unknown", never "no".
"""

from __future__ import annotations

from typing import Any

import msgspec

from harness.oci.document import decode
from harness.oci.shape import shape_problems

_MAX_BYTES = 1024 * 1024


class Enabled(msgspec.Struct, frozen=True, rename="camel"):
    """The shape of apparmor, selinux, netDevices and idmap."""

    enabled: bool | None = None


class CgroupFeatures(msgspec.Struct, frozen=True, rename="camel"):
    """Cgroup support that is compiled in."""

    v1: bool | None = None
    v2: bool | None = None
    systemd: bool | None = None
    systemd_user: bool | None = None
    rdma: bool | None = None


class SeccompFeatures(msgspec.Struct, frozen=True, rename="camel"):
    """Seccomp words that are known."""

    enabled: bool | None = None
    actions: list[str] | None = None
    operators: list[str] | None = None
    archs: list[str] | None = None
    known_flags: list[str] | None = None
    supported_flags: list[str] | None = None  # by this kernel and libseccomp too


class IntelRdtFeatures(msgspec.Struct, frozen=True, rename="camel"):
    """Intel RDT support."""

    enabled: bool | None = None
    schemata: bool | None = None
    monitoring: bool | None = None


class MemoryPolicyFeatures(msgspec.Struct, frozen=True, rename="camel"):
    """Memory policy words that are known."""

    modes: list[str] | None = None
    flags: list[str] | None = None


class MountExtensions(msgspec.Struct, frozen=True, rename="camel"):
    """Extensions of mounts."""

    idmap: Enabled | None = None


class LinuxFeatures(msgspec.Struct, frozen=True, rename="camel"):
    """features-linux.md."""

    namespaces: list[str] | None = None
    capabilities: list[str] | None = None
    cgroup: CgroupFeatures | None = None
    seccomp: SeccompFeatures | None = None
    apparmor: Enabled | None = None
    selinux: Enabled | None = None
    intel_rdt: IntelRdtFeatures | None = None
    memory_policy: MemoryPolicyFeatures | None = None
    mount_extensions: MountExtensions | None = None
    net_devices: Enabled | None = None


class _Printed(msgspec.Struct, frozen=True, rename="camel"):
    """The fields as they are printed."""

    oci_version_min: str
    oci_version_max: str
    hooks: list[str] | None = None
    mount_options: list[str] | None = None
    linux: LinuxFeatures | None = None
    annotations: dict[str, str] | None = None
    potentially_unsafe_config_annotations: list[str] | None = None


class Features(msgspec.Struct, frozen=True):
    """One runtime's features."""

    oci_version_min: str
    oci_version_max: str
    hooks: list[str] | None
    mount_options: list[str] | None
    linux: LinuxFeatures | None
    annotations: dict[str, str]
    potentially_unsafe_config_annotations: list[str] | None  # one that ends with . is a prefix
    document: dict[str, Any]  # all that was printed, unknown fields too


def parse_features(data: bytes) -> Features:
    """Output of `features` -> Features. Raises ValueError with one line that says what is wrong with it."""
    if len(data) > _MAX_BYTES:
        raise ValueError(f"{len(data)} bytes, more than {_MAX_BYTES}, are no features")
    try:
        document = decode(data)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    problems = shape_problems(document, _Printed)
    if problems:
        raise ValueError("; ".join(str(problem) for problem in problems[:3]))
    printed = msgspec.convert(document, _Printed)
    return Features(
        oci_version_min=printed.oci_version_min,
        oci_version_max=printed.oci_version_max,
        hooks=printed.hooks,
        mount_options=printed.mount_options,
        linux=printed.linux,
        annotations=printed.annotations or {},
        potentially_unsafe_config_annotations=printed.potentially_unsafe_config_annotations,
        document=document,
    )
