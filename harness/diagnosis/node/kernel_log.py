"""What the kernel has logged against the container stack: OOM kills, hung tasks, denials, crashes, disk errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from msgspec import Struct, field

from harness.diagnosis.node.finding import Evidence, Finding, some
from harness.diagnosis.node.kernel_text import Message, messages
from harness.diagnosis.node.oom import OURS, oom_kills
from harness.diagnosis.node.roles import family, role
from harness.diagnosis.node.tree import Tree

WANTED = re.compile(
    r"oom-kill:|[Kk]ill(?:ed)? process |blocked for more than|type=(?:1326|SECCOMP|1400|AVC)|audit\[\d+\]: |"
    r'apparmor="DENIED"|avc: +denied|fork rejected by pids|segfault at |traps: |I/O error|EXT4-fs error|'
    r"Remounting filesystem read-only|XFS \(|BTRFS (?:error|critical)|forced readonly|overlayfs: "
)

_HUNG = re.compile(r"INFO: task (?P<comm>.+):(?P<pid>\d+) blocked (?:in I/O wait )?for more than (?P<seconds>\d+) sec")
_SECCOMP = re.compile(
    r"(?:type=|audit\[\d+\]: )(?:1326|SECCOMP)\b.*?\bpid=(?P<pid>\d+) comm=(?P<comm>\S+).*?"
    r"\bsig=(?P<signal>\d+) arch=(?P<arch>[0-9a-f]+) syscall=(?P<syscall>\d+).*?\bcode=(?P<code>0x[0-9a-f]+)"
)
_APPARMOR = re.compile(r'apparmor="DENIED" operation="(?P<operation>[^"]*)"')
_AVC = re.compile(r"avc: +denied +\{ (?P<what>[^}]*) \}")
_FIELD = re.compile(r'\b(?P<name>\w+)=(?:"(?P<quoted>[^"]*)"|(?P<bare>\S+))')
_FORK = re.compile(r"cgroup: fork rejected by pids controller in (?P<cgroup>\S+)")
_CRASH = re.compile(
    r"(?:traps: )?(?P<comm>\S+)\[(?P<pid>\d+)\]:? (?P<what>segfault at|trap invalid opcode|general protection)"
)
_DISK = re.compile(
    r"(?:Buffer |blk_update_request: (?:critical medium |I/O )?)?I/O error,? (?:on )?dev(?:ice)? (?P<device>[\w-]+)|"
    r"EXT4-fs error \(device (?P<ext4>[\w-]+)\)|EXT4-fs \((?P<ro>[\w-]+)\): Remounting filesystem read-only|"
    r"XFS \((?P<xfs>[\w-]+)\): .*(?:[Cc]orruption|[Ss]hutting down|metadata I/O error)|"
    r"BTRFS (?:error|critical|info) \(device (?P<btrfs>[\w-]+).*(?:corrupt|forced readonly|error)"
)
_OVERLAY = re.compile(r"overlayfs: (?P<what>.*(?:not supported|failed to resolve|requires|missing|invalid).*)")
_CONTAINER_PROFILE = re.compile(
    r"docker-default|cri-containerd|crio-default|containers-default|k8s|runc|crun|containerd|lxc-container-default"
)
_CONTAINER_CONTEXT = re.compile(
    r":(?:container_(?:t|init_t|kvm_t|runtime_t|user[\w]*_t)|spc_t|svirt_lxc_net_t|docker_t)(?::|$)"
)
# include/uapi/linux/audit.h, AUDIT_ARCH_*
ARCHITECTURES = {
    "c000003e": "x86_64",
    "40000003": "i386",
    "c00000b7": "aarch64",
    "40000028": "arm",
    "c0000015": "ppc64le",
    "80000016": "s390x",
    "c00000f3": "riscv64",
}
_LOGGED = 0x7FFC0000  # SECCOMP_RET_LOG: it was allowed


class _Group(Struct):
    """Messages that make one finding."""

    build: Callable[[_Group], Finding]
    messages: list[Message] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)  # those of the last one

    @property
    def times(self) -> str:
        count = len(self.messages)
        return f"{count} times, last" if count > 1 else "once"

    @property
    def when(self) -> str:
        return self.messages[-1].when or "at a time that the log does not give"

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        return tuple(Evidence(each.where, f"{each.when} {each.text}".strip()) for each in self.messages[-3:])


def kernel_log(tree: Tree) -> Iterator[Finding]:
    """Findings of the kernel's log. All are of the past, so none is an error by itself."""
    found = list(messages(tree, WANTED))
    yield from oom_kills(found)
    groups: dict[tuple[str, ...], _Group] = {}
    for message in found:
        for read in (_hung, _seccomp, _apparmor, _avc, _fork, _crash, _disk, _overlay):
            told = read(message)
            if told is not None:
                key, name, fields, build = told
                group = groups.setdefault(key, _Group(build))
                group.messages.append(message)
                group.fields = fields
                if name not in group.names:
                    group.names.append(name)
                break
    for group in groups.values():
        yield group.build(group)


