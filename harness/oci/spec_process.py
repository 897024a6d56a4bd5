"""The parts of config.json that are not tied to Linux's cgroups and namespaces: root, mounts, hooks, process.

Source: runtime-spec config.md up to 1.3.0. JSON names are the spec's; absent is None.
"""

from __future__ import annotations

import msgspec

from harness.oci.shape import Int32, Uint32, Uint64


class IdMapping(msgspec.Struct, frozen=True, rename="camel"):
    """config-linux.md, User namespace mappings; also used by mounts."""

    container_id: Uint32 = msgspec.field(name="containerID")
    host_id: Uint32 = msgspec.field(name="hostID")
    size: Uint32  # ids


class Root(msgspec.Struct, frozen=True, rename="camel"):
    """config.md, Root."""

    path: str  # absolute, or relative to the bundle
    readonly: bool | None = None


class Mount(msgspec.Struct, frozen=True, rename="camel"):
    """config.md, Mounts."""

    destination: str
    type: str | None = None
    source: str | None = None
    options: list[str] | None = None
    uid_mappings: list[IdMapping] | None = None
    gid_mappings: list[IdMapping] | None = None


class Hook(msgspec.Struct, frozen=True, rename="camel"):
    """config.md, POSIX-platform Hooks; one command."""

    path: str
    args: list[str] | None = None
    env: list[str] | None = None
    timeout: Int32 | None = None  # seconds, above 0


class Hooks(msgspec.Struct, frozen=True, rename="camel"):
    """config.md, POSIX-platform Hooks; each list runs in order."""

    prestart: list[Hook] | None = None  # deprecated since 1.0.2
    create_runtime: list[Hook] | None = None
    create_container: list[Hook] | None = None
    start_container: list[Hook] | None = None
    poststart: list[Hook] | None = None
    poststop: list[Hook] | None = None


class User(msgspec.Struct, frozen=True, rename="camel"):
    """config.md, POSIX-platform User."""

    uid: Uint32
    gid: Uint32
    umask: Uint32 | None = None
    additional_gids: list[Uint32] | None = None
    username: str | None = None  # Windows only


class ConsoleSize(msgspec.Struct, frozen=True, rename="camel"):
    """config.md, Process; in characters."""

    height: Uint64
    width: Uint64


class Capabilities(msgspec.Struct, frozen=True, rename="camel"):
    """config.md, Linux Process; names such as CAP_CHOWN."""

    bounding: list[str] | None = None
    effective: list[str] | None = None
    inheritable: list[str] | None = None
    permitted: list[str] | None = None
    ambient: list[str] | None = None


class Rlimit(msgspec.Struct, frozen=True, rename="camel"):
    """config.md, POSIX process; units are those of getrlimit(2)."""

    type: str
    soft: Uint64
    hard: Uint64


class Scheduler(msgspec.Struct, frozen=True, rename="camel"):
    """config.md, Linux Process; the fields of sched_setattr(2)."""

    policy: str
    nice: Int32 | None = None
    priority: Int32 | None = None
    flags: list[str] | None = None
    runtime: Uint64 | None = None  # nanoseconds
    deadline: Uint64 | None = None  # nanoseconds
    period: Uint64 | None = None  # nanoseconds


class IoPriority(msgspec.Struct, frozen=True, rename="camel"):
    """config.md, Linux Process; ioprio_set(2)."""

    class_: str = msgspec.field(name="class")
    priority: Int32  # 0 (highest) to 7


class CpuAffinity(msgspec.Struct, frozen=True, rename="camel"):
    """config.md, Linux Process; CPU lists such as `0-3,7`."""

    initial: str | None = None
    final: str | None = None


class Process(msgspec.Struct, frozen=True, rename="camel"):
    """config.md, Process."""

    cwd: str
    terminal: bool | None = None
    console_size: ConsoleSize | None = None
    user: User | None = None
    args: list[str] | None = None
    command_line: str | None = None  # Windows only
    env: list[str] | None = None
    capabilities: Capabilities | None = None
    rlimits: list[Rlimit] | None = None
    no_new_privileges: bool | None = None
    apparmor_profile: str | None = None
    selinux_label: str | None = None
    oom_score_adj: Int32 | None = None
    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = None
    exec_cpu_affinity: CpuAffinity | None = msgspec.field(name="execCPUAffinity", default=None)
