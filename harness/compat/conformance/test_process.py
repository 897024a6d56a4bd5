"""config.md, Process, POSIX process and User: what the container's process has."""

from __future__ import annotations

import fcntl
import os
import resource
import struct
import termios
from typing import Any

import pytest

from harness.compat.conformance.claims import claim
from harness.compat.conformance.lab import DEV, PROC, STATUS, Lab, args_for, closing, link, read, terminal
from harness.runtime.console import ConsoleSocket
from harness.runtime.failures import check

PROCESS = "config.md#configProcess"
POSIX = "config.md#configPOSIXProcess"
USER = "config.md#configPOSIXUser"
FDS = "runtime-linux.md#runtimeLinuxFileDescriptors"
RECEIVE_S = 3.0  # for the terminal to come through the socket
CWD = link("/proc/self/cwd")
ENVIRON = read("/proc/self/environ")
LIMITS = read("/proc/self/limits")
CMDLINE = read("/proc/self/cmdline")


@claim(PROCESS, "(string, REQUIRED) is the working directory that will be set for the executable.", "/process/cwd")
def test_cwd(lab: Lab) -> None:
    assert lab.run({"process": {"cwd": "/secrets"}}, CWD).text(CWD) == "/secrets"


@claim(PROCESS, "This value MUST be an absolute path.", "/process/cwd")
def test_cwd_relative(lab: Lab) -> None:
    lab.refused({"process": {"cwd": "secrets"}}, at_start=True)


@claim(
    PROCESS,
    "(array of strings, OPTIONAL) with the same semantics as IEEE Std 1003.1-2008's `environ`.",
    "/process/env/=KEY=value with = and blank",
    "/process/env/=EMPTY=",
)
def test_env(lab: Lab) -> None:
    """Nothing is lost; what a runtime adds, such as HOME, is its own affair."""
    wanted = ["PATH=/", "KEY=value with = and blank", "EMPTY="]
    found = lab.run({"process": {"env": wanted}}, ENVIRON).text(ENVIRON).split("\0")
    assert [entry for entry in found if entry in wanted] == wanted


@claim(
    PROCESS,
    "(array of strings, OPTIONAL) with similar semantics to IEEE Std 1003.1-2008 `execvp`'s argv.",
    "/process/args/=two words",
    "/process/args/=$(nothing)",
)
def test_args(lab: Lab) -> None:
    args = [*args_for((CMDLINE,)), ",", "", "two words", "$(nothing)"]
    assert lab.run({"process": {"args": args}}, CMDLINE).text(CMDLINE) == "\0".join(args) + "\0"


@claim(
    PROCESS,
    "that entry is used with the same semantics as `execvp`'s file.",
    "/process/env/=PATH=~1nowhere:~1secrets~1..",
)
def test_args_found_in_path(lab: Lab) -> None:
    """A name without a slash is looked for in PATH."""
    args = ["payload", *args_for((CMDLINE,))[1:]]
    patch = {"process": {"args": args, "env": ["PATH=/nowhere:/secrets/.."]}}
    assert lab.run(patch, CMDLINE).text(CMDLINE).startswith("payload\0ask\0")


@claim(PROCESS, "at least one entry is REQUIRED (non-Windows)", "add:/process/args/0")
def test_args_empty(lab: Lab) -> None:
    container = lab.container({"process": {"args": ["/payload"]}})
    container.bundle.config.document["process"]["args"] = []
    lab.rewrite(container, {})
    operation = container.create()
    if operation.exit_status == 0:
        operation = container.start()
    assert operation.exit_status != 0


@claim(
    FDS,
    "only the `stdin`, `stdout` and `stderr` file descriptors are kept open for the application by the runtime.",
    "leak:create",
)
def test_file_descriptors(lab: Lab) -> None:
    questions = [link(f"/proc/self/fd/{fd}") for fd in range(64)]
    running = lab.run({}, *questions)
    assert [fd for fd in range(64) if running.answers[questions[fd]][0] == 0] == [0, 1, 2]


# The terminal


TERMINAL: dict[str, Any] = {
    "process": {
        "terminal": True,
        "consoleSize": {"height": 31, "width": 97},
        "args": ["/payload", "pause"],
    },
    "mounts": [PROC, *DEV],
}


@claim(
    PROCESS,
    "if set to true on Linux a pseudoterminal pair is allocated for the process and the pseudoterminal pty is "
    "duplicated on "
    "the process's standard streams.",
    "/process/terminal",
    needs=("host-process:",),
)
def test_terminal(lab: Lab) -> None:
    container = lab.container(TERMINAL)
    with ConsoleSocket(container.directory) as socket:
        check(container.create(terminal(container, socket.path)))
        with closing(socket.receive(RECEIVE_S)) as master:
            assert os.isatty(master)
            check(container.start())
            assert container.init is not None
            fds = {os.stat(f"/proc/{container.init.pid}/fd/{fd}").st_rdev for fd in range(3)}
            assert {os.major(device) for device in fds} == {136}  # Unix98 pty slaves, devices.txt
            assert len(fds) == 1


@claim(
    PROCESS,
    "(object, OPTIONAL) specifies the console size in characters of the terminal.",
    "/process/consoleSize",
    "/process/terminal",
)
def test_console_size(lab: Lab) -> None:
    container = lab.container(TERMINAL)
    with ConsoleSocket(container.directory) as socket:
        check(container.create(terminal(container, socket.path)))
        with closing(socket.receive(RECEIVE_S)) as master:
            check(container.start())
            size = struct.unpack("4H", fcntl.ioctl(master, termios.TIOCGWINSZ, bytes(8)))
    assert size[:2] == (31, 97)


