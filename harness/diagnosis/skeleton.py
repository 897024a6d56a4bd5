"""What the minimizer knows of config.json: what a bundle cannot start without, what belongs together, what needs what.

Tables only. Sources: runtime-spec config.md and config-linux.md (which members are REQUIRED), harness/oci/rules_linux
(what needs a namespace), the kernel for the file systems of a namespace (proc_fill_super, mqueue_fill_super,
sysfs_init_fs_context, cgroup_init_fs_context).
"""

from __future__ import annotations

import posixpath
from fnmatch import fnmatchcase
from typing import Any, Final

from harness.oci import pointer as json_pointer

Document = dict[str, Any]

PAYLOAD: Final = "/payload"  # the harness's own static program, put into the rootfs: it prints a line and ends with 0
ROOTFS: Final = "rootfs"

# The least that starts. Namespaces and /proc are entries of arrays, known by their type and destination.
STAND_IN: Final[Document] = {
    "ociVersion": "",  # the oldest that the other fields need
    "root": {"path": ROOTFS},
    "process": {"args": [PAYLOAD], "cwd": "/", "user": {"uid": 0, "gid": 0}},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
}

# Containers whose children are looked at one by one from the first; all else is a unit until it is known to matter.
SPINE: Final = (
    ("", dict),
    ("/root", dict),
    ("/process", dict),
    ("/process/rlimits", list),
    ("/mounts", list),
    ("/hooks", dict),
    ("/hooks/*", list),
    ("/linux", dict),
    ("/linux/namespaces", list),
    ("/linux/devices", list),
    ("/linux/sysctl", dict),
    ("/linux/resources", dict),
    ("/linux/resources/*", dict),
    ("/linux/resources/*", list),
)

# Never taken apart.
ATOMIC: Final = (
    "/process/args",
    "/hooks/*/*/args",
    "/hooks/*/*/env",
    "/process/consoleSize",
    "/process/scheduler",
    "/process/ioPriority",
    "/process/rlimits/*",
    "/linux/devices/*",
    "/linux/personality",
    "/mounts/*/uidMappings",
    "/mounts/*/gidMappings",
    "/linux/uidMappings",
    "/linux/gidMappings",
    "/linux/resources/devices/*",
    "/linux/resources/hugepageLimits/*",
    "/linux/resources/rdma/*",
    "/linux/resources/blockIO/*/*",
    "/linux/resources/network/priorities/*",
    "/linux/seccomp/syscalls/*/args/*",
)

# Members without which the thing around them is another or none.
REQUIRED: Final = (
    ("/process/user", {"uid", "gid"}),
    ("/mounts/*", {"destination", "type", "source"}),
    ("/hooks/*/*", {"path", "args", "env"}),
    ("/linux/namespaces/*", {"type"}),
    ("/linux/seccomp/syscalls/*", {"names", "action"}),
)
BIND: Final = ("bind", "rbind")  # as options they make the mount what it is

FILE_SYSTEMS: Final = {
    "proc": "pid",
    "mqueue": "ipc",
    "sysfs": "network",
    "cgroup": "cgroup",
    "cgroup2": "cgroup",
}  # which namespace's contents a mount of the type shows

# The first is another thing, or refused, without the second.
NEEDS: Final = (
    ("/linux/uidMappings", "/linux/gidMappings"),
    ("/linux/gidMappings", "/linux/uidMappings"),
    ("/linux/uidMappings", "/process/user"),
    ("/linux/resources/memory/swap", "/linux/resources/memory/limit"),
    ("/linux/resources/cpu/realtimeRuntime", "/linux/resources/cpu/realtimePeriod"),
    ("/linux/resources/cpu/burst", "/linux/resources/cpu/quota"),
    ("/linux/seccomp/listenerMetadata", "/linux/seccomp/listenerPath"),
    ("/process/consoleSize", "/process/terminal"),
    ("/process/args", "/process/cwd"),
)
CAPABILITY_NEEDS: Final = (("effective", ("permitted",)), ("ambient", ("permitted", "inheritable")))

# What a name in these places means depends on the container's files.
_OF_ROOTFS: Final = (
    "/process/args",
    "/process/cwd",
    "/process/user*",
    "/process/env*",
    "/root*",
    "/mounts*",
    "/linux/devices*",
    "/linux/maskedPaths*",
    "/linux/readonlyPaths*",
    "/linux/rootfsPropagation",
)

# Set aside first, for these are about the place where the bundle was and not about what it asks for: a cgroup that may
# be in use there; the rootfs itself, which stays as it is below an overlay; a terminal, which whoever calls the
# runtime must hold the other end of. Only if it then starts are they put back, in this order.
SET_ASIDE: Final = ("/linux/cgroupsPath", "/process/terminal", "/root/path")

LACK: Final = "!"  # before a pointer: that the document lacks what the skeleton has, as `!/process/args`


def of_rootfs(pointers: list[str]) -> bool:
    """Whether what these places say depends on the files of the container."""
    return any(fnmatchcase(each.removeprefix(LACK), pattern) for each in pointers for pattern in _OF_ROOTFS)


def is_proc(pointer: str, value: Any) -> bool:
    return like(pointer, "/mounts/*") and destination(value) == "/proc" and value.get("type") == "proc"


def destination(mount: Any) -> str | None:
    text = json_pointer.one(mount, "/destination", str)
    return posixpath.normpath(text) if text else None


def matches(pointer: str, patterns: tuple[str, ...]) -> bool:
    return any(like(pointer, pattern) for pattern in patterns)


def like(pointer: str, pattern: str) -> bool:
    """Token by token; `*` is any one token."""
    own, wanted = pointer.split("/"), pattern.split("/")
    return len(own) == len(wanted) and all(b in ("*", a) for a, b in zip(own, wanted, strict=True))