_Told = tuple[tuple[str, ...], str, dict[str, str], Callable[[_Group], Finding]]


def _hung(message: Message) -> _Told | None:
    match = _HUNG.match(message.text)
    if match is None:
        return None
    ours = role(match["comm"]) is not None
    return ("hung", str(ours)), f"{match['comm']} ({match['pid']})", match.groupdict(), _hung_finding


def _hung_finding(group: _Group) -> Finding:
    ours = role(group.fields["comm"]) is not None
    who = "part of the container stack" if ours else "a task that containers may wait for"
    return Finding(
        "hung-task" if ours else "hung-task-elsewhere",
        "warning",
        f"{some(group.names)}: {who} waited more than {group.fields['seconds']} s in the kernel ({group.when})",
        "runtime-timeout",
        "Look at the stack that follows in the log: a disk or network file system that does not answer, or a lock. "
        "Repair that; the task cannot be killed while it waits.",
        group.evidence,
    )


def _seccomp(message: Message) -> _Told | None:
    match = _SECCOMP.search(message.text)
    if match is None:
        return None
    comm = match["comm"].strip('"')
    fields = {**match.groupdict(), "comm": comm}
    if role(comm) is None or int(match["code"], 16) & 0xFFFF0000 == _LOGGED:
        return None
    return ("seccomp", family(comm), match["syscall"]), comm, fields, _seccomp_finding


def _seccomp_finding(group: _Group) -> Finding:
    number, code = group.fields["syscall"], group.fields["arch"]
    arch = ARCHITECTURES.get(code, f"arch {code}")
    return Finding(
        "seccomp-kill",
        "warning",
        f"a seccomp filter killed {group.fields['comm']} at system call {number} of {arch}, {group.times} at "
        f"{group.when}",
        "seccomp",
        f"`ausyscall {arch} {number}` names the call; allow it in the profile, or update profile and libseccomp.",
        group.evidence,
    )


def _fields(text: str) -> dict[str, str]:
    return {match["name"]: match["quoted"] or match["bare"] or "" for match in _FIELD.finditer(text)}


def _apparmor(message: Message) -> _Told | None:
    match = _APPARMOR.search(message.text)
    if match is None:
        return None
    fields = _fields(message.text)
    comm, profile = fields.get("comm", ""), fields.get("profile", "")
    if role(comm) is None and not _CONTAINER_PROFILE.search(profile):
        return None
    key = ("apparmor", profile, match["operation"], family(comm))
    return key, fields.get("name", ""), fields, _apparmor_finding


def _apparmor_finding(group: _Group) -> Finding:
    fields = group.fields
    what = f" of {some(group.names)}" if any(group.names) else ""
    return Finding(
        "apparmor-denial",
        "warning" if role(fields.get("comm", "")) else "info",
        f"AppArmor profile {fields.get('profile')} denied {fields.get('comm')} {fields.get('operation')}{what}, "
        f"{group.times} at {group.when}",
        "apparmor",
        f"Allow {fields.get('operation')} in the profile and load it again (apparmor_parser -r), or name another "
        "profile for the container.",
        group.evidence,
    )


