"""The files that the kernel and the loader open to start a program: itself, its libraries, and the links to them."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from harness.process.command import run

LOADER_CACHE = "/etc/ld.so.cache"
_LIBRARY = re.compile(r"^\s+(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)  # ldd(1): "name => path (address)"
_MAX_LINKS = 40  # path_resolution(7)


def files_of(program: str) -> list[str]:
    """Absolute paths, `program`'s first; symbolic links on the way and what they lead to are among them.

    Of a static program, or where there is no ldd(1), only its own.
    """
    found = _on_the_way(program)
    if (ldd := shutil.which("ldd")) is not None:
        listed = run("ldd", [ldd, program])
        if listed.exit_status == 0 and (libraries := _LIBRARY.findall(listed.stdout.decode(errors="replace"))):
            found += [path for library in [*libraries, LOADER_CACHE] for path in _on_the_way(library)]
    return list(dict.fromkeys(found))


def _on_the_way(path: str) -> list[str]:
    """The symbolic links that are followed from / to `path`, and the file at the end; nothing when there is none."""
    found: list[str] = []
    left = [part for part in path.split("/") if part]
    at = Path("/")
    while left and len(found) < _MAX_LINKS:
        part = left.pop(0)
        at = at.parent if part == ".." else at / part
        if at.is_symlink():
            found.append(str(at))
            target = os.readlink(at)
            left = [part for part in target.split("/") if part and part != "."] + left
            at = Path("/") if target.startswith("/") else at.parent
    return [*found, str(at)] if at.is_file() else []
