"""`oci-harness host --node` on this host: real file systems, sockets, runtimes' state, processes and kernel log."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cgroup.hierarchy import parse_mountinfo
from harness.diagnosis.node import filesystems, sockets, state
from harness.diagnosis.node.examine import CHECKS, copied, examine, live
from harness.diagnosis.node.kernel_log import kernel_log
from harness.diagnosis.node.processes import table_of
from harness.kernel import procfs, shim
from harness.kernel.mounts import MountNamespace
from harness.process.children import reap_orphans
from harness.runtime.discovery import find_runtime
from harness.runtime.failures import check
from harness.runtime.session import Session
from harness.runtime.workspace import remove_tree

Require = Callable[..., None]


@pytest.fixture(scope="module", autouse=True)
def none_left() -> Iterator[None]:
    """Processes that a try, or a command, leaves to end by themselves are ours once something made us the subreaper."""
    yield
    until = time.monotonic() + 5
    while (left := procfs.children(os.getpid())) and time.monotonic() < until:
        reap_orphans(frozenset(stat.comm for pid in left if (stat := procfs.process_stat(pid)) is not None))
    assert not left, [procfs.process_stat(pid) for pid in left]


def host(*args: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    argv = [*before, sys.executable, "-m", "harness", "host", *args]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_contract() -> None:
    """The document has the fields that are promised, every check was made, and none fell over."""
    done = host("--node", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    value = json.loads(done.stdout)
    assert value["schema"] == "oci-harness/host/1"
    assert value["kernel"]["release"] == os.uname().release
    assert value["cgroup"]["mode"] in ("legacy", "hybrid", "unified", "none")
    assert all({"version", "path"} <= set(each) for each in value["cgroup"]["controllers"].values())
    assert isinstance(value["capabilities"]["missing"], list)
    assert all({"name", "path", "version", "usable", "reason", "views"} == set(each) for each in value["runtimes"])
    assert value["checks"] == list(CHECKS)
    fields = {"id", "severity", "message", "cause", "evidence", "fix"}
    assert all(set(each) == fields and all(each.values()) for each in value["findings"])
    assert [each for each in value["unseen"] if each["what"].startswith("check ")] == []


def test_without_node_nothing_is_examined() -> None:
    """Facts alone make no finding and no check."""
    value = json.loads(host("--no-probes", "--json").stdout)
    assert (value["findings"], value["checks"]) == ([], [])


def test_without_privileges(require: Require) -> None:
    """Without capabilities it does what it can, says what it could not see and why, and ends with 0."""
    require("root")
    done = host("--node", "--json", before=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))
    assert (done.returncode, done.stderr) == (0, "")
    value = json.loads(done.stdout)
    assert len(value["capabilities"]["missing"]) > 30
    unseen = {each["what"]: each["reason"] for each in value["unseen"]}
    assert "inotify instances" in unseen
    assert all(unseen.values())


def test_check_decides_the_status(tmp_path: Path) -> None:
    """--check answers 1 for an error, 0 without one; without it findings change nothing."""
    (tmp_path / "app").write_bytes(b"no program")
    (tmp_path / "app").chmod(0o755)
    assert [host("--root", str(tmp_path), *more).returncode for more in ((), ("--check",), ("--elf", "/app"))] == [
        0,
        0,
        0,
    ]
    done = host("--root", str(tmp_path), "--elf", "/app", "--check")
    assert done.returncode == 1
    assert "not-an-executable" in done.stdout


def test_bad_use(tmp_path: Path) -> None:
    """A directory that is not there, and a runtime for a copied tree, are refused with a line."""
    for args in (("--root", str(tmp_path / "none")), ("--root", str(tmp_path), "--runtime", "runc")):
        done = host(*args)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_own_interpreter_is_executable() -> None:
    """The Python that runs this can be executed here."""
    result = examine(live(), (sys.executable,))
    assert [each for each in result.findings if each.message.startswith("executable:")] == []


@pytest.mark.parametrize("full", ["bytes", "inodes", "read-only"])
def test_full_tmpfs(require: Require, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, full: str) -> None:
    """A real tmpfs without room, without inodes or read-only is found by the live check, in its own mount namespace."""
    require("root")
    monkeypatch.setattr(filesystems, "DIRECTORIES", (str(tmp_path),))

    def look() -> list[tuple[str, str]]:
        shim.mount("none", str(tmp_path), "tmpfs", 0, "size=64k,nr_inodes=40")
        if full == "bytes":
            (tmp_path / "f").write_bytes(b"x" * 65536)
        elif full == "inodes":
            for number in range(39):
                (tmp_path / str(number)).touch()
        else:
            shim.mount("none", str(tmp_path), None, shim.MS_REMOUNT | shim.MS_RDONLY)
        # /proc/self is the main thread, whose mount namespace is another
        mounts = parse_mountinfo(Path("/proc/thread-self/mountinfo").read_text())
        monkeypatch.setattr(filesystems, "mounts_of", lambda _: ("mountinfo", mounts))
        return [(each.id, each.severity) for each in filesystems.file_systems(live())]

    with MountNamespace() as namespace:
        found = namespace.call(look)
    wanted = {"bytes": "no-room", "inodes": "no-inodes", "read-only": "read-only"}[full]
    assert (wanted, "error") in found


def test_stale_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A socket whose listener has closed is stale; one that listens is not; one that never accepts is overrun."""
    paths = {name: str(tmp_path / name) for name in ("dead", "alive", "busy")}
    monkeypatch.setattr(sockets, "ENDPOINTS", tuple(sockets.Endpoint(p, n, n) for n, p in paths.items()))
    made = {name: socket.socket(socket.AF_UNIX) for name in paths}
    asking = socket.socket(socket.AF_UNIX)
    try:
        for name, each in made.items():
            each.bind(paths[name])
            each.listen(0)
        made["dead"].close()
        asking.connect(paths["busy"])  # the one place of its queue
        found = {each.id: each.message for each in sockets.sockets(live())}
        assert set(found) == {"stale-socket"}
        assert paths["dead"] in found["stale-socket"]
        # as from another network namespace, whose table does not have them
        monkeypatch.setattr(sockets, "listening", lambda _: ("/proc/net/unix", set()))
        found = {each.id: each.message for each in sockets.sockets(live())}
        assert set(found) == {"stale-socket", "socket-overrun"}
        assert paths["busy"] in found["socket-overrun"]
    finally:
        for each in (*made.values(), asking):
            each.close()


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_state_of_a_dead_container(
    require: Require, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """A real container is no finding while it lives, and one once its init was killed; a copy of it shows the same."""
    require("root", name)
    base = Path(f"/run/oci-harness-tests-node-{os.getpid()}")
    monkeypatch.setenv("OCI_HARNESS_DIR", str(base))
    with Session("auto", [runtime := find_runtime(name)], kind="node") as session:
        monkeypatch.setattr(state, "STATES", (f"{session.workspace.root(name)}/*",))
        container = session.container(runtime, session.template("minimal"))
        try:
            check(container.create())
            assert list(state.recorded_state(live())) == []
            check(container.kill())
            container.wait(10)
            (finding,) = state.recorded_state(live())
            assert (finding.id, finding.cause) == ("stale-state", "state-exists")
            assert f"{container.id} (pid" in finding.message
            assert finding.fix.endswith(f"{name} --root {session.workspace.root(name)} delete --force {container.id}")
            own = session.workspace.root(name) / container.id
            (tmp_path / own.relative_to("/")).mkdir(parents=True)
            for note in ("state.json", "status"):  # by name: a whole copy would read the container's /dev/zero
                if (own / note).exists():
                    shutil.copy(own / note, tmp_path / own.relative_to("/") / note)
            (tmp_path / "ps").write_text("PID S COMMAND\n1 S init\n")
            assert [each.id for each in state.recorded_state(copied(tmp_path))] == ["stale-state"]
        finally:
            assert container.clean_up() == []
    remove_tree(base)


def test_the_live_sources_are_read(require: Require) -> None:
    """The process table knows this test, and the kernel's ring is read to its end without waiting."""
    require("root")
    tree = live()
    table = table_of(tree)
    assert table is not None
    assert table.processes[os.getpid()].state == "R"
    begin = time.monotonic()
    list(kernel_log(tree))
    assert time.monotonic() - begin < 10
    assert [each for each in tree.unseen if each.what == "/dev/kmsg"] == []


def test_nothing_is_changed(require: Require, tmp_path: Path) -> None:
    """An examination leaves a copied tree as it was, to the byte and the name."""
    require("root")
    for path in ("run/runc/x", "etc/containerd", "proc/1"):
        (tmp_path / path).mkdir(parents=True)
    os.mkfifo(tmp_path / "run/docker.pid")

    def look() -> list[tuple[str, int, int]]:
        return sorted((str(p), p.lstat().st_mtime_ns, p.lstat().st_ino) for p in tmp_path.rglob("*"))

    before = look()
    examine(copied(tmp_path))
    assert look() == before
