"""Full and read-only file systems under the directories that runtimes and their daemons write to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from msgspec import Struct

from harness.cgroup.hierarchy import FSTYPES, Mount
from harness.diagnosis.node.finding import Evidence, Finding, some
from harness.diagnosis.node.mounts import mount_under, mounts_of
from harness.diagnosis.node.tree import Tree

DIRECTORIES = (
    "/run",
    "/run/containerd",
    "/run/crio",
    "/run/runc",
    "/run/crun",
    "/run/docker",
    "/run/containers",
    "/run/user/*",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/containers",
    "/var/lib/kubelet",
    "/var/lib/rancher",
    "/var/log",
    "/tmp",
)
DF = ("/df", "/df.txt", "/df_*", "/sos_commands/filesys/df_*", "/disk_usage*")
NEARLY = 0.95
NOTHING_BYTES = 1 << 20  # less than one small bundle
NOTHING_INODES = 16
_ROW = re.compile(
    r"^(?P<source>.*?)\s+(?P<size>\S+)\s+(?P<used>\S+)\s+(?P<free>-?[\d.,]+[KMGTPE]?i?B?|-)\s+(?P<share>\d+)%\s+(?P<point>/.*)$"
)


class Usage(Struct, frozen=True):
    """Of one file system; `free` is what root may still take. None: it has no such limit, or nobody tells."""

    point: str
    source: str
    fstype: str
    used: float | None  # share of the bytes, 0 to 1
    free_bytes: int | None
    inodes_used: float | None
    free_inodes: int | None
    evidence: tuple[Evidence, ...]


def file_systems(tree: Tree) -> Iterator[Finding]:
    """Each file system once, with the directories that lie on it."""
    source, mounts = mounts_of(tree)
    under: dict[str, tuple[Mount, list[str]]] = {}
    for pattern in DIRECTORIES:
        for path in tree.glob(pattern) if tree.live or "*" in pattern else [pattern]:
            where = tree.locate(path)
            if where is None:
                continue
            real = "/" + str(where.relative_to(tree.root)) if where != tree.root else "/"
            mount = mount_under(real, mounts)
            if mount is not None and (tree.live or not _is_absent(tree, path)):
                under.setdefault(mount.mount_point, (mount, []))[1].append(path)
    listed = {} if tree.live else _listings(tree, under)
    for point, (mount, paths) in under.items():
        usage = _live(tree, mount, paths[0]) if tree.live else listed.get(point)
        if _read_only(mount):
            yield _read_only_finding(mount, paths, source)
        elif usage is not None:
            yield from _fullness(usage, paths)
    for mount in mounts:
        if mount.fstype in FSTYPES and "ro" in mount.options:
            yield Finding(
                "cgroup-read-only",
                "error",
                f"{mount.mount_point} ({mount.fstype}) is mounted read-only: no cgroup can be made there",
                "cgroup-permission",
                f"Run where cgroups are writable, or mount -o remount,rw {mount.mount_point}.",
                (Evidence(source, f"{mount.mount_point} {','.join(mount.options)}"),),
            )


def _is_absent(tree: Tree, path: str) -> bool:
    """A copy that shows /var/lib but no /var/lib/docker says that there is none; one without /var/lib says nothing."""
    return not tree.exists(path) and bool(tree.entries(os.path.dirname(path)))  # noqa: PTH120 - a path of the node's


def _read_only(mount: Mount) -> bool:
    return "ro" in mount.options or "ro" in mount.super_options


def _read_only_finding(mount: Mount, paths: list[str], source: str) -> Finding:
    whole = "ro" in mount.super_options
    return Finding(
        "read-only",
        "error",
        f"{mount.mount_point} ({mount.fstype} on {mount.source}) is read-only; on it lie {some(paths, 6)}",
        "rootfs-readonly",
        f"dmesg tells whether the kernel made it so after an error (then fsck it); else mount -o remount,rw "
        f"{mount.mount_point}.",
        (Evidence(source, f"{mount.mount_point} {','.join(mount.super_options if whole else mount.options)}"),),
    )


def _live(tree: Tree, mount: Mount, path: str) -> Usage | None:
    where = tree.locate(path)
    if where is None:
        return None
    try:
        told = os.statvfs(where)
    except OSError as error:
        tree.miss(path, f"statvfs: {error.strerror}")
        return None
    inodes = told.f_files or None  # btrfs and the like have no fixed number
    text = f"{told.f_bfree * told.f_frsize} of {told.f_blocks * told.f_frsize} bytes free"
    if inodes:
        text += f", {told.f_ffree} of {inodes} inodes free"
    return Usage(
        mount.mount_point,
        mount.source,
        mount.fstype,
        1 - told.f_bavail / told.f_blocks if told.f_blocks else None,
        told.f_bfree * told.f_frsize if told.f_blocks else None,
        1 - told.f_ffree / inodes if inodes else None,
        told.f_ffree if inodes else None,
        (Evidence(f"statvfs {path}", text),),
    )


def _listings(tree: Tree, wanted: dict[str, tuple[Mount, list[str]]]) -> dict[str, Usage]:
    """{mount point: usage} of what df printed into this tree."""
    found: dict[str, Usage] = {}
    files = list(dict.fromkeys(path for pattern in DF for path in tree.glob(pattern)))
    for path in files:
        for point, row in parse_df(tree.read(path) or "").items():
            if point not in wanted:
                continue
            mount = wanted[point][0]
            old = found.get(point) or Usage(point, mount.source, mount.fstype, None, None, None, None, ())
            evidence = (*old.evidence, Evidence(path, row.text))
            blocks = (row.used, row.free_bytes) if not row.inodes else (old.used, old.free_bytes)
            inodes = (row.used, row.free_inodes) if row.inodes else (old.inodes_used, old.free_inodes)
            found[point] = Usage(point, mount.source, mount.fstype, *blocks, *inodes, evidence)
    for point in wanted:
        if point not in found:
            tree.miss(f"room on {point}", "no output of df for it in this tree")
    return found


class Row(Struct, frozen=True):
    """One line of df. `free_*` are None when printed for people and not 0: the share says it well enough."""

    inodes: bool
    used: float
    free_bytes: int | None
    free_inodes: int | None
    text: str


def parse_df(text: str) -> dict[str, Row]:
    """{mount point: row} of df, df -h, df -i, df -T; lines that are no rows are left out."""
    found: dict[str, Row] = {}
    inodes, unit = False, 1024
    pending = ""
    for line in text.splitlines():
        if "Mounted on" in line or "Use%" in line:
            inodes = "IUse" in line or "IFree" in line
            blocks = re.search(r"(\d+)(K)?-blocks", line)
            unit = int(blocks[1]) * (1024 if blocks[2] else 1) if blocks else 0
            continue
        match = _ROW.match(f"{pending} {line}" if pending else line)
        # a long device name stands on a line of its own
        pending = line.strip() if match is None and len(line.split()) == 1 else ""
        if match is None:
            continue
        free = int(match["free"]) if match["free"].isdecimal() else None
        size = free * unit if free is not None and (unit or free == 0) else None
        found[match["point"]] = Row(
            inodes, int(match["share"]) / 100, None if inodes else size, free if inodes else None, line.strip()
        )
    return found


def _fullness(usage: Usage, paths: list[str]) -> Iterator[Finding]:
    on = f"{usage.point} ({usage.fstype} on {usage.source})"
    lie = f"on it lie {some(paths, 6)}"
    if usage.used is not None:
        full = usage.free_bytes is not None and usage.free_bytes < NOTHING_BYTES
        if full or usage.used >= NEARLY:
            left = f", {usage.free_bytes} bytes left" if usage.free_bytes is not None else ""
            yield Finding(
                "no-room",
                "error" if full else "warning",
                f"{on} is {'full' if full else 'nearly full'}: {usage.used:.0%} used{left}; {lie}",
                "no-space",
                "crictl rmi --prune (docker image prune), journalctl --vacuum-size=200M, or a larger file system; du "
                f"-xh -d2 {usage.point} shows what takes it.",
                usage.evidence,
            )
    if usage.inodes_used is not None:
        none = usage.free_inodes is not None and usage.free_inodes < NOTHING_INODES
        if none or usage.inodes_used >= NEARLY:
            left = f", {usage.free_inodes} left" if usage.free_inodes is not None else ""
            yield Finding(
                "no-inodes",
                "error" if none else "warning",
                f"{on} has {'no' if none else 'nearly no'} inodes left: {usage.inodes_used:.0%} used{left}; {lie}",
                "no-space",
                f"Remove small files (du --inodes -xd3 {usage.point} shows where they are), crictl rmi --prune, or for "
                "a tmpfs mount -o remount,nr_inodes=N.",
                usage.evidence,
            )
