"""What a case needs of this host and cgroup view: each need answered with a reason where it is not met."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from harness.cgroup.hierarchy import Layout
from harness.runtime.discovery import Runtime

# the spec's name of each type of namespace: that of its link in /proc/PID/ns
NAMESPACE_LINKS = {
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}


def whole_disk() -> str | None:
    """MAJOR:MINOR of a disk that I/O limits can be set on; None when there is none."""
    for disk in sorted(Path("/sys/block").glob("*")):
        if not disk.name.startswith(("loop", "ram", "zram", "sr", "fd")) and (disk / "dev").is_file():
            return (disk / "dev").read_text().strip()
    return None


def _cgroup(version: int) -> Callable[[str, Runtime, Layout], str | None]:
    def unmet(name: str, runtime: Runtime, layout: Layout) -> str | None:
        """NAME or NAME/FILE: the file is looked for in the hierarchy's children, as the root has not all of them."""
        controller, _, file = name.partition("/")
        hierarchy = layout.hierarchy(controller)
        if hierarchy is None or hierarchy.version != version:
            here = "not mounted" if hierarchy is None else f"on v{hierarchy.version}"
            what = f"the {controller} controller on cgroup v{version}" if controller else "cgroup v2"
            return f"needs {what}; here it is {here}"
        if version == 2 and layout.mode != "unified":
            return f"needs cgroup v2 alone; in the {layout.mode} view runtimes use v1"
        if not runtime.dialect.uses_host_cgroups:
            return f"{runtime.name} makes no cgroup on this host"
        if file and not _somewhere(hierarchy.mount_point, file):
            return f"needs {file} of cgroup v{version}, which this kernel does not have"
        return None

    return unmet


def _somewhere(mount_point: str, file: str) -> bool:
    """Whether any cgroup below the root has the file: true when there is none to be asked."""
    children = [entry for entry in os.scandir(mount_point) if entry.is_dir()]
    return not children or any(Path(child.path, file).exists() for child in children)


def _namespace(kind: str, _runtime: Runtime, _layout: Layout) -> str | None:
    return None if Path("/proc/self/ns", NAMESPACE_LINKS[kind]).exists() else f"this kernel has no {kind} namespaces"


def _absent(path: str, _runtime: Runtime, _layout: Layout) -> str | None:
    return f"needs a host without {path}" if Path(path).exists() else None


def _host_process(_: str, runtime: Runtime, _layout: Layout) -> str | None:
    if runtime.dialect.uses_host_cgroups:
        return None
    return f"{runtime.name} keeps the container's processes out of the host's sight"


def _disk(_: str, _runtime: Runtime, _layout: Layout) -> str | None:
    return None if whole_disk() else "needs a disk to limit"


KINDS: dict[str, Callable[[str, Runtime, Layout], str | None]] = {
    "cgroup-v1": _cgroup(1),
    "cgroup-v2": _cgroup(2),
    "namespace": _namespace,
    "absent": _absent,
    "host-process": _host_process,
    "disk": _disk,
}


def unmet(needs: tuple[str, ...], runtime: Runtime, layout: Layout) -> str | None:
    """The first need that is not met here, as a sentence; None when all are. Raises KeyError for an unknown kind."""
    for need in needs:
        kind, _, value = need.partition(":")
        reason = KINDS[kind](value, runtime, layout)
        if reason is not None:
            return reason
    return None
