"""/proc: one line parsed, processes told apart and found by a run's name."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.kernel import procfs
from harness.kernel.procfs import ProcessStat, parse_stat, processes_naming

FIELDS = " ".join(str(n) for n in range(4, 53))
OWN = frozenset({os.getpid()})


@pytest.mark.parametrize(
    "comm", ["sh", "", "a b", "(", ")", "((", "))", "a) R 1 2", "x\ny", "runc:[2:INIT]", ") S (", "\t", "żó", " lead"]
)
def test_comm(comm: str) -> None:
    """A command name with blanks, parentheses and newlines is taken whole."""
    assert parse_stat(f"17 ({comm}) S {FIELDS}\n") == ProcessStat(17, comm, "S", 4, 22)


@given(
    st.integers(1, 2**22),
    st.text(max_size=15),
    st.sampled_from("RSDTtZXI"),
    st.lists(st.integers(), min_size=49, max_size=60),
)
def test_any_line(pid: int, comm: str, state: str, numbers: list[int]) -> None:
    """Every line of the form that the kernel writes gives its fields back."""
    found = parse_stat(f"{pid} ({comm}) {state} {' '.join(map(str, numbers))}\n")
    assert found == ProcessStat(pid, comm, state, numbers[0], numbers[18])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "17",
        "17 sh S 4",
        "17 (sh",
        "17 sh)",
        ")( S 1",
        "17 (sh) S 4",
        f"x (sh) S {FIELDS}",
        f"17 (sh) S y {FIELDS[2:]}",
    ],
)
def test_no_stat(text: str) -> None:
    """What is no such line raises ValueError."""
    with pytest.raises(ValueError, match=r"."):
        parse_stat(text)


@given(st.text(max_size=120))
def test_parse_raises_nothing_else(text: str) -> None:
    """Any text is a stat or a ValueError."""
    with contextlib.suppress(ValueError):
        parse_stat(text)


def test_own_stat() -> None:
    """Our own line is right, and the same at every look; nobody has pid 0 or one beyond the limit."""
    found = procfs.process_stat(os.getpid())
    assert found is not None
    assert (found.pid, found.ppid, found.state) == (os.getpid(), os.getppid(), "R")
    assert found.comm == Path("/proc/self/comm").read_text().rstrip("\n")
    again = procfs.process_stat(os.getpid())
    assert again is not None
    assert again.start_ticks == found.start_ticks
    assert procfs.process_stat(2**22 + 1) is None
    assert procfs.process_stat(0) is None


def test_is_alive() -> None:
    """A running process is alive with its own start time only; a zombie and a reaped one are not."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    stat = procfs.process_stat(child.pid)
    assert stat is not None
    assert procfs.is_alive(child.pid, stat.start_ticks)
    assert not procfs.is_alive(child.pid, stat.start_ticks + 1)
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    zombie = procfs.process_stat(child.pid)
    assert zombie is not None
    assert zombie.state == "Z"
    assert not procfs.is_alive(child.pid, stat.start_ticks)
    child.wait()
    assert not procfs.is_alive(child.pid, stat.start_ticks)


def test_children() -> None:
    """Direct children are listed, zombies too, grandchildren not; a process that is gone has none."""
    # of what is in the background sh takes stdin away (POSIX, 2.9.3.1), and cat would be gone
    script = "exec 3<&0; cat <&3 & echo $!; wait"
    child = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    assert child.pid in procfs.children(os.getpid())
    assert grandchild not in procfs.children(os.getpid())
    assert procfs.children(child.pid) == [grandchild]
    assert {os.getpid(), child.pid, grandchild} <= set(procfs.pids())
    child.communicate()
    done = subprocess.Popen(["true"])
    os.waitid(os.P_PID, done.pid, os.WEXITED | os.WNOWAIT)
    assert done.pid in procfs.children(os.getpid())
    done.wait()
    assert procfs.children(done.pid) == []


@pytest.fixture
def marker() -> str:
    return f"oci-harness-test-{secrets.token_hex(8)}"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that end with the test."""
    made: list[subprocess.Popen[bytes]] = []
    yield made
    for each in made:
        each.kill()
        each.communicate()


def sleeper(*args: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """A process that stays, with these words in its command line; it is past its exec when this returns."""
    child = subprocess.Popen(
        ["sh", "-c", "echo; read x", *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd
    )
    assert child.stdout is not None
    child.stdout.readline()
    return child


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("", "", True),
        ("/run/oci-harness/", "", True),
        ("/run/oci-harness/", "/c/id/config.json", True),
        ("--root=", "", True),
        ("--root=/x/", "/root", True),
        ("", ":rest", True),
        ("", " rest", True),
        ("", "0", False),
        ("", "-more", False),
        ("", ".scope", False),
        ("", "_x", False),
        ("", "+x", False),
        ("", "Z", False),
        ("x", "", False),
        ("my-", "", False),
        ("/tmp/backup_", "/file", False),
        ("a.", "", False),
    ],
)
def test_boundary_in_the_command_line(
    started: list[subprocess.Popen[bytes]], marker: str, before: str, after: str, found: bool
) -> None:
    """The name counts as a whole path component only: longer names that begin or end with it are others."""
    started.append(sleeper(f"{before}{marker}{after}"))
    assert [stat.pid for stat in processes_naming(marker, ignore=OWN)] == ([started[0].pid] if found else [])


def test_found_by_working_directory(started: list[subprocess.Popen[bytes]], marker: str, tmp_path: Path) -> None:
    """A process that says nothing of the run is found by where it is, also in a directory that was removed since."""
    for name in (marker, f"{marker}-other", f"x{marker}"):
        (tmp_path / name / "deep").mkdir(parents=True)
        started.append(sleeper(cwd=tmp_path / name / "deep"))
    assert [stat.pid for stat in processes_naming(marker)] == [started[0].pid]
    (tmp_path / marker / "deep").rmdir()
    assert [stat.pid for stat in processes_naming(marker)] == [started[0].pid]
    assert processes_naming(marker, ignore=frozenset({started[0].pid})) == []


def test_zombies_do_not_count(marker: str) -> None:
    """A process that has ended is not found, reaped or not."""
    child = sleeper(marker)
    assert len(processes_naming(marker)) == 1
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes_naming(marker) == []
    child.communicate()


def test_markers_are_no_patterns(started: list[subprocess.Popen[bytes]], marker: str) -> None:
    """A name with characters that mean something in a pattern stands for itself."""
    started.append(sleeper(f"{marker}-abc"))
    assert processes_naming(f"{marker}.abc") == []
    assert processes_naming(f"{marker}.*") == []


def test_command_line() -> None:
    """The arguments joined by blanks; nothing for a process that is gone."""
    child = sleeper("żó", "a b")
    assert procfs.command_line(child.pid).startswith("sh -c echo; read x żó a b")
    child.kill()
    child.communicate()
    assert procfs.command_line(child.pid) == ""


def test_boot_id() -> None:
    """The boot has one name."""
    assert procfs.boot_id() == procfs.boot_id()
    assert len(procfs.boot_id()) == 36
