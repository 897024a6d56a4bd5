"""A copied tree is read without leaving it, without waiting and without falling over."""

from __future__ import annotations

import ast
import os
import struct
from pathlib import Path

import pytest

from harness.diagnosis.node import elf, filesystems, limits, sockets, state, stuck
from harness.diagnosis.node.examine import CHECKS, copied, examine
from harness.diagnosis.node.finding import Finding
from harness.diagnosis.node.mounts import mount_under, mounts_of
from harness.diagnosis.node.processes import parse_listing
from harness.diagnosis.node.tree import Tree
from harness.faults.catalogue import load_causes

STAT = "{pid} ({comm}) {state} 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 {start} 1 1 0 0 0\n"


def put(root: Path, path: str, data: str | bytes) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)


def ids(findings: object) -> list[str]:
    assert not isinstance(findings, Finding)
    return [finding.id for finding in findings]  # type: ignore[attr-defined]  # any iterable of findings


# --- the tree ---


def test_links_stay_inside(tmp_path: Path) -> None:
    """Absolute links and .. lead to the copy's files, never to this host's."""
    put(tmp_path, "/real/hostname", "copied\n")
    put(tmp_path, "/etc/passwd", "the copy's\n")
    (tmp_path / "etc/hostname").symlink_to("/real/hostname")
    (tmp_path / "up").symlink_to("../../../../../../etc/passwd")
    tree = copied(tmp_path)
    assert tree.read("/etc/hostname") == "copied\n"
    assert tree.read("/up") == "the copy's\n"


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A FIFO does not block, a circle of links ends; both are noted. What is not there is not."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    tree = copied(tmp_path)
    assert [tree.read(path) for path in ("/fifo", "/a", "/none", "/fifo/x", "/nul\0")] == [None] * 5
    assert [each.what for each in tree.unseen] == ["/fifo", "/a"]


def test_a_mount_that_may_hang_is_left_alone(tmp_path: Path) -> None:
    """On the live node a path on NFS is noted and not touched, also when a link leads there."""
    put(tmp_path, "/nfs/file", "x")
    (tmp_path / "link").symlink_to("/nfs/file")
    tree = Tree(tmp_path, live=True)
    line = "40 1 0:50 / /nfs rw - nfs4 server:/x rw\n"
    put(tmp_path, "/proc/self/mountinfo", line)
    tree._remote = {mount.mount_point: mount for mount in mounts_of(copied(tmp_path))[1]}
    assert (tree.read("/link"), tree.entries("/nfs"), tree.exists("/nfs/file")) == (None, [], False)
    assert {each.reason for each in tree.unseen} == {"/nfs is a nfs4 mount, which may hang; not touched"}


