"""The minimizer with real runtimes: ten faults planted in a Kubernetes-like config; what it refuses and survives."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from actors import CommandLine, Sessions, until

from harness.diagnosis.minimize import Progress, minimize
from harness.diagnosis.reduced import verify, write_bundle
from harness.oci.bundle import Bundle, create_bundle
from harness.runtime.discovery import Runtime
from harness.runtime.session import Session

# As containerd's default: all is denied but this. What is here lets runc, crun and the payload work.
ALLOWED = """
    accept accept4 access adjtimex alarm bind brk capget capset chdir chmod chown clock_adjtime clock_getres
    clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
    epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group
    faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchown fchownat fcntl fdatasync fgetxattr
    flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_waitv getcpu getcwd
    getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid
    getpriority getrandom getresgid getresuid getrlimit get_robust_list getrusage getsid getsockname getsockopt
    get_thread_area gettid gettimeofday getuid getxattr inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch ioctl kill lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek
    lsetxattr lstat madvise membarrier memfd_create mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap
    mprotect mremap msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat open openat
    openat2 pause pidfd_open pidfd_send_signal pipe pipe2 poll ppoll prctl pread64 preadv preadv2 prlimit64
    pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg rename
    renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_getaffinity sched_getattr sched_getparam
    sched_get_priority_max sched_get_priority_min sched_getscheduler sched_setaffinity sched_yield seccomp select
    semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto setfsgid setfsuid setgid setgroups setitimer
    setpgid setpriority setregid setresgid setresuid setreuid setrlimit set_robust_list setsid setsockopt
    set_thread_area set_tid_address setuid setxattr shmat shmctl shmdt shmget shutdown sigaltstack socket
    socketpair splice stat statfs statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
    timer_create timer_delete timerfd_create timerfd_gettime timerfd_settime timer_getoverrun timer_gettime
    timer_settime times tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4
    waitid write writev arch_prctl clone clone3
"""
ANNOTATIONS = {
    "io.kubernetes.cri.container-name": "web",
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.image-name": "registry.example.org/web:1.2",
    "io.kubernetes.cri.sandbox-id": "0123456789abcdef0123456789abcdef",
    "io.kubernetes.cri.sandbox-name": "web-7d4b9c6f5-abcde",
    "io.kubernetes.cri.sandbox-namespace": "default",
}


@dataclass(frozen=True)
class Planted:
    """One fault: a change of the config, and what must be found."""

    pointer: str
    value: Any
    cause: str
    kept: str  # with `*` for an index


PLANTED = {
    "memory": Planted("/linux/resources/memory/limit", -5, "cgroup-invalid-value", "/linux/resources/memory/limit"),
    "cpuset": Planted("/linux/resources/cpu/cpus", "9999", "cpuset", "/linux/resources/cpu/cpus"),
    "volume": Planted(
        "/mounts/-",
        {"destination": "/data", "type": "bind", "source": "/no/such/volume", "options": ["rbind", "rprivate", "rw"]},
        "mount-source-missing",
        "/mounts/9",
    ),
    "hook": Planted("/hooks/createRuntime/-", {"path": "/no/such/hook"}, "hooks-failed", "/hooks/createRuntime/1"),
    "sysctl": Planted("/linux/sysctl/net.ipv4.no_such", "1", "sysctl-denied", "/linux/sysctl/net.ipv4.no_such"),
    "seccomp": Planted(
        "/linux/seccomp/syscalls/-",
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_ODD"}],
        },
        "seccomp",
        "/linux/seccomp/syscalls/1*",
    ),
    "rlimit": Planted(
        "/process/rlimits/-", {"type": "RLIMIT_CORE", "soft": 200, "hard": 100}, "rlimit", "/process/rlimits/1"
    ),
    "command": Planted("/process/args", ["/app/run", "--port", "80"], "exec-not-found", "/process/args"),
    "hostname": Planted("/hostname", "h" * 65, "config-invalid", "/hostname"),
    "apparmor": Planted("/process/apparmorProfile", "no-such-profile", "apparmor", "/process/apparmorProfile"),
}


def kubernetes_like(directory: Path, *changes: tuple[str, Any]) -> Bundle:
    """What a kubelet's container looks like on disk, some 500 lines, with `changes`."""
    source = directory / "volume"
    source.mkdir(parents=True)
    (source / "token").write_text("t")
    settings: list[tuple[str, Any]] = [
        ("/annotations", ANNOTATIONS),
        ("/process/rlimits", [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}]),
        ("/linux/sysctl", {"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shm_rmid_forced": "0"}),
        ("/hooks", {"createRuntime": [{"path": "/bin/cat"}]}),  # it reads the state: crun may fail where none does
        (
            "/linux/seccomp",
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [{"names": ALLOWED.split(), "action": "SCMP_ACT_ALLOW"}],
            },
        ),
        *(
            ("/mounts/-", {"destination": at, "type": "bind", "source": str(source), "options": ["rbind", "ro"]})
            for at in ("/var/run/secrets/kubernetes.io/serviceaccount", "/config")
        ),
        *changes,
    ]
    return create_bundle(directory / "web", "kubernetes", tuple(settings))


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest, require: Callable[..., None], sessions: Sessions) -> Runtime:
    require("root", "runc", "crun")
    return sessions.runtime(request.param)


