"""The `linux` part of config.json: namespaces, devices, cgroup resources, seccomp and the rest.

Source: runtime-spec config-linux.md up to 1.3.0. JSON names are the spec's; absent is None.
"""

from __future__ import annotations

import msgspec

from harness.oci.shape import Int64, Uint16, Uint32, Uint64
from harness.oci.spec_process import IdMapping


class Namespace(msgspec.Struct, frozen=True, rename="camel"):
    """Namespaces; without a path a new one is made."""

    type: str
    path: str | None = None


class TimeOffset(msgspec.Struct, frozen=True, rename="camel"):
    """Offset for Time Namespace; both parts are added."""

    secs: Int64 | None = None  # seconds
    nanosecs: Uint32 | None = None  # nanoseconds


class Device(msgspec.Struct, frozen=True, rename="camel"):
    """Devices; a node to make in the container."""

    type: str
    path: str
    major: Int64 | None = None  # needed unless type is p
    minor: Int64 | None = None
    file_mode: Uint32 | None = None  # permission bits, as a decimal number
    uid: Uint32 | None = None
    gid: Uint32 | None = None


class NetDevice(msgspec.Struct, frozen=True, rename="camel"):
    """Network Devices (1.3.0); the key of its map is the name on the host."""

    name: str | None = None


class DeviceRule(msgspec.Struct, frozen=True, rename="camel"):
    """Allowed Device list; rules of the devices controller, in order."""

    allow: bool
    type: str | None = None  # a, b or c
    major: Int64 | None = None
    minor: Int64 | None = None
    access: str | None = None  # letters of rwm


class Memory(msgspec.Struct, frozen=True, rename="camel"):
    """Memory; limits in bytes, -1 is no limit."""

    limit: Int64 | None = None  # bytes
    reservation: Int64 | None = None  # bytes
    swap: Int64 | None = None  # bytes, memory and swap together
    kernel: Int64 | None = None  # bytes, not recommended since 1.1.0
    kernel_tcp: Int64 | None = msgspec.field(name="kernelTCP", default=None)  # bytes
    swappiness: Uint64 | None = None  # 0 to 100
    disable_oom_killer: bool | None = msgspec.field(name="disableOOMKiller", default=None)
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class Cpu(msgspec.Struct, frozen=True, rename="camel"):
    """CPU; times in microseconds."""

    shares: Uint64 | None = None  # relative weight, 1024 is the kernel's default
    quota: Int64 | None = None  # us a period, -1 is no limit
    burst: Uint64 | None = None  # us
    period: Uint64 | None = None  # us
    realtime_runtime: Int64 | None = None  # us
    realtime_period: Uint64 | None = None  # us
    cpus: str | None = None  # list such as 0-3,7
    mems: str | None = None  # list such as 0-3,7
    idle: Int64 | None = None  # 0 or 1


class Pids(msgspec.Struct, frozen=True, rename="camel"):
    """PIDs; -1 is no limit. Before 1.3.0 `limit` was required."""

    limit: Int64 | None = None  # tasks


class WeightDevice(msgspec.Struct, frozen=True, rename="camel"):
    """Block IO; weight of one device."""

    major: Int64
    minor: Int64
    weight: Uint16 | None = None
    leaf_weight: Uint16 | None = None


class ThrottleDevice(msgspec.Struct, frozen=True, rename="camel"):
    """Block IO; rate of one device."""

    major: Int64
    minor: Int64
    rate: Uint64  # bytes or operations a second, as the list says


class BlockIo(msgspec.Struct, frozen=True, rename="camel"):
    """Block IO."""

    weight: Uint16 | None = None
    leaf_weight: Uint16 | None = None
    weight_device: list[WeightDevice] | None = None
    throttle_read_bps_device: list[ThrottleDevice] | None = None
    throttle_write_bps_device: list[ThrottleDevice] | None = None
    throttle_read_iops_device: list[ThrottleDevice] | None = msgspec.field(name="throttleReadIOPSDevice", default=None)
    throttle_write_iops_device: list[ThrottleDevice] | None = msgspec.field(
        name="throttleWriteIOPSDevice", default=None
    )