def test_every_check_bears_garbage(tmp_path: Path) -> None:
    """Whatever the files hold, every check ends and the examination does not raise."""
    paths = {
        node.value
        for file in Path(elf.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("/")
    }
    for path in sorted(paths - {"/"}, key=len, reverse=True):
        target = tmp_path / path.replace("*", "x").replace("?", "1").strip("/ ")
        if "\n" not in path and " " not in path and not target.exists():
            put(tmp_path, str(target.relative_to(tmp_path)), b"\xff\x00{[(\n1 2 3\nPID\n: = <&a *a>\n")
    result = examine(copied(tmp_path), ("/etc/passwd",))
    assert result.checks == [*CHECKS, "executable /etc/passwd"]
    allowed = "check cgroups"  # /proc/cgroups of another form
    assert [each for each in result.unseen if each.what.startswith("check ") and each.what != allowed] == []


def test_an_empty_tree(tmp_path: Path) -> None:
    """Nothing there, nothing found, and what was not looked at is told."""
    result = examine(copied(tmp_path))
    assert result.findings == []
    assert {"kernel log", "mounts", "processes", "listening sockets"} <= {each.what for each in result.unseen}


def test_causes_exist() -> None:
    """Every cause that a finding can name is a slug of the taxonomy."""
    slugs = set(load_causes())
    used = set()
    for file in Path(elf.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Finding", "_near"):
                at = node.args[3 if ast.unparse(node.func) == "Finding" else 4]
                used |= {each.value for each in ast.walk(at) if isinstance(each, ast.Constant)}
    named = {each for each in used if isinstance(each, str)}
    assert len(named) > 15
    assert named - slugs - {"runtime"} == set()


# --- file systems ---

MOUNTINFO = """\
1 0 8:1 / / rw,relatime - ext4 /dev/sda1 rw
2 1 8:2 / /var/lib/containerd rw - ext4 /dev/sdb1 ro,errors=remount-ro
3 1 0:9 / /run rw - tmpfs tmpfs rw
"""


def test_read_only_store(tmp_path: Path) -> None:
    """A store whose super block the kernel made read-only is named with its device."""
    put(tmp_path, "/proc/self/mountinfo", MOUNTINFO)
    (finding,) = [each for each in filesystems.file_systems(copied(tmp_path)) if each.severity == "error"]
    assert (finding.id, finding.cause) == ("read-only", "rootfs-readonly")
    assert "/var/lib/containerd (ext4 on /dev/sdb1)" in finding.message


def test_full_by_df(tmp_path: Path) -> None:
    """df's output in a bundle shows full disks and used-up inodes; a long device name may stand alone."""
    put(tmp_path, "/proc/self/mountinfo", MOUNTINFO.replace("ro,errors", "rw,errors"))
    put(
        tmp_path,
        "/df",
        "Filesystem 1K-blocks Used Available Use% Mounted on\n"
        "/dev/mapper/a-very-long-name-of-a-device\n  1000 1000 0 100% /var/lib/containerd\n"
        "/dev/sda1 1000000 960000 40000 96% /\ntmpfs 1000000 0 1000000 0% /run\n",
    )
    put(
        tmp_path,
        "/sos_commands/filesys/df_-ali",
        "Filesystem Inodes IUsed IFree IUse% Mounted on\ntmpfs 100 95 5 95% /run\n",
    )
    found = {each.id + each.severity: each for each in filesystems.file_systems(copied(tmp_path))}
    assert set(found) == {"no-roomerror", "no-roomwarning", "no-inodeserror"}
    assert "0 bytes left" in found["no-roomerror"].message
    assert "5 left" in found["no-inodeserror"].message


def test_df_for_people() -> None:
    """-h and -T are read as well; nothing left is 0 in any unit."""
    rows = filesystems.parse_df(
        "Filesystem Type Size Used Avail Use% Mounted on\n"
        "/dev/sda1 ext4 40G 40G 0 100% /\n"
        "x xfs 1T 9G 1T 1% /data dir\n"
    )
    assert (rows["/"].free_bytes, rows["/"].used) == (0, 1.0)
    assert (rows["/data dir"].free_bytes, rows["/data dir"].used) == (None, 0.01)


@pytest.mark.parametrize(
    ("path", "point"),
    [("/run/x", "/run"), ("/runner", "/"), ("/", "/"), ("/var/lib/containerd", "/var/lib/containerd")],
)
def test_mount_under(tmp_path: Path, path: str, point: str) -> None:
    """A path belongs to the longest mount point that is whole components of it."""
    put(tmp_path, "/proc/self/mountinfo", MOUNTINFO)
    mount = mount_under(path, mounts_of(copied(tmp_path))[1])
    assert mount is not None
    assert mount.mount_point == point


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/proc/mounts", "/dev/sda1 / ext4 rw 0 0\ntmpfs /my\\040run tmpfs ro 0 0\n"),
        ("/mount", "/dev/sda1 on / type ext4 (rw)\ntmpfs on /my run type tmpfs (ro)\n"),
    ],
)
def test_other_tables(tmp_path: Path, path: str, text: str) -> None:
    """proc/mounts and the output of mount(8) stand for mountinfo."""
    put(tmp_path, path, text)
    source, mounts = mounts_of(copied(tmp_path))
    assert (source, [(m.mount_point, m.fstype, m.options) for m in mounts]) == (
        path,
        [("/", "ext4", ("rw",)), ("/my run", "tmpfs", ("ro",))],
    )


# --- processes ---


def test_listings() -> None:
    """ps aux, ps -ef and the columns that sos asks for give pid, state and name."""
    aux = parse_listing(
        "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND\n"
        "root 7 0.0 0.0 1 1 ? D 10:00 0:00 /usr/bin/runc init\nroot 8 0.0 0.0 0 0 ? Z 10:00 0:00 [crun] <defunct>\n"
    )
    assert [(p.pid, p.state, p.comm) for p in aux.values()] == [(7, "D", "runc"), (8, "Z", "crun")]
    sos = parse_listing(
        "F S UID PID PPID WCHAN STARTED TTY TIME CMD\n"
        "4 D root 9 1 rpc_wait_bit Tue Nov 21 10:00:00 2026 ? 00:00:00 /usr/bin/containerd-shim-runc-v2 -id x\n"
    )
    assert (sos[9].state, sos[9].comm, sos[9].ppid, sos[9].wchan) == ("D", "containerd-shim", 1, "rpc_wait_bit")
    assert parse_listing("no header\n") == {}


