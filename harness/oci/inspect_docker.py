"""The output of `docker inspect` and `podman inspect`: a container as its engine knows it, with types."""

from __future__ import annotations

from typing import Any

import msgspec

from harness.errors import BundleError
from harness.oci.shape import Int64, shape_problems


class Settings(msgspec.Struct, frozen=True, rename="pascal"):
    """Config: what came from the image and the command line."""

    hostname: str | None = None
    domainname: str | None = None
    user: str | None = None
    tty: bool | None = None
    env: list[str] | None = None
    cmd: Any = None  # a list; old podman a string
    entrypoint: Any = None  # a list; podman before 5 a string
    working_dir: str | None = None


class MountPoint(msgspec.Struct, frozen=True, rename="pascal"):
    """Mounts: what the engine made of volumes and binds."""

    destination: str
    type: str | None = None
    source: str | None = None
    mode: str | None = None
    rw: bool | None = msgspec.field(name="RW", default=None)
    propagation: str | None = None
    options: list[str] | None = None  # podman only


class TmpfsOptions(msgspec.Struct, frozen=True, rename="pascal"):
    size_bytes: Int64 | None = None
    mode: Int64 | None = None  # permission bits


class WantedMount(msgspec.Struct, frozen=True, rename="pascal"):
    """HostConfig.Mounts: what --mount asked for."""

    target: str
    type: str | None = None
    source: str | None = None
    read_only: bool | None = None
    tmpfs_options: TmpfsOptions | None = None


class DeviceMapping(msgspec.Struct, frozen=True, rename="pascal"):
    path_on_host: str
    path_in_container: str | None = None
    cgroup_permissions: str | None = None


class Ulimit(msgspec.Struct, frozen=True, rename="pascal"):
    name: str
    soft: Int64
    hard: Int64


class WeightDevice(msgspec.Struct, frozen=True, rename="pascal"):
    path: str
    weight: Int64


class ThrottleDevice(msgspec.Struct, frozen=True, rename="pascal"):
    path: str
    rate: Int64


class HostConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """HostConfig: limits and isolation."""

    binds: list[str] | None = None
    mounts: list[WantedMount] | None = None
    tmpfs: dict[str, str] | None = None
    shm_size: Int64 | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    privileged: bool | None = None
    readonly_rootfs: bool | None = None
    security_opt: list[str] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    sysctls: dict[str, str] | None = None
    group_add: list[str] | None = None
    init: bool | None = None
    oom_score_adj: Int64 | None = None
    network_mode: str | None = None
    pid_mode: str | None = None
    ipc_mode: str | None = None
    uts_mode: str | None = msgspec.field(name="UTSMode", default=None)
    userns_mode: str | None = None
    cgroupns_mode: str | None = None
    cgroup_mode: str | None = None  # podman's word for it
    cgroup_parent: str | None = None
    memory: Int64 | None = None  # bytes
    memory_swap: Int64 | None = None  # bytes, memory and swap together
    memory_reservation: Int64 | None = None  # bytes
    memory_swappiness: Int64 | None = None
    oom_kill_disable: bool | None = None
    nano_cpus: Int64 | None = None
    cpu_shares: Int64 | None = None
    cpu_quota: Int64 | None = None  # us
    cpu_period: Int64 | None = None  # us
    cpu_realtime_runtime: Int64 | None = None  # us
    cpu_realtime_period: Int64 | None = None  # us
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids_limit: Int64 | None = None
    ulimits: list[Ulimit] | None = None
    blkio_weight: Int64 | None = None
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = msgspec.field(name="BlkioDeviceReadIOps", default=None)
    blkio_device_write_iops: list[ThrottleDevice] | None = msgspec.field(name="BlkioDeviceWriteIOps", default=None)
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[Any] | None = None


class Inspected(msgspec.Struct, frozen=True, rename="pascal"):
    """One container. Source: moby api/types/container InspectResponse, podman libpod/define InspectContainerData."""

    id: str
    config: Settings
    host_config: HostConfig
    path: str | None = None
    args: list[str] | None = None
    mounts: list[MountPoint] | None = None
    graph_driver: dict[str, Any] | None = None
    app_armor_profile: str | None = None
    process_label: str | None = None
    mount_label: str | None = None
    hostname_path: str | None = None
    hosts_path: str | None = None
    resolv_conf_path: str | None = None
    rootfs: str | None = None  # podman: a directory that was named with --rootfs
    effective_caps: list[str] | None = None  # podman only
    bounding_caps: list[str] | None = None  # podman only
    oci_config_path: str | None = msgspec.field(name="OCIConfigPath", default=None)  # podman only
    oci_runtime: str | None = msgspec.field(name="OCIRuntime", default=None)  # podman only

    @property
    def engine(self) -> str:
        return "docker" if self.oci_runtime is None else "podman"


def parse_inspected(document: Any, source: str, place: tuple[str, ...]) -> Inspected:
    """One element of the output. Raises BundleError with `source` and every type error; pointers begin with `place`."""
    problems = shape_problems(document, Inspected, place)
    if problems:
        raise BundleError(source, problems)
    return msgspec.convert(document, Inspected)
