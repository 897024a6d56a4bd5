"""Layouts from recorded mountinfo texts, and the parsers of /proc/PID/cgroup and /proc/cgroups."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.cgroup import hierarchy
from harness.cgroup.hierarchy import (
    Hierarchy,
    Layout,
    ProcCgroup,
    hierarchies_of,
    layout_of,
    parse_mountinfo,
    parse_proc_cgroup,
    parse_proc_cgroups,
    paths_of,
)
from harness.cgroup.parsers import ParseError
from harness.errors import HostError

BASE = "22 27 0:21 / /proc rw,relatime - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\n"

# grep cgroup /proc/self/mountinfo on a microVM without systemd.
HYBRID = BASE + (
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
# The same as systemd mounts it with systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1.
LEGACY = BASE + (
    "25 18 0:22 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:8 - tmpfs tmpfs ro,mode=755\n"
    "26 25 0:23 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd\n"
    "29 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
    "30 25 0:27 / /sys/fs/cgroup/memory rw,relatime shared:12 master:3 - cgroup cgroup rw,memory\n"
    "31 25 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset,noprefix,clone_children\n"
)
# Debian 12 with systemd.
UNIFIED = BASE + (
    "30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
)
# docker run --cgroupns=host on a legacy host.
CONTAINER = BASE + (
    "500 499 0:60 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "501 500 0:23 /docker/abc /sys/fs/cgroup/systemd ro master:9 - cgroup cgroup rw,xattr,name=systemd\n"
    "502 500 0:27 /docker/abc /sys/fs/cgroup/memory ro master:12 - cgroup cgroup rw,memory\n"
)


def layout(text: str) -> Layout:
    return layout_of(hierarchies_of(parse_mountinfo(text)))


@pytest.mark.parametrize(
    ("text", "mode", "keys"),
    [
        (HYBRID, "hybrid", ["cpu", "cpuacct", "memory", "freezer", "name=systemd", ""]),
        (LEGACY, "legacy", ["name=systemd", "cpu,cpuacct", "memory", "cpuset"]),
        (UNIFIED, "unified", [""]),
        (CONTAINER, "legacy", ["name=systemd", "memory"]),
        (BASE, "none", []),
        ("", "none", []),
    ],
)
def test_mode(text: str, mode: str, keys: list[str]) -> None:
    """Recorded hosts have the mode and the hierarchies that they had."""
    found = layout(text)
    assert found.mode == mode
    assert [h.key for h in found.hierarchies] == keys


def test_named_hierarchy_beside_unified() -> None:
    """A v1 name=systemd mounted next to cgroup2 makes hybrid, but not when cgroup2 is /sys/fs/cgroup itself."""
    named = "40 31 0:37 / {} rw - cgroup cgroup rw,name=systemd\n"
    split = named.format("/sys/fs/cgroup/systemd") + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    assert layout(split).mode == "hybrid"
    assert layout(UNIFIED + named.format("/mnt/systemd")).mode == "unified"


def test_version_of_each_controller() -> None:
    """A controller is version 1 where it is mounted, 2 where v2's root offers it, else None."""
    found = layout(HYBRID)
    v2 = [replace(h, controllers=("hugetlb",)) if h.version == 2 else h for h in found.hierarchies]
    found = layout_of(v2)
    assert found.versions(["perf_event"]) == {
        "cpu": 1,
        "cpuacct": 1,
        "freezer": 1,
        "memory": 1,
        "hugetlb": 2,
        "perf_event": None,
    }
    assert found.version("") == 2
    assert found.version("name=systemd") == 1
    assert found.hierarchy("name=other") is None


def test_escapes_and_optional_fields() -> None:
    """Octal escapes are undone, and any number of optional fields is understood."""
    line = r"36 35 98:0 /a\040b /mnt/x\134y\012z rw,noatime shared:1 master:2 unbindable - cgroup none rw,cpu"
    mount = parse_mountinfo(line)[0]
    assert (mount.root, mount.mount_point) == ("/a b", "/mnt/x\\y\nz")
    assert mount.optional == ("shared:1", "master:2", "unbindable")
    assert (mount.mount_id, mount.parent_id, mount.device) == (36, 35, "98:0")


def test_bind_mounts_of_one_hierarchy() -> None:
    """Of several mounts of a hierarchy the whole one below /sys/fs/cgroup is taken."""
    text = (
        "60 27 0:32 /child /var/lib/x/memory rw - cgroup cgroup rw,memory\n"
        "61 27 0:32 / /mnt/memory rw - cgroup cgroup rw,memory\n" + HYBRID
    )
    memory = layout(text).hierarchy("memory")
    assert memory is not None
    assert (memory.mount_point, memory.root) == ("/sys/fs/cgroup/memory", "/")


def test_mount_below_another() -> None:
    """A cgroup mount that a later mount on the same directory covers is not seen."""
    assert layout(UNIFIED + "99 24 0:99 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n").mode == "none"


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "",
        "36 35 98:0 / /mnt rw cgroup none rw",
        "a 35 98:0 / /mnt rw - cgroup none rw",
        "1 2 0:1 / mnt rw - t s o",
        "36 35 98:0 / /mnt rw - cgroup none",
    ],
)
def test_bad_mountinfo(line: str) -> None:
    """A line that is not mountinfo is refused with its number."""
    with pytest.raises(ParseError) as caught:
        parse_mountinfo(BASE + line + "\n", "mountinfo")
    assert caught.value.line == 3


