"""A run's directory, its owner, and what becomes of it when the owner is dead."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.cgroup.hierarchy import Layout
from harness.errors import HostError
from harness.kernel import procfs
from harness.runtime import leftovers
from harness.runtime.leftovers import Leftover, find_leftovers, remove
from harness.runtime.workspace import PREFIX, Owner, Workspace, base_directory

NO_CGROUPS = Layout("none", ())


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "base"
    monkeypatch.setenv("OCI_HARNESS_DIR", str(path))
    # what others trace on this host meanwhile
    monkeypatch.setattr("harness.kernel.tracefs.find_instances", lambda _: [])
    return path


@given(st.integers(0, 2**22), st.integers(0, 2**60), st.text(max_size=40), st.booleans())
def test_owner_round_trip(pid: int, ticks: int, boot: str, kept: bool) -> None:
    """An owner is read back as it was written."""
    owner = Owner(pid, ticks, boot, kept)
    assert Owner.parse(owner.encode()) == owner


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"{}",
        b'{"pid": 1}',
        b"\xff",
        b'{"pid": "x", "start_ticks": 1, "boot_id": "", "kept": false}',
    ],
)
def test_no_owner(text: bytes) -> None:
    """What is no owner's note raises ValueError."""
    with pytest.raises(ValueError, match=r"."):
        Owner.parse(text)


def test_owner_alive() -> None:
    """This process is alive; with another start time or boot, or when it has gone, an owner is not."""
    own = Owner.this_process()
    assert own.pid == os.getpid()
    assert own.alive
    assert not replace(own, start_ticks=own.start_ticks + 1).alive
    assert not replace(own, boot_id="another").alive
    child = subprocess.Popen(["true"])
    found = procfs.process_stat(child.pid)
    child.wait()
    assert found is not None
    assert not Owner(child.pid, found.start_ticks, procfs.boot_id()).alive


