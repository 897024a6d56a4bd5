"""Runtimes that misbehave: each fake is a real program, and none of them can hang, flood or confuse the harness."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from actors import alive, until

from harness.errors import HostError, OperationFailed, OperationGarbage, OperationTimeout, RuntimeUnusable
from harness.process.capture import LIMIT_BYTES
from harness.runtime import discovery
from harness.runtime.container import Container
from harness.runtime.discovery import find_runtime, inspect_runtime
from harness.runtime.failures import check
from harness.runtime.session import Session

Script = Callable[..., str]
Fake = Callable[..., Container]

# Three generations that do not care for SIGTERM, one of them in a session of its own; each notes its pid.
FAMILY = """
trap '' TERM HUP
cat > {here}/child <<'END'
trap '' TERM HUP
echo $$ >> {here}/pids
sh {here}/grandchild &
wait
END
cat > {here}/grandchild <<'END'
trap '' TERM HUP
echo $$ >> {here}/pids
sleep 300 &
echo $! >> {here}/pids
wait
END
sh {here}/child &
setsid sh -c 'echo $$ >> {here}/pids; exec sleep 300' &
echo $$ >> {here}/pids
{then}
wait
"""


@pytest.fixture
def host_session(no_leaks: None) -> Iterator[Session]:
    with Session("host", kind="test") as session:
        yield session


@pytest.fixture
def fake(host_session: Session, script: Script) -> Fake:
    """A container, not created, of a fake runtime whose verbs are given as the cases of a shell's `case`."""

    def of(cases: str, timeout_s: float = 30.0, **more: str) -> Container:
        runtime = find_runtime(f"fake={script(cases, **more)}")
        host_session.timeout_s = timeout_s
        return host_session.container(runtime, "pause")

    return of


def family(here: Path, then: str = "") -> str:
    return FAMILY.format(here=here, then=then)


def family_pids(directory: Path) -> list[int]:
    path = directory / "pids"
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def test_a_hanging_runtime_is_killed_with_its_children(fake: Fake, tmp_path: Path) -> None:
    """A verb that hangs is killed at its deadline with children and grandchildren, though they ignore SIGTERM."""
    container = fake("start) " + family(tmp_path) + " ;;", timeout_s=0.7)
    operation = container.start()
    assert operation.timed_out
    assert operation.exit_status == -signal.SIGKILL
    pids = family_pids(tmp_path)
    assert len(pids) == 5, "the fake had no time to start all of its children"
    assert set(pids) <= set(operation.killed)
    assert [pid for pid in pids if alive(pid)] == []
    with pytest.raises(OperationTimeout, match="did not end within its deadline and was killed with its"):
        check(operation)
    assert 0.7e9 <= operation.duration_ns < 5e9
    container.clean_up()


def test_a_hanging_create_leaves_nothing(fake: Fake, tmp_path: Path) -> None:
    """Clean-up after a create that hangs ends at once and finds nothing to do."""
    container = fake("create) " + family(tmp_path) + " ;;", timeout_s=0.5)
    with pytest.raises(OperationTimeout), container:
        pytest.fail("the body must not run")
    assert [pid for pid in family_pids(tmp_path) if alive(pid)] == []
    assert not container.directory.exists()


def test_children_that_outlive_the_runtime(host_session: Session, script: Script, tmp_path: Path) -> None:
    """A helper that a runtime leaves behind, in a session of its own, is ended with the container that it names."""
    path = script(
        f"start) touch $log; setsid sh -c 'echo $$ > {tmp_path}/pids; exec tail -f $0' $log >/dev/null 2>&1 & ;;"
    )
    container = host_session.container(find_runtime(f"fake={path}"), "pause")
    with pytest.raises(OperationGarbage):
        container.create()
    check(container.start())
    until(lambda: family_pids(tmp_path), "the helper has started")
    (helper,) = family_pids(tmp_path)
    assert alive(helper)
    assert container.clean_up() == []
    assert not alive(helper)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "it is empty"),
        ("garbage", "not JSON"),
        ("[]", "expected an object"),
        ('{"ociVersion": "1.0.2"}', "missing"),
        ('{"ociVersion":"1.0","id":"x","status":"dancing","bundle":"/"}', "is not one of"),
    ],
)
def test_garbage_for_state(fake: Fake, said: str, told: str) -> None:
    """Whatever `state` prints that is no state is reported as such, with what is wrong with it."""
    container = fake(f"state) printf '%s' '{said}' ;;")
    with pytest.raises(OperationGarbage, match=f"fake state printed no state: .*{told}") as caught:
        container.state()
    assert caught.value.operation.stdout == said.encode()
    container.clean_up()


