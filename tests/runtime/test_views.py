"""Cgroup views as runtimes see them: made in a private mount namespace, and nobody else notices."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from actors import Sessions, shell, until

from harness.cgroup.hierarchy import detect
from harness.cgroup.view import NEAREST
from harness.errors import HostError, InputError
from harness.kernel import shim
from harness.kernel.mounts import MountNamespace
from harness.process.command import Place, run
from harness.runtime.discovery import find_runtime
from harness.runtime.failures import check
from harness.runtime.session import Session

VIEWS = ("host", "legacy", "hybrid", "unified")


def mountinfo() -> str:
    return Path("/proc/self/mountinfo").read_text()


def own_mount_namespace() -> int:
    return Path("/proc/thread-self/ns/mnt").stat().st_ino


def seen_by_a_command(session: Session) -> str:
    """The mounts that a runtime sees: of a command started the way runtimes are."""
    return check(run("cat", ["/bin/cat", "/proc/self/mountinfo"], place=Place(session.namespace.fd))).stdout.decode()


def cgroup_mounts(text: str) -> dict[str, str]:
    """{mount point: file system type} of cgroup mounts."""
    pairs = [line.partition(" - ") for line in text.splitlines()]
    return {front.split()[4]: back.split()[0] for front, _, back in pairs if back.split()[0].startswith("cgroup")}


@pytest.fixture(params=VIEWS)
def shown(request: pytest.FixtureRequest, no_leaks: None) -> Iterator[Session]:
    """A session in each view that this host can show."""
    try:
        session = Session(request.param, kind="test")
    except HostError as error:
        pytest.skip(f"this host cannot show {request.param}: {error}")
    with session:
        yield session


def test_nobody_else_notices(shown: Session) -> None:
    """Making a view changes nothing in the mount namespace of the process that asks for it."""
    before = mountinfo()
    with Session(shown.choice.view, kind="test") as second:
        assert mountinfo() == before
        assert second.namespace.call(own_mount_namespace) != own_mount_namespace()
    assert mountinfo() == before


def test_a_command_sees_the_view(shown: Session) -> None:
    """What is started in a session sees just the hierarchies of the view."""
    types = set(cgroup_mounts(seen_by_a_command(shown)).values())
    expected = {
        "host": set(cgroup_mounts(mountinfo()).values()),
        "legacy": {"cgroup"},
        "hybrid": {"cgroup", "cgroup2"},
        "unified": {"cgroup2"},
    }
    assert types == expected[shown.choice.view]


def test_the_layout_is_that_of_the_view(shown: Session) -> None:
    """The session's layout and mode are what a command in it would detect."""
    wanted = detect().mode if shown.choice.view == "host" else shown.choice.view
    assert (shown.layout.mode, shown.choice.mode) == (wanted, wanted)
    assert shown.namespace.call(detect) == shown.layout
    mounted = set(cgroup_mounts(seen_by_a_command(shown)))
    assert {hierarchy.mount_point for hierarchy in shown.layout.hierarchies} <= mounted


def test_the_steps_are_told(shown: Session) -> None:
    """A view other than the host's own lists what was mounted, in words that can be typed; the host's lists nothing."""
    same = shown.choice.view in ("host", detect().mode)
    assert bool(shown.choice.steps) is not same
    assert (shown.choice.explanation is None) is same
    for step in shown.choice.steps:
        assert str(step).split()[0] in {"mount", "umount", "mkdir"}
        assert str(step) in (shown.choice.explanation or "")


@pytest.mark.parametrize("view", VIEWS)
def test_runc_works_in_every_view(require: Callable[..., None], sessions: Sessions, view: str) -> None:
    """runc starts a container in each view, and the container's cgroup lies in the view's hierarchies."""
    require("runc")
    runc = sessions.runtime("runc")
    try:
        session = Session(view, [runc], kind="test")
    except HostError as error:
        pytest.skip(f"this host cannot show {view}: {error}")
    with session, session.container(runc, "pause") as container:
        check(container.start())
        assert container.state().status == "running"
        text = Path(f"/proc/{container.init.pid}/cgroup").read_text()
        mine = [line for line in text.splitlines() if session.workspace.name in line]
        unified = any(line.startswith("0::") for line in mine)
        v1 = any(not line.startswith("0::") for line in mine)
        versions = {hierarchy.version for hierarchy in session.layout.hierarchies}
        assert (v1, unified) == (1 in versions, 2 in versions)


def test_auto_takes_the_hosts_own_for_runc(require: Callable[..., None], sessions: Sessions) -> None:
    """auto leaves the layout alone where every runtime works in it."""
    require("runc")
    with Session("auto", [sessions.runtime("runc")], kind="test") as session:
        assert (session.choice.view, session.choice.asked) == ("host", "auto")
        assert session.choice.refused == {}
        assert session.choice.steps == ()


