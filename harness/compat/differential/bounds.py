"""What a generated config.json may ask for: nothing that could reach the host beyond the run's own files and cgroup.

A document that asks for more is never run. This is the second line: generation picks from values that are meant to be
harmless, and the runtimes see the host's files read-only (sealing.py). It looks at every value of the whole document by
the name it goes under, wherever that is, for a runtime may take what stands in an odd place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from harness.compat.differential.edits import TWIN, Document
from harness.oci import pointer as json_pointer

OWN_PATH: Final = "/RUN/ID"  # as linux.cgroupsPath: the place that every container of a run is given
WAITS: Final = ["/payload", "pause"]  # as process.args: stays to be looked at
NOWHERE: Final = "/nope-oci-harness"  # leads to nothing, on the host and in the container
FILE_SYSTEMS: Final = frozenset(
    {"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "bind", "none", "", "nope", "Tmpfs"}
)
_ODD: Final = re.compile(r"[^a-z0-9_.-]")  # in no name of a file system of the kernel's
# What the first word of a command may be: nothing else of the host or the rootfs is started.
COMMANDS: Final = frozenset(
    {"/payload", "payload", "./payload", "//payload", "/bin/true", "true", "/bin/false", "", " ", ".", "/",
     "/etc/hosts", "nope", NOWHERE, "/bin/busybox", "../payload", "/payload/", "/tmp/../payload"}
)  # fmt: skip # a table is read by its columns
# Namespaced, and worth nothing outside of the container. Values are free.
SYSCTLS: Final = {
    "net.ipv4.ip_forward": "network",
    "net.core.somaxconn": "network",
    "net.ipv4.ping_group_range": "network",
    "net.ipv4.ip_unprivileged_port_start": "network",
    "net/ipv4/ip_forward": "network",
    "net.ipv4.nope": "network",
    "kernel.shm_rmid_forced": "ipc",
    "kernel.msgmax": "ipc",
    "kernel.sem": "ipc",
    "fs.mqueue.msg_max": "ipc",
}
# Nodes that do no harm to whoever opens them, which nobody does: null, zero, full, random, urandom, fuse.
DEVICES: Final = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (10, 229)})
UNIFIED: Final = frozenset({"memory.max", "memory.high", "pids.max", "cpu.weight", "nope.max", "", "memory.nope"})
# Members under which no text may stand but these: what is in them is used outside of the container.
_PATHS: Final = {
    "listenerPath": frozenset({"", NOWHERE}),
    "l3CacheSchema": frozenset[str](),
    "memBwSchema": frozenset[str](),
    "closID": frozenset[str](),
    "schemata": frozenset[str](),
}
_ANNOTATIONS: Final = ("run.oci", "run.crun", "org.criu", "io.kubernetes", "org.systemd", "dev.gvisor", "com.docker")


def violation(document: Document, directory: Path, hooks: frozenset[str] = frozenset()) -> str | None:
    """What is not allowed in it, in words; None when it may be run in the bundle `directory`.

    `hooks`: the programs that hooks may start, beside those that lead to nothing.
    """
    plain = _without_twins(document)
    for each in plain:
        found = next(_violations(each, directory, hooks | {NOWHERE, "/payload", "payload", ""}), None)
        if found is not None:
            return found
    return None


def _without_twins(document: Document) -> list[Document]:
    """The document as a reader sees it that keeps the last of two equal names, and one that keeps the first."""

    def take(value: Any, first: bool) -> Any:
        if isinstance(value, list):
            return [take(each, first) for each in value]
        if not isinstance(value, dict):
            return value
        taken: dict[str, Any] = {}
        for name, each in value.items():
            plain = name.removeprefix(TWIN)
            if not (first and plain in taken):
                taken[plain] = take(each, first)
        return taken

    return [take(document, True), take(document, False)]


def _violations(document: Document, directory: Path, hooks: frozenset[str]) -> Iterator[str]:
    yield from _root(document, directory)
    yield from _command(document)
    yield from _host_name(document)
    yield from _cgroup(document)
    linux = document.get("linux")
    for place, name, value in _walk(document):
        if name in _PATHS and any(text not in _PATHS[name] for text in _texts(value)):
            yield f"{place}: only a path that leads to nothing"
        elif name == "mounts":
            yield from _mounts(place, value, directory)
        elif name == "namespaces":
            yield from _namespaces(place, value)
        elif name == "hooks":
            yield from _hooks(place, value, hooks)
        elif name == "netDevices" and not (isinstance(value, dict) and set(value) <= {"nope0", "", "a/b"}):
            yield f"{place}: no network device of the host may be moved"
        elif name == "sysctl":
            yield from _sysctls(place, value, linux)
        elif name == "devices":
            yield from _devices(place, value)
        elif name == "unified" and not (isinstance(value, dict) and set(value) <= UNIFIED):
            yield f"{place}: only files that are known to be harmless"
        elif name == "annotations" and isinstance(value, dict) and any(key.startswith(_ANNOTATIONS) for key in value):
            yield f"{place}: no key that a runtime takes for an order"


def _walk(document: Any, place: str = "") -> Iterator[tuple[str, str, Any]]:
    """(pointer, name of the member, value) of every member of every object."""
    if isinstance(document, dict):
        for name, value in document.items():
            here = place + json_pointer.build([name])
            if value is not None:
                yield here, name, value
            yield from _walk(value, here)
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from _walk(value, f"{place}/{index}")


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in _texts(each)]


def _named(value: Any, name: str) -> list[Any]:
    """All values under this name, at any depth, whatever the case of the name: decoders of Go do not heed it."""
    return [each for _, known, each in _walk(value) if known.lower() == name.lower()]


def inside(directory: Path, path: str) -> bool:
    """Whether a path of a bundle stays below the bundle's directory, links followed."""
    real = os.path.realpath(directory)
    return os.path.realpath(path if path.startswith("/") else f"{real}/{path}").startswith(f"{real}{os.sep}")


