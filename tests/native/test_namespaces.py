"""Namespaces of real processes: own, unshared, dead."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.kernel import namespaces, shim
from harness.kernel.namespaces import details, namespaces_of, shared, start_time_of

Require = Callable[..., None]


@pytest.fixture
def unshared(require: Require) -> Iterator[int]:
    """The pid of a process in its own uts, ipc, net, user and pid namespaces."""
    require("root")
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1)")
    argv = ["unshare", "--uts", "--ipc", "--net", "--user", "--pid", "--fork", "--kill-child"]
    process = subprocess.Popen(
        [*argv, "sh", "-c", "echo ready; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield int(children[0])
    finally:
        process.communicate()


def test_own_namespaces() -> None:
    """Our own namespaces have the inodes that the links in /proc/self/ns name."""
    found = namespaces_of(os.getpid())
    assert set(found) == set(shim.NAMESPACES)
    for kind in ("mnt", "net", "pid", "user", "uts"):
        namespace = found[kind]
        assert namespace is not None
        assert str(Path(f"/proc/self/ns/{kind}").readlink()) == f"{kind}:[{namespace.inode}]"


def test_unshared_differ(unshared: int) -> None:
    """Exactly the unshared namespaces differ from ours."""
    same = shared(namespaces_of(os.getpid()), namespaces_of(unshared))
    known = {kind: value for kind, value in same.items() if value is not None}
    assert {kind for kind, value in known.items() if not value} >= {"uts", "ipc", "net", "user", "pid"}
    assert known["mnt"] is True


def test_shared_is_unknown_without_one_side() -> None:
    """A kind that one side does not have is neither shared nor not."""
    own = namespaces_of(os.getpid())
    assert shared(own, {**own, "uts": None})["uts"] is None
    assert shared(own, {})["net"] is None
    assert shared(own, own)["net"] is True


def test_details_of_unshared(unshared: int) -> None:
    """Owner, owning user namespace and parent are those that made it."""
    own, theirs = namespaces_of(os.getpid()), namespaces_of(unshared)
    own_user, own_pid, their_user = own["user"], own["pid"], theirs["user"]
    assert own_user is not None
    assert own_pid is not None
    assert their_user is not None
    user = details(unshared, "user")
    assert (user.type, user.owner_uid, user.owner_userns, user.parent) == (
        "user",
        os.getuid(),
        own_user.inode,
        own_user.inode,
    )
    assert user.absent == {}
    pid = details(unshared, "pid")
    assert (pid.type, pid.owner_userns, pid.parent) == ("pid", their_user.inode, own_pid.inode)
    net = details(unshared, "net")
    assert (net.namespace, net.owner_userns, net.owner_uid) == (theirs["net"], their_user.inode, os.getuid())
    assert net.parent is None
    assert net.absent == {"parent": "NS_GET_PARENT: only pid and user namespaces have a parent"}
    assert details(unshared, "pid_for_children").type == "pid"


def test_details_of_own_user_namespace() -> None:
    """What lies above our own user namespace is absent with a reason, and no descriptor stays open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = details(os.getpid(), "user")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert (found.type, found.parent) == ("user", None)
    assert "not permitted" in found.absent["parent"]
    with pytest.raises(ValueError, match="no namespace"):
        details(os.getpid(), "disk")


def test_dead_process() -> None:
    """A process that is gone is reported as such; a zombie has left most of its namespaces."""
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert namespaces_of(child.pid)["net"] is None
    child.wait()
    for call in (namespaces_of, start_time_of, lambda pid: details(pid, "net")):
        with pytest.raises(ProcessLookupError):
            call(child.pid)


def test_pid_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pid with another start time is another process, and a process that dies under our hands is not mixed up."""
    start = start_time_of(os.getpid())
    assert namespaces_of(os.getpid(), start_time=start)["net"] is not None
    for call in (namespaces_of, lambda pid, start_time: details(pid, "net", start_time=start_time)):
        with pytest.raises(ProcessLookupError):
            call(os.getpid(), start_time=start + 1)
    child = subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    child_start = start_time_of(child.pid)
    original = namespaces._start_time

    def dies_after_the_check(fd: int, pid: int) -> int:
        result = original(fd, pid)
        child.communicate()
        return result

    monkeypatch.setattr(namespaces, "_start_time", dies_after_the_check)
    with pytest.raises(ProcessLookupError):
        namespaces_of(child.pid, start_time=child_start)
