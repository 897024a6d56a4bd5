"""config-linux.md, Seccomp: what a filter does to the container's system calls."""

from __future__ import annotations

import errno
import signal
from typing import Any

import pytest

from harness.compat.conformance.claims import claim
from harness.compat.conformance.lab import Lab, Running, call
from harness.runtime.failures import check

SECTION = "config-linux.md#configLinuxSeccomp"
# getpgid(2) and getsid(2): neither a runtime nor the payload calls them by themselves
SELF, OTHER = call("getpgid", 0), call("getsid", 0)


def filtered(lab: Lab, *rules: dict[str, Any], default: str = "SCMP_ACT_ALLOW", **more: Any) -> Running:
    seccomp = {"defaultAction": default, "syscalls": list(rules), **more}
    return lab.run({"linux": {"seccomp": seccomp}}, SELF, OTHER)


def rule(action: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    return {"names": ["getpgid"], "action": action, **more}


@claim(SECTION, "The default is `EPERM`.", "/linux/seccomp")
def test_seccomp_errno_default(lab: Lab) -> None:
    running = filtered(lab, rule())
    assert running.result(SELF) == -errno.EPERM
    assert running.result(OTHER) >= 0


@claim(SECTION, "the errno return code to use.", "/linux/seccomp/syscalls/0/errnoRet")
def test_seccomp_errno(lab: Lab) -> None:
    assert filtered(lab, rule(errnoRet=errno.EXDEV)).result(SELF) == -errno.EXDEV


@claim(SECTION, "the names of the syscalls.", "/linux/seccomp/syscalls/0/names/=getsid")
def test_seccomp_names(lab: Lab) -> None:
    running = filtered(lab, {"names": ["getpgid", "getsid"], "action": "SCMP_ACT_ERRNO"})
    assert (running.result(SELF), running.result(OTHER)) == (-errno.EPERM, -errno.EPERM)


@claim(
    SECTION,
    "When the action doesn't support an errno, the runtime MUST print and error and fail.",
    "/linux/seccomp/syscalls/0/errnoRet",
)
@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_ALLOW"])
def test_seccomp_errno_where_none_is(lab: Lab, action: str) -> None:
    rules = [rule(action, errnoRet=1)]
    default = "SCMP_ACT_ALLOW" if action == "SCMP_ACT_KILL" else "SCMP_ACT_LOG"
    lab.refused({"linux": {"seccomp": {"defaultAction": default, "syscalls": rules}}})


# What a runtime and the payload call between the filter and the end, on any architecture; the names that one lacks
# are left out by libseccomp.
_NEEDED = """
access arch_prctl brk capget capset chdir clone clone3 close close_range dup dup2 dup3 epoll_create1 epoll_ctl
epoll_pwait epoll_wait eventfd2 execve execveat exit exit_group faccessat faccessat2 fchdir fchown fcntl fstat
fstatfs fsync futex getcwd getdents64 getegid geteuid getgid getgroups getpid getppid getrandom gettid getuid ioctl
lseek lstat madvise mkdir mkdirat mmap mount mprotect mremap munmap nanosleep newfstatat open openat openat2 pause
pipe pipe2 poll ppoll prctl pread64 prlimit64 pselect6 pwrite64 read readlink readlinkat readv recvfrom recvmsg
restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield seccomp sendmsg sendto
set_robust_list set_tid_address setgid setgroups setresgid setresuid setsid setuid sigaltstack socket socketpair
stat statfs statx tgkill umask uname unlink unlinkat wait4 waitid write writev clock_gettime clock_nanosleep keyctl
setrlimit getrlimit
"""
NEEDED = _NEEDED.split()


@claim(SECTION, "the default action for seccomp.", "/linux/seccomp/defaultAction")
def test_seccomp_default_action(lab: Lab) -> None:
    """All but a list is refused, so what is not in it is."""
    allowed = {"names": [*NEEDED, "getsid"], "action": "SCMP_ACT_ALLOW"}
    running = filtered(lab, allowed, default="SCMP_ACT_ERRNO")
    assert running.result(SELF) == -errno.EPERM
    assert running.result(OTHER) >= 0


@claim(SECTION, "the errno return code to use.", "/linux/seccomp/defaultErrnoRet")
def test_seccomp_default_errno(lab: Lab) -> None:
    allowed = {"names": [*NEEDED, "getsid"], "action": "SCMP_ACT_ALLOW"}
    running = filtered(lab, allowed, default="SCMP_ACT_ERRNO", defaultErrnoRet=errno.EXDEV)
    assert running.result(SELF) == -errno.EXDEV


FATAL = ("SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP")


@claim(SECTION, "the action for seccomp rules.", "/linux/seccomp")
@pytest.mark.parametrize("action", FATAL)
def test_seccomp_fatal_action(lab: Lab, action: str) -> None:
    """The process dies of SIGSYS (seccomp(2)); trapped, of the signal's default."""
    container = lab.created(
        {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(action)]}}}, SELF
    )
    check(container.start())
    assert container.wait(3.0).status == -signal.SIGSYS


@claim(SECTION, "the action for seccomp rules.", "refuse:/linux/seccomp")
@pytest.mark.parametrize("action", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"])
def test_seccomp_harmless_action(lab: Lab, action: str) -> None:
    default = "SCMP_ACT_LOG" if action == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"
    assert filtered(lab, rule(action), default=default).result(SELF) >= 0


# value, valueTwo: which of the arguments 5, 6 and 7 they match
OPERATORS: dict[str, tuple[int, int, set[int]]] = {
    "SCMP_CMP_NE": (6, 0, {5, 7}),
    "SCMP_CMP_LT": (6, 0, {5}),
    "SCMP_CMP_LE": (6, 0, {5, 6}),
    "SCMP_CMP_EQ": (6, 0, {6}),
    "SCMP_CMP_GE": (6, 0, {6, 7}),
    "SCMP_CMP_GT": (6, 0, {7}),
    "SCMP_CMP_MASKED_EQ": (6, 6, {6, 7}),  # (argument & 6) == 6
}


@claim(SECTION, "the operator for syscall arguments in seccomp.", "/linux/seccomp/syscalls/0/args")
@pytest.mark.parametrize("operator", list(OPERATORS))
def test_seccomp_arguments(lab: Lab, operator: str) -> None:
    """The numbers are no user's: without the filter getpriority(2) says ESRCH."""
    value, second, matched = OPERATORS[operator]
    test: dict[str, Any] = {"index": 1, "value": value, "op": operator}
    if operator == "SCMP_CMP_MASKED_EQ":
        test["valueTwo"] = second
    rules = [{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV, "args": [test]}]
    questions = {who: call("getpriority", 2, who) for who in (5, 6, 7)}  # PRIO_USER
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    running = lab.run({"linux": {"seccomp": seccomp}}, *questions.values())
    assert {who for who, question in questions.items() if running.result(question) == -errno.EXDEV} == matched


@claim(SECTION, "list of flags to use with seccomp(2).", "refuse:/linux/seccomp/flags")
@pytest.mark.parametrize("flag", ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])
def test_seccomp_flag(lab: Lab, flag: str) -> None:
    assert filtered(lab, rule(), flags=[flag]).result(SELF) == -errno.EPERM
