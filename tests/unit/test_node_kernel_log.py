"""What the kernel's log tells against the container stack, whatever file of a support bundle has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.diagnosis.node.examine import copied
from harness.diagnosis.node.finding import Finding
from harness.diagnosis.node.kernel_log import kernel_log
from harness.diagnosis.node.kernel_text import parse_line
from harness.diagnosis.node.tree import Tree

# from a 6.18 kernel, a container limited to 4 MiB below a pod's cgroup
MEMCG = (
    "[ 1901.188711] [  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtab"
    "les_bytes swapents name\n"
    "[ 1901.188718] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c1,mems_allow"
    "ed=0,oom_memcg=/kubepods/pod7/c1,task_memcg=/kubepods/pod7/c1,task=runc:[2:INIT],pid=385"
    "8,uid=0\n"
    "[ 1901.188766] Memory cgroup out of memory: Killed process 3858 (runc:[2:INIT]) total-vm"
    ":6568kB, anon-rss:268kB, file-rss:576kB, shmem-rss:4kB, UID:0 pgtables:52kB oom_score_ad"
    "j:1\n"
)
GLOBAL = (
    "Nov 21 10:00:01 node1 kernel: [  812.001] oom-kill:constraint=CONSTRAINT_NONE,nodemask=("
    "null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/system.slice/containerd.service,tas"
    "k=containerd-shim,pid=512,uid=0\n"
    "Nov 21 10:00:01 node1 kernel: [  812.002] Out of memory: Killed process 512 (containerd-"
    "shim) total-vm:712kB, anon-rss:2048kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:52kB "
    "oom_score_adj:-998\n"
    "Nov 21 10:00:02 node1 app[77]: Out of memory: Killed process 1 (runc) total-vm:1kB, anon"
    "-rss:1kB, file-rss:0kB\n"
    "Nov 21 10:00:03 node1 kernel: Out of memory: Killed process 900 (java) total-vm:9kB, ano"
    "n-rss:8000kB, file-rss:1kB, shmem-rss:0kB, UID:0\n"
)


def found(tmp_path: Path, text: str, path: str = "var/log/dmesg") -> list[Finding]:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return list(kernel_log(copied(tmp_path)))


def test_init_killed_by_its_own_limit(tmp_path: Path) -> None:
    """A runtime's init that its container's limit kills leads to oom-during-init, with pid, cgroup and size."""
    (finding,) = found(tmp_path, MEMCG)
    assert (finding.id, finding.cause) == ("oom-kill-in-container", "oom-during-init")
    assert "pid 3858, 848 kB resident ([ 1901.188766])" in finding.message
    assert "/kubepods/pod7/c1" in finding.message
    assert [each.where for each in finding.evidence] == ["/var/log/dmesg:2", "/var/log/dmesg:3"]


def test_node_without_memory(tmp_path: Path) -> None:
    """A shim killed by the node's shortage leads to shim-died; other victims show the shortage itself; a program that
    prints the same words is not believed."""
    shim, node = found(tmp_path, GLOBAL, "var/log/messages")
    assert (shim.id, shim.cause) == ("oom-kill-on-node", "shim-died")
    assert "containerd-shim once, as pid 512, 2048 kB resident" in shim.message
    assert (node.id, node.cause) == ("node-out-of-memory", "symptom-only")
    assert "java 900" in node.message


def test_unit_limit_and_own_cgroup(tmp_path: Path) -> None:
    """The limit of a daemon's unit, and cgroups that this package made to fail in, are told apart from containers."""
    line = (
        "[1.0] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_m"
        "emcg={0},task_memcg={0},task=runc,pid={1},uid=0\n"
    )
    text = line.format("/system.slice/containerd.service", 1) + line.format("/oci-harness-reproduce-1-a/x", 2)
    unit, own = found(tmp_path, text)
    assert (unit.id, unit.cause, unit.severity) == ("oom-kill-in-unit", "runtime-crash", "warning")
    assert (own.id, own.severity) == ("oom-kill-own", "info")


