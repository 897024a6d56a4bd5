"""shim.spawn: the child gets exactly what was asked for, and a failure on the way leaves nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cgroup.hierarchy import detect
from harness.kernel import procfs, shim
from harness.kernel.mounts import MountNamespace
from harness.oci.rootfs import payload_binary

Require = Callable[..., None]
PYTHON = str(Path(sys.executable).resolve())
# What a child sees of itself. Descriptors first: nothing has been opened yet.
REPORT = """
import os, sys
fds = {}
for n in range(80):
    try: s = os.fstat(n)
    except OSError: continue
    fds[n] = (s.st_dev, s.st_ino)
import json
read = lambda name: open('/proc/self/' + name, 'rb').read().hex()
status = dict(l.split(':\\t', 1) for l in open('/proc/self/status') if ':\\t' in l)
out = {'fds': fds, 'cmdline': read('cmdline'), 'environ': read('environ'), 'cwd': os.getcwdb().hex(),
       'sid': os.getsid(0), 'pid': os.getpid(), 'ppid': os.getppid()}
open(sys.argv[1], 'w').write(json.dumps(out))
"""
BOTH = pytest.mark.parametrize("flags", [0, shim.SPAWN_NO_CLONE3], ids=["clone3", "clone"])


@pytest.fixture(scope="module")
def null() -> Iterator[int]:
    fd = os.open("/dev/null", os.O_RDWR)
    yield fd
    os.close(fd)


def open_fds() -> set[int]:
    """Numbers of our open descriptors; opens none itself."""

    def is_open(fd: int) -> bool:
        try:
            os.fstat(fd)
        except OSError:
            return False
        return True

    return {fd for fd in range(512) if is_open(fd)}


def finish(child: shim.Spawned, timeout_s: float = 10.0) -> shim.Exit:
    try:
        return shim.wait(child.pid, child.pidfd, int(timeout_s * 1e9))
    finally:
        os.close(child.pidfd)


def output_of(path: str, argv: list[str], *, null: int, env: tuple[str, ...] = (), **more: object) -> bytes:
    """stdout of a command that ends well."""
    fd = os.memfd_create("out", os.MFD_CLOEXEC)
    try:
        ended = finish(shim.spawn(path, argv, env, fds=[null, fd, null], **more))  # type: ignore[arg-type]  # passed on
        assert ended.status == 0
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def report(fds: list[int], directory: Path, **more: object) -> dict[str, object]:
    """What a child that was given `fds` sees of itself."""
    file = directory / secrets.token_hex(4)
    env: tuple[str, ...] = more.pop("env", ())  # type: ignore[assignment]  # object is a tuple here
    argv = [PYTHON, "-I", "-S", "-c", REPORT, str(file)]
    child = shim.spawn(PYTHON, argv, env, fds=fds, **more)  # type: ignore[arg-type]  # passed on
    assert finish(child).status == 0
    found: dict[str, object] = json.loads(file.read_text())
    assert found["pid"] == child.pid
    return found


def signal_sets(text: bytes) -> dict[str, int]:
    """{SigBlk, SigIgn, SigCgt: mask} of a /proc/PID/status."""
    lines = [line.split(b":\t") for line in text.splitlines() if line.startswith(b"Sig") and b"SigQ" not in line]
    return {name.decode(): int(value, 16) for name, value in lines}


@BOTH
def test_argv_exact(null: int, flags: int) -> None:
    """Empty, non-ASCII and undecodable arguments arrive byte for byte, and argv[0] need not be the path."""
    script = "import sys; sys.stdout.buffer.write(open('/proc/self/cmdline', 'rb').read())"
    extra = ["", "a b", "-x", "żółć", "日本", os.fsdecode(b"\xff\xfe\x80"), "", "\n\t'\"\\", ""]
    argv = ["not the path", "-I", "-S", "-c", script, *extra]
    seen = output_of(PYTHON, argv, null=null, flags=flags)
    assert seen == b"".join(os.fsencode(a) + b"\0" for a in argv)


@BOTH
def test_thousand_arguments(null: int, flags: int) -> None:
    """A thousand arguments and a thousand variables arrive complete and in order."""
    argv = ["/bin/cat", "/proc/self/cmdline", "/proc/self/environ", "--", *["/dev/null"] * 996]
    env = tuple(f"V{i}={i}" for i in range(1000))
    seen = output_of("/bin/cat", argv, null=null, env=env, flags=flags)
    assert len(argv) == 1000
    assert seen == b"".join(os.fsencode(s) + b"\0" for s in [*argv, *env])


@BOTH
def test_environment_exact(null: int, flags: int) -> None:
    """The environment is just what was given: nothing of ours, order and odd bytes kept, empty when empty."""
    env = ("B=2", "A=", "NAME=żółć", "RAW=" + os.fsdecode(b"\xff"), "no-equals-sign", "A=twice")
    argv = ["cat", "/proc/self/environ"]
    seen = output_of("/bin/cat", argv, null=null, env=env, flags=flags)
    assert seen == b"".join(os.fsencode(s) + b"\0" for s in env)
    assert output_of("/bin/cat", argv, null=null, flags=flags) == b""


@BOTH
def test_working_directory(null: int, flags: int, tmp_path: Path) -> None:
    """cwd is entered by the child alone, whatever bytes its name has; without one the child is where we are."""
    odd = tmp_path / os.fsdecode(b"a \xff:,")
    odd.mkdir()
    before = Path.cwd()
    seen = report([null, null, null], tmp_path, cwd=str(odd), flags=flags)
    assert bytes.fromhex(str(seen["cwd"])) == os.fsencode(odd)
    assert Path.cwd() == before
    assert bytes.fromhex(str(report([null] * 3, tmp_path, flags=flags)["cwd"])) == os.fsencode(before)


def test_nul_byte_is_refused(null: int) -> None:
    """A NUL inside an argument, a variable or a path would shift all that follows, so it raises ValueError."""
    for argv, env, cwd in (
        (["true", "a\0b"], (), None),
        (["true"], ("A=\0B=1",), None),
        (["true"], (), "/\0tmp"),
    ):
        with pytest.raises(ValueError, match="null"):
            shim.spawn("/bin/true", argv, env, fds=[null] * 3, cwd=cwd)
    with pytest.raises(ValueError, match="null"):
        shim.spawn("/bin/true\0x", ["true"], (), fds=[null] * 3)


@contextlib.contextmanager
def descriptors_at(numbers: list[int]) -> Iterator[dict[int, tuple[int, int]]]:
    """Files of their own at just these numbers, inheritable; what was there comes back at the end. {fd: identity}."""
    saved = {}
    for number in numbers:
        with contextlib.suppress(OSError):
            saved[number] = os.dup(number)
    kept = {n: os.dup2(copy, 200 + i, inheritable=False) for i, (n, copy) in enumerate(saved.items())}
    for copy in saved.values():
        os.close(copy)
    identity = {}
    for number in numbers:
        fd = os.memfd_create(f"fd-{number}", os.MFD_CLOEXEC)
        if fd != number:
            os.dup2(fd, number, inheritable=True)
            os.close(fd)
        status = os.fstat(number)
        identity[number] = (status.st_dev, status.st_ino)
    try:
        yield identity
    finally:
        for number in numbers:
            if number in kept:
                os.dup2(kept[number], number, inheritable=number < 3)
            else:
                os.close(number)
        for copy in kept.values():
            os.close(copy)


FD_MAPS = st.lists(st.one_of(st.just(-1), st.integers(60, 72)), max_size=12)


@pytest.mark.parametrize("flags", [0, shim.SPAWN_NO_CLONE3], ids=["clone3", "clone"])
@settings(max_examples=40, deadline=None)
@given(wanted=FD_MAPS)
def test_high_descriptors_in_any_order(flags: int, wanted: list[int]) -> None:
    """Descriptor i of the child is fds[i] for every list, repeats and -1 included, and there is no other."""
    with tempfile.TemporaryDirectory() as name, descriptors_at(list(range(60, 73))) as identity:
        seen = report(wanted, Path(name), flags=flags)["fds"]
    assert seen == {str(i): list(identity[fd]) for i, fd in enumerate(wanted) if fd >= 0}


# Runs in a process of its own: here the sources overlap the targets, 0 to 2 included.
OVERLAP = """
import json, os, sys
from harness.kernel import shim
cases, script, flags, python = json.loads(sys.argv[1])
results = os.fdopen(os.dup2(1, 190, inheritable=False), 'w')
null = os.open('/dev/null', os.O_RDWR)
files = {}
for n in range(8):
    fd = os.memfd_create(str(n), os.MFD_CLOEXEC)
    os.dup2(fd, 100 + n, inheritable=False)
    os.close(fd)