def test_proc_cgroup() -> None:
    """Lines of v1, named and v2 hierarchies are told apart, and paths keep their colons."""
    text = "9:name=systemd:/\n4:cpu,cpuacct:/a:b/c\n0::/user.slice/x (deleted)\n3:memory:/y (deleted)\n"
    assert parse_proc_cgroup(text) == [
        ProcCgroup(9, (), "systemd", "/", False),
        ProcCgroup(4, ("cpu", "cpuacct"), None, "/a:b/c", False),
        ProcCgroup(0, (), None, "/user.slice/x", True),
        ProcCgroup(3, ("memory",), None, "/y (deleted)", False),
    ]
    assert parse_proc_cgroup("") == []


@pytest.mark.parametrize("line", ["", "x", "1:cpu", "1:cpu:relative", "a:cpu:/", "0:cpu:/", "1::/"])
def test_bad_proc_cgroup(line: str) -> None:
    """A line that is not one of /proc/PID/cgroup is refused with its number."""
    with pytest.raises(ParseError) as caught:
        parse_proc_cgroup(f"8:pids:/\n{line}\n")
    assert caught.value.line == 2


def test_proc_cgroups() -> None:
    """/proc/cgroups tells which controllers the kernel has, and which v1 hierarchy they are on."""
    text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\nnet_cls\t0\t1\t0\n"
    found = parse_proc_cgroups(text)
    assert [(c.name, c.hierarchy_id, c.cgroups, c.enabled) for c in found] == [
        ("cpuset", 3, 1, True),
        ("net_cls", 0, 1, False),
    ]
    for bad in ("cpuset\t3\t1", "cpuset 3 1 1", "cpuset\t3\t1\t2", "cpuset\t-3\t1\t1"):
        with pytest.raises(ParseError):
            parse_proc_cgroups(bad)
    assert parse_proc_cgroups("") == []


@given(st.text(max_size=200))
def test_arbitrary_text(text: str) -> None:
    """Whatever the text is, the only exception of the three parsers is ParseError."""
    for parser in (parse_mountinfo, parse_proc_cgroup, parse_proc_cgroups):
        with suppress(ParseError):
            parser(text)


NAMES = st.text(st.characters(exclude_characters="\n\0/", exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(st.lists(NAMES, max_size=4))
def test_mount_point_round_trip(parts: list[str]) -> None:
    """Any mount point, escaped as the kernel does it, is read back."""
    point = "/" + "/".join(parts)
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in point)
    assert parse_mountinfo(f"1 2 0:1 / {escaped} rw - cgroup2 cgroup2 rw\n")[0].mount_point == point


@given(st.lists(NAMES, max_size=4), st.integers(1, 99))
def test_proc_cgroup_round_trip(parts: list[str], hierarchy_id: int) -> None:
    """Any path of a v1 cgroup is read back."""
    path = "/" + "/".join(parts)
    assert parse_proc_cgroup(f"{hierarchy_id}:memory:{path}\n")[0].path == path


def paths(text: str, found: Layout) -> dict[str, str]:
    return {key: path for key, (_, path) in paths_of(parse_proc_cgroup(text), found).items()}


def test_paths_below_the_mounted_root() -> None:
    """Paths are relative to what is mounted; a cgroup outside of it, or removed, has no key."""
    text = "12:memory:/docker/abc/x\n9:name=systemd:/docker/abcd\n0::/gone (deleted)\n"
    assert paths(text, layout(CONTAINER)) == {"memory": "x"}


def test_paths_by_controller() -> None:
    """Every controller has its key, v2's beside "", and the root is the empty path."""
    text = "4:cpu:/a/b\n1:cpuacct:/\n7:blkio:/not/mounted\n0::/../outside\n"
    assert paths(text, layout(HYBRID)) == {"cpu": "a/b", "cpuacct": ""}
    v2 = Hierarchy(2, ("memory", "io"), None, "/sys/fs/cgroup")
    assert paths("0::/a\n", layout_of([v2])) == {"": "a", "memory": "a", "io": "a"}


def test_open_proves_the_file_system(tmp_path: Path) -> None:
    """A directory that is no cgroup file system is not taken for one, nor is a link to anything."""
    with pytest.raises(HostError, match="is no cgroup v2 file system"):
        Hierarchy(2, (), None, str(tmp_path)).open()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(HostError):
        Hierarchy(1, ("cpu",), None, str(tmp_path)).open()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        Hierarchy(2, (), None, str(tmp_path / "link")).open()


def test_detect_drops_what_it_cannot_prove(tmp_path: Path) -> None:
    """A mountinfo that claims cgroups where other file systems are gives no hierarchy."""
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    fake = tmp_path / "mountinfo"
    fake.write_text(
        f"31 23 {number} / {tmp_path} rw - cgroup2 cgroup2 rw\n32 23 0:1 / /proc rw - cgroup cgroup rw,memory\n"
        "33 23 0:1 / /no/such/place rw - cgroup cgroup rw,cpu\n"
    )
    assert hierarchy.detect(str(fake)) == Layout("none", ())