def test_blocked_and_zombie_in_a_copy(tmp_path: Path) -> None:
    """A shim in state D and a runtime that nobody reaps, from copied /proc files; others do not count."""
    for pid, comm, letter in ((5, "containerd-shim", "D"), (6, "runc", "Z"), (7, "postgres", "D"), (1, "init", "S")):
        put(tmp_path, f"/proc/{pid}/stat", STAT.format(pid=pid, comm=comm, state=letter, start=1))
    put(tmp_path, "/proc/5/wchan", "nfs_wait_on_request")
    blocked, zombie = stuck.stuck_processes(copied(tmp_path))
    assert (blocked.id, blocked.cause) == ("process-blocked", "runtime-timeout")
    assert "containerd-shim 5 waits in the kernel in nfs_wait_on_request" in blocked.message
    assert (zombie.id, "runc 6, children of init 1" in zombie.message) == ("zombie", True)


# --- state ---


def test_recorded_state(tmp_path: Path) -> None:
    """A dead pid, a recycled one and one that lives; runc's and crun's notes; a cut-off one is an error."""
    put(tmp_path, "/proc/10/stat", STAT.format(pid=10, comm="bash", state="S", start=500))
    put(tmp_path, "/run/runc/gone/state.json", '{"id": "gone", "init_process_pid": 99, "init_process_start": 5}')
    put(tmp_path, "/run/runc/reused/state.json", '{"id": "reused", "init_process_pid": 10, "init_process_start": 5}')
    put(tmp_path, "/run/runc/alive/state.json", '{"id": "alive", "init_process_pid": 10, "init_process_start": 500}')
    put(tmp_path, "/run/crun/c/status", '{"pid": 98, "process-start-time": 5}')
    put(tmp_path, "/run/containerd/runc/k8s.io/torn/state.json", '{"id": "torn", "init_')
    (tmp_path / "run/containerd/runc/k8s.io/half").mkdir()
    found = list(state.recorded_state(copied(tmp_path)))
    assert sorted(ids(found)) == ["damaged-state", "stale-state", "stale-state", "state-directory-without-state"]
    runc = next(each for each in found if each.message.startswith("/run/runc"))
    assert "gone (pid 99 is gone), reused (pid 10 is another process by now (bash))" in runc.message
    assert "alive" not in runc.message
    crun = next(each for each in found if each.message.startswith("/run/crun"))
    assert "crun --root /run/crun delete --force c" in crun.fix
    assert next(each for each in found if each.id == "damaged-state").cause == "state-missing"


def test_tasks(tmp_path: Path) -> None:
    """A task whose shim is gone; one of its own shim and one in a pod's shim are well."""
    base = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
    for name in ("lost", "pod", "inner"):
        put(tmp_path, f"{base}/{name}/init.pid", "77")
    put(tmp_path, f"{base}/inner/config.json", '{"annotations": {"io.kubernetes.cri.sandbox-id": "pod"}}')
    put(tmp_path, "/proc/5/stat", STAT.format(pid=5, comm="containerd-shim", state="S", start=1))
    put(tmp_path, "/proc/5/cmdline", "/usr/bin/containerd-shim-runc-v2\0-namespace\0k8s.io\0-id\0pod\0-address\0/x\0")
    put(tmp_path, "/proc/self/mountinfo", f"1 0 0:1 / {base}/lost/rootfs rw - overlay overlay rw\n")
    (finding,) = state.containerd_tasks(copied(tmp_path))
    assert (finding.id, finding.cause) == ("task-without-shim", "state-exists")
    assert f"its init is gone; {base}/lost/rootfs still mounted" in finding.message


def test_metadata(tmp_path: Path) -> None:
    """A database without its magic number is damaged; a good one and an empty one are not."""
    path = state.METADATA[0]
    for data, expected in ((b"\0" * 9000, ["damaged-metadata"]), (b"", []), (b"\0" * 16 + b"\xed\xda\x0c\xed", [])):
        put(tmp_path, path, data)
        assert ids(state.containerd_metadata(copied(tmp_path))) == expected


def test_sockets_and_pid_files(tmp_path: Path) -> None:
    """The kubelet's endpoint that is not there, and a pid file that names somebody else."""
    put(
        tmp_path,
        "/proc/net/unix",
        "Num RefCount Protocol Flags Type St Inode Path\n0: 2 0 00010000 0001 01 1 /run/docker.sock\n",
    )
    put(tmp_path, "/var/lib/kubelet/config.yaml", "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n")
    put(tmp_path, "/run/docker.pid", "12")
    put(tmp_path, "/proc/12/stat", STAT.format(pid=12, comm="sshd", state="S", start=1))
    tree = copied(tmp_path)
    assert ids(sockets.sockets(tree)) == ["endpoint-missing"]
    assert ids(sockets.pid_files(tree)) == ["pid-file-of-another"]


# --- limits ---