for n in range(8):
    os.dup2(100 + n, n, inheritable=bool(n % 2))
    s = os.fstat(n)
    files[n] = [s.st_dev, s.st_ino]
report = os.path.join(os.environ['DIR'], 'report')
for wanted in cases:
    child = shim.spawn(python, [python, '-I', '-S', '-c', script, report], (), fds=wanted, flags=flags)
    status = shim.wait(child.pid, child.pidfd).status
    os.close(child.pidfd)
    seen = json.load(open(report))['fds']
    now = {}
    for n in range(8):
        s = os.fstat(n)
        now[n] = [s.st_dev, s.st_ino]
    expected = {i: files[fd] for i, fd in enumerate(wanted) if fd >= 0}
    print(json.dumps([status, seen, expected, now == files]), file=results)
"""


@BOTH
def test_overlapping_descriptors(flags: int, tmp_path: Path) -> None:
    """Permutations, rotations, swaps and closings of 0 to 7 come out right, and ours stay what they were."""
    cases = [
        list(range(8)),
        list(range(7, -1, -1)),
        [1, 2, 3, 4, 5, 6, 7, 0],
        [1, 0],
        [2, 2, 2],
        [0, -1, 1, -1, 2, -1, 3, -1],
        [-1, -1, -1],
        [],
        [7, 7, 0, 0, -1, 1, 5, 6],
        [3, 1, 2, 0],
        [5],
    ]
    payload = json.dumps([cases, REPORT, flags, PYTHON])
    done = subprocess.run(
        [sys.executable, "-c", OVERLAP, payload], env={"DIR": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(cases)
    for wanted, (status, seen, expected, ours) in zip(cases, rows, strict=True):
        assert (status, seen, ours) == (0, expected, True), wanted


@BOTH
def test_no_other_descriptor(null: int, flags: int, tmp_path: Path) -> None:
    """Fifty inheritable descriptors of ours, below and above the wanted ones, do not reach the child."""
    opened = [os.open("/dev/zero", os.O_RDONLY) for _ in range(50)]
    try:
        for fd in opened:
            os.set_inheritable(fd, True)
        seen = report([null, null, null], tmp_path, flags=flags)["fds"]
    finally:
        for fd in opened:
            os.close(fd)
    assert set(seen) == {"0", "1", "2"}  # type: ignore[call-overload]  # a dict, as REPORT writes it


@BOTH
def test_closed_source_descriptor(null: int, flags: int) -> None:
    """A descriptor that is not open is an error of the step that places them, and no child is left."""
    spare = os.dup(null)
    os.close(spare)
    for wanted in ([null, spare, null], [null, null, null, 2, spare]):
        with pytest.raises(OSError, match="place the descriptors") as caught:
            shim.spawn("/bin/true", ["true"], (), fds=wanted, flags=flags)
        assert caught.value.errno == errno.EBADF
    assert procfs.children(os.getpid()) == []


@BOTH
def test_signals_reset(null: int, flags: int) -> None:
    """Nothing is blocked, caught or ignored in the child, though we block signals and Python ignores SIGPIPE."""
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    blocked = {signal.SIGUSR2, signal.SIGTERM, signal.SIGCHLD}
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        sets = signal_sets(output_of("/bin/cat", ["cat", "/proc/self/status"], null=null, flags=flags))
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask | blocked
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGUSR1, before)
    assert (sets["SigBlk"], sets["SigCgt"]) == (0, 0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGUSR1, signal.SIGTERM):
        assert not sets["SigIgn"] >> (number - 1) & 1


@BOTH
def test_ignored_signal_stays_ignored(null: int, flags: int) -> None:
    """A signal that we ignore ourselves, as under nohup, is ignored by the child: that is the convention."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        sets = signal_sets(output_of("/bin/cat", ["cat", "/proc/self/status"], null=null, flags=flags))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert sets["SigIgn"] >> (signal.SIGHUP - 1) & 1