def test_binary_garbage_for_state(fake: Fake) -> None:
    """Bytes that are no UTF-8 are garbage as well."""
    container = fake("state) printf '\\377\\376\\000x' ;;")
    with pytest.raises(OperationGarbage, match="printed no state"):
        container.state()
    container.clean_up()


@pytest.mark.parametrize(("where", "target"), [("stdout", ">&1"), ("stderr", ">&2"), ("log", '>"$log"')])
def test_a_flood_is_cut(fake: Fake, where: str, target: str) -> None:
    """100 MB on stdout, stderr or in the log are cut at the limit and marked so, in bounded memory."""
    container = fake(f"kill) yes $(printf %01023d 0) | head -c 100000000 {target}; exit 3 ;;")
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    operation = container.kill()
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert operation.truncated
    kept = {
        "stdout": len(operation.stdout),
        "stderr": len(operation.stderr),
        "log": sum(len(record.msg) + 1 for record in operation.log),
    }
    assert kept[where] == LIMIT_BYTES
    assert sum(kept.values()) <= LIMIT_BYTES + 1000
    # the bytes, their text, and a copy or two while one is made from the other
    assert grown_kib < 8 * LIMIT_BYTES // 1024
    with pytest.raises(OperationFailed) as caught:
        check(operation)
    assert len(str(caught.value)) < 10_000
    container.clean_up()


def test_killed_by_a_signal(fake: Fake) -> None:
    """A runtime that dies of a signal is reported with the signal's number."""
    container = fake("start) kill -SEGV $$ ;;")
    operation = container.start()
    assert operation.exit_status == -signal.SIGSEGV
    with pytest.raises(OperationFailed, match="signal 11"):
        check(operation)
    container.clean_up()


def test_exit_0_without_a_pid_file(fake: Fake) -> None:
    """A create that ends well but leaves no pid is garbage, and nothing stays."""
    container = fake("create) exit 0 ;;")
    with pytest.raises(OperationGarbage, match="left no pid of init"), container:
        pytest.fail("the body must not run")
    assert not container.directory.exists()


@pytest.mark.parametrize("text", ["hello", "", "-1", "0", "999999999", "1 2", "1.5", "12\\000"])
def test_garbage_in_the_pid_file(fake: Fake, text: str) -> None:
    """A pid file that names no process is garbage, and nobody is killed for it."""
    container = fake(f"create) printf '%b' '{text}' > $pidfile ;;")
    with pytest.raises(OperationGarbage, match="left no pid of init"), container:
        pytest.fail("the body must not run")
    assert not container.directory.exists()


