"""Values of config.json that are worth a try, as data: sound ones, and those at which runtimes are known to part ways.

All of them keep within bounds.py. Sources: runtime-spec config.md and config-linux.md at 1.3.0, and the fault
catalogue.
"""

from __future__ import annotations

from typing import Any, Final

from harness.compat.differential.bounds import NOWHERE

ODD_NUMBERS: Final = (-1, 0, 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 1.5)
ODD_TEXTS: Final = ("", " ", "../../x", "relative", "a\nb", "\u00e9\u4e2d\u200b", "x" * 300)
_PATHS: Final = ("", "/", "x", "/../../x", "/a/../b", "//a", "/a/", "/a b", "/\u00e9", "/" + "n" * 256)

# pointer: values for it, first what is likeliest to show a difference
VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "/ociVersion": (
        "9.9.9", "1.0.0", "1.0.2", "1.1.0", "1.2.0", "1.3.0", "2.0.0", "1.0.2-dev", "1.0", "0.1.0", "1.0.2+b", "v1.0.2",
        "01.0.2", " 1.0.2", "garbage", "1.0.99",
    ),
    "/root/path": ("./rootfs", "rootfs/", "rootfs/../rootfs", "", NOWHERE, "nope", "config.json", "rootfs/etc/hosts"),
    "/root/readonly": (True, False),
    "/hostname": ("", "a" * 64, "a" * 65, "a b", "\u00e9", "-", "a.b.c", "a\nb"),
    "/domainname": ("example.org", "", "a" * 65),
    "/process/args": (
        ["/payload"], ["/payload", "exit", "3"], ["payload", "pause"], ["./payload", "pause"], ["//payload", "pause"],
        [""], [], ["."], ["/"], ["/etc/hosts"], ["nope"], [NOWHERE], ["/payload", "pause", ""], ["../payload", "pause"],
        ["/tmp/../payload", "pause"], ["/payload/", "pause"], ["/payload", "pause", "\u00e9"], ["true"], [" "],
    ),
    "/process/cwd": (
        "", "/", ".", "x", "/nope", "/etc/hosts", "/../../x", "/tmp/a/b", "/proc/self", "/proc/self/fd/7",
        "/proc/self/fd/8",
        "/tmp/", "//tmp", "/\u00e9", "/dev/x", "/proc/nope",
    ),
    "/process/env": (
        [], ["PATH=/"], ["A"], ["=a"], [""], ["A=1", "A=2"], ["PATH=", "A=b"], ["HOME=/x"], ["HOME="], ["A=\u00e9"],
        ["A=a\nb"], ["TERM=x", "TERM"], ["PATH=relative"],
    ),
    "/process/terminal": (True,),
    "/process/consoleSize": ({"height": 10, "width": 10}, {"height": -1, "width": 1}),
    "/process/user/uid": (1000, 65534, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**32, -1),
    "/process/user/gid": (1000, 65534, 2**31, 2**32 - 1, 2**32, -1),
    "/process/user/umask": (0, 0o22, 0o77, 0o777, 0o7777, 2**32 - 1, -1),
    "/process/user/additionalGids": ([], [5], [5, 5], [0], [1, 2, 3], [2**32 - 1], [-1], list(range(100, 140))),
    "/process/user/username": ("root", "nobody"),
    "/process/noNewPrivileges": (False,),
    "/process/oomScoreAdj": (0, 1, 500, 1000, 1001, -1, -1000, -1001),
    "/process/apparmorProfile": ("", "unconfined", "nope"),
    "/process/selinuxLabel": ("", "system_u:system_r:container_t:s0", "nope"),
    "/process/scheduler": (
        {"policy": "SCHED_OTHER"}, {"policy": "SCHED_OTHER", "nice": 5}, {"policy": "SCHED_BATCH"},
        {"policy": "SCHED_NOPE"},
        {"policy": "SCHED_IDLE"}, {},
    ),
    "/process/ioPriority": ({"class": "IOPRIO_CLASS_BE", "priority": 4}, {"class": "nope", "priority": 9}),
    "/process/capabilities": (
        {}, {"bounding": []}, {"bounding": ["CAP_CHOWN"]},
        {"ambient": ["CAP_CHOWN"]}, {"effective": ["CAP_CHOWN"]},
        {name: ["CAP_CHOWN", "CAP_KILL"] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")},
        {name: ["CAP_CHOWN"] for name in ("bounding", "effective", "permitted", "ambient")},
        {name: ["CAP_NOPE", "CAP_CHOWN"] for name in ("bounding", "effective", "permitted")},
        {name: ["chown"] for name in ("bounding", "effective", "permitted")},
        {name: ["CHOWN"] for name in ("bounding", "effective", "permitted")},
        {name: ["cap_chown"] for name in ("bounding", "effective", "permitted")},
        {name: [""] for name in ("bounding", "effective", "permitted")},
        {name: ["CAP_CHECKPOINT_RESTORE", "CAP_BPF"] for name in ("bounding", "effective", "permitted")},
        {name: ["CAP_SYS_RESOURCE"] for name in ("bounding", "effective", "permitted")},
        {name: ["CAP_CHOWN", "CAP_CHOWN"] for name in ("bounding", "effective", "permitted")},
    ),
    "/process/rlimits": (
        [], [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100}, {"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
        [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}], [{"type": "RLIMIT_NPROC", "soft": 2**64 - 1,
        "hard": 2**64 - 1}],
    ),
    "/linux/cgroupsPath": (
        "../../x", "../x", "x", "/x", "x/y", "/x/y", "/x/../y", "./x", "//x", "/x/", "/x//y", "/a b", "/\u00e9",
        "/x:y:z",
        "system.slice:h:x", "/" + "n" * 200, "/a\nb", "/.../x", "../../../../tmp/x", "/../../x",
    ),
    "/linux/rootfsPropagation": ("private", "slave", "shared", "unbindable", "rprivate", "rslave", "rshared", "",
    "nope"),
    "/linux/maskedPaths": (
        [], [""], ["/"], ["relative"], ["/nope"], ["/etc"], ["/etc/hosts"], ["/proc/self/status"], ["/../etc/hosts"],
        ["/etc/hosts", "/etc/hosts"], ["/proc"], ["/dev/null"], ["/payload"],
    ),
    "/linux/readonlyPaths": (
        [], [""], ["/"], ["relative"], ["/nope"], ["/etc"], ["/etc/hosts"], ["/../etc"], ["/etc", "/etc"], ["/dev"],
        ["/sys"],
    ),
    "/linux/mountLabel": ("", "nope"),
    "/linux/personality": (
        {"domain": "LINUX"}, {"domain": "LINUX32"}, {"domain": "NOPE"}, {"domain": ""}, {},
        {"domain": "LINUX", "flags": ["NOPE"]},
    ),
    "/linux/timeOffsets": ({"monotonic": {"secs": 5}}, {"boottime": {"secs": 5}}, {"nope": {"secs": 5}}, {}),
    "/linux/netDevices": ({"nope0": {"name": "x"}}, {}),
    "/linux/memoryPolicy": ({"mode": "MPOL_DEFAULT"}, {"mode": "nope"}),
    "/linux/namespaces": (
        [{"type": "pid"}, {"type": "mount"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}],
        [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}],
        [{"type": "mount"}, {"type": "uts"}],
        [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "nope"}],
        [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "PID"}],
        [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": ""}],
        [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {}],
        [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc", "path": ""}],
        [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc", "path": NOWHERE}],
        [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc", "path": "/etc/hostname"}],
        [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc", "path": "nope"}],
        [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "pid"}],
        [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "time"}],
        [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "user"}],
    ),
    "/linux/uidMappings": ([{"containerID": 0, "hostID": 1000, "size": 10}], []),
    "/linux/sysctl": (
        {"net.ipv4.ip_forward": "1"}, {"net/ipv4/ip_forward": "1"}, {"net.core.somaxconn": "100"},
        {"net.ipv4.nope": "1"},
        {"net.ipv4.ip_forward": ""}, {"net.ipv4.ip_forward": "x"}, {"net.core.somaxconn": "99999999999"},
        {"net.ipv4.ping_group_range": "0 100"}, {"net.ipv4.ip_unprivileged_port_start": "0"},
        {"kernel.shm_rmid_forced": "1"}, {"kernel.msgmax": "9000"}, {"fs.mqueue.msg_max": "20"},
        {"kernel.msgmax": "-1"},
        {"net.ipv4.ip_forward": 1}, {"net.core.somaxconn": "100\n"}, {"net.core.somaxconn": " 100"}, {},
    ),
    "/linux/resources/memory/limit": (2**26, 2**26 + 1, -1, -2, 0, 1, 4096, 100, 2**63 - 1, 2**63),
    "/linux/resources/memory/reservation": (2**25, 0, -1, -2, 2**63 - 1),
    "/linux/resources/memory": (
        {"limit": 2**26, "swap": 2**27}, {"limit": 2**26, "swap": 2**26}, {"limit": 2**26, "swap": 2**25},
        {"limit": 2**26, "swap": -1}, {"limit": 2**26, "swap": 0}, {"swap": 2**27}, {"limit": -1, "swap": -1},
        {"limit": 2**26, "reservation": 2**27}, {"checkBeforeUpdate": True, "limit": 2**26}, {"limit": 2**26,
        "swap": -5},
    ),
    "/linux/resources/memory/kernel": (2**26, -1, 0),
    "/linux/resources/memory/kernelTCP": (2**26, -1, 0),
    "/linux/resources/memory/swappiness": (0, 1, 60, 100, 101, 200, 2**64 - 1),
    "/linux/resources/memory/disableOOMKiller": (True, False),
    "/linux/resources/memory/useHierarchy": (True, False),
    "/linux/resources/cpu/shares": (0, 1, 2, 512, 1024, 262144, 262145, 2**63, 2**64 - 1, -1),
    "/linux/resources/cpu/quota": (50000, 1000, 999, 1, 0, -1, -2, 2**63 - 1),
    "/linux/resources/cpu/period": (100000, 1000, 999, 1000000, 1000001, 0),
    "/linux/resources/cpu/burst": (1000, 0, 10**9),
    "/linux/resources/cpu/idle": (0, 1, 2, -1),
    "/linux/resources/cpu/realtimeRuntime": (0, 1000, 950000, -1),
    "/linux/resources/cpu/realtimePeriod": (1000000, 0, 1),
    "/linux/resources/cpu": (
        {"quota": 50000, "period": 100000}, {"quota": 50000, "period": 1000}, {"quota": 1000, "period": 1000000},
        {"quota": 100000, "period": 100000, "burst": 50000}, {"quota": 100000, "period": 100000, "burst": 200000},
        {"cpus": "0", "mems": "0"}, {"shares": 512, "idle": 1},
    ),
    "/linux/resources/cpu/cpus": ("0", "0-1", "0,1", "", "99", "1-0", "x", " 0", "0\n", "0-", "-1", "0,,1"),
    "/linux/resources/cpu/mems": ("0", "", "9", "x"),
    "/linux/resources/pids/limit": (10, 100, 1, 0, -1, -2, 2**22, 2**22 + 1, 2**31, 2**63 - 1),
    "/linux/resources/pids": ({},),
    "/linux/resources/blockIO/weight": (10, 100, 500, 1000, 1001, 9, 0, 65535, 65536),
    "/linux/resources/blockIO/leafWeight": (100, 0),
    "/linux/resources/hugepageLimits": (
        [{"pageSize": "2MB", "limit": 2**21}], [{"pageSize": "2MB", "limit": 2**21 + 1}], [{"pageSize": "3MB",
        "limit": 1}],
        [{"pageSize": "", "limit": 1}], [{"pageSize": "2mb", "limit": 2**21}], [{"pageSize": "2MB"}],
    ),
    "/linux/resources/network/classID": (0, 0x100001, 2**32 - 1),
    "/linux/resources/network/priorities": ([{"name": "lo", "priority": 1}], [{"name": "nope0", "priority": 1}]),
    "/linux/resources/rdma": ({"nope0": {"hcaHandles": 1}}, {}),
    "/linux/resources/unified": ({"memory.max": "67108864"}, {"pids.max": "10"}, {"nope.max": "1"}, {}),
    "/linux/resources/devices": (
        [], [{"allow": False}], [{"allow": True, "access": "rwm"}], [{"allow": True}],
        [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}],
        [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "access": "rwm"}],
        [{"allow": False, "access": "rwm"}, {"allow": True, "type": "a", "access": "rwm"}],
    ),
    "/annotations": ({}, {"a": "b"}, {"": "b"}, {"a": ""}, {"a": 1}, {"\u00e9": "\u00e9"}, {"a b/c": "d"}),
    "/hooks": (
        {}, {"prestart": []}, {"nope": []}, {"prestart": [{"path": NOWHERE}]}, {"createRuntime": [{"path": NOWHERE}]},
        {"createContainer": [{"path": "/payload"}]}, {"createContainer": [{"path": NOWHERE}]},
        {"startContainer": [{"path": "/payload"}]}, {"startContainer": [{"path": NOWHERE}]},
        {"startContainer": [{"path": "/payload", "args": ["payload", "exit", "1"]}]},
        {"createContainer": [{"path": "/payload", "args": ["payload", "exit", "1"]}]},
        {"poststart": [{"path": NOWHERE}]}, {"poststop": [{"path": NOWHERE}]}, {"prestart": [{"path": ""}]},
        {"prestart": [{"path": "payload"}]}, {"prestart": [{}]},
        {"startContainer": [{"path": "/payload", "args": [], "env": [], "timeout": 0}]},
        {"startContainer": [{"path": "/payload", "timeout": -1}]},
        {"startContainer": [{"path": "/payload", "args": ["payload", "pause"], "timeout": 1}]},
    ),
    "/linux/seccomp": (
        {"defaultAction": "SCMP_ACT_ALLOW"}, {"defaultAction": "SCMP_ACT_LOG"}, {"defaultAction": ""}, {},
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": []},
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOPE"]},
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86_64"]},
        {"defaultAction": "SCMP_ACT_ALLOW", "flags": []}, {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["nope"]},
        {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]},
        {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_TSYNC"]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}, {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 5},
        {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": NOWHERE}, {"defaultAction": "SCMP_ACT_KILL"},
        {"defaultAction": "SCMP_ACT_ERRNO"},
    ),
}  # fmt: skip # a table is read by its columns

