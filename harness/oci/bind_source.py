"""Bind mounts of a config.json whose source is not on this host, and what that source must have been."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.oci.host_part import HostPart, Kind
from harness.oci.pointer import parse, select
from harness.oci.rootfs_paths import inside

Document = dict[str, Any]

_FILES = (
    *("/dev/termination-log", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/passwd", "/etc/group"),
    *("/etc/localtime", "/etc/timezone", "/etc/machine-id", "/etc/mtab", "/run/.containerenv"),
    *("/sbin/docker-init", "/dev/init", "/run/podman-init"),
)
# kubelet's own (pkg/kubelet/config/defaults.go): containers/NAME/HASH a termination log, volumes/PLUGIN/NAME a volume
_KUBELET_FILE = re.compile(r"/pods/[^/]+/(containers/[^/]+/[^/]+|etc-hosts)$")
_KUBELET_DIRECTORY = re.compile(r"/pods/[^/]+/volumes/[^/]+/[^/]+$")
_VIRTUAL = (
    "proc",
    "sysfs",
    "tmpfs",
    "devpts",
    "mqueue",
    "cgroup",
    "cgroup2",
    "none",
    "ramfs",
    "overlay",
    "hugetlbfs",
    "bpf",
)


def is_bind(mount: Document) -> bool:
    """Whether a mount of config.json is a bind mount: by its options (config.md, Mounts); runtimes take type bind."""
    options = {text for _, text in select(mount, "/options/*", str)}
    return mount.get("type") == "bind" or not options.isdisjoint(("bind", "rbind"))


def bind_sources(document: Document, base: Path, rootfs: Path | None) -> Iterator[HostPart]:
    for pointer, mount in select(document, "/mounts/*", dict):
        source, destination = mount.get("source"), mount.get("destination")
        if not isinstance(source, str) or not source or "\0" in source or not isinstance(destination, str):
            continue
        if is_bind(mount):
            if not os.path.lexists(base / source):
                kind = _kind(source, destination, rootfs)
                name = re.sub(r"[^A-Za-z0-9._-]", "_", posixpath.basename(destination.rstrip("/"))).strip(".") or "root"
                to = f"mounts/{parse(pointer)[1]}-{name[:64]}"
                yield HostPart(f"{pointer}/source", source, f"not on this host; an empty {kind}", to, kind)
        elif source.startswith("/") and mount.get("type") not in _VIRTUAL and not os.path.lexists(source):
            why = f"a {mount.get('type')} mount of what is not on this host"
            yield HostPart(pointer, source, why, {"destination": destination, "type": "tmpfs", "source": "tmpfs"})


def _kind(source: str, destination: str, rootfs: Path | None) -> Kind:
    """What the source has been: as the root file system has it, else as container engines and people name things."""
    if rootfs is not None and "\0" not in destination:
        place = inside(rootfs, destination)
        if place is not None and os.path.lexists(place):
            return "directory" if stat.S_ISDIR(place.lstat().st_mode) else "file"
    if destination.endswith("/") or source.endswith("/") or _KUBELET_DIRECTORY.search(source):
        return "directory"
    if destination in _FILES or _KUBELET_FILE.search(source):
        return "file"
    return "file" if "." in posixpath.basename(destination).lstrip(".").removesuffix(".d") else "directory"