def _avc(message: Message) -> _Told | None:
    match = _AVC.search(message.text)
    if match is None:
        return None
    fields = {**_fields(message.text), "what": match["what"]}
    comm, context = fields.get("comm", ""), fields.get("scontext", "")
    if role(comm) is None and not _CONTAINER_CONTEXT.search(context):
        return None
    target = fields.get("path") or fields.get("name") or ""
    key = ("avc", match["what"], family(comm), fields.get("tcontext", ""), fields.get("permissive", ""))
    return key, target, fields, _avc_finding


def _avc_finding(group: _Group) -> Finding:
    fields = group.fields
    enforced = fields.get("permissive") != "1"
    verb = "denied" if enforced else "would deny (permissive)"
    return Finding(
        "selinux-denial",
        "warning" if enforced else "info",
        f"SELinux {verb} {fields.get('comm')} ({fields.get('scontext')}) {{ {fields['what']} }} on {some(group.names)} "
        f"({fields.get('tcontext')}, {fields.get('tclass')}), {group.times} at {group.when}",
        "selinux",
        "restorecon -R the path, or let the volume be labelled (:z, seLinuxOptions); `audit2why` explains the line.",
        group.evidence,
    )


def _fork(message: Message) -> _Told | None:
    match = _FORK.search(message.text)
    if match is None:
        return None
    return ("fork", str(OURS in match["cgroup"])), match["cgroup"], match.groupdict(), _fork_finding


def _fork_finding(group: _Group) -> Finding:
    ours = OURS in group.fields["cgroup"]
    return Finding(
        "pids-limit-reached-own" if ours else "pids-limit-reached",
        "info" if ours else "warning",
        f"the pids controller refused a fork in {some(group.names)} ({group.when}; the kernel says so once a cgroup)",
        "pids-limit",
        "Raise pids.max there (podPidsLimit, --pids-limit, TasksMax=), or find what leaks processes.",
        group.evidence,
    )


def _crash(message: Message) -> _Told | None:
    match = _CRASH.match(message.text)
    if match is None or role(match["comm"]) is None:
        return None
    return ("crash", family(match["comm"])), match["comm"], match.groupdict(), _crash_finding


def _crash_finding(group: _Group) -> Finding:
    return Finding(
        "runtime-crash",
        "warning",
        f"{group.fields['comm']} crashed ({group.fields['what']}), {group.times} at {group.when}",
        "runtime-crash",
        "Reinstall or update it (a damaged binary, or one for another CPU); `coredumpctl` may have the core.",
        group.evidence,
    )


def _disk(message: Message) -> _Told | None:
    match = _DISK.search(message.text)
    if match is None:
        return None
    device = next(value for value in match.groupdict().values() if value)
    return ("disk", device), device, {"device": device}, _disk_finding


def _disk_finding(group: _Group) -> Finding:
    return Finding(
        "disk-error",
        "warning",
        f"the kernel reports errors of {group.fields['device']}, {group.times} at {group.when}",
        "rootfs-readonly",
        "Check the disk (smartctl -a, fsck after unmounting); a file system that went read-only stays so until "
        "repaired.",
        group.evidence,
    )


def _overlay(message: Message) -> _Told | None:
    match = _OVERLAY.search(message.text)
    return None if match is None else (("overlay",), match["what"], match.groupdict(), _overlay_finding)


def _overlay_finding(group: _Group) -> Finding:
    return Finding(
        "overlay-refused",
        "info",
        f"overlayfs refused a mount, {group.times} at {group.when}: {group.fields['what']}",
        "overlay-mount",
        "A layer that is gone: remove the image's snapshot and pull again. An upper layer on overlay, NFS or xfs with "
        "ftype=0: put the storage on ext4 or xfs.",
        group.evidence,
    )
