"""A root file system with just the paths that a config.json needs; its command is the project's static payload."""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
import stat
from pathlib import Path
from typing import Any

from harness.oci.bind_source import is_bind
from harness.oci.pointer import one, select
from harness.oci.rootfs import payload_binary

Document = dict[str, Any]

DIRECTORIES = ("dev", "etc", "proc", "sys", "tmp")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def synthesize(rootfs: Path, document: Document, base: Path, names: tuple[str, ...] = ()) -> None:
    """Fill `rootfs`, an empty directory, for a config.json. `base`: where its relative bind sources are.

    `names`: users to be known beside root, with id 1000. A path that cannot be made (a file in its way, a name too
    long) is left out: the runtime tells. Raises HostError when the payload was never built.
    """
    for name in DIRECTORIES:
        _directory(rootfs, name)
    (rootfs / "tmp").chmod(0o1777)
    _accounts(rootfs, document, names)
    cwd = one(document, "/process/cwd", str) or "/"
    program = _program(document, cwd)
    _directory(rootfs, posixpath.dirname(program))
    with contextlib.suppress(OSError, ValueError):
        shutil.copyfile(payload_binary(), _place(rootfs, program))
        _place(rootfs, program).chmod(0o755)
    _directory(rootfs, cwd)
    for _, mount in select(document, "/mounts/*", dict):
        destination, source = mount.get("destination"), mount.get("source")
        if not isinstance(destination, str):
            continue
        if is_bind(mount) and isinstance(source, str) and _is_file(base, source):
            _file(rootfs, destination)
        else:
            _directory(rootfs, destination)


def _program(document: Document, cwd: str) -> str:
    """Where the runtime will look for args[0]: its path, or the first directory of PATH."""
    args = one(document, "/process/args", list)
    program = args[0] if args and isinstance(args[0], str) and args[0] else "/payload"
    if "/" in program:
        return posixpath.join(cwd, program)
    env = [text for _, text in select(document, "/process/env/*", str) if text.startswith("PATH=")]
    directories = (env[-1].removeprefix("PATH=") if env else DEFAULT_PATH).split(":")
    first = next((each for each in directories if each.startswith("/")), "/bin")
    return posixpath.join(first, program)


def _accounts(rootfs: Path, document: Document, names: tuple[str, ...]) -> None:
    uid, gid = one(document, "/process/user/uid", int) or 0, one(document, "/process/user/gid", int) or 0
    gids = {gid, *(number for _, number in select(document, "/process/user/additionalGids/*", int))} - {0}
    passwd = ["root:x:0:0:root:/root:/bin/sh", *(f"{each}:x:1000:1000::/:/bin/sh" for each in names)]
    if uid and not (names and uid == 1000):
        passwd.append(f"user:x:{uid}:{gid}::/:/bin/sh")
    for name, lines in (
        ("passwd", passwd),
        ("group", ["root:x:0:", *(f"group{each}:x:{each}:" for each in sorted(gids))]),
    ):
        (rootfs / "etc" / name).write_text("\n".join(lines) + "\n")
        (rootfs / "etc" / name).chmod(0o644)


def _place(rootfs: Path, path: str) -> Path:
    """Below `rootfs` whatever the path: no link is in a tree that is made here, so the text alone decides."""
    return rootfs / posixpath.normpath("/" + path.lstrip("/"))[1:]


def _directory(rootfs: Path, path: str) -> None:
    place = _place(rootfs, path)
    with contextlib.suppress(OSError, ValueError):
        place.mkdir(parents=True, exist_ok=True)
        while place != rootfs.parent:  # our umask is not the container's
            if not place.stat().st_mode & stat.S_ISVTX:
                place.chmod(0o755)
            place = place.parent


def _file(rootfs: Path, path: str) -> None:
    _directory(rootfs, posixpath.dirname(path.rstrip("/")))
    place = _place(rootfs, path)
    with contextlib.suppress(OSError, ValueError):
        place.touch()
        place.chmod(0o644)


def _is_file(base: Path, source: str) -> bool:
    try:
        return not stat.S_ISDIR(os.stat(base / source).st_mode)
    except (OSError, ValueError):
        return False