@pytest.fixture
def session(pair: Session) -> Session:
    return pair


def matches(pointer: str, pattern: str) -> bool:
    return pointer.startswith(pattern[:-1]) if pattern.endswith("*") else pointer == pattern


def lines(bundle: Bundle) -> int:
    return len((bundle.path / "config.json").read_text().splitlines())


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_all_that_is_left(session: Session, runtime: Runtime, tmp_path: Path, name: str) -> None:
    """Of 300 lines and more at most 3 places stay, of the right cause, each proven, with fewer than 60 calls."""
    planted = PLANTED[name]
    bundle = kubernetes_like(tmp_path, (planted.pointer, planted.value))
    assert lines(bundle) >= 300
    config, files = (bundle.path / "config.json").read_bytes(), sorted(map(str, bundle.path.rglob("*")))
    result = minimize(session, runtime, bundle)
    write_bundle(result, tmp_path / "small")
    verify(session, runtime, result)
    print(  # the measured figures, with -s
        f"| {name} | {runtime.name} | {result.tests_run} | {result.runtime_calls} | {result.seconds:.2f} "
        f"| {', '.join(each.pointer for each in result.kept)} |"
    )
    assert (result.verdict, result.outcome.cause, result.outcome.stage) == ("minimized", planted.cause, "create")
    assert any(matches(each.pointer, planted.kept) for each in result.kept), result.to_json()
    assert len(result.kept) <= 3
    assert result.tests_run < 60
    assert result.runtime_calls < 60
    assert result.verified
    outcomes = [each.outcome for each in result.kept]
    assert all(outcome is not None and not outcome.same(result.outcome) for outcome in outcomes)
    culprit = next(each for each in result.kept if matches(each.pointer, planted.kept))
    assert culprit.outcome is not None
    assert culprit.outcome.stage is None
    assert lines(Bundle.load(tmp_path / "small")) < 70
    assert (bundle.path / "config.json").read_bytes() == config
    assert sorted(map(str, bundle.path.rglob("*"))) == files


def test_the_reduced_bundle_fails_by_hand(session: Session, tmp_path: Path, require: Callable[..., None]) -> None:
    """Without this tool, with the command that is shown."""
    require("root", "runc", "crun")
    runc = Sessions().runtime("runc")
    result = minimize(session, runc, kubernetes_like(tmp_path, ("/hostname", "h" * 65)))
    write_bundle(result, tmp_path / "small")
    (command,) = result.commands(runc, [])
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "sethostname: invalid argument" in done.stderr


