"""Which mounts show which cgroup layout."""

from __future__ import annotations

import pytest

from harness.cgroup.hierarchy import Hierarchy, Layout, Mode
from harness.cgroup.view import NEAREST, VIEWS, Step, View, view_steps
from harness.errors import HostError

ROOT = "/sys/fs/cgroup"


def v1(*controllers: str, name: str | None = None) -> Hierarchy:
    return Hierarchy(1, controllers, name, f"{ROOT}/{name or ','.join(controllers)}")


def v2(mount_point: str = ROOT, *controllers: str) -> Hierarchy:
    return Hierarchy(2, controllers, None, mount_point)


LAYOUTS: dict[Mode, Layout] = {
    "legacy": Layout("legacy", (v1("cpu", "cpuacct"), v1("memory"), v1(name="systemd"))),
    "hybrid": Layout(
        "hybrid", (v1("cpu", "cpuacct"), v1("memory"), v1(name="systemd"), v2(f"{ROOT}/unified", "hugetlb"))
    ),
    "unified": Layout("unified", (v2(ROOT, "cpu", "memory"),)),
    "none": Layout("none", ()),
}
V1 = [
    f"umount -l {ROOT}",
    f"mount -t tmpfs -o mode=755 none {ROOT}",
    f"mkdir {ROOT}/cpu,cpuacct",
    f"mount -t cgroup -o cpu,cpuacct none {ROOT}/cpu,cpuacct",
    f"mkdir {ROOT}/memory",
    f"mount -t cgroup -o memory none {ROOT}/memory",
]
SYSTEMD = [f"mkdir {ROOT}/systemd", f"mount -t cgroup -o none,name=systemd none {ROOT}/systemd"]
PLUS_V2 = [f"mkdir {ROOT}/unified", f"mount -t cgroup2 none {ROOT}/unified"]
UNIFIED = [f"umount -l {ROOT}", f"mount -t cgroup2 none {ROOT}"]
FREE = [
    f"umount -l {ROOT}",
    f"mount -t tmpfs -o mode=755 none {ROOT}",
    f"mkdir {ROOT}/pids",
    f"mount -t cgroup -o pids none {ROOT}/pids",
]

# (layout, view, the steps; None: it cannot be). pids is the free controller.
TABLE: list[tuple[Mode, View, list[str]]] = [
    ("legacy", "host", []),
    ("legacy", "legacy", []),
    ("legacy", "hybrid", [*V1, *SYSTEMD, *PLUS_V2]),
    ("legacy", "unified", UNIFIED),
    ("hybrid", "host", []),
    ("hybrid", "legacy", [f"umount -l {ROOT}/unified", f"mount -t tmpfs -o mode=755 none {ROOT}/unified"]),
    ("hybrid", "hybrid", []),
    ("hybrid", "unified", UNIFIED),
    ("unified", "host", []),
    ("unified", "legacy", FREE),
    ("unified", "hybrid", [*FREE, *PLUS_V2]),
    ("unified", "unified", []),
    ("none", "host", []),
    ("none", "legacy", FREE),
    ("none", "hybrid", [*FREE, *PLUS_V2]),
    ("none", "unified", UNIFIED),
]


def test_table_is_whole() -> None:
    """Every layout with every view is in the table, and every layout has its nearest views."""
    assert {(mode, view) for mode, view, _ in TABLE} == {(mode, view) for mode in LAYOUTS for view in VIEWS}
    assert set(NEAREST) == set(LAYOUTS)
    assert all(views[0] == "host" for views in NEAREST.values())


@pytest.mark.parametrize(("mode", "view", "steps"), TABLE)
def test_steps(mode: Mode, view: View, steps: list[str]) -> None:
    """The steps are what a person would type."""
    assert [str(step) for step in view_steps(view, LAYOUTS[mode], ("pids",))] == steps


@pytest.mark.parametrize("mode", ["unified", "none"])
@pytest.mark.parametrize("view", ["legacy", "hybrid"])
def test_no_v1_controller(mode: Mode, view: View) -> None:
    """A kernel without a v1 controller to show cannot have the view, and the error says so."""
    with pytest.raises(HostError, match=f"the {view} view cannot be made"):
        view_steps(view, LAYOUTS[mode], ())


@pytest.mark.parametrize("mode", ["legacy", "hybrid"])
def test_free_controllers_do_not_matter_beside_v1(mode: Mode) -> None:
    """What is mounted as v1 is what is shown: controllers that v2 has are not taken from it."""
    for view in VIEWS:
        assert view_steps(view, LAYOUTS[mode], ("pids",)) == view_steps(view, LAYOUTS[mode], ())


@pytest.mark.parametrize("view", NEAREST["unified"])
def test_nearest_to_unified_changes_nothing(view: View) -> None:
    """On a unified host `auto` never takes a controller away from v2."""
    assert view_steps(view, LAYOUTS["unified"], ("pids",)) == []


def test_named_hierarchy_beside_unified() -> None:
    """A unified host with a name=systemd hierarchy below /sys/fs/cgroup shows v1 controllers in its legacy view."""
    layout = Layout("unified", (v2(ROOT, "cpu"), v1(name="systemd")))
    mounted = [step.options for step in view_steps("legacy", layout, ("pids",)) if step.fstype == "cgroup"]
    assert "pids" in mounted


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Step("umount", "/a"), "umount -l /a"),
        (Step("mkdir", "/a"), "mkdir /a"),
        (Step("mount", "/a", "cgroup2"), "mount -t cgroup2 none /a"),
        (Step("mount", "/a", "cgroup", "cpu,cpuacct"), "mount -t cgroup -o cpu,cpuacct none /a"),
    ],
)
def test_step_text(step: Step, text: str) -> None:
    """A step reads as the command that does it."""
    assert str(step) == text