HANDLER = """
import os, signal, sys, threading
from harness.kernel import shim
null = os.open('/dev/null', os.O_RDWR)
fifo, flags = sys.argv[1], int(sys.argv[2])
ran = []
signal.signal(signal.SIGUSR1, lambda *_: ran.append(os.getpid()))
directory = os.open(fifo, os.O_RDONLY)
out = os.memfd_create('out')
def meddle():
    # the child is held before its exec: it opens the fifo for writing
    while not (kids := open(f'/proc/self/task/{main}/children').read().split()):
        pass
    os.kill(int(kids[0]), signal.SIGUSR1)
    reader = os.open(fifo + '/cgroup.procs', os.O_RDONLY)
    os.read(reader, 1)
    os.close(reader)
main = threading.main_thread().native_id
thread = threading.Thread(target=meddle)
thread.start()
child = shim.spawn('/bin/sh', ['sh', '-c', 'exit 3'], (), fds=[null, out, null], join_fds=[directory], flags=flags)
thread.join()
print(shim.wait(child.pid, child.pidfd).status, ran)
"""


@BOTH
def test_handler_never_runs_in_child(flags: int, tmp_path: Path) -> None:
    """A signal that hits the child before its exec acts on it by default: our Python handler does not run for it."""
    os.mkfifo(tmp_path / "cgroup.procs")
    done = subprocess.run(
        [sys.executable, "-c", HANDLER, str(tmp_path), str(flags)],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stdout == f"{-signal.SIGUSR1} []\n"


@BOTH
@pytest.mark.parametrize(
    ("path", "more", "code", "text"),
    [
        ("/nope/nope", {}, errno.ENOENT, "No such file or directory"),
        ("/etc/passwd", {}, errno.EACCES, "Permission denied"),
        ("/", {}, errno.EACCES, "Permission denied"),
        ("/bin/true", {"cwd": "/nope"}, errno.ENOENT, "chdir: No such file or directory"),
        ("/bin/true", {"cwd": "/etc/passwd"}, errno.ENOTDIR, "chdir: Not a directory"),
        ("/bin/true", {"mount_ns_fd": "null"}, errno.EINVAL, "setns to the mount namespace: Invalid argument"),
        ("/bin/true", {"mount_ns_fd": 999}, errno.EBADF, "setns to the mount namespace: Bad file descriptor"),
        ("/bin/true", {"join_fds": ["tmp"]}, errno.ENOENT, "join the cgroup: No such file or directory"),
        ("/bin/true", {"join_fds": [999]}, errno.EBADF, "join the cgroup: Bad file descriptor"),
        ("/bin/true", {"cgroup_fd": 999}, errno.EBADF, None),
    ],
    ids=lambda value: None if isinstance(value, dict | int) else str(value),
)
def test_errors_before_exec(
    null: int, flags: int, path: str, more: dict[str, object], code: int, text: str | None, tmp_path: Path
) -> None:
    """A failure before the exec names its step and errno; no zombie and no descriptor is left."""
    directory = os.open(tmp_path, os.O_RDONLY)
    places: dict[object, int] = {"null": null, "tmp": directory}

    def resolved(value: object) -> object:
        if isinstance(value, list):
            return [places.get(each, each) for each in value]
        return places.get(value, value)

    before = open_fds()
    with pytest.raises(OSError, match=r".") as caught:
        shim.spawn(
            path,
            [path],
            (),
            fds=[null] * 3,
            flags=flags,
            **{name: resolved(value) for name, value in more.items()},  # type: ignore[arg-type]  # passed on
        )
    assert (caught.value.errno, caught.value.filename) == (code, path)
    if text is not None:
        assert caught.value.strerror == text
    else:  # the kernel says no at the clone, or the child when it opens cgroup.procs
        step = "join the cgroup" if flags else "clone"
        assert caught.value.strerror == f"{step}: Bad file descriptor"
    assert open_fds() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    os.close(directory)


def test_pdeathsig_of_thread(null: int) -> None:
    """SPAWN_PDEATHSIG: SIGKILL for the child as soon as the thread that started it has ended."""
    made: list[shim.Spawned] = []
    for flags in (shim.SPAWN_PDEATHSIG, shim.SPAWN_PDEATHSIG | shim.SPAWN_NO_CLONE3):
        thread = threading.Thread(
            target=lambda flags=flags: made.append(
                shim.spawn("/bin/sleep", ["sleep", "1000"], (), fds=[null] * 3, flags=flags)
            )
        )
        thread.start()
        thread.join()
        assert finish(made.pop()).status == -signal.SIGKILL


@pytest.mark.parametrize("deadly", [True, False], ids=["pdeathsig", "plain"])
def test_pdeathsig_of_process(deadly: bool) -> None:
    """When the whole caller is killed a SPAWN_PDEATHSIG child dies with it; one without the flag lives on."""
    script = (
        "import os, sys\nfrom harness.kernel import shim\n"
        "null = os.open('/dev/null', os.O_RDWR)\n"
        f"child = shim.spawn('/bin/sleep', ['sleep', '1000'], (), fds=[null] * 3, flags={int(deadly)})\n"
        "print(child.pid, flush=True)\nsys.stdin.read()\n"
    )
    assert shim.SPAWN_PDEATHSIG == 1
    caller = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    pid = int(caller.stdout.readline())
    pidfd = shim.pidfd_open(pid)
    try:
        caller.kill()
        caller.communicate()
        if deadly:
            assert shim.poll(pidfd, shim.POLLIN, 5_000_000_000)
        else:
            assert procfs.process_stat(pid) is not None
            assert not shim.poll(pidfd, shim.POLLIN, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            shim.pidfd_send_signal(pidfd)
        os.close(pidfd)
        with contextlib.suppress(ChildProcessError):  # an orphan is ours when another test made us the subreaper
            os.waitpid(pid, 0)


@BOTH
def test_setsid(null: int, flags: int, tmp_path: Path) -> None:
    """SPAWN_SETSID makes the child lead a session of its own; without it the child is in ours."""
    own = report([null] * 3, tmp_path, flags=flags | shim.SPAWN_SETSID)
    assert own["sid"] == own["pid"]
    assert report([null] * 3, tmp_path, flags=flags)["sid"] == os.getsid(0)


@contextlib.contextmanager
def cgroup(mount_point: str) -> Iterator[tuple[int, str]]:
    """A fresh cgroup: (descriptor of its directory, its path in the hierarchy)."""
    path = Path(mount_point) / f"oci-harness-spawn-{os.getpid()}-{secrets.token_hex(2)}"
    path.mkdir()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd, "/" + path.name
    finally:
        os.close(fd)
        path.rmdir()


@BOTH
def test_born_in_v2_cgroup(null: int, flags: int, require: Require) -> None:
    """cgroup_fd puts the child into a v2 cgroup before its first instruction, at the clone where there is clone3."""
    require("root", "cgroup-v2")
    unified = detect().unified
    assert unified is not None
    with cgroup(unified.mount_point) as (fd, path):
        out = os.memfd_create("out", os.MFD_CLOEXEC)
        argv = ["cat", "/proc/self/cgroup"]
        child = shim.spawn("/bin/cat", argv, (), fds=[null, out, null], cgroup_fd=fd, flags=flags)
        assert finish(child).status == 0
        assert child.into_clone is (flags == 0)
        assert f"0::{path}" in os.pread(out, 65536, 0).decode().splitlines()
        os.close(out)


@BOTH
def test_joins_v1_cgroups(null: int, flags: int, require: Require) -> None:
    """join_fds puts the child into every v1 cgroup given, and leaves us where we are."""
    require("root", "cgroup-v1")
    chosen = [h for h in detect().hierarchies if h.version == 1 and h.root == "/" and "cpuset" not in h.controllers][:3]
    ours = Path("/proc/self/cgroup").read_text()
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(cgroup(h.mount_point)) for h in chosen]
        argv = ["cat", "/proc/self/cgroup"]
        text = output_of("/bin/cat", argv, null=null, join_fds=[fd for fd, _ in made], flags=flags).decode()
    where = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in text.splitlines()}
    for hierarchy, (_, path) in zip(chosen, made, strict=True):
        assert where[hierarchy.key] == path
    assert Path("/proc/self/cgroup").read_text() == ours


