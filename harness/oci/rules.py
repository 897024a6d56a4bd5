"""Rules of config.md that join several places of a config.json: version, root, process, mounts.

Rules read the plain document and pass over values of a wrong type, so that one mistake gives one finding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.oci.document import describe
from harness.oci.finding import Finding, error, warning
from harness.oci.pointer import one, select
from harness.oci.version import minimum_version, release, version_needs
from harness.oci.vocabulary import FORMS

Document = dict[str, Any]

_BIND_OPTIONS = ("bind", "rbind")
_IDMAP_OPTIONS = ("idmap", "ridmap")
_SEMVER = next(form.regex for form in FORMS if form.pattern == "/ociVersion")


def general_findings(document: Document, bundle_dir: Path | None) -> Iterator[Finding]:
    """All rules of this module. `bundle_dir` is what relative paths of the host start from; None: skip these."""
    yield from _version(document)
    yield from _root(document, bundle_dir)
    yield from _process(document)
    yield from _rlimits(document)
    yield from _capabilities(document)
    for pointer, mount in select(document, "/mounts/*", dict):
        yield from _bind_source(pointer, mount, bundle_dir)
        yield from _mount_mappings(pointer, mount, has_namespace(document, "user"))


def has_namespace(document: Document, kind: str) -> bool:
    """Whether linux.namespaces asks for a namespace of this kind, new or by path."""
    return any(text == kind for _, text in select(document, "/linux/namespaces/*/type", str))


def duplicates(document: Document, pattern: str) -> Iterator[tuple[str, str]]:
    """(pointer, text) of each string that matches `pattern` and was there before."""
    seen: set[str] = set()
    for pointer, text in select(document, pattern, str):
        if text in seen:
            yield pointer, text
        seen.add(text)


def _version(document: Document) -> Iterator[Finding]:
    """config.md, Specification version."""
    version = one(document, "/ociVersion", str)
    if version is None or not _SEMVER.fullmatch(version):
        return  # a type problem, or a finding of FORMS
    if release(version)[0] != 1:
        yield error("/ociVersion", f"no runtime knows {version}; write {minimum_version(document)}")
    elif release(version) < release(minimum_version(document)):
        needed = minimum_version(document)
        field = next(pointer for pointer, each in version_needs(document) if each == needed)
        yield warning("/ociVersion", f"{version} does not know {field}; write {needed} or take the field out")


def _root(document: Document, bundle_dir: Path | None) -> Iterator[Finding]:
    """config.md, Root."""
    if document.get("root") is None and document.get("windows") is None:
        yield error("/root", 'missing; write {"path": "rootfs"}')
    path = one(document, "/root/path", str)
    if path and "\0" not in path and bundle_dir is not None:
        place = bundle_dir / path
        if not _exists(place):
            yield error("/root/path", f"{place} does not exist; make the directory or correct the path")
        elif not os.path.isdir(place):  # noqa: PTH112 - unlike Path.is_dir it never raises, for too long a name say
            yield error("/root/path", f"{place} is not a directory; correct the path")


def _process(document: Document) -> Iterator[Finding]:
    """config.md, Process."""
    process = document.get("process")
    if process is None:
        yield warning("/process", "missing; without it the container can be created but not started")
    elif isinstance(process, dict) and not process.get("args") and not process.get("commandLine"):
        yield error("/process/args", 'missing or empty; write at least the program, as in ["/bin/true"]')
    if one(document, "/process/consoleSize", dict) is not None and not one(document, "/process/terminal", bool):
        yield warning("/process/consoleSize", "ignored, because process.terminal is not true; set it or leave this out")
    hostname = one(document, "/hostname", str)
    if hostname is not None and len(hostname.encode("utf-8", "replace")) > 64:
        yield error("/hostname", "longer than 64 bytes, which sethostname(2) refuses; shorten it")


def _rlimits(document: Document) -> Iterator[Finding]:
    """config.md, POSIX process; setrlimit(2)."""
    for pointer, rlimit in select(document, "/process/rlimits/*", dict):
        soft, hard = one(rlimit, "/soft", int), one(rlimit, "/hard", int)
        if soft is not None and hard is not None and soft > hard:
            yield error(f"{pointer}/soft", f"{soft} is above the hard limit {hard}; lower it or raise hard")
    for pointer, name in duplicates(document, "/process/rlimits/*/type"):
        yield error(pointer, f"{name} is there twice; leave one")


def _capabilities(document: Document) -> Iterator[Finding]:
    """capabilities(7): what the kernel refuses."""
    if one(document, "/process/capabilities", dict) is None:
        return
    sets = {
        name: {text for _, text in select(document, f"/process/capabilities/{name}/*", str)}
        for name in ("effective", "permitted", "inheritable")
    }
    for pointer, name in select(document, "/process/capabilities/effective/*", str):
        if name not in sets["permitted"]:
            yield error(pointer, f"{name} is not in permitted, so capset(2) refuses it; add it there")
    for pointer, name in select(document, "/process/capabilities/ambient/*", str):
        lacking = [each for each in ("permitted", "inheritable") if name not in sets[each]]
        if lacking:
            places = " and not in ".join(lacking)
            yield warning(pointer, f"{name} is not in {places}, so it cannot become ambient; add it there")


def _bind_source(pointer: str, mount: Document, bundle_dir: Path | None) -> Iterator[Finding]:
    """config.md, Mounts: a bind mount is told by its options; runtimes take type bind too."""
    options = {text for _, text in select(mount, "/options/*", str)}
    if mount.get("type") != "bind" and options.isdisjoint(_BIND_OPTIONS):
        return
    source = mount.get("source")
    if source is None or source == "":
        yield error(f"{pointer}/source", "missing; a bind mount needs the path on the host")
    elif isinstance(source, str) and "\0" not in source:
        absolute = source.startswith("/")
        place = Path(source) if absolute else (bundle_dir or Path()) / source
        if (absolute or bundle_dir is not None) and not _exists(place):
            yield warning(f"{pointer}/source", f"{place} does not exist on this host; make it or correct the path")


def _mount_mappings(pointer: str, mount: Document, user_namespace: bool) -> Iterator[Finding]:
    """config.md, POSIX-platform Mounts and Linux mount options."""
    given = [name for name in ("uidMappings", "gidMappings") if mount.get(name) is not None]
    idmap = [(place, text) for place, text in select(mount, "/options/*", str) if text in _IDMAP_OPTIONS]
    if len(given) == 1:
        other = "gidMappings" if given == ["uidMappings"] else "uidMappings"
        yield error(f"{pointer}/{other}", f"missing; it must be there together with {given[0]}")
    if given and not idmap:
        yield warning(f"{pointer}/{given[0]}", "old runtimes ignore it silently; add the option idmap or ridmap")
    if idmap and not given and not user_namespace:
        place, text = idmap[0]
        yield error(pointer + place, f"{describe(text)} needs uidMappings and gidMappings, or a namespace of type user")


def _exists(path: Path) -> bool:
    """Whether something is there, a dangling symbolic link too; a path that cannot be looked at counts as there."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True