def test_container_that_hits_its_limit_is_no_finding(tmp_path: Path) -> None:
    """A container's own program that its own limit kills is no matter of the node."""
    assert found(tmp_path, MEMCG.replace("runc:[2:INIT]", "java")) == []


def test_old_kernel(tmp_path: Path) -> None:
    """Before Linux 4.19 two lines tell of a kill; the second has no scope."""
    text = (
        "[5.1] Memory cgroup out of memory: Kill process 44 (runc:[1:CHILD]) score 0 or sacrifice child\n"
        "[5.2] Killed process 44 (runc:[1:CHILD]) total-vm:88kB, anon-rss:20kB, file-rss:4kB, shmem-rss:0kB\n"
    )
    (finding,) = found(tmp_path, text)
    assert (finding.id, finding.cause) == ("oom-kill-in-container", "oom-during-init")


def test_one_event_in_three_files_is_one(tmp_path: Path) -> None:
    """dmesg, kern.log and the journal hold the same event; it is counted once."""
    line = (
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,t"
        "ask_memcg=/,task=crun,pid=9,uid=0"
    )
    found(tmp_path, f"[ 12.5] {line}\n", "sos_commands/kernel/dmesg")
    found(tmp_path, f"Nov 21 10:00:01 n kernel: {line}\n", "sos_commands/logs/journalctl_--no-pager")
    (finding,) = found(tmp_path, f"2026-11-21T10:00:01.1+00:00 n kernel: [ 12.5] {line}\n", "var/log/kern.log")
    assert "once, as pid 9" in finding.message


@pytest.mark.parametrize(
    ("line", "slug", "cause", "severity", "part"),
    [
        (
            "[9.1] INFO: task runc:[2:INIT]:4242 blocked for more than 122 seconds.",
            "hung-task",
            "runtime-timeout",
            "warning",
            "runc:[2:INIT] (4242)",
        ),
        (
            "[9.1] INFO: task jbd2/sda1-8:300 blocked for more than 120 seconds.",
            "hung-task-elsewhere",
            "runtime-timeout",
            "warning",
            "jbd2/sda1-8 (300)",
        ),
        (
            (
                '[9.1] audit: type=1326 audit(1.2:3): auid=1 uid=0 gid=0 ses=1 pid=7 comm="crun" exe="/" '
                "sig=31 arch=c000003e syscall=59 compat=0 ip=0x7 code=0x80000000"
            ),
            "seccomp-kill",
            "seccomp",
            "warning",
            "crun at system call 59 of x86_64",
        ),
        (
            (
                'type=SECCOMP msg=audit(1.2:3): auid=1 uid=0 gid=0 ses=1 pid=7 comm="runc:[2:INIT]" exe="'
                '/" sig=31 arch=c00000b7 syscall=117 compat=0 ip=0x7 code=0x0'
            ),
            "seccomp-kill",
            "seccomp",
            "warning",
            "system call 117 of aarch64",
        ),
        (
            (
                'Nov 2 1:2:3 n kernel: audit: type=1400 audit(1.2:3): apparmor="DENIED" operation="exec" '
                'class="file" profile="cri-containerd.apparmor.d" name="/app/run" pid=9 comm="runc:[2:INI'
                'T]" requested_mask="x" denied_mask="x"'
            ),
            "apparmor-denial",
            "apparmor",
            "warning",
            "cri-containerd.apparmor.d denied runc:[2:INIT] exec of /app/run",
        ),
        (
            (
                'type=AVC msg=audit(1.2:3): avc:  denied  { execute } for  pid=1 comm="runc:[2:INIT]" nam'
                'e="sh" dev="sda1" scontext=system_u:system_r:container_t:s0 tcontext=system_u:object_r:d'
                "efault_t:s0 tclass=file permissive=0"
            ),
            "selinux-denial",
            "selinux",
            "warning",
            "{ execute } on sh",
        ),
        (
            "[9.1] cgroup: fork rejected by pids controller in /kubepods/pod1/c1",
            "pids-limit-reached",
            "pids-limit",
            "warning",
            "/kubepods/pod1/c1",
        ),
        (
            "[9.1] crun[77]: segfault at 0 ip 00007f sp 00007f error 4 in libc.so.6",
            "runtime-crash",
            "runtime-crash",
            "warning",
            "crun crashed",
        ),
        (
            "[9.1] EXT4-fs (sda1): Remounting filesystem read-only",
            "disk-error",
            "rootfs-readonly",
            "warning",
            "errors of sda1",
        ),
        (
            "[9.1] blk_update_request: I/O error, dev nvme0n1, sector 8",
            "disk-error",
            "rootfs-readonly",
            "warning",
            "errors of nvme0n1",
        ),
        (
            "[9.1] overlayfs: filesystem on '/x' not supported as upperdir",
            "overlay-refused",
            "overlay-mount",
            "info",
            "not supported as upperdir",
        ),
    ],
)
def test_lines(tmp_path: Path, line: str, slug: str, cause: str, severity: str, part: str) -> None:
    """Each kind of line makes its finding, with the values of the line."""
    (finding,) = found(tmp_path, line + "\n", "var/log/audit/audit.log" if line.startswith("type=") else "dmesg.txt")
    assert (finding.id, finding.cause, finding.severity) == (slug, cause, severity)
    assert part in finding.message


