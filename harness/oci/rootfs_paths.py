"""Paths and users as the inside of a root file system sees them, without ever leaving it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from msgspec import Struct

HOPS = 40  # path_resolution(7)
FILE_BYTES = 4 * 1024 * 1024  # of an /etc/passwd
ID_END = 2**32 - 1


def inside(rootfs: Path, path: str) -> Path | None:
    """Where `path` is below `rootfs`, with symbolic links followed as a process with that root would; None: in circles.

    What is not there is appended as it is. Right only while nobody else changes the tree.
    """
    pending = path.split("/")[::-1]
    place: list[str] = []
    hops = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            place = place[:-1]
            continue
        here = rootfs.joinpath(*place, part)
        try:
            target = os.readlink(here)
        except OSError:
            place.append(part)
            continue
        hops += 1
        if hops > HOPS:
            return None
        if target.startswith("/"):
            place = []
        pending += target.split("/")[::-1]
    return rootfs.joinpath(*place)


class User(Struct, frozen=True):
    """Who a container's process is."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...]
    home: str | None
    unknown: tuple[str, ...] = ()  # names that the root file system does not know


def look_up_user(rootfs: Path, text: str, groups: tuple[str, ...] = ()) -> User:
    """`USER[:GROUP]`, each a name or a number, and further groups, by the root file system's passwd and group.

    As moby/sys/user GetExecUser has it: a number need not be known; a user that is known brings its group, home and
    further groups. Never raises: names that nobody knows are in `unknown`, and 1000 takes their place.
    """
    name, _, group = text.partition(":")
    passwd, known_groups = _lines(rootfs, "/etc/passwd", 6), _lines(rootfs, "/etc/group", 4)
    unknown = []
    entry = next((each for each in passwd if name and name in (each[0], each[2])), None)
    uid, gid, home = 0, 0, None
    if entry is not None and _id(entry[2]) is not None and _id(entry[3]) is not None:
        uid, gid, home = _id(entry[2]) or 0, _id(entry[3]) or 0, entry[5]
    elif name:
        number = _id(name)
        if number is None:
            unknown.append(name)
        uid, gid = (1000, 1000) if number is None else (number, 0)
    further: list[int] = []
    if entry is not None and not group:
        further = [
            number for each in known_groups if entry[0] in each[3].split(",") and (number := _id(each[2])) is not None
        ]
    for position, wanted in enumerate(each for each in (group, *groups) if each):
        found = next((each for each in known_groups if wanted in (each[0], each[2])), None)
        number = _id(found[2]) if found is not None else _id(wanted)
        if number is None:
            unknown.append(wanted)
        elif group and position == 0:
            gid = number
        else:
            further.append(number)
    return User(uid, gid, tuple(dict.fromkeys(further)), home, tuple(unknown))


def _id(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < ID_END else None


def _lines(rootfs: Path, path: str, fields: int) -> list[list[str]]:
    """The lines of a passwd(5) or group(5) that have enough fields; none if it is no plain file."""
    place = inside(rootfs, path)
    if place is None:
        return []
    try:
        # not to hang at a fifo, nor to follow what inside() has not
        fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        text = file.read(FILE_BYTES).decode(errors="replace")
    return [parts for line in text.splitlines() if len(parts := line.split(":")) >= fields]
