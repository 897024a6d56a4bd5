"""Limits of the kernel that containers run into: what is used of each, and what is set to nothing."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator

from harness.cgroup.hierarchy import parse_proc_cgroups
from harness.diagnosis.node.finding import Evidence, Finding, Severity
from harness.diagnosis.node.mounts import MOUNTINFO, mounts_of
from harness.diagnosis.node.processes import table_of
from harness.diagnosis.node.tree import Tree

NEARLY = 0.9
MEMORY_CGROUPS = 65535  # mm/memcontrol.c, MEM_CGROUP_ID_MAX
LOW_NOFILE = 1024
_JITTED = re.compile(r"^\S+\s+(\d+)\s+(?:bpf_jit|bpf_prog_pack)\S*", re.MULTILINE)
_KEY_USER = re.compile(r"^\s*(\d+):\s+\d+\s+\d+/\d+\s+(\d+)/(\d+)\s+(\d+)/(\d+)", re.MULTILINE)
_NOFILE = re.compile(r"^Max open files\s+(\S+)\s+(\S+)", re.MULTILINE)


def _near(slug: str, what: str, used: int, limit: int, cause: str, fix: str, *evidence: Evidence) -> Iterator[Finding]:
    """A finding if little or nothing is left."""
    if limit > 0 and used >= NEARLY * limit:
        severity: Severity = "error" if used >= limit else "warning"
        yield Finding(slug, severity, f"{what}: {used} of {limit} ({used / limit:.0%})", cause, fix, evidence)


def key_quota(tree: Tree) -> Iterator[Finding]:
    """Every container takes a session keyring, unless told otherwise. Source: keyrings(7), /proc/key-users."""
    text = tree.read("/proc/key-users")
    if text is None:
        tree.miss("/proc/key-users", "not in this tree" if not tree.live else "not in this kernel")
        return
    for match in _KEY_USER.finditer(text):
        uid, keys, max_keys, size, max_size = map(int, match.groups())
        kind = "root_" if uid == 0 else ""
        for used, limit, name in ((keys, max_keys, "maxkeys"), (size, max_size, "maxbytes")):
            yield from _near(
                "key-quota",
                f"keys of user {uid} against kernel.keys.{kind}{name}",
                used,
                limit,
                "keyring-quota",
                f"sysctl -w kernel.keys.{kind}{name}={limit * 10}; cat /proc/keys shows what takes them.",
                Evidence("/proc/key-users", match[0].strip()),
            )


def tasks(tree: Tree) -> Iterator[Finding]:
    """Threads of the whole node against pid_max and threads-max. Source: proc_loadavg(5), proc_sys_kernel(5)."""
    load = tree.read("/proc/loadavg") or ""
    words = load.split()
    total = words[3].partition("/")[2] if len(words) >= 5 else ""
    if not total.isdecimal():
        tree.miss("number of tasks", "no /proc/loadavg")
        return
    for name in ("pid_max", "threads-max"):
        path = f"/proc/sys/kernel/{name}"
        limit = tree.number(path)
        if limit is not None:
            yield from _near(
                "tasks-exhausted",
                f"threads of the node against kernel.{name}",
                int(total),
                limit,
                "pids-limit",
                f"sysctl -w kernel.{name}={max(limit * 2, 4194304 if name == 'pid_max' else 0)}, or find what leaks "
                "threads (ps -eLf).",
                Evidence("/proc/loadavg", load.strip()),
                Evidence(path, str(limit)),
            )


def namespaces(tree: Tree) -> Iterator[Finding]:
    """Kinds of namespaces that nobody may make, or that rootless runtimes may not. Source: namespaces(7)."""
    for name in ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time"):
        path = f"/proc/sys/user/max_{name}_namespaces"
        if tree.number(path) == 0:
            needed = name not in ("user", "time")
            yield Finding(
                "namespaces-forbidden",
                "error" if needed else "warning",
                f"user.max_{name}_namespaces = 0: no {name} namespace can be made",
                "namespace-unsupported",
                f"sysctl -w user.max_{name}_namespaces=65536, and the same below /etc/sysctl.d.",
                (Evidence(path, "0"),),
            )
    for path, bad, word in (
        ("/proc/sys/kernel/unprivileged_userns_clone", 0, "kernel.unprivileged_userns_clone = 0"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            1,
            "kernel.apparmor_restrict_unprivileged_userns = 1",
        ),
    ):
        if tree.number(path) == bad:
            yield Finding(
                "rootless-restricted",
                "info",
                f"{word}: without root no user namespace (rootless runtimes fail, others do not)",
                "namespace-unsupported",
                f"sysctl -w {word.split(' ')[0]}={1 - bad}, or an AppArmor profile with userns, if rootless is wanted.",
                (Evidence(path, str(bad)),),
            )


def bpf_jit(tree: Tree) -> Iterator[Finding]:
    """Memory of JIT-compiled filters, counted up by vmalloc areas: seccomp then says errno 524 (ENOTSUPP)."""
    limit = tree.number("/proc/sys/net/core/bpf_jit_limit")
    text = tree.read("/proc/vmallocinfo", 64 << 20)
    if limit is None or text is None:
        tree.miss("BPF JIT memory", "no bpf_jit_limit or no /proc/vmallocinfo")
        return
    areas = list(_JITTED.finditer(text))
    if areas:
        yield from _near(
            "bpf-jit-memory",
            "bytes of compiled BPF programs against net.core.bpf_jit_limit",
            sum(int(area[1]) for area in areas),
            limit,
            "seccomp",
            f"sysctl -w net.core.bpf_jit_limit={limit * 2}; update runtime and kernel if programs leak (bpftool prog).",
            Evidence("/proc/vmallocinfo", f"{len(areas)} areas of compiled programs"),
            Evidence("/proc/sys/net/core/bpf_jit_limit", str(limit)),
        )
    else:
        tree.miss("BPF JIT memory", "no area in /proc/vmallocinfo is marked as such by this kernel, or there is none")


def mount_table(tree: Tree) -> Iterator[Finding]:
    """Mounts of one namespace against fs.mount-max. Source: proc_sys_fs(5)."""
    source, mounts = mounts_of(tree)
    limit = tree.number("/proc/sys/fs/mount-max")
    if limit is not None and source in MOUNTINFO:
        yield from _near(
            "mounts-exhausted",
            "mounts against fs.mount-max",
            len(mounts),
            limit,
            "no-space",
            f"Find what leaks mounts (cut -d' ' -f5 {source} | sort | uniq -c | sort -n), or sysctl -w "
            f"fs.mount-max={limit * 2}.",
            Evidence(source, f"{len(mounts)} lines"),
            Evidence("/proc/sys/fs/mount-max", str(limit)),
        )


def open_files(tree: Tree) -> Iterator[Finding]:
    """Open files of the node against fs.file-max, and of each daemon and shim against its own limit."""
    words = (tree.read("/proc/sys/fs/file-nr") or "").split()
    if len(words) == 3 and all(word.isdecimal() for word in words):
        yield from _near(
            "files-exhausted",
            "open files of the node against fs.file-max",
            int(words[0]),
            int(words[2]),
            "rlimit",
            f"sysctl -w fs.file-max={int(words[2]) * 2}, or find what leaks descriptors (lsof).",
            Evidence("/proc/sys/fs/file-nr", " ".join(words)),
        )
    table = table_of(tree)
    for process in table.of_role("daemon", "shim") if table else ():
        match = _NOFILE.search(tree.read(f"/proc/{process.pid}/limits") or "")
        if match is None or not match[1].isdecimal() or process.state == "Z":
            continue
        limit, used = int(match[1]), len(tree.entries(f"/proc/{process.pid}/fd"))
        evidence = Evidence(f"/proc/{process.pid}/limits", " ".join(match[0].split()))
        fix = "LimitNOFILE=1048576 in its unit (systemctl edit), then restart it; a count that only grows is a leak."
        who = f"open files of {process.comm} {process.pid}"
        if used >= NEARLY * limit:
            yield from _near("daemon-files", who, used, limit, "rlimit", fix, evidence)
        elif process.comm in ("containerd", "dockerd", "crio") and limit <= LOW_NOFILE:
            what = f"{who}: at most {limit}, which some tens of containers use up"
            yield Finding("daemon-files-low", "info", what, "rlimit", fix, (evidence,))


def inotify(tree: Tree) -> Iterator[Finding]:
    """Inotify instances of each user against fs.inotify.max_user_instances; only a live /proc shows them."""
    limit = tree.number("/proc/sys/fs/inotify/max_user_instances")
    table = table_of(tree) if tree.live else None
    if limit is None or table is None:
        if not tree.live:
            tree.miss("inotify instances", "only a live /proc shows them")
        return
    used: Counter[int] = Counter()
    hidden = 0
    for pid in table.processes:
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
            with os.scandir(f"/proc/{pid}/fd") as descriptors:
                for descriptor in descriptors:
                    used[uid] += os.readlink(descriptor.path) == "anon_inode:inotify"
        except PermissionError:
            hidden += 1
        except OSError:  # it has ended meanwhile
            continue
    if hidden:
        tree.miss("inotify instances", f"the descriptors of {hidden} processes may not be looked at")
    for uid, number in used.items():
        yield from _near(
            "inotify-instances",
            f"inotify instances of user {uid} against fs.inotify.max_user_instances",
            number,
            limit,
            "rlimit",
            f"sysctl -w fs.inotify.max_user_instances={max(8192, limit * 2)}",
            Evidence("/proc/*/fd", f"{number} of anon_inode:inotify"),
            Evidence("/proc/sys/fs/inotify/max_user_instances", str(limit)),
        )


def pseudo_terminals(tree: Tree) -> Iterator[Finding]:
    """Source: pty(7), kernel.pty.*."""
    used, limit = tree.number("/proc/sys/kernel/pty/nr"), tree.number("/proc/sys/kernel/pty/max")
    if used is not None and limit is not None:
        yield from _near(
            "terminals-exhausted",
            "pseudo-terminals against kernel.pty.max",
            used,
            limit,
            "tty-console",
            f"sysctl -w kernel.pty.max={limit * 2}",
            Evidence("/proc/sys/kernel/pty/nr", str(used)),
        )


def cgroups(tree: Tree) -> Iterator[Finding]:
    """Memory cgroups, dying ones included, against what the kernel can number."""
    text = tree.read("/proc/cgroups")
    if text is None:
        return
    for controller in parse_proc_cgroups(text, "/proc/cgroups"):
        if controller.name != "memory":
            continue
        yield from _near(
            "memory-cgroups",
            "memory cgroups against the kernel's 65535",
            controller.cgroups,
            MEMORY_CGROUPS,
            "no-space",
            "Remove dead ones (find /sys/fs/cgroup -depth -type d -empty; nr_dying_descendants of cgroup.stat shows "
            "those that only page cache holds: echo 3 > /proc/sys/vm/drop_caches).",
            Evidence("/proc/cgroups", f"memory {controller.cgroups}"),
        )
        if not controller.enabled:
            yield Finding(
                "memory-cgroup-disabled",
                "error",
                "the memory cgroup controller is switched off at boot",
                "cgroup-controller-missing",
                "Boot with cgroup_enable=memory (and swapaccount=1 on v1), without cgroup_disable=memory.",
                (Evidence("/proc/cgroups", "memory, enabled 0"),),
            )