def test_two_parts_that_fail_only_together_both_stay(session: Session, runtime: Runtime, tmp_path: Path) -> None:
    """A program that a mount hides: with either alone it starts."""
    empty = tmp_path / "empty"
    empty.mkdir()
    mount = {"destination": "/app", "type": "bind", "source": str(empty), "options": ["bind"]}
    bundle = kubernetes_like(tmp_path, ("/process/args", ["/app/run"]), ("/mounts/-", mount))
    program = bundle.path / "rootfs/app/run"
    program.parent.mkdir()
    program.write_bytes((bundle.path / "rootfs/payload").read_bytes())
    program.chmod(0o755)
    result = minimize(session, runtime, bundle)
    assert result.outcome.cause == "exec-not-found"
    assert {each.pointer: each.outcome and each.outcome.word for each in result.kept} == {
        "/process/args": "starts",
        "/mounts/9": "starts",
    }
    assert result.rootfs == "copied"


def test_a_failure_of_another_cause_is_never_kept(session: Session, runtime: Runtime, tmp_path: Path) -> None:
    """Two faults: the one that the runtime meets first is found, and the other one does not stay."""
    faults = [PLANTED["memory"], PLANTED["command"]]
    result = minimize(session, runtime, kubernetes_like(tmp_path, *((each.pointer, each.value) for each in faults)))
    assert [each.pointer for each in result.kept] in (["/linux/resources/memory/limit"], ["/process/args"])
    assert result.outcome.cause in ("cgroup-invalid-value", "exec-not-found")


def test_where_the_config_is_not_to_blame_nothing_is_kept(session: Session, runtime: Runtime, tmp_path: Path) -> None:
    """A file where the kernel needs /proc: the skeleton itself fails, and that is the answer."""
    bundle = kubernetes_like(tmp_path)
    (bundle.path / "rootfs/proc").rmdir()
    (bundle.path / "rootfs/proc").write_text("")
    result = minimize(session, runtime, bundle)
    assert (result.verdict, result.kept) == ("minimized", [])
    assert result.rootfs == "copied"


def test_what_starts_is_no_failure(session: Session, runtime: Runtime, tmp_path: Path) -> None:
    result = minimize(session, runtime, kubernetes_like(tmp_path))
    assert (result.verdict, result.outcome.stage, result.document) == ("starts", None, {})


def test_a_flaky_bundle_is_refused(session: Session, runtime: Runtime, tmp_path: Path) -> None:
    """A hook that fails every other time."""
    flag = tmp_path / "flag"
    script = f"if [ -e {flag} ]; then rm {flag}; else touch {flag}; exit 1; fi"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script]}
    result = minimize(session, runtime, kubernetes_like(tmp_path, ("/hooks", {"createRuntime": [hook]})))
    assert result.verdict == "unstable"
    assert result.reason is not None
    assert "run 2: it starts" in result.reason
    assert result.document == {}


def test_max_tests_stops_with_what_there_is(session: Session, tmp_path: Path, require: Callable[..., None]) -> None:
    require("root", "runc", "crun")
    runc = Sessions().runtime("runc")
    seen: list[Progress] = []
    bundle = kubernetes_like(tmp_path, ("/hostname", "h" * 65))
    result = minimize(session, runc, bundle, max_tests=4, tick=seen.append)
    assert (result.verdict, result.tests_run, len(seen)) == ("partial", 4, 4)
    assert 0 < result.removed_count < result.total_count
    assert [each.outcome for each in result.kept] == [None] * len(result.kept)


def test_a_cgroup_path_that_is_the_fault_leaves_no_cgroup(session: Session, tmp_path: Path) -> None:
    """Its own path is used only where the failure needs it, and what was made there is removed."""
    crun = Sessions().runtime("crun")
    bundle = kubernetes_like(tmp_path, ("/linux/cgroupsPath", "/oci-harness-test-a\nb/c"))
    result = minimize(session, crun, bundle)
    assert [each.pointer for each in result.kept] == ["/linux/cgroupsPath"]
    assert result.document["linux"]["cgroupsPath"] == "/oci-harness-test-a\nb/c"


