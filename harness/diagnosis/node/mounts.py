"""What is mounted on the node, from mountinfo or, in a copy, from what stands for it there."""

from __future__ import annotations

import re
from functools import lru_cache

from harness.cgroup.hierarchy import Layout, Mount, hierarchies_of, layout_of, parse_mountinfo
from harness.cgroup.parsers import ParseError
from harness.diagnosis.node.tree import Tree

MOUNTINFO = ("/proc/self/mountinfo", "/proc/1/mountinfo", "/proc/thread-self/mountinfo")
TABLES = ("/proc/mounts", "/proc/self/mounts", "/proc/1/mounts", "/etc/mtab")
LISTINGS = ("/sos_commands/filesys/mount_-l", "/mount", "/mount.txt")
_LISTED = re.compile(r"(?P<source>\S+) on (?P<point>/.*) type (?P<type>\S+) \((?P<options>[^)]*)\)")
_OCTAL = re.compile(r"\\([0-7]{3})")


@lru_cache(maxsize=2)
def mounts_of(tree: Tree) -> tuple[str, list[Mount]]:
    """(the file that tells, mounts in order); ("", []) with a note if nothing tells."""
    for path in MOUNTINFO:
        text = tree.read(path, 64 << 20)
        if text:
            try:
                return path, parse_mountinfo(text, path)
            except ParseError as error:
                tree.miss(path, str(error))
    for path in TABLES:
        if text := tree.read(path):
            return path, _table(text)
    for path in LISTINGS:
        if text := tree.read(path):
            return path, _listing(text)
    tree.miss("mounts", f"none of {', '.join((*MOUNTINFO[:2], *TABLES[:1], *LISTINGS))} is there")
    return "", []


def _mount(source: str, point: str, fstype: str, options: str) -> Mount:
    words = tuple(options.split(","))
    return Mount(0, 0, "", "/", point, words, (), fstype, source, words)


def _table(text: str) -> list[Mount]:
    """fstab(5) form: source, mount point, type, options."""
    found = []
    for line in text.splitlines():
        words = [_OCTAL.sub(lambda match: chr(int(match[1], 8)), word) for word in line.split()]
        if len(words) >= 4 and words[1].startswith("/"):
            found.append(_mount(*words[:4]))
    return found


def _listing(text: str) -> list[Mount]:
    """What mount(8) prints."""
    matches = filter(None, map(_LISTED.match, text.splitlines()))
    return [_mount(match["source"], match["point"], match["type"], match["options"]) for match in matches]


def mount_under(path: str, mounts: list[Mount]) -> Mount | None:
    """The mount that a path (without links) lies on: the longest mount point, of equal ones the last."""
    best: Mount | None = None
    for mount in mounts:
        inside = path == mount.mount_point or path.startswith(mount.mount_point.rstrip("/") + "/")
        if inside and (best is None or len(mount.mount_point) >= len(best.mount_point)):
            best = mount
    return best


def layout(tree: Tree) -> Layout:
    """The cgroup layout; of v2 the controllers are those of cgroup.controllers, where the tree has that file."""
    from msgspec.structs import replace

    hierarchies = []
    for hierarchy in hierarchies_of(mounts_of(tree)[1]):
        if hierarchy.version == 2:
            words = tree.read(f"{hierarchy.mount_point}/cgroup.controllers")
            hierarchies.append(replace(hierarchy, controllers=tuple((words or "").split())))
        else:
            hierarchies.append(hierarchy)
    return layout_of(hierarchies)
