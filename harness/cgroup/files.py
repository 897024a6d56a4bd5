"""The files of one cgroup in all hierarchies: all read in one C call, or kept open to be read again and again."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from time import monotonic_ns
from typing import Final, Literal, TypeAlias

from harness.cgroup import cpu, cpuset, freezer, hugetlb, io, memory, pids, pressure
from harness.cgroup.hierarchy import Layout, cgroup_paths
from harness.cgroup.statistics import CgroupSnapshot, Plan
from harness.kernel import shim

# (controller, its files); "" is v2 itself, whose files need no controller.
_Group: TypeAlias = tuple[str, tuple[str, ...]]

# What each section of a snapshot reads, by version. v1 wins where a v1 controller of the section is mounted.
TABLE: Final[Mapping[str, Mapping[Literal[1, 2], tuple[_Group, ...]]]] = {
    "memory": {1: (("memory", memory.V1),), 2: (("memory", memory.V2),)},
    # cpu.stat of v2 is there without the cpu controller (cgroup-v2.rst, "CPU Interface Files").
    "cpu": {1: (("cpu", cpu.V1_CPU), ("cpuacct", cpu.V1_CPUACCT)), 2: (("", cpu.V2),)},
    "pids": {1: (("pids", pids.FILES),), 2: (("pids", pids.FILES),)},
    "io": {1: (("blkio", io.V1),), 2: (("io", io.V2),)},
    "cpuset": {1: (("cpuset", cpuset.V1),), 2: (("cpuset", cpuset.V2),)},
    "hugetlb": {
        1: (("hugetlb", hugetlb.files(1, hugetlb.page_sizes())),),
        2: (("hugetlb", hugetlb.files(2, hugetlb.page_sizes())),),
    },
    "freezer": {1: (("freezer", freezer.V1),), 2: (("", freezer.V2),)},
    "pressure": {2: (("", pressure.FILES),)},
}


class CgroupFiles:
    """One cgroup's directories, held open; a context manager.

    `paths`: {controller or "" for v2: path below the hierarchy's mount point}. Every path is opened beneath its
    hierarchy's proven mount point: OSError (EXDEV, ELOOP) tells of one that leads elsewhere. A path that does not
    exist makes its values absent; FileNotFoundError when none exists. The cgroup may be removed while this is open:
    then its values are absent with ENODEV or ENOENT.
    """

    def __init__(self, layout: Layout, paths: Mapping[str, str]) -> None:
        self.paths = dict(paths)
        self._fds: dict[tuple[str, str], int] = {}
        self._dirfds: list[int] = []
        names: list[str] = []
        versions: dict[str, Literal[1, 2]] = {}
        unread: dict[str, str] = {}
        try:
            for section, by_version in TABLE.items():
                version = _version(layout, by_version)
                if version is None:
                    unread[section] = _no_hierarchy(section, by_version)
                    continue
                reasons: list[str] = []
                for controller, files in by_version[version]:
                    found = self._directory(layout, controller)
                    if isinstance(found, int):
                        versions[section] = version
                        names.extend(files)
                        self._dirfds.extend([found] * len(files))
                    else:
                        unread.update(dict.fromkeys(files, found))
                        reasons.append(found)
                if section not in versions:
                    unread[section] = "; ".join(reasons)
            if not self._fds:
                tried = ", ".join(sorted(set(paths.values())))
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), tried)
        except BaseException:
            self.close()
            raise
        self._names = tuple(names)
        index = {name: at for at, name in enumerate(self._names)}
        self._plan = Plan(index, versions, unread, hugetlb.page_sizes())

    @classmethod
    def of_pid(cls, layout: Layout, pid: int | Literal["self"]) -> CgroupFiles:
        """The cgroup that a process is in now, possibly another path in each hierarchy.

        Raises ProcessLookupError when it is gone, FileNotFoundError when its cgroup was removed meanwhile.
        """
        return cls(layout, {key: path for key, (_, path) in cgroup_paths(pid, layout).items()})

    @classmethod
    def of_path(cls, layout: Layout, path: str) -> CgroupFiles:
        """The same path in every hierarchy; "" is the root. Raises OSError."""
        keys = {key for h in layout.hierarchies for key in (*h.controllers, "" if h.version == 2 else h.key)}
        return cls(layout, dict.fromkeys(keys, path))

    def _directory(self, layout: Layout, controller: str) -> int | str:
        """A descriptor, or why there is none."""
        hierarchy = layout.hierarchy(controller)
        if hierarchy is None:
            return f"the {controller} controller is not mounted"
        path = self.paths.get(controller, self.paths.get("") if hierarchy.version == 2 else None)
        if path is None:
            return f"no path in the {controller or 'v2'} hierarchy"
        known = self._fds.get((hierarchy.mount_point, path))
        if known is not None:
            return known
        root = hierarchy.open()
        try:
            fd = shim.open_beneath(root, path, shim.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            return f"no cgroup {path} in {hierarchy.mount_point}"
        finally:
            os.close(root)
        self._fds[hierarchy.mount_point, path] = fd
        return fd

    @property
    def names(self) -> tuple[str, ...]:
        """The files that are read, in this order."""
        return self._names

    @property
    def locations(self) -> dict[str, str]:
        """{file: directory of it}."""
        directories = {fd: f"{mount}/{path}".rstrip("/") for (mount, path), fd in self._fds.items()}
        return {name: directories[fd] for name, fd in zip(self._names, self._dirfds, strict=True)}

    @property
    def versions(self) -> Mapping[str, Literal[1, 2]]:
        """{section: version} of those that are read."""
        return self._plan.versions

    def snapshot(self) -> CgroupSnapshot:
        """Open, read and close every file, in one C call. May be called from several threads."""
        return CgroupSnapshot(monotonic_ns(), shim.read_files(self._dirfds, self._names), self._plan)

    def keep_open(self) -> OpenSnapshotter:
        """For repeated reading: files are opened once. Lives on when this object is closed."""
        return OpenSnapshotter(shim.OpenFiles(self._dirfds, self._names), self._plan)

    def open_files(self, names: Sequence[str]) -> shim.OpenFiles:
        """Some of `names` alone, kept open; raises KeyError for a file that is not among them."""
        return shim.OpenFiles([self._dirfds[self._plan.index[name]] for name in names], names)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])
        self._dirfds = []

    def __enter__(self) -> CgroupFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OpenSnapshotter:
    """Files of a cgroup kept open; a context manager, for one thread at a time.

    A file that was not there at the start stays absent, also when the kernel adds it later.
    """

    __slots__ = ("_files", "_plan")

    def __init__(self, files: shim.OpenFiles, plan: Plan) -> None:
        self._files = files
        self._plan = plan

    def snapshot(self) -> CgroupSnapshot:
        return CgroupSnapshot(monotonic_ns(), self._files.read(), self._plan)

    def close(self) -> None:
        self._files.close()

    def __enter__(self) -> OpenSnapshotter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _version(layout: Layout, by_version: Mapping[Literal[1, 2], tuple[_Group, ...]]) -> Literal[1, 2] | None:
    """Which version of a section this layout has."""
    if any(layout.version(controller) == 1 for controller, _ in by_version.get(1, ())):
        return 1
    if any(layout.version(controller) == 2 for controller, _ in by_version.get(2, ())):
        return 2
    return None


def _no_hierarchy(section: str, by_version: Mapping[Literal[1, 2], tuple[_Group, ...]]) -> str:
    names = {controller for groups in by_version.values() for controller, _ in groups if controller}
    what = " or ".join(sorted(names)) or section
    return f"{section}: no mounted hierarchy has {what}"
