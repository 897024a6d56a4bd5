"""Which cgroup hierarchies are mounted here, which version each controller has, and where a process is in each."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from harness.cgroup.parsers import ParseError, parse_words
from harness.errors import HostError
from harness.kernel import shim

Version: TypeAlias = Literal[1, 2]
Mode: TypeAlias = Literal["legacy", "hybrid", "unified", "none"]

FSTYPES: Final = ("cgroup", "cgroup2")
COMMON_ROOT: Final = "/sys/fs/cgroup"
MAGIC: Final[dict[int, int]] = {1: shim.CGROUP_SUPER_MAGIC, 2: shim.CGROUP2_SUPER_MAGIC}
# Words of a v1 mount's super options that are no controllers (kernel/cgroup/cgroup-v1.c, cgroup1_show_options).
_V1_OPTIONS: Final = frozenset(
    {"ro", "rw", "noprefix", "xattr", "cpuset_v2_mode", "nofavordynmods", "favordynmods", "clone_children"}
)
_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_DELETED: Final = " (deleted)"


class Mount(Struct, frozen=True):
    """One line of mountinfo (proc_pid_mountinfo(5)), escapes undone; `root`: which directory of it is shown."""

    mount_id: int
    parent_id: int
    device: str  # "major:minor", st_dev of what is mounted
    root: str
    mount_point: str
    options: tuple[str, ...]
    optional: tuple[str, ...]  # "shared:1", "master:2", ...
    fstype: str
    source: str
    super_options: tuple[str, ...]


class Hierarchy(Struct, frozen=True):
    """One mounted hierarchy. Paths of cgroups are relative to the mount point, which shows the cgroup `root`."""

    version: Version
    controllers: tuple[str, ...]  # v1: those mounted together; v2: cgroup.controllers of the mounted directory
    name: str | None  # v1 name=systemd; None: it has no name
    mount_point: str
    root: str = "/"  # not "/": a bind mount of a child, as in a container without a cgroup namespace

    @property
    def key(self) -> str:
        """How /proc/PID/cgroup names it: `cpu,cpuacct`, `name=systemd`, and "" for v2."""
        if self.version == 2:
            return ""
        return ",".join([*self.controllers, *([f"name={self.name}"] if self.name else [])])

    def open(self) -> int:
        """A descriptor of the mount point, proven by fstatfs(2) to be a cgroup directory; the caller closes it.

        Raises OSError, and HostError when something else is there.
        """
        fd = os.open(self.mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        magic = shim.fs_magic(fd)
        if magic != MAGIC[self.version]:
            os.close(fd)
            raise HostError(f"{self.mount_point} is no cgroup v{self.version} file system (f_type {magic:#x})")
        return fd


class Layout(Struct, frozen=True):
    """All hierarchies of this mount namespace.

    `mode`: "legacy" only v1; "hybrid" v1 and a cgroup2 mount; "unified" a cgroup2 mount and no v1 controller (a v1
    hierarchy with only a name is tolerated when cgroup2 is at /sys/fs/cgroup itself); "none" nothing mounted.
    """

    mode: Mode
    hierarchies: tuple[Hierarchy, ...]

    @property
    def unified(self) -> Hierarchy | None:
        """The cgroup v2 hierarchy, with or without controllers."""
        return next((h for h in self.hierarchies if h.version == 2), None)

    def hierarchy(self, controller: str) -> Hierarchy | None:
        """Where a controller is ("" is v2 itself, `name=...` a v1 hierarchy without controllers), or None."""
        if controller == "":
            return self.unified
        for found in self.hierarchies:
            if controller in found.controllers or (found.name and controller == f"name={found.name}"):
                return found
        return None

    def version(self, controller: str) -> Version | None:
        """1, 2 (it is in cgroup.controllers of the root) or None (neither). blkio of v1 is io in v2: two names."""
        found = self.hierarchy(controller)
        return found.version if found else None

    def versions(self, known: Iterable[str] = ()) -> dict[str, Version | None]:
        """{controller: version} of all that are mounted, and of those in `known` (the names of /proc/cgroups, say)."""
        names = {name for h in self.hierarchies for name in h.controllers}
        return {name: self.version(name) for name in sorted(names | set(known))}


class ProcCgroup(Struct, frozen=True):
    """One line of /proc/PID/cgroup."""

    hierarchy_id: int
    controllers: tuple[str, ...]  # empty for v2 and for v1 hierarchies with only a name
    name: str | None  # of name=systemd
    path: str  # seen from the reader's cgroup namespace; "/../x" is outside of it
    deleted: bool  # v2: the cgroup was removed while the process (a zombie) was in it


class ProcController(Struct, frozen=True):
    """One line of /proc/cgroups."""

    name: str
    hierarchy_id: int  # 0: not on a v1 hierarchy
    cgroups: int
    enabled: bool


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def parse_mountinfo(text: str, path: str = "mountinfo") -> list[Mount]:
    """All mounts, in the kernel's order. Raises ParseError. Source: proc_pid_mountinfo(5)."""
    mounts = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        left, dash, right = line.partition(" - ")
        front = left.split(" ")
        back = right.split(" ", 2)  # options of a foreign file system may hold spaces
        if (
            not dash
            or len(front) < 6
            or len(back) != 3
            or not (_number(front[0]) and _number(front[1]))
            or not front[4].startswith("/")
        ):
            raise ParseError(path, number, line.encode(errors="replace"), "a line of mountinfo")
        mounts.append(
            Mount(
                int(front[0]),
                int(front[1]),
                front[2],
                _unescape(front[3]),
                _unescape(front[4]),
                tuple(front[5].split(",")),
                tuple(front[6:]),
                back[0],
                _unescape(back[1]),
                tuple(back[2].split(",")),
            )
        )
    return mounts


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19