class HugepageLimit(msgspec.Struct, frozen=True, rename="camel"):
    """Huge page limits."""

    page_size: str  # such as 2MB
    limit: Uint64  # bytes


class InterfacePriority(msgspec.Struct, frozen=True, rename="camel"):
    """Network; net_prio of one interface."""

    name: str
    priority: Uint32


class Network(msgspec.Struct, frozen=True, rename="camel"):
    """Network; the v1 controllers net_cls and net_prio."""

    class_id: Uint32 | None = msgspec.field(name="classID", default=None)
    priorities: list[InterfacePriority] | None = None


class Rdma(msgspec.Struct, frozen=True, rename="camel"):
    """RDMA; limits of one device."""

    hca_handles: Uint32 | None = None
    hca_objects: Uint32 | None = None


class Resources(msgspec.Struct, frozen=True, rename="camel"):
    """Control groups; what is limited."""

    devices: list[DeviceRule] | None = None
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIo | None = msgspec.field(name="blockIO", default=None)
    hugepage_limits: list[HugepageLimit] | None = None
    network: Network | None = None
    rdma: dict[str, Rdma] | None = None  # device name -> limits
    unified: dict[str, str] | None = None  # cgroup v2 file name -> text


class SeccompArg(msgspec.Struct, frozen=True, rename="camel"):
    """Seccomp; one comparison of one syscall argument."""

    index: Uint32
    value: Uint64
    op: str
    value_two: Uint64 | None = None


class Syscall(msgspec.Struct, frozen=True, rename="camel"):
    """Seccomp; one rule."""

    names: list[str]
    action: str
    errno_ret: Uint32 | None = None
    args: list[SeccompArg] | None = None


class Seccomp(msgspec.Struct, frozen=True, rename="camel"):
    """Seccomp."""

    default_action: str
    default_errno_ret: Uint32 | None = None
    architectures: list[str] | None = None
    flags: list[str] | None = None
    listener_path: str | None = None
    listener_metadata: str | None = None
    syscalls: list[Syscall] | None = None


class IntelRdt(msgspec.Struct, frozen=True, rename="camel"):
    """IntelRdt."""

    clos_id: str | None = msgspec.field(name="closID", default=None)
    l3_cache_schema: str | None = None
    mem_bw_schema: str | None = None
    schemata: list[str] | None = None
    enable_monitoring: bool | None = None
    enable_cmt: bool | None = msgspec.field(name="enableCMT", default=None)  # 1.1.0 to 1.2.1 only
    enable_mbm: bool | None = msgspec.field(name="enableMBM", default=None)  # 1.1.0 to 1.2.1 only


class MemoryPolicy(msgspec.Struct, frozen=True, rename="camel"):
    """Memory policy (1.3.0); set_mempolicy(2)."""

    mode: str
    nodes: str | None = None  # list such as 0-3,7
    flags: list[str] | None = None


class Personality(msgspec.Struct, frozen=True, rename="camel"):
    """Personality; personality(2)."""

    domain: str
    flags: list[str] | None = None


class Linux(msgspec.Struct, frozen=True, rename="camel"):
    """The whole `linux` object."""

    namespaces: list[Namespace] | None = None
    uid_mappings: list[IdMapping] | None = None
    gid_mappings: list[IdMapping] | None = None
    time_offsets: dict[str, TimeOffset] | None = None  # clock name -> offset
    devices: list[Device] | None = None
    net_devices: dict[str, NetDevice] | None = None  # name on the host -> device
    cgroups_path: str | None = None
    resources: Resources | None = None
    intel_rdt: IntelRdt | None = None
    memory_policy: MemoryPolicy | None = None
    sysctl: dict[str, str] | None = None
    seccomp: Seccomp | None = None
    rootfs_propagation: str | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    mount_label: str | None = None
    personality: Personality | None = None