@pytest.mark.parametrize(
    ("check", "files", "expected"),
    [
        (
            limits.key_quota,
            {"/proc/key-users": "    0:    9 8/8 200/200 40/25000\n 1000: 1 1/1 10/200 1/20000\n"},
            ["error"],
        ),
        (limits.key_quota, {"/proc/key-users": " 1000: 1 1/1 10/200 19000/20000\n"}, ["warning"]),
        (limits.tasks, {"/proc/loadavg": "1 1 1 2/32000 9\n", "/proc/sys/kernel/pid_max": "32768\n"}, ["warning"]),
        (limits.tasks, {"/proc/loadavg": "1 1 1 2/320 9\n", "/proc/sys/kernel/pid_max": "32768\n"}, []),
        (limits.namespaces, {"/proc/sys/user/max_user_namespaces": "0\n"}, ["warning"]),
        (limits.namespaces, {"/proc/sys/user/max_pid_namespaces": "0\n"}, ["error"]),
        (limits.namespaces, {"/proc/sys/kernel/unprivileged_userns_clone": "0\n"}, ["info"]),
        (limits.namespaces, {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "0\n"}, []),
        (
            limits.bpf_jit,
            {
                "/proc/sys/net/core/bpf_jit_limit": "2097152\n",
                "/proc/vmallocinfo": "0x1-0x2 2101248 bpf_prog_pack_alloc+0x28b/0x3a0 pages=512\n0x3-0x4 8192 clone\n",
            },
            ["error"],
        ),
        (limits.open_files, {"/proc/sys/fs/file-nr": "9500\t0\t10000\n"}, ["warning"]),
        (limits.pseudo_terminals, {"/proc/sys/kernel/pty/nr": "5\n", "/proc/sys/kernel/pty/max": "5\n"}, ["error"]),
        (limits.cgroups, {"/proc/cgroups": "#subsys_name\nmemory\t1\t65535\t1\n"}, ["error"]),
        (limits.cgroups, {"/proc/cgroups": "memory\t0\t1\t0\n"}, ["error"]),
        (limits.mount_table, {"/proc/self/mountinfo": MOUNTINFO, "/proc/sys/fs/mount-max": "3\n"}, ["error"]),
    ],
)
def test_limits(tmp_path: Path, check: object, files: dict[str, str], expected: list[str]) -> None:
    """A limit that is reached is an error, one that is near a warning, any other nothing."""
    for path, text in files.items():
        put(tmp_path, path, text)
    assert callable(check)
    assert [finding.severity for finding in check(copied(tmp_path))] == expected


# --- executables ---


def elf_file(machine: int, interpreter: bytes | None = None, order: str = "<") -> bytes:
    count = 0 if interpreter is None else 1
    head = b"\x7fELF" + bytes([2, 1 if order == "<" else 2, 1]) + b"\0" * 9
    head += struct.pack(f"{order}HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    if interpreter is None:
        return head
    name = interpreter + b"\0"
    return head + struct.pack(f"{order}IIQQQQQQ", 3, 4, 120, 0, 0, len(name), len(name), 1) + name


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (elf_file(62), []),
        (elf_file(183), [("wrong-machine", "exec-format-error")]),
        (elf_file(21, order=">"), [("wrong-machine", "exec-format-error")]),
        (elf_file(62, b"/lib/ld-musl-x86_64.so.1"), [("interpreter-missing", "missing-interpreter")]),
        (elf_file(62, b"/bin/app"), []),
        (elf_file(62, b"/x")[:100], [("not-an-executable", "exec-format-error")]),
        (b"", [("not-an-executable", "exec-format-error")]),
        (b"echo hi\n", [("not-an-executable", "exec-format-error")]),
        (b"#!/bin/bash -e\n", [("interpreter-missing", "missing-interpreter")]),
        (b"#!/bin/app\r\n", [("interpreter-missing", "missing-interpreter")]),
        (b"#! /bin/app -x\n", []),
    ],
)
def test_executable(tmp_path: Path, data: bytes, expected: list[tuple[str, str]]) -> None:
    """What execve(2) would refuse on an x86_64 node, for a file of its tree."""
    put(tmp_path, "/uname", "Linux node 6.1.0 #1 SMP x86_64 GNU/Linux\n")
    put(tmp_path, "/bin/app", data)
    (tmp_path / "bin/app").chmod(0o755)
    assert [(each.id, each.cause) for each in elf.executable(copied(tmp_path), "/bin/app", "app")] == expected


def test_executable_mode_and_absence(tmp_path: Path) -> None:
    """No x bit, and no file."""
    put(tmp_path, "/uname", "x86_64\n")
    put(tmp_path, "/a", elf_file(62))
    (tmp_path / "a").chmod(0o644)
    tree = copied(tmp_path)
    assert ids(elf.executable(tree, "/a", "a")) == ["not-executable"]
    assert ids(elf.executable(tree, "/b", "b")) == ["executable-missing"]