@claim(
    "config-linux.md#configLinuxDefaultDevices",
    "`/dev/console` is set up if `terminal` is enabled in the config by bind mounting the pseudoterminal pty to "
    "`/dev/console`.",
    "/process/terminal",
    needs=("host-process:",),
)
def test_console_device(lab: Lab) -> None:
    container = lab.container(TERMINAL)
    with ConsoleSocket(container.directory) as socket:
        check(container.create(terminal(container, socket.path)))
        with closing(socket.receive(RECEIVE_S)):
            check(container.start())
            assert container.init is not None
            root = f"/proc/{container.init.pid}/root"
            assert os.stat(f"{root}/dev/console").st_rdev == os.stat(f"/proc/{container.init.pid}/fd/0").st_rdev


@claim(PROCESS, "Runtimes MUST ignore `consoleSize` if `terminal` is `false` or unset.", "refuse:/process/consoleSize")
def test_console_size_without_terminal(lab: Lab) -> None:
    lab.run({"process": {"consoleSize": {"height": 31, "width": 97}}})


# Limits; lower than what this process has, for raising one needs CAP_SYS_RESOURCE

LIMITED = {
    "RLIMIT_AS": ("Max address space", 1 << 40),
    "RLIMIT_CORE": ("Max core file size", 4096),
    "RLIMIT_CPU": ("Max cpu time", 1000),
    "RLIMIT_DATA": ("Max data size", 1 << 40),
    "RLIMIT_FSIZE": ("Max file size", 1 << 30),
    "RLIMIT_LOCKS": ("Max file locks", 100),
    "RLIMIT_MEMLOCK": ("Max locked memory", 16384),
    "RLIMIT_MSGQUEUE": ("Max msgqueue size", 8192),
    "RLIMIT_NOFILE": ("Max open files", 600),
    "RLIMIT_NPROC": ("Max processes", 1000),
    "RLIMIT_RSS": ("Max resident set", 1 << 30),
    "RLIMIT_RTTIME": ("Max realtime timeout", 100000),
    "RLIMIT_SIGPENDING": ("Max pending signals", 500),
    "RLIMIT_STACK": ("Max stack size", 4 << 20),
}


@claim(POSIX, "`rlim.rlim_cur` MUST match the configured value.", "/process/rlimits/type={kind}")
@pytest.mark.parametrize("kind", list(LIMITED))
def test_rlimit(lab: Lab, kind: str) -> None:
    """Soft and hard; the soft one lower, so that they cannot be mixed up."""
    label, hard = LIMITED[kind]
    number = getattr(resource, kind, None)
    mine = resource.RLIM_INFINITY if number is None else resource.getrlimit(number)[1]
    if mine != resource.RLIM_INFINITY and mine <= hard:
        pytest.skip(f"the hard limit here is {mine} already, so {hard} would be no change")
    running = lab.run({"process": {"rlimits": [{"type": kind, "soft": hard // 2, "hard": hard}]}}, LIMITS)
    lines = [line for line in running.text(LIMITS).splitlines() if line.startswith(label)]
    assert lines[0].removeprefix(label).split()[:2] == [str(hard // 2), str(hard)]


@claim(
    POSIX,
    "The runtime MUST generate an error for any values which cannot be mapped to a relevant kernel interface.",
    "/process/rlimits",
)
def test_rlimit_unknown(lab: Lab) -> None:
    lab.refused({"process": {"rlimits": [{"type": "RLIMIT_BOGUS", "soft": 1, "hard": 1}]}}, at_start=True)


@claim(
    POSIX,
    "If `rlimits` contains duplicated entries with same `type`, the runtime MUST generate an error.",
    "/process/rlimits/1",
)
def test_rlimit_twice(lab: Lab) -> None:
    entry = {"type": "RLIMIT_CORE", "soft": 4096, "hard": 4096}
    lab.refused({"process": {"rlimits": [entry, entry]}}, at_start=True)


# The user


@claim(USER, "(int, REQUIRED) specifies the user ID in the container namespace.", "/process/user/uid")
def test_uid(lab: Lab) -> None:
    assert lab.run({"process": {"user": {"uid": 1001}}}, STATUS).status("Uid").split() == ["1001"] * 4


@claim(USER, "(int, REQUIRED) specifies the group ID in the container namespace.", "/process/user/gid")
def test_gid(lab: Lab) -> None:
    assert lab.run({"process": {"user": {"gid": 1002}}}, STATUS).status("Gid").split() == ["1002"] * 4


@claim(
    USER,
    "specifies additional group IDs in the container namespace to be added to the process.",
    "/process/user/additionalGids",
)
def test_additional_gids(lab: Lab) -> None:
    groups = lab.run({"process": {"user": {"additionalGids": [7, 4000]}}}, STATUS).status("Groups").split()
    assert {"7", "4000"} <= set(groups)


@claim(
    USER,
    "specifies additional group IDs in the container namespace to be added to the process.",
    "add:/process/user/additionalGids",
)
def test_no_additional_gids(lab: Lab) -> None:
    """None of the runtime's own groups come along."""
    groups = lab.run({"process": {"user": {"uid": 1001, "gid": 1002}}}, STATUS).status("Groups").split()
    assert set(groups) <= {"1002"}


@claim(USER, "(int, OPTIONAL) specifies the umask of the user.", "/process/user/umask")
def test_umask(lab: Lab) -> None:
    assert lab.run({"process": {"user": {"umask": 0o137}}}, STATUS).status("Umask") == "0137"


@claim(
    USER,
    "If unspecified, the umask should not be changed from the calling process' umask.",
    "add:/process/user/umask",
)
def test_umask_unspecified(lab: Lab) -> None:
    before = os.umask(0o053)
    try:
        running = lab.run({}, STATUS)
    finally:
        os.umask(before)
    assert running.status("Umask") == "0053"
