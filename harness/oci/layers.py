"""Follow the layers of an image in a model of the tree that they make, and refuse what could reach outside of it.

Nothing is unpacked here; what one layer puts in the way of the next is seen all the same.
"""

from __future__ import annotations

import tarfile
from typing import IO

from harness.errors import InputError
from harness.oci.tarball import Budget, read_entries, shown

NAME_BYTES = 255  # limits.h NAME_MAX
DEPTH = 200  # directories below one another; far above any image, below Python's recursion limit
HOPS = 40  # path_resolution(7)

WHITEOUT = ".wh."  # image-spec layer.md, Whiteouts
OPAQUE = ".wh..wh..opq"


def path_of(entry: tarfile.TarInfo) -> tuple[str, ...]:
    """Its parts below the root; () is the root itself. Raises InputError: absolute, with .., too deep, too long."""
    if entry.name.startswith("/"):
        raise InputError(f"{shown(entry)}: an absolute name")
    parts = tuple(part for part in entry.name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise InputError(f"{shown(entry)}: a name with ..")
    if len(parts) > DEPTH:
        raise InputError(f"{shown(entry)}: more than {DEPTH} directories deep")
    if any(len(part.encode(errors="surrogateescape")) > NAME_BYTES for part in parts):
        raise InputError(f"{shown(entry)}: a name longer than {NAME_BYTES} bytes")
    return parts


class Node:
    """One file of the model. `children` for a directory, `target` for a symbolic link, neither for all else."""

    __slots__ = ("children", "layer", "target")

    def __init__(self, layer: int, children: dict[str, Node] | None = None, target: str | None = None) -> None:
        self.layer = layer
        self.children = children
        self.target = target


class Tree:
    """The root file system as far as the layers read so far make it."""

    def __init__(self) -> None:
        self.root = Node(0, {})
        self._layer = 0
        self._whiteouts: set[tuple[str, ...]] = set()  # of this layer

    def add_layer(self, file: IO[bytes], budget: Budget) -> None:
        """Follow one layer. Raises InputError for the first entry that is not as it should be."""
        self._layer += 1
        self._whiteouts.clear()
        for entry, _ in read_entries(file, budget):
            self._add(entry)

    def _add(self, entry: tarfile.TarInfo) -> None:
        _check_kind(entry)
        parts = path_of(entry)
        if not parts:
            if not entry.isdir():
                raise InputError(f"{shown(entry)}: it would replace the root directory")
            return
        if any(part.startswith(WHITEOUT) for part in parts[:-1]):
            raise InputError(f"{shown(entry)}: something inside a whiteout")
        parent = self._parent(entry, parts[:-1])
        assert parent.children is not None
        if parts[-1].startswith(WHITEOUT):
            if parts in self._whiteouts:
                raise InputError(f"{shown(entry)}: it is in this layer twice")
            self._whiteouts.add(parts)
            self._white_out(entry, parent, parts[-1])
            return
        before = parent.children.get(parts[-1])
        if before is not None and before.layer == self._layer and not (entry.isdir() and before.children is not None):
            raise InputError(f"{shown(entry)}: it is in this layer twice")
        if entry.isdir():
            children = before.children if before is not None and before.children is not None else {}
            parent.children[parts[-1]] = Node(self._layer, children)
            return
        target = entry.linkname if entry.issym() else self._linked(entry).target if entry.islnk() else None
        parent.children[parts[-1]] = Node(self._layer, target=target)

    def _parent(self, entry: tarfile.TarInfo, parts: tuple[str, ...]) -> Node:
        """The directory that the entry goes into; directories that no entry has named are made, as unpackers do."""
        node = self.root
        for depth, part in enumerate(parts):
            assert node.children is not None
            child = node.children.get(part)
            if child is None:
                child = node.children[part] = Node(self._layer, {})
            if child.target is not None:
                name = "/".join(parts[: depth + 1])
                link, child = child.target, self._follow(parts[:depth], child.target)
                if child is None:
                    raise InputError(
                        f"{shown(entry)}: its parent {name!r} is a symbolic link to {link!r}: out or nowhere"
                    )
            if child.children is None:
                raise InputError(f"{shown(entry)}: its parent {'/'.join(parts[: depth + 1])!r} is no directory")
            child.layer = self._layer
            node = child
        return node

    def _follow(self, start: tuple[str, ...], target: str) -> Node | None:
        """What a link in the directory `start` leads to; None: outside, taken literally, or nowhere."""
        place, pending = list(start), target.split("/")[::-1]
        hops = 0
        if target.startswith("/"):
            return None
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not place:
                    return None
                place.pop()
                continue
            node = self._at([*place, part])
            if node is None:
                return None
            if node.target is None:
                place.append(part)
                continue
            hops += 1
            if node.target.startswith("/") or hops > HOPS:
                return None
            pending += node.target.split("/")[::-1]
        return self._at(place)

    def _at(self, parts: list[str]) -> Node | None:
        node: Node | None = self.root
        for part in parts:
            node = node.children.get(part) if node is not None and node.children is not None else None
        return node

    def _linked(self, entry: tarfile.TarInfo) -> Node:
        """The file that a hard link names, which is never looked for through symbolic links."""
        target = entry.linkname
        parts = [part for part in target.split("/") if part not in ("", ".")]
        if target.startswith("/") or ".." in parts:
            raise InputError(f"{shown(entry)}: a hard link to {target!r}, outside of the image")
        found = self._at(parts) if parts else None
        if found is None or found.children is not None:
            raise InputError(f"{shown(entry)}: a hard link to {target!r}, which is no file of the image")
        return found

    def _white_out(self, entry: tarfile.TarInfo, parent: Node, name: str) -> None:
        assert parent.children is not None
        hidden = name.removeprefix(WHITEOUT)
        if not entry.isreg():
            raise InputError(f"{shown(entry)}: a whiteout that is no plain file")
        if name == OPAQUE:
            _remove_older(parent, self._layer)
            return
        if hidden in ("", ".", "..") or hidden.startswith(WHITEOUT):
            raise InputError(f"{shown(entry)}: a whiteout of nothing that may be removed")
        child = parent.children.get(hidden)
        if child is not None and not _remove_older(child, self._layer) and child.layer != self._layer:
            del parent.children[hidden]


def _remove_older(node: Node, layer: int) -> bool:
    """Take away what earlier layers have put below `node`; whether something of this layer is left."""
    if node.children is None:
        return False
    for name, child in list(node.children.items()):
        if child.layer != layer:
            del node.children[name]
        else:
            _remove_older(child, layer)
    return bool(node.children)


def _check_kind(entry: tarfile.TarInfo) -> None:
    if entry.ischr() or entry.isblk():
        raise InputError(f"{shown(entry)}: a device node ({entry.devmajor}:{entry.devminor})")
    if not (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk() or entry.isfifo()):
        raise InputError(f"{shown(entry)}: an entry of the unknown type {entry.type!r}")
    for key in entry.pax_headers:
        if key.startswith(("SCHILY.xattr.trusted.", "SCHILY.xattr.user.overlay.")):
            raise InputError(
                f"{shown(entry)}: the attribute {key.removeprefix('SCHILY.xattr.')!r}, which steers overlays"
            )