@pytest.mark.parametrize(
    "line",
    [
        (
            '[9.1] audit: type=1326 audit(1.2:3): auid=1 uid=0 gid=0 ses=1 pid=7 comm="chrome" exe="/'
            '" sig=31 arch=c000003e syscall=59 compat=0 ip=0x7 code=0x80000000'
        ),
        (
            '[9.1] audit: type=1326 audit(1.2:3): auid=1 uid=0 gid=0 ses=1 pid=7 comm="crun" exe="/" '
            "sig=0 arch=c000003e syscall=59 compat=0 ip=0x7 code=0x7ffc0000"
        ),
        (
            '[9.1] audit: type=1400 audit(1.2:3): apparmor="DENIED" operation="open" profile="snap.fi'
            'refox" name="/x" pid=9 comm="firefox"'
        ),
        (
            '[9.1] audit: type=1400 audit(1.2:3): apparmor="ALLOWED" operation="open" profile="docker'
            '-default" name="/x" pid=9 comm="runc"'
        ),
        "[9.1] bash[77]: segfault at 0 ip 00007f",
    ],
)
def test_what_is_no_finding(tmp_path: Path, line: str) -> None:
    """Other programs' denials and crashes, and what was only logged, are left out."""
    assert found(tmp_path, line + "\n") == []


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("[ 1.5] a: b", ("[ 1.5]", "a: b")),
        ("[Tue Nov 21 10:00:00 2026] text", ("[Tue Nov 21 10:00:00 2026]", "text")),
        ("<6>[ 1.5] text", ("<6>[ 1.5]", "text")),
        ("kern  :info  : [ 1.5] text", ("kern  :info  : [ 1.5]", "text")),
        ("Nov 1 1:2:3 h kernel: [ 1.5] text", ("Nov 1 1:2:3 h kernel: [ 1.5]", "text")),
        ("Nov 1 1:2:3 h kernel: text", ("Nov 1 1:2:3 h kernel:", "text")),
        ("Nov 1 1:2:3 h containerd[7]: text", None),
        ("", None),
    ],
)
def test_heads(line: str, parsed: tuple[str, str] | None) -> None:
    """What logs put before a message is cut off, and lines of other programs are told apart."""
    assert parse_line(line) == parsed


def test_packed_and_absent_logs_are_told(tmp_path: Path) -> None:
    """A tree without a log, or with a packed one, says so."""
    tree = Tree(tmp_path, live=False)
    assert list(kernel_log(tree)) == []
    assert [each.what for each in tree.unseen] == ["kernel log"]
    (tmp_path / "var/log").mkdir(parents=True)
    (tmp_path / "var/log/messages-1.gz").write_bytes(b"\x1f\x8b")
    tree = Tree(tmp_path, live=False)
    assert list(kernel_log(tree)) == []
    assert [each.what for each in tree.unseen] == ["/var/log/messages-1.gz"]