# pointer: an object that is sound there, whose members are then tried one by one
TEMPLATES: Final[dict[str, Any]] = {
    "/linux/devices/-": {
        "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0,
    },
    "/linux/resources/devices/-": {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
    "/mounts/-": {"destination": "/tmp/m", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"]},
    "/process/rlimits/-": {"type": "RLIMIT_NOFILE", "soft": 512, "hard": 512},
    "/linux/seccomp": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
                      "args": [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]}],
    },
    "/linux/resources/blockIO/throttleReadBpsDevice/-": {"major": 1, "minor": 3, "rate": 1000},
}  # fmt: skip # a table is read by its columns

# Further whole mounts, each worth a card.
VALUES["/mounts/-"] = (
    {"destination": "/tmp/m", "type": "bind", "source": "rootfs/etc", "options": ["bind"]},
    {"destination": "/tmp/m", "type": "bind", "source": "rootfs/etc", "options": ["rbind", "ro"]},
    {"destination": "/tmp/m", "type": "none", "source": "rootfs/etc", "options": ["rbind"]},
    {"destination": "/tmp/m", "source": "rootfs/etc", "options": ["rbind"]},
    {"destination": "/tmp/m", "type": "bind", "source": "rootfs/etc"},
    {"destination": "/tmp/f", "type": "bind", "source": "rootfs/etc/hosts", "options": ["bind", "ro", "noexec"]},
    {"destination": "/etc", "type": "bind", "source": "rootfs/etc/hosts", "options": ["bind"]},
    {"destination": "/tmp/m", "type": "bind", "source": NOWHERE, "options": ["bind"]},
    {"destination": "/tmp/m", "type": "bind", "source": "nope", "options": ["bind"]},
    {"destination": "/tmp/m", "type": "proc", "source": "proc"},
    {"destination": "/proc/nope", "type": "tmpfs", "source": "tmpfs"},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    {"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup"},
    {"destination": "/tmp/m", "type": "", "source": "tmpfs"},
    *({"destination": path, "type": "tmpfs", "source": "tmpfs"} for path in _PATHS),
    *(
        {"destination": "/tmp/m", "type": "tmpfs", "source": "tmpfs", "options": options}
        for options in (
            ["nope"], [""], ["ro"], ["ro", "rw"], ["size=64k", "size=128k"], ["size=x"], ["mode=0700"], ["noatime"],
            ["rshared"], ["shared"], ["slave"], ["private"], ["unbindable"], ["tmpcopyup"], ["rro"], ["nosymfollow"],
            ["defaults"], ["remount"], ["uid=1000"], ["RO"], ["noexec", "exec"], ["sync", "dirsync"], ["nr_inodes=5"],
            ["copy-symlink"], ["lazytime"], ["relatime", "strictatime"],
        )
    ),
)  # fmt: skip # a table is read by its columns