def parse_proc_cgroup(text: str, path: str = "cgroup") -> list[ProcCgroup]:
    """/proc/PID/cgroup: `ID:CONTROLLERS:PATH` a line, `0::PATH` for v2; a path may hold colons. Raises ParseError.

    Source: cgroups(7). " (deleted)" is cut off for v2 only, where the kernel appends it (kernel/cgroup/cgroup.c,
    proc_cgroup_show); a cgroup that really has that name looks the same.
    """
    found = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        parts = line.split(":", 2)
        if len(parts) != 3 or not _number(parts[0]) or not parts[2].startswith("/"):
            raise ParseError(path, number, line.encode(errors="replace"), "ID:CONTROLLERS:PATH")
        hierarchy_id, words, where = int(parts[0]), [w for w in parts[1].split(",") if w], parts[2]
        names = [w.removeprefix("name=") for w in words if w.startswith("name=")]
        controllers = tuple(w for w in words if not w.startswith("name="))
        if len(names) > 1 or (hierarchy_id == 0) != (not words):
            raise ParseError(path, number, line.encode(errors="replace"), "ID:CONTROLLERS:PATH")
        deleted = hierarchy_id == 0 and where.endswith(_DELETED)
        name = names[0] if names else None
        where = where.removesuffix(_DELETED) if deleted else where
        found.append(ProcCgroup(hierarchy_id, controllers, name, where, deleted))
    return found


def parse_proc_cgroups(text: str, path: str = "cgroups") -> list[ProcController]:
    """/proc/cgroups, its comment line left out. Raises ParseError. Source: cgroups(7)."""
    found = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        if line.startswith("#"):
            continue
        parts = line.split("\t")
        if len(parts) != 4 or not parts[0] or not all(map(_number, parts[1:])) or parts[3] not in {"0", "1"}:
            raise ParseError(path, number, line.encode(errors="replace"), "NAME HIERARCHY CGROUPS ENABLED")
        found.append(ProcController(parts[0], int(parts[1]), int(parts[2]), parts[3] == "1"))
    return found


def _hierarchy_of(mount: Mount) -> Hierarchy:
    if mount.fstype == "cgroup2":
        return Hierarchy(2, (), None, mount.mount_point, mount.root)
    names = [_unescape(o.removeprefix("name=")) for o in mount.super_options if o.startswith("name=")]
    controllers = tuple(o for o in mount.super_options if o not in _V1_OPTIONS and "=" not in o)
    return Hierarchy(1, controllers, names[0] if names else None, mount.mount_point, mount.root)


def hierarchies_of(mounts: Iterable[Mount]) -> list[Hierarchy]:
    """The cgroup hierarchies among mounts, each once; nothing is proven here.

    Of several mounts of one hierarchy the one that shows most of it wins, then one below /sys/fs/cgroup, then the
    shortest. What lies under a later mount on the same directory is out of reach and left out. Controllers of v2
    are not known yet.
    """
    visible: dict[str, Mount] = {}
    for mount in mounts:
        visible.pop(mount.mount_point, None)
        visible[mount.mount_point] = mount
    best: dict[str, Hierarchy] = {}
    for mount in visible.values():
        if mount.fstype not in FSTYPES:
            continue
        candidate = _hierarchy_of(mount)
        rival = best.setdefault(candidate.key, candidate)
        if _rank(candidate) < _rank(rival):
            best[candidate.key] = candidate
    return list(best.values())


