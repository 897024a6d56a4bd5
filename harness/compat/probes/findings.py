"""What the probes' results mean for containers: findings with a cause of the taxonomy and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from harness.compat.probes.tries import Try
from harness.diagnosis.node.finding import SEVERITIES, Evidence, Finding, Severity
from harness.kernel import procfs
from harness.oci.vocabulary import CAPABILITIES

if TYPE_CHECKING:
    from harness.compat.probes.host import Probed

# What is lost without a capability (capabilities(7)); others are not needed to make a container.
NEEDED_CAPABILITIES: Final[dict[str, tuple[Severity, str]]] = {
    "CAP_SYS_ADMIN": ("error", "no mount and no namespace but a user's can be made: only rootless containers start"),
    "CAP_SYS_RESOURCE": (
        "warning",
        "containers that raise an rlimit or ask for a lower oom_score_adj fail with EPERM, and runtimes that raise "
        "RLIMIT_MEMLOCK to load device rules in cgroup v2 (crun 1.8.1 does)",
    ),
    "CAP_SETUID": ("error", "no container can change to its user"),
    "CAP_SETGID": ("error", "no container can change to its groups"),
    "CAP_SETPCAP": ("error", "the bounding set cannot be dropped"),
    "CAP_SYS_CHROOT": ("warning", "containers without a mount namespace of their own cannot change their root"),
    "CAP_MKNOD": ("warning", "device nodes are bind mounts of the host's"),
    "CAP_NET_ADMIN": ("warning", "the network of a container cannot be set up"),
    "CAP_CHOWN": ("warning", "files of an image cannot get their owners"),
    "CAP_DAC_OVERRIDE": ("warning", "files of other users cannot be reached"),
    "CAP_FOWNER": ("warning", "modes of other users' files cannot be changed"),
    "CAP_KILL": ("warning", "containers of other users cannot be ended"),
    "CAP_SYS_PTRACE": ("info", "namespaces of other users' processes cannot be looked at"),
    "CAP_BPF": ("info", "with CAP_SYS_ADMIN nothing is lost; without it device rules of cgroup v2 cannot be loaded"),
}
GRANT: Final = (
    "give it to whoever starts the runtime: CapabilityBoundingSet= and AmbientCapabilities= of a systemd unit, "
    "--cap-add of the container that this is; or keep it out of need: leave out what asks for it"
)


class _Rule(Struct, frozen=True):
    """A probe that does not work is a finding."""

    severity: Severity
    cause: str
    message: str
    fix: str


_NAMESPACES: Final[dict[str, Severity]] = {
    "mnt": "error",
    "pid": "error",
    "net": "error",
    "ipc": "error",
    "uts": "error",
    "user": "warning",
    "cgroup": "warning",
    "time": "info",
}
_KERNEL = "use a kernel that has it, or one that is built with it"
_RULES: Final[dict[str, _Rule]] = {
    **{
        f"ns:{kind}": _Rule(
            severity,
            "namespace-unsupported",
            f"no {kind} namespace can be made",
            f"raise /proc/sys/user/max_{kind}_namespaces, allow it where this is itself a container, or {_KERNEL}",
        )
        for kind, severity in _NAMESPACES.items()
    },
    "mount:tmpfs": _Rule("error", "mount-permission", "no tmpfs can be mounted", "give CAP_SYS_ADMIN"),
    "mount:proc": _Rule(
        "error",
        "procfs-mask",
        "no proc can be mounted for a new pid namespace",
        "where /proc is masked, show it whole: --security-opt systempaths=unconfined, procMount: Unmasked",
    ),
    "mount:mqueue": _Rule("warning", "mount-permission", "no mqueue can be mounted", f"leave it out or {_KERNEL}"),
    "mount:devpts": _Rule("warning", "mount-permission", "no devpts can be mounted: no terminals", _KERNEL),
    "mount:pivot-root": _Rule(
        "error", "rootfs-ramfs", "pivot_root does not work", "run runtimes with --no-pivot, or leave the initial ramfs"
    ),
    "mount:device-node": _Rule(
        "warning", "device-cgroup-bpf", "device nodes cannot be made or opened", "give CAP_MKNOD and allow the devices"
    ),
    "mount:recursive-readonly": _Rule(
        "info", "kernel-too-old", "mounts cannot be made read-only with all below (option rro)", "Linux 5.12 has it"
    ),
    "overlay:tmpfs": _Rule("warning", "overlay-mount", "overlayfs cannot be mounted", "modprobe overlay"),
    "overlay:directory": _Rule(
        "warning",
        "overlay-mount",
        "an overlay cannot be made on the file system of the run directory",
        "keep root file systems on ext4 or xfs (ftype=1), not on an overlay",
    ),
    "seccomp:errno": _Rule("error", "seccomp", "seccomp filters cannot be loaded", "use a kernel with SECCOMP_FILTER"),
    "seccomp:kill-process": _Rule("warning", "seccomp", "SCMP_ACT_KILL_PROCESS does not kill", "Linux 4.14 has it"),
    "seccomp:log": _Rule("info", "seccomp", "SCMP_ACT_LOG does not work", "Linux 4.14 has it"),
    "seccomp:notify": _Rule("info", "seccomp", "SCMP_ACT_NOTIFY does not work", "Linux 5.0 has it"),
    "call:exec-memfd": _Rule(
        "error",
        "fd-leak-or-cve-hardening",
        "a program cannot be executed from a memory file, as runc does with its own binary",
        "sysctl vm.memfd_noexec=0",
    ),
    "call:keyring": _Rule(
        "warning",
        "keyring-quota",
        "no session keyring can be made",
        "raise kernel.keys.maxkeys and maxbytes, or use --no-new-keyring",
    ),
    "call:openat2": _Rule(
        "info", "kernel-too-old", "openat2 does not work: runtimes use slower, racier checks", _KERNEL
    ),
    "call:pidfd": _Rule("info", "kernel-too-old", "processes cannot be held by a pidfd", "Linux 5.4 has all of it"),
    "cgroup:device-filter": _Rule(
        "warning",
        "device-cgroup-bpf",
        "device rules of cgroup v2 (a BPF program) cannot be loaded",
        "use a kernel with CGROUP_BPF, and allow bpf(2) where this is itself a container",
    ),
    "cgroup:join": _Rule(
        "error", "cgroup-permission", "no process can be put into a new cgroup of v2", "mount cgroup2 rw here"
    ),
    "psi": _Rule("info", "kernel-too-old", "no pressure stall information", "boot with psi=1"),
}
# Losses that a missing capability explains, and which then need no finding of their own.
LIMITS: Final = {
    "limit:nofile": "RLIMIT_NOFILE",
    "limit:memlock": "RLIMIT_MEMLOCK",
    "limit:oom-score-adj": "oom_score_adj",
}


def findings(probed: Probed) -> list[Finding]:
    """All of them, gravest first."""
    found = [finding for source in SOURCES for finding in source(probed)]
    return sorted(found, key=lambda each: SEVERITIES.index(each.severity))


def _shown(each: Try) -> tuple[Evidence, ...]:
    return (Evidence(f"probe {each.name}", each.reason or ""),)


def _runtimes(probed: Probed) -> Iterator[Finding]:
    for name, views in probed.starts.items():
        host = views["host"]
        if host.works is not False:
            continue
        working = [view for view, start in views.items() if start.works]
        around = f"with this tool use --view {working[0]}, where it works; for good: " if working else ""
        yield Finding(
            "runtime-does-not-start",
            "warning" if working else "error",
            f"{name} starts no container in this host's own {host.mode} cgroup layout: {host.decisive or host.reason}",
            host.cause or "symptom-only",
            around + (host.fix or "read what the runtime says"),
            tuple(Evidence(f"{name}, view {view}", s.reason or "works") for view, s in views.items() if view != "host"),
        )


def missing_capabilities() -> list[str] | None:
    """Those of this kernel that this process has not in effect; None where /proc does not tell."""
    try:
        status = (procfs.PROC / "self/status").read_text()
        last = int((procfs.PROC / "sys/kernel/cap_last_cap").read_text())
    except (OSError, ValueError):
        return None
    held = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    names = [*CAPABILITIES, *(f"CAP_{number}" for number in range(len(CAPABILITIES), last + 1))][: last + 1]
    return [name for number, name in enumerate(names) if not held >> number & 1]


def _unprivileged() -> bool:
    """Then whatever failed did so for want of privileges, and says nothing of the host."""
    return len(missing_capabilities() or []) > len(CAPABILITIES) // 2


def _capabilities(probed: Probed) -> Iterator[Finding]:
    missing = missing_capabilities() or []
    if _unprivileged():
        yield Finding(
            "not-privileged",
            "error",
            f"this process has next to no capabilities ({len(missing)} are missing): most probes failed for just that",
            "capability",
            "run it as root: sudo oci-harness host",
            (Evidence("/proc/self/status", f"CapEff lacks {', '.join(missing[:3])}, ..."),),
        )
        return
    for name in missing:
        if name not in NEEDED_CAPABILITIES:
            continue
        severity, effect = NEEDED_CAPABILITIES[name]
        tried = [probed.tries[each] for each in LIMITS if each in probed.tries] if name == "CAP_SYS_RESOURCE" else []
        refused = [each for each in tried if not each.works]
        evidence = (
            Evidence("/proc/self/status", f"CapEff lacks {name}"),
            *(shown for each in refused for shown in _shown(each)),
        )
        yield Finding("capability-missing", severity, f"{name} is missing: {effect}", "capability", GRANT, evidence)


def _tries(probed: Probed) -> Iterator[Finding]:
    for name, each in probed.tries.items():
        if each.late:
            yield Finding(
                "probe-late",
                "warning",
                f"{name} did not end in time and was killed",
                "runtime-timeout",
                "look at the kernel log: something in the kernel or an LSM hangs here",
                _shown(each),
            )
        rule = _RULES.get(name)
        if rule is None or each.works or each.late or _unprivileged():
            continue
        if name.startswith("cgroup:") and probed.layout.unified is None:
            continue
        yield Finding(f"no-{name.replace(':', '-')}", rule.severity, rule.message, rule.cause, rule.fix, _shown(each))


def _idmaps(probed: Probed) -> Iterator[Finding]:
    for path, fstype in probed.stores.items():
        each = probed.tries.get(f"idmap:{path}")
        if each is not None and not each.works and probed.tries["idmap:tmpfs"].works:
            yield Finding(
                "no-idmapped-mount",
                "info",
                f"{path} ({fstype}) cannot be mounted idmapped: volumes there cannot be shared with user namespaces",
                "idmapped-mounts",
                "keep volumes on a file system that has it (ext4, xfs, btrfs; tmpfs and overlay in newer kernels)",
                _shown(each),
            )


def _cgroups(probed: Probed) -> Iterator[Finding]:
    if probed.layout.mode == "none":
        yield Finding(
            "no-cgroups",
            "error",
            "no cgroup hierarchy is mounted",
            "cgroup-controller-missing",
            "mount -t cgroup2 none /sys/fs/cgroup",
        )
    for name, each in probed.controllers.items():
        if each.usable is False and not _unprivileged():
            yield Finding(
                "controller-unusable",
                "error" if name in ("memory", "pids", "cpu", "devices") else "warning",
                f"the {name} controller (v{each.version}) does not work for a child cgroup",
                "cgroup-controller-missing",
                "delegate it: add it to cgroup.subtree_control of every parent, and mount the hierarchy rw",
                (Evidence(each.path or "", each.reason or ""),),
            )
    present = {name for name, each in probed.controllers.items() if each.version is not None}
    wanted = {"memory", "cpu", "pids", "cpuset", "blkio" if probed.layout.mode != "unified" else "io"}
    absent = sorted(wanted - present) if probed.layout.mode != "none" and probed.controllers else []
    if absent:
        yield Finding(
            "controller-missing",
            "warning",
            f"no mounted hierarchy has {', '.join(absent)}: such limits of a container are refused or ignored",
            "cgroup-controller-missing",
            "mount it, or boot with cgroup_enable=memory (or without cgroup_disable=) as the kernel needs",
        )


def _drivers(probed: Probed) -> Iterator[Finding]:
    tried = {name: each for name, each in probed.systemd.items() if each.works is not None}
    if tried and not any(each.works for each in tried.values()):
        yield Finding(
            "no-systemd-driver",
            "info",
            "the systemd cgroup driver does not work here; cgroupfs is the only one",
            "systemd-dbus",
            "use cgroupDriver: cgroupfs everywhere (kubelet and runtime), or boot with systemd as PID 1 and D-Bus",
            tuple(Evidence(name, each.reason or "") for name, each in tried.items()),
        )


def _rootless(probed: Probed) -> Iterator[Finding]:
    user = probed.rootless.get("ns:uts")  # any that needs nothing but the user namespace around it
    if user is not None and user.reason is not None:
        if not user.reason.startswith(("unshare(CLONE_NEWUSER)", "write /proc/self/uid_map")):
            return  # this process may not become another user, or not go into the delegated cgroup
        kernel = probed.settings["kernel"]
        names = ("max_user_namespaces", "unprivileged_userns_clone", "apparmor_restrict_unprivileged_userns")
        values = ", ".join(f"{name}={kernel[name]}" for name in names if kernel[name] is not None)
        yield Finding(
            "no-rootless",
            "warning",
            f"an unprivileged user cannot make a user namespace: no rootless containers ({values})",
            "namespace-unsupported",
            "sysctl user.max_user_namespaces=15000, kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0, where the sysctl is there",
            _shown(user),
        )
        return
    for name, what, fix in (
        ("overlay:tmpfs", "overlayfs: rootless engines need fuse-overlayfs or copy", "Linux 5.11 has it"),
        ("mount:proc", "a proc of its own pid namespace", "/proc must not be masked: unmask it in the outer container"),
    ):
        each = probed.rootless.get(name)
        if each is not None and not each.works:
            yield Finding(
                f"rootless-without-{name.replace(':', '-')}",
                "info",
                f"in a user namespace an unprivileged user cannot mount {what}",
                "overlay-mount" if "overlay" in name else "procfs-mask",
                fix,
                _shown(each),
            )
    if user is not None and not probed.subordinate:
        yield Finding(
            "no-subordinate-ids",
            "info",
            "no user has subordinate ids: rootless containers have one user and one group",
            "newuidmap",
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER, and install uidmap",
            (Evidence("/etc/subuid", "no entry"),),
        )


def _settings(probed: Probed) -> Iterator[Finding]:
    kernel, keys = probed.settings["kernel"], probed.settings["keys"]
    if kernel["rcu_normal"] == 1:
        yield Finding(
            "rcu-normal",
            "info",
            "rcu_normal is 1: each grace period takes milliseconds, and a start has many of them",
            "runtime-timeout",
            "echo 0 > /sys/kernel/rcu_normal, where the latency of other work allows it",
            (Evidence("/sys/kernel/rcu_normal", "1"),),
        )
    if keys and keys["keys"] * 5 >= keys["maxkeys"] * 4:
        yield Finding(
            "key-quota",
            "warning",
            f"{keys['keys']} of {keys['maxkeys']} keys of this user are taken: each container takes one",
            "keyring-quota",
            "sysctl kernel.keys.maxkeys (root: root_maxkeys) higher, or --no-new-keyring",
            (Evidence("/proc/key-users", f"{keys['keys']}/{keys['maxkeys']}"),),
        )
    nofile = probed.settings["limits"]["nofile"]["hard"]
    if isinstance(nofile, int) and nofile < 1024:
        yield Finding(
            "nofile-low",
            "warning",
            f"at most {nofile} files can be open: runtimes and engines need more",
            "rlimit",
            "raise LimitNOFILE= of the unit or ulimit -Hn",
            (Evidence("getrlimit(RLIMIT_NOFILE)", str(nofile)),),
        )


SOURCES: Final[tuple[Callable[[Probed], Iterator[Finding]], ...]] = (
    _runtimes,
    _capabilities,
    _cgroups,
    _tries,
    _idmaps,
    _drivers,
    _rootless,
    _settings,
)