def test_a_pid_file_that_names_somebody_else(fake: Fake) -> None:
    """A pid that is no child of ours is neither waited for nor killed: it cannot be the container's init."""
    # a grandchild of ours, so that nobody else comes to harm if it is killed
    with subprocess.Popen(["/bin/sh", "-c", "sleep 300 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as shell:
        stranger = int(shell.stdout.readline())
        container = fake(f"create) echo {stranger} > $pidfile ;;")
        with pytest.raises(OperationGarbage, match="left no pid of init"), container:
            pytest.fail("the body must not run")
        unharmed = alive(stranger)
        os.kill(stranger, signal.SIGKILL)
    assert unharmed


def test_not_executable(tmp_path: Path) -> None:
    """A file without the x bit is refused with the way to mend it."""
    path = tmp_path / "runtime"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o644)
    with pytest.raises(RuntimeUnusable, match=rf"runtime fake: {path} is not executable; chmod \+x it"):
        inspect_runtime("fake", str(path))


def test_a_text_without_shebang(tmp_path: Path) -> None:
    """An executable text without #! cannot be started, and that is what is said."""
    path = tmp_path / "runtime"
    path.write_text("hello\n")
    path.chmod(0o755)
    with pytest.raises(RuntimeUnusable, match=f"{path} cannot be started: Exec format error"):
        inspect_runtime("fake", str(path))


def test_a_script_whose_interpreter_is_missing(tmp_path: Path) -> None:
    """A script with a #! that leads nowhere cannot be started."""
    path = tmp_path / "runtime"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    with pytest.raises(RuntimeUnusable, match="cannot be started: No such file or directory"):
        inspect_runtime("fake", str(path))


@pytest.mark.parametrize("path", ["/bin/true", "/bin/false", "/bin/cat"])
def test_no_oci_runtime(path: str) -> None:
    """A program that is no OCI runtime is found out by its --help, not by failing later."""
    with pytest.raises(RuntimeUnusable, match=f"{path} is no OCI runtime: its --help lists no create"):
        inspect_runtime("fake", path)


def test_missing(tmp_path: Path) -> None:
    """A path without a file is named."""
    with pytest.raises(RuntimeUnusable, match=f"runtime fake: {tmp_path}/none: no such file"):
        inspect_runtime("fake", str(tmp_path / "none"))
    with pytest.raises(RuntimeUnusable, match="not found in PATH"):
        inspect_runtime("no-such-runtime-here")
    with pytest.raises(RuntimeUnusable, match="is a directory"):
        inspect_runtime("fake", str(tmp_path))


def test_hanging_at_version(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that hangs when asked for its version is killed and named."""
    monkeypatch.setattr(discovery, "PROBE_TIMEOUT_S", 0.3)
    with pytest.raises(RuntimeUnusable, match="--version did not end within"):
        inspect_runtime("fake", script(version="sleep 300"))


def test_a_flood_at_version(script: Script) -> None:
    """A program that prints without end when asked for its version is no runtime."""
    with pytest.raises(RuntimeUnusable, match="printed more than 16 MiB"):
        inspect_runtime("fake", script(version="yes 2>/dev/null"))


def test_a_verb_that_is_not_there(fake: Fake) -> None:
    """A verb that --help does not list is refused before anything is started."""
    container = fake("")
    with pytest.raises(HostError, match=r"fake 9\.9\.9 has no update command"):
        container.client.update("x", "/dev/null")
    container.clean_up()


def test_a_runtime_that_fails_without_a_word(fake: Fake) -> None:
    """A bare exit status is reported as such."""
    container = fake("start) exit 42 ;;")
    with pytest.raises(OperationFailed, match=r"fake start failed \(exit status 42\) without a word"):
        check(container.start())
    container.clean_up()


def test_the_log_is_heard_before_stderr(fake: Fake) -> None:
    """The last error record of the log is the runtime's word; half lines are kept as text."""
    container = fake(
        """start) printf '%s\\n' '{"level":"error","msg":"first"}' '{"level":"error","msg":"the cause"}' \\
        '{"level":"warning","msg":"later"}' > "$log"; echo noise >&2; exit 1 ;;"""
    )
    operation = container.start()
    assert operation.message == "the cause"
    assert [record.level for record in operation.log] == ["error", "error", "warning"]
    container.clean_up()


def test_an_interrupt_kills_the_runtime(fake: Fake, tmp_path: Path) -> None:
    """Ctrl-C while a runtime hangs kills it with its children before it is passed on."""
    interrupt = f"while [ $(wc -l < {tmp_path}/pids) -lt 5 ]; do sleep 0.01; done; kill -INT {os.getpid()}"
    container = fake("start) " + family(tmp_path, interrupt) + " ;;")
    with pytest.raises(KeyboardInterrupt):
        container.start()
    pids = family_pids(tmp_path)
    assert len(pids) == 5
    assert [pid for pid in pids if alive(pid)] == []
    container.clean_up()
