"""deny_syscalls: a filter for the calling thread and what it starts; each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PREAMBLE = """
import errno, os, sys, threading
from harness.kernel import shim
null = os.open('/dev/null', os.O_RDWR)
def child(path='/bin/true', *argv, **more):
    made = shim.spawn(path, argv or (path,), (), fds=[null] * 3, **more)
    status = shim.wait(made.pid, made.pidfd).status
    os.close(made.pidfd)
    return status
def attempt(function, *args):
    try:
        return function(*args)
    except OSError as error:
        return errno.errorcode[error.errno], error.strerror
"""


def answer(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("unshare", "shim.unshare(0)"),
        ("setns", "shim.setns(null, 0)"),
        ("mount", "shim.mount(None, '/nope')"),
        ("pidfd_open", "shim.pidfd_open(os.getpid())"),
    ],
)
@pytest.mark.parametrize("code", ["EPERM", "ENOSYS", "EACCES"])
def test_denied_call_fails(name: str, call: str, code: str) -> None:
    """The named call fails with just the errno asked for."""
    script = f"shim.deny_syscalls([{name!r}], errno.{code})\nprint(attempt(lambda: {call})[0])"
    assert answer(script) == code


def test_other_calls_go_on() -> None:
    """What was not named works as before, children included."""
    assert answer("shim.deny_syscalls(['keyctl', 'fsopen'], errno.EPERM)\nprint(child(), shim.unshare(0))") == "0 None"


def test_several_names_and_filters() -> None:
    """Several names go into one filter, and a second filter adds to the first."""
    script = (
        "shim.deny_syscalls(['unshare', 'setns'], errno.EACCES)\n"
        "shim.deny_syscalls(['mount'], errno.ENOSYS)\n"
        "print(*(attempt(f)[0] for f in (lambda: shim.unshare(0), lambda: shim.setns(null, 0), "
        "lambda: shim.mount(None, '/nope'))))"
    )
    assert answer(script) == "EACCES EACCES ENOSYS"


@pytest.mark.parametrize("code", ["ENOSYS", "EPERM"])
def test_spawn_without_clone3(code: str) -> None:
    """Where clone3 is missing, or an old seccomp filter answers EPERM for it, spawn does without."""
    script = (
        f"shim.deny_syscalls(['clone3'], errno.{code})\n"
        "print(child(), child('/bin/sh', 'sh', '-c', 'exit 7', cwd='/tmp'), attempt(child, '/nope'))"
    )
    assert answer(script) == "0 7 ('ENOENT', 'No such file or directory')"


def test_cgroup_without_clone3(require: object) -> None:
    """Without clone3 the child joins its v2 cgroup by hand, and says that it was not born there."""
    require("root", "cgroup-v2")  # type: ignore[operator]  # the fixture of conftest.py
    script = (
        "from harness.cgroup.hierarchy import detect\n"
        "from pathlib import Path\n"
        "base = Path(detect().unified.mount_point) / f'oci-harness-seccomp-{os.getpid()}'\n"
        "base.mkdir()\n"
        "fd = os.open(base, os.O_RDONLY)\n"
        "shim.deny_syscalls(['clone3'], errno.ENOSYS)\n"
        "out = os.memfd_create('out')\n"
        "made = shim.spawn('/bin/cat', ['cat', '/proc/self/cgroup'], (), fds=[null, out, null], cgroup_fd=fd)\n"
        "status = shim.wait(made.pid, made.pidfd).status\n"
        "base.rmdir()\n"
        "print(status, made.into_clone, f'0::/{base.name}' in os.pread(out, 9999, 0).decode().split())"
    )
    assert answer(script) == "0 False True"


def test_inherited_and_thread_bound() -> None:
    """The filter holds for the thread that asked and for what it starts, not for another thread of the process."""
    script = (
        "seen = []\n"
        "def filtered():\n"
        "    shim.deny_syscalls(['unshare'], errno.EACCES)\n"
        "    seen.append(attempt(shim.unshare, 0)[0])\n"
        "    seen.append(child('/usr/bin/unshare', 'unshare', '--uts', 'true'))\n"
        "thread = threading.Thread(target=filtered)\nthread.start()\nthread.join()\n"
        "seen.append(shim.unshare(0))\n"
        "seen.append(child('/usr/bin/unshare', 'unshare', '--uts', 'true'))\n"
        "print(*seen)"
    )
    if not Path("/usr/bin/unshare").exists():
        pytest.skip("no unshare(1)")
    assert answer(script) == "EACCES 1 None 0"


def test_no_new_privileges() -> None:
    """The filter sets no_new_privs, as seccomp(2) asks of unprivileged callers."""
    script = (
        "status = '/proc/thread-self/status'\n"
        "read = lambda: [l.split()[1] for l in open(status) if l.startswith(('NoNewP', 'Seccomp:'))]\n"
        "before = read()\nshim.deny_syscalls(['keyctl'], errno.EPERM)\nprint(before, read())"
    )
    assert answer(script) == "['0', '0'] ['1', '2']"


def test_unknown_name() -> None:
    """A name that this shim does not know is an error that names it, and nothing is denied."""
    script = (
        "try:\n    shim.deny_syscalls(['unshare', 'frobnicate'], errno.EPERM)\n"
        "except OSError as error:\n    print(errno.errorcode[error.errno], error.filename, shim.unshare(0))"
    )
    assert answer(script) == "ENOSYS frobnicate None"