def _rank(hierarchy: Hierarchy) -> tuple[int, bool, int]:
    depth = len([part for part in hierarchy.root.split("/") if part])
    return depth, not hierarchy.mount_point.startswith(COMMON_ROOT), len(hierarchy.mount_point)


def layout_of(hierarchies: Iterable[Hierarchy]) -> Layout:
    """The layout that these hierarchies make; see Layout for what each mode means."""
    found = tuple(hierarchies)
    v1 = [h for h in found if h.version == 1]
    v2 = [h for h in found if h.version == 2]
    mode: Mode
    if not v2:
        mode = "legacy" if v1 else "none"
    elif not v1 or (not any(h.controllers for h in v1) and v2[0].mount_point == COMMON_ROOT):
        mode = "unified"
    else:
        mode = "hybrid"
    return Layout(mode, found)


def detect(mountinfo_path: str = "/proc/thread-self/mountinfo") -> Layout:
    """The layout of the calling thread's mount namespace, each hierarchy proven by opening it.

    A mount that another one hides is left out: its mount point shows a wrong file system type, or another device.
    Raises OSError when mountinfo cannot be read, ParseError when it is not understood.
    """
    mounts = parse_mountinfo(os.fsdecode(Path(mountinfo_path).read_bytes()), mountinfo_path)
    proven = []
    for hierarchy in hierarchies_of([m for m in mounts if m.fstype in FSTYPES and _is_on_top(m)]):
        try:
            fd = hierarchy.open()
        except (OSError, HostError):
            continue
        try:
            proven.append(_with_controllers(hierarchy, fd) if hierarchy.version == 2 else hierarchy)
        finally:
            os.close(fd)
    return layout_of(proven)


def _is_on_top(mount: Mount) -> bool:
    """Whether the mount point shows this very file system. Not to be asked of others than cgroups: NFS may hang."""
    try:
        device = Path(mount.mount_point).stat().st_dev
    except OSError:
        return False
    return mount.device == f"{os.major(device)}:{os.minor(device)}"


def _with_controllers(hierarchy: Hierarchy, fd: int) -> Hierarchy:
    data = shim.read_files([fd], ("cgroup.controllers",))[0]
    if isinstance(data, OSError):
        raise data
    return replace(hierarchy, controllers=parse_words(data, "cgroup.controllers"))


def paths_of(lines: Iterable[ProcCgroup], layout: Layout) -> dict[str, tuple[Hierarchy, str]]:
    """{controller, `name=...` or "" for v2: (hierarchy, path below its mount point)} of lines of /proc/PID/cgroup.

    Every controller of v2 has its own key beside "". A cgroup that was removed, or that the mount does not show because
    it is outside of the mounted root, has no key.
    """
    found: dict[str, tuple[Hierarchy, str]] = {}
    for line in lines:
        keys = list(line.controllers) + ([f"name={line.name}"] if line.name else [])
        hierarchy = layout.hierarchy(keys[0] if keys else "")
        if hierarchy is None or line.deleted:
            continue
        relative = _below(line.path, hierarchy.root)
        if relative is None:
            continue
        if hierarchy.version == 2:
            keys = ["", *hierarchy.controllers]
        found.update(dict.fromkeys(keys, (hierarchy, relative)))
    return found


def cgroup_paths(pid: int | Literal["self"], layout: Layout) -> dict[str, tuple[Hierarchy, str]]:
    """Where a process is now, as paths_of gives it. Raises ProcessLookupError when it is gone, ParseError."""
    path = f"/proc/{pid}/cgroup"
    try:
        text = os.fsdecode(Path(path).read_bytes())
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), path) from None
    return paths_of(parse_proc_cgroup(text, path), layout)


def _below(path: str, root: str) -> str | None:
    """`/a/b` below root `/a` -> `b`; "" is the root itself; None: not below it."""
    prefix = root.rstrip("/")
    inside = path == prefix or path.startswith(f"{prefix}/")
    return path[len(prefix) :].strip("/") if inside and ".." not in path.split("/") else None
