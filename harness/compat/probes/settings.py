"""Settings of the kernel and limits of this process that decide how much and how fast a node can start containers."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

from harness.cgroup.hierarchy import Layout, parse_mountinfo

# {name in the result: file}; absent is None
NUMBERS = {
    "rcu_normal": "/sys/kernel/rcu_normal",
    "rcu_expedited": "/sys/kernel/rcu_expedited",
    "max_user_namespaces": "/proc/sys/user/max_user_namespaces",
    "max_pid_namespaces": "/proc/sys/user/max_pid_namespaces",
    "max_net_namespaces": "/proc/sys/user/max_net_namespaces",
    "max_mnt_namespaces": "/proc/sys/user/max_mnt_namespaces",
    "unprivileged_userns_clone": "/proc/sys/kernel/unprivileged_userns_clone",  # Debian's and Ubuntu's kernels
    "apparmor_restrict_unprivileged_userns": "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",  # Ubuntu 23.10
    "unprivileged_bpf_disabled": "/proc/sys/kernel/unprivileged_bpf_disabled",
    "memfd_noexec": "/proc/sys/vm/memfd_noexec",
    "overcommit_memory": "/proc/sys/vm/overcommit_memory",
    "pid_max": "/proc/sys/kernel/pid_max",
    "threads_max": "/proc/sys/kernel/threads-max",
    "nr_open": "/proc/sys/fs/nr_open",
    "mount_max": "/proc/sys/fs/mount-max",
    "keys_maxkeys": "/proc/sys/kernel/keys/maxkeys",
    "keys_maxbytes": "/proc/sys/kernel/keys/maxbytes",
    "root_maxkeys": "/proc/sys/kernel/keys/root_maxkeys",
    "root_maxbytes": "/proc/sys/kernel/keys/root_maxbytes",
}
LIMITS = {
    "nofile": resource.RLIMIT_NOFILE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "nproc": resource.RLIMIT_NPROC,
    "core": resource.RLIMIT_CORE,
}


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def _limit(value: int) -> int | str:
    return "unlimited" if value == resource.RLIM_INFINITY else value


def parse_key_users(text: str) -> dict[int, dict[str, int]]:
    """/proc/key-users -> {uid: {keys, maxkeys, bytes, maxbytes}}; lines of another form are left out. proc(5)."""
    found = {}
    for line in text.splitlines():
        uid, _, rest = line.partition(":")
        fields = rest.split()
        if len(fields) != 4 or not all("/" in each for each in fields[2:]):
            continue
        keys, most = fields[2].split("/", 1)
        used, limit = fields[3].split("/", 1)
        if all(each.strip().isdigit() for each in (uid, keys, most, used, limit)):
            found[int(uid)] = {"keys": int(keys), "maxkeys": int(most), "bytes": int(used), "maxbytes": int(limit)}
    return found


def favordynmods(layout: Layout) -> dict[str, bool | None]:
    """{mount point: whether the option is on}: a cgroup move then needs no RCU grace period.

    None: the kernel does not show it (before Linux 6.0). Source: Documentation/admin-guide/cgroup-v2.rst, "Mounting";
    a v1 hierarchy shows only "favordynmods".
    """
    mounts = {m.mount_point: m for m in parse_mountinfo(Path("/proc/thread-self/mountinfo").read_text())}
    found: dict[str, bool | None] = {}
    for hierarchy in layout.hierarchies:
        options = mounts[hierarchy.mount_point].super_options if hierarchy.mount_point in mounts else ()
        on, off = "favordynmods" in options, "nofavordynmods" in options
        found[hierarchy.mount_point] = True if on else False if off or hierarchy.version == 2 else None
    return found


def settings(layout: Layout) -> dict[str, Any]:
    """JSON-ready: {kernel{}, limits{name: {soft, hard}}, keys{} of this user, favordynmods{}}."""
    try:
        users = parse_key_users(Path("/proc/key-users").read_text())
    except OSError:
        users = {}
    limits = {name: resource.getrlimit(which) for name, which in LIMITS.items()}
    return {
        "kernel": {name: _number(path) for name, path in NUMBERS.items()},
        "limits": {name: {"soft": _limit(soft), "hard": _limit(hard)} for name, (soft, hard) in limits.items()},
        "keys": users.get(os.geteuid()),
        "favordynmods": favordynmods(layout),
    }


def subordinate_ids(directory: Path = Path("/etc")) -> dict[str, dict[str, int]]:
    """{user: {"uid": n, "gid": n}}: how many ids /etc/subuid and /etc/subgid give to a rootless user (subuid(5))."""
    found: dict[str, dict[str, int]] = {}
    for kind in ("uid", "gid"):
        try:
            lines = (directory / f"sub{kind}").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            fields = line.strip().split(":")
            if len(fields) == 3 and fields[0] and fields[2].isdigit():
                own = found.setdefault(fields[0], {"uid": 0, "gid": 0})
                own[kind] += int(fields[2])
    return found