# --- the command ---


def slow_fault(directory: Path, marker: Path) -> Bundle:
    """A hook that takes its time, leaves a line and fails."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"echo >>{marker}; sleep 0.3; exit 1"]}
    return kubernetes_like(directory, ("/hooks", {"createRuntime": [hook]}))


@pytest.mark.usefixtures("no_leaks")
def test_ctrl_c_reports_the_best_so_far(cli: CommandLine, tmp_path: Path, require: Callable[..., None]) -> None:
    """Interrupted within a try: nothing is left, and what was found is printed and written."""
    require("root", "runc")
    marker = tmp_path / "marker"
    bundle = slow_fault(tmp_path, marker)
    done = cli.start("minimize", str(bundle.path), "--runtime", "runc", "--view", "host", "--json")
    until(lambda: marker.exists() and len(marker.read_text()) >= 5, "the fifth try")
    done.send_signal(signal.SIGINT)
    stdout, stderr = done.communicate(timeout=30)
    assert done.returncode == 130, stderr
    found = json.loads(stdout)
    assert (found["verdict"], found["reason"], found["cause"]) == ("partial", "interrupted", "hooks-failed")
    assert any(each.startswith("/hooks/createRuntime/0") for each in found["kept"])
    assert Path(found["bundle"]) == tmp_path / "web-minimal"
    assert Bundle.load(tmp_path / "web-minimal").config.get("/hooks/createRuntime/0/path") == "/bin/sh"


@pytest.mark.usefixtures("no_leaks")
def test_the_command_explains_and_writes(cli: CommandLine, tmp_path: Path, require: Callable[..., None]) -> None:
    """A person reads what was kept and why; the default directory is beside the bundle and never overwritten."""
    require("root", "runc")
    bundle = kubernetes_like(tmp_path, ("/linux/resources/memory/limit", -5))
    for name in ("web-minimal", "web-minimal-2"):
        saved = tmp_path / f"{name}.json"
        done = cli("minimize", str(bundle.path), "--runtime", "runc", "-o", str(saved))
        assert done.status == 0, done
        assert "cgroup-invalid-value at create" in done.stdout
        assert "/linux/resources/memory/limit = -5" in done.stdout
        assert "without it: it starts" in done.stdout
        assert json.loads(saved.read_text())["bundle"] == str(tmp_path / name)
        assert (tmp_path / name / "rootfs/payload").is_file()
    done = cli("minimize", str(bundle.path), "--keep", str(tmp_path / "web-minimal"))
    assert done.status == 2
    assert "is not an empty directory" in done.error


@pytest.mark.usefixtures("no_leaks")
def test_the_command_says_no(cli: CommandLine, tmp_path: Path, require: Callable[..., None]) -> None:
    """Exit status 1, JSON with the reason, and no directory written."""
    require("root", "runc")
    bundle = kubernetes_like(tmp_path)
    done = cli("minimize", str(bundle.path), "--runtime", "runc", "--json")
    assert done.status == 1
    assert (done.json["verdict"], done.json["cause"], done.json["bundle"]) == ("starts", None, None)
    assert not (tmp_path / "web-minimal").exists()


@pytest.mark.usefixtures("no_leaks")
def test_bad_input_is_one_line(cli: CommandLine, tmp_path: Path, require: Callable[..., None]) -> None:
    require("root", "runc")
    (tmp_path / "config.json").write_text('{"ociVersion": ')
    assert "not JSON" in cli("minimize", str(tmp_path)).error
    assert "no such directory" in cli("minimize", str(tmp_path / "nowhere")).error
    assert cli("minimize", str(tmp_path), "--max-tests", "1").status == 2