@BOTH
def test_enters_mount_namespace(null: int, flags: int, tmp_path: Path, require: Require) -> None:
    """The child sees what is mounted in the private namespace, its cwd included; we and other children do not."""
    require("root")
    with MountNamespace() as namespace:
        namespace.call(shim.mount, "none", str(tmp_path), "tmpfs")
        namespace.call(lambda: (tmp_path / "inside").write_text("here"))
        inside = output_of(
            "/bin/cat", ["cat", "inside"], null=null, cwd=str(tmp_path), mount_ns_fd=namespace.fd, flags=flags
        )
        assert inside == b"here"
        assert not (tmp_path / "inside").exists()
        child = shim.spawn("/bin/cat", ["cat", "inside"], (), fds=[null] * 3, cwd=str(tmp_path), flags=flags)
        assert finish(child).status == 1


@BOTH
def test_no_leak_over_many(null: int, flags: int) -> None:
    """500 spawns, every tenth failing, leave no descriptor and no child."""
    before = open_fds()
    for index in range(500):
        if index % 10 == 0:
            with pytest.raises(FileNotFoundError):
                shim.spawn("/nope", ["nope"], (), fds=[null] * 3, flags=flags)
        else:
            assert finish(shim.spawn("/bin/true", ["true"], (), fds=[null] * 3, flags=flags)).status == 0
    assert open_fds() == before
    assert procfs.children(os.getpid()) == []


@BOTH
def test_clocks_enclose_child(null: int, flags: int) -> None:
    """start_ns <= the child's own reading of CLOCK_MONOTONIC <= end_ns, and both lie between ours."""
    for _ in range(20):
        out = os.memfd_create("out", os.MFD_CLOEXEC)
        before = shim.monotonic_ns()
        child = shim.spawn(str(payload_binary()), ["payload"], (), fds=[null, out, null], flags=flags)
        ended = finish(child)
        assert before <= child.start_ns <= int(os.pread(out, 64, 0)) <= ended.end_ns <= shim.monotonic_ns()
        os.close(out)


def test_concurrent_spawns_do_not_mix(null: int) -> None:
    """Spawns from several threads at once each get their own child, output and exit status."""
    failures: list[str] = []

    def many(number: int) -> None:
        for round_ in range(25):
            word = f"{number}-{round_}"
            out = os.memfd_create("out", os.MFD_CLOEXEC)
            child = shim.spawn("/bin/echo", ["echo", word], (), fds=[null, out, null])
            if finish(child).status != 0 or os.pread(out, 64, 0).decode().strip() != word:
                failures.append(word)
            os.close(out)

    threads = [threading.Thread(target=many, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