def test_auto_without_runtimes_is_the_hosts_own() -> None:
    """auto with nobody to try leaves the layout alone."""
    with Session("auto", kind="test") as session:
        assert session.choice.view == "host"


def test_auto_finds_a_view_for_crun(require: Callable[..., None], sessions: Sessions) -> None:
    """On a hybrid host auto takes legacy for crun, and keeps crun's own words for why the host's layout is refused."""
    require("crun", "cgroup-v1", "cgroup-v2")
    if detect().mode != "hybrid":
        pytest.skip(f"this host is {detect().mode}, not hybrid")
    with Session("auto", [sessions.runtime("crun")], kind="test") as session:
        assert (session.choice.view, session.choice.mode) == ("legacy", "legacy")
        assert list(session.choice.refused) == ["host"]
        assert "cgroups in hybrid mode not supported" in session.choice.refused["host"]["crun"]
        assert "cgroups in hybrid mode not supported" in (session.choice.explanation or "")
        assert session.choice.to_json()["refused"] == session.choice.refused


def test_auto_suits_all_that_are_named(require: Callable[..., None], pair: Session) -> None:
    """With two runtimes auto takes a view in which both start a container, and names only the one that refused."""
    if detect().mode != "hybrid":
        pytest.skip(f"this host is {detect().mode}, not hybrid")
    assert pair.choice.view == "legacy"
    assert set(pair.choice.refused["host"]) == {"crun"}


def test_auto_gives_up_in_words(require: Callable[..., None], script: Callable[..., str]) -> None:
    """When a runtime works in no view the error names each view and what was said in it."""
    from harness.runtime.discovery import find_runtime

    path = script('run) echo "cannot do it in $(cut -d: -f1 /proc/self/cgroup | head -1)" >&2; exit 9 ;;')
    with pytest.raises(HostError, match="no view in which every runtime starts a container") as caught:
        Session("auto", [find_runtime(f"fake={path}")], kind="test")
    for view in NEAREST[detect().mode]:
        assert f"{view}: fake: fake run failed (exit status 9): cannot do it" in str(caught.value)


def test_an_impossible_view_names_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The HostError of a view that cannot be made has the step as one would type it, and the kernel's reason."""
    from harness.cgroup import view as views

    step = views.Step("mount", "/sys/fs/cgroup", "cgroup", "no-such-controller")
    monkeypatch.setattr(views, "view_steps", lambda *_: [step])
    with pytest.raises(HostError, match="mount -t cgroup -o no-such-controller none /sys/fs/cgroup: Invalid argument"):
        Session("legacy", kind="test")


def test_an_unknown_view_is_refused() -> None:
    """A view that does not exist is refused with its name."""
    with pytest.raises((InputError, HostError), match="sideways"):
        Session("sideways", kind="test")


def test_the_namespace_vanishes() -> None:
    """After close no process and no descriptor holds the private mount namespace."""
    with Session("unified", kind="test") as session:
        inode = os.fstat(session.namespace.fd).st_ino
        assert inode in mount_namespaces()
    until(lambda: inode not in mount_namespaces(), "the last thread in the namespace is gone", timeout_s=2)


def mount_namespaces() -> set[int]:
    """Inodes of the mount namespaces of all threads of this process, and of its descriptors."""
    tasks = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that has been joined may take a moment to be gone from here
            tasks.append((task / "ns/mnt").stat().st_ino)
    links = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    return {*tasks, *(int(link[5:-1]) for link in links if link.startswith("mnt:["))}


def test_overlays_stay_private(pair: Session, sessions: Sessions) -> None:
    """A container's root file system is mounted where its runtime sees it, and nowhere in the host's namespace."""
    runc = sessions.runtime("runc")
    with pair.container(runc, pair.template("default", (("/process/args", list(shell("exit 0"))),))) as container:
        rootfs = str(container.directory / "rootfs")
        assert rootfs in seen_by_a_command(pair)
        assert rootfs not in mountinfo()


def test_nothing_is_written_below_the_covered_mount(require: Callable[..., None]) -> None:
    """crun in the legacy view leaves the directory below the unmounted cgroup2, which is the host's, as it was."""
    require("root", "crun", "cgroup-v1", "cgroup-v2")
    layout = detect()
    if layout.mode != "hybrid" or layout.unified is None:
        pytest.skip("needs a hybrid host")
    where = layout.unified.mount_point

    def below() -> list[str]:
        with MountNamespace() as namespace:
            namespace.call(shim.umount, where, shim.MNT_DETACH)
            return sorted(namespace.call(os.listdir, where))

    before = below()
    with Session("legacy") as session, session.container(find_runtime("crun"), "pause") as container:
        container.start()
    assert below() == before