def test_base_directory(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    """$OCI_HARNESS_DIR, made absolute, else the one in /run."""
    assert base_directory() == base
    monkeypatch.setenv("OCI_HARNESS_DIR", "relative")
    assert base_directory() == Path.cwd() / "relative"
    monkeypatch.delenv("OCI_HARNESS_DIR")
    assert base_directory() == Path("/run/oci-harness")


def test_workspace(base: Path) -> None:
    """The directories are there while it is used, closed to others but passable, and gone at the end."""
    with Workspace("bench") as workspace:
        assert workspace.path.parent == base
        assert workspace.name.startswith(f"{PREFIX}bench-{os.getpid()}-")
        assert workspace.cgroup == workspace.name
        assert Owner.parse((workspace.path / "owner.json").read_bytes()) == Owner.this_process()
        root = workspace.root("runc")
        assert root == workspace.root("runc") == workspace.path / "root/runc"
        container = workspace.container("id")
        for path in (root, container):
            assert stat.S_IMODE(path.stat().st_mode) == 0o711
        with pytest.raises(FileExistsError):
            workspace.container("id")
        assert sorted(path.name for path in workspace.path.iterdir()) == ["c", "owner.json", "root", "rootfs"]
        again = Workspace.reopen(workspace.name)
        assert (again.path, again.name) == (workspace.path, workspace.name)
    assert list(base.iterdir()) == []  # chosen by the user, so it stays
    workspace.remove()


def test_base_stays_for_others(base: Path) -> None:
    """A run takes only its own directory along, and names do not repeat."""
    with Workspace("a") as one:
        with Workspace("a") as two:
            assert one.name != two.name
        assert one.path.is_dir()
        with pytest.raises(FileExistsError):
            Workspace("a", one.name)
        assert (one.path / "owner.json").is_file()
    assert list(base.iterdir()) == []


def test_kept(base: Path) -> None:
    """keep hands the run to the user."""
    workspace = Workspace("c", f"{PREFIX}c-mine")
    workspace.keep()
    assert Owner.parse((workspace.path / "owner.json").read_bytes()) == replace(Owner.this_process(), kept=True)
    assert list(workspace.path.glob("*.new")) == []


@pytest.mark.parametrize("where", ["/proc/nowhere", "file"])
def test_directory_that_cannot_be_made(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base that cannot be made, or is a file, is a HostError that tells how to choose another."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OCI_HARNESS_DIR", str(tmp_path / where))
    with pytest.raises(HostError, match="OCI_HARNESS_DIR"):
        Workspace("bench")
    assert (tmp_path / "file").is_file()


# --- leftovers ------------------------------------------------------------------------------------------------

DEAD_PID = 2**22 - 1


def note(base: Path, name: str, content: bytes | None) -> Path:
    path = base / name
    path.mkdir(parents=True)
    if content is not None:
        (path / "owner.json").write_bytes(content)
    return path


def owner(**changes: object) -> bytes:
    return replace(Owner.this_process(), **changes).encode()  # type: ignore[arg-type]  # as the fields are


def fate_cases() -> list[tuple[str, bytes | None, str]]:
    me = os.getpid()
    return [
        ("bench-1-a", owner(), "live"),
        ("bench-1-b", owner(start_ticks=1), "dead"),
        ("bench-1-c", owner(pid=DEAD_PID), "dead"),
        ("bench-1-d", owner(boot_id="before"), "dead"),
        ("c-kept", owner(kept=True, pid=DEAD_PID), "kept"),
        ("c-before-reboot", owner(kept=True, boot_id="before"), "dead"),
        ("bench-1-broken", b"{", "dead"),
        ("bench-1-empty", b"", "dead"),
        ("bench-1-other", json.dumps([1]).encode(), "dead"),
        (f"bench-{me}-newborn", None, "live"),
        (f"bench-{DEAD_PID}-stillborn", None, "dead"),
        (f"c-{me}-container", None, "dead"),
        ("noname", None, "dead"),
        ("bench-x-y", None, "dead"),
    ]


def fate_id(value: object) -> str:
    """Without the pid, so that each process that runs tests has the same names for them."""
    return value.replace(str(os.getpid()), "own") if isinstance(value, str) else ""


@pytest.mark.parametrize(("name", "content", "fate"), fate_cases(), ids=fate_id)
def test_fate(base: Path, name: str, content: bytes | None, fate: str) -> None:
    """A run is live with its owner, kept when handed over, dead otherwise; a note not yet written is waited for."""
    path = note(base, PREFIX + name, content)
    assert find_leftovers(NO_CGROUPS) == [Leftover(PREFIX + name, fate, path, (), ())]  # type: ignore[arg-type]  # a Fate


def test_only_ours(base: Path) -> None:
    """Files, and directories of other names, are nobody's leftovers."""
    assert find_leftovers(NO_CGROUPS) == []
    (base / "other").mkdir(parents=True)
    (base / f"{PREFIX}file").write_text("")
    assert find_leftovers(NO_CGROUPS) == []


def test_remove_kills_and_deletes(base: Path) -> None:
    """Removing a dead run ends the processes that name it and takes its directory; a neighbour stays."""
    path = note(base, f"{PREFIX}bench-1-dead", owner(pid=DEAD_PID))
    neighbour = note(base, f"{PREFIX}bench-1-dead-not", owner())
    process = subprocess.Popen(
        ["sh", "-c", "echo; read x", str(path / "c/id")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    other = subprocess.Popen(
        ["sh", "-c", "echo; read x", str(neighbour)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    for each in (process, other):
        assert each.stdout is not None
        each.stdout.readline()
    (dead,) = [found for found in find_leftovers(NO_CGROUPS) if found.fate == "dead"]
    assert [each.pid for each in dead.processes] == [process.pid]
    assert dead.to_json()["processes"] == [{"pid": process.pid, "comm": "sh"}]
    assert remove(dead, NO_CGROUPS).failed == ()
    assert not path.exists()
    assert neighbour.exists()
    assert procfs.process_stat(process.pid) is None  # reaped as well
    assert other.poll() is None
    for each in (process, other):
        each.communicate(b"\n")


def test_collect(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gc removes the dead, the kept only when told to, and never the live."""
    monkeypatch.setattr(leftovers, "detect", lambda: NO_CGROUPS)
    names = {
        "live": note(base, f"{PREFIX}bench-1-live", owner()),
        "kept": note(base, f"{PREFIX}c-kept", owner(kept=True)),
        "dead": note(base, f"{PREFIX}bench-1-dead", owner(pid=DEAD_PID)),
    }
    assert [removal.leftover.fate for removal in leftovers.collect()] == ["dead"]
    assert [fate for fate, path in names.items() if path.exists()] == ["live", "kept"]
    assert [removal.leftover.fate for removal in leftovers.collect(kept=True)] == ["kept"]
    assert names["live"].exists()
    (names["live"] / "owner.json").write_bytes(owner(pid=DEAD_PID))
    list(leftovers.collect())
    assert list(base.iterdir()) == []