def _root(document: Document, directory: Path) -> Iterator[str]:
    roots = [document.get(name) for name in document if name.lower() == "root"]
    for path in (text for value in roots for text in _texts(value)):
        if "\0" in path or not (inside(directory, path) or path in ("", ".", NOWHERE)):
            yield f"/root/path: {path!r} leads out of the bundle"


def _command(document: Document) -> Iterator[str]:
    for args in _named(document.get("process"), "args"):
        words = _texts(args)
        if words and words[0] not in COMMANDS:
            yield f"/process/args: {words[0]!r} is not among the commands that may be run"
        if words and words[0].endswith("busybox") and words[1:2] not in ([], ["true"], ["nope"]):
            yield "/process/args: only the applet true"


def _host_name(document: Document) -> Iterator[str]:
    for name in ("hostname", "domainname"):
        if document.get(name) not in (None, "") and not own_namespace(document.get("linux"), "uts"):
            yield f"/{name}: needs a new uts namespace, for else it would be the host's"


def own_namespace(linux: Any, kind: str) -> bool:
    """Whether a namespace of this kind is asked for once, new, in plain words."""
    entries = linux.get("namespaces") if isinstance(linux, dict) else None
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        return False
    return [each for each in entries if each.get("type") == kind] == [{"type": kind}]


def _namespaces(place: str, value: Any) -> Iterator[str]:
    for path in _named(value, "path"):
        if not isinstance(path, str) or path not in ("", NOWHERE, "/etc/hostname", "nope"):
            yield f"{place}: no namespace that exists may be joined"


def _mounts(place: str, value: Any, directory: Path) -> Iterator[str]:
    for kind in _named(value, "type"):
        if isinstance(kind, str) and kind not in FILE_SYSTEMS and not _ODD.search(kind):
            yield f"{place}: file system {kind!r} is not among those that may be mounted"
    for source in _named(value, "source"):
        plain = isinstance(source, str) and (source in FILE_SYSTEMS or source in ("shm", NOWHERE))
        if isinstance(source, str) and not (plain or ("\0" not in source and inside(directory, source))):
            yield f"{place}: the source {source!r} is not in the bundle"
    for option in _texts(_named(value, "options")):
        if option.strip().lower().startswith(("lowerdir", "upperdir", "workdir", "fd=", "source")):
            yield f"{place}: option {option!r} names files"


def _hooks(place: str, value: Any, allowed: frozenset[str]) -> Iterator[str]:
    for path in _named(value, "path"):
        if isinstance(path, str) and path not in allowed:
            yield f"{place}: {path!r} is no hook that may be run"
    # a list of programs in an odd shape might be taken for paths
    if isinstance(value, list | str) and _texts(value):
        yield f"{place}: hooks must be an object"


def _sysctls(place: str, value: Any, linux: Any) -> Iterator[str]:
    names = list(value) if isinstance(value, dict) else _texts(value)
    for name in names:
        if name not in SYSCTLS:
            yield f"{place}: {name!r} is not among the sysctls that may be set"
        elif not own_namespace(linux, SYSCTLS[name]):
            yield f"{place}: {name} needs a new {SYSCTLS[name]} namespace, for else it would be the host's"


def _devices(place: str, value: Any) -> Iterator[str]:
    """Both lists of that name: nodes to make, which need a path, and rules of the container's own cgroup."""
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        if not isinstance(entry, dict) or "path" not in entry:
            continue
        number = (entry.get("major"), entry.get("minor"))
        node = entry.get("type") not in ("p",)
        real = all(type(part) is int and part >= 0 for part in number)
        if node and real and number not in DEVICES and number != (0, 0):
            yield f"{place}: device {number[0]}:{number[1]} is not among the harmless ones"


def _cgroup(document: Document) -> Iterator[str]:
    for path in _named(document.get("linux"), "cgroupsPath"):
        if isinstance(path, str) and marked_path(path, "x") is None:
            yield f"/linux/cgroupsPath: {path!r} might be the root of a hierarchy"


def marked_path(path: str, marker: str) -> str | None:
    """`path` with `marker` before each of its names, so that whatever is made of it can be found and removed.

    None for a path that may end at the root of a hierarchy, or above it: a limit there would be for the whole host.
    """
    if path == OWN_PATH:
        return path
    depth = 0
    parts = path.split("/")
    for part in parts:
        if part == "..":
            depth = max(0, depth - 1)
        elif part not in ("", "."):
            depth += 1
    if depth == 0 or parts[-1] in ("..", ".") or "\0" in path:
        return None
    return "/".join(part if part in ("", ".", "..") else f"{marker}-{part}" for part in parts)
