"""Which parts of a config.json belong to the host that it was taken from, and what to put in their place here."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from harness.oci.bind_source import bind_sources
from harness.oci.document import copied
from harness.oci.here import Here, parse_list
from harness.oci.host_part import KEPT, REMOVED, HostPart, Kind
from harness.oci.pointer import delete, get, one, parse, select
from harness.oci.pointer import set as put
from harness.oci.version import minimum_version, release

Document = dict[str, Any]

_RELEASE = re.compile(r"1\.\d{1,9}\.\d{1,9}([-+]|$)")


class Replacement(Struct, frozen=True):
    """One thing that --portable has done; `to` is None where a place was taken away."""

    pointer: str
    before: Any
    to: Any
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"pointer": self.pointer, "from": self.before, "to": self.to, "why": self.why}


def host_parts(document: Document, here: Here, base: Path, rootfs: Path | None = None) -> list[HostPart]:
    """All parts of a config.json that belong to another host or cannot be had on this one, in the order of RULES.

    `base`: where relative paths start; `rootfs`: the root file system, if there is one to look at. Values of a wrong
    type are passed over. Never raises for any document.
    """
    found: dict[str, HostPart] = {}
    for rule in RULES:
        for part in rule(document, here):
            found.setdefault(part.pointer, part)
    for part in bind_sources(document, base, rootfs):
        found.setdefault(part.pointer, part)
    gone = [f"{part.pointer}/" for part in found.values() if part.to is REMOVED]
    return [part for part in found.values() if not part.pointer.startswith(tuple(gone))]


def replace(document: Document, parts: list[HostPart], directory: Path) -> list[Replacement]:
    """Put in place what each part names, make what belongs into the bundle's `directory`, and tell what was done."""
    done = []
    before = copied(document)
    removed = []
    for part in parts:
        if part.to is KEPT:
            continue
        was = get(before, part.pointer, None)
        if part.to is REMOVED:
            removed.append(part.pointer)
        else:
            put(document, part.pointer, part.to)
            if part.make is not None:
                _make(directory / part.to, part.make)
        done.append(Replacement(part.pointer, was, None if part.to is REMOVED else part.to, part.why))
    # From the end of each array, so that the pointers in front of it stay right; nothing below what is gone already.
    for pointer in sorted(removed, key=_order, reverse=True):
        if get(document, pointer, None) is not None:
            delete(document, pointer)
    return done


def _order(pointer: str) -> list[tuple[int, int, str]]:
    return [(0, int(token), "") if token.isdecimal() else (1, 0, token) for token in parse(pointer)]


def _make(path: Path, kind: Kind) -> None:
    """For any user of the container: who owned it there, and with which mode, is not told."""
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.parent.chmod(0o755)
    if kind == "directory":
        path.mkdir()
        path.chmod(0o777)
    else:
        path.touch(exist_ok=False)
        path.chmod(0o666)


# linux.resources: the controllers that do it, version 1 and 2
CONTROLLERS = {
    "memory": ("memory",),
    "cpu/shares": ("cpu",),
    "cpu/quota": ("cpu",),
    "cpu/cpus": ("cpuset",),
    "cpu/mems": ("cpuset",),
    "pids": ("pids",),
    "blockIO": ("blkio", "io"),
    "hugepageLimits": ("hugetlb",),
    "rdma": ("rdma",),
    "network/classID": ("net_cls",),
    "network/priorities": ("net_prio",),
}
# What makes runsc and Kata look for the sandbox of a pod (runsc/specutils/cri.go).
SANDBOX_ANNOTATIONS = (
    *("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    *("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
)


def _annotations(document: Document, _: Here) -> Iterator[HostPart]:
    for pointer, value in select(document, "/annotations/*", str):
        if parse(pointer)[-1] in SANDBOX_ANNOTATIONS:
            yield HostPart(pointer, value, "the pod's sandbox is not here; runsc and kata look for it", REMOVED)


def _namespaces(document: Document, _: Here) -> Iterator[HostPart]:
    """A path is somebody else's process, or a file of a container engine that nobody but it keeps alive."""
    mapped = bool(one(document, "/linux/uidMappings", list))
    for pointer, namespace in select(document, "/linux/namespaces/*", dict):
        path, kind = namespace.get("path"), namespace.get("type")
        if not isinstance(path, str) or not path:
            continue
        state = "which happens to exist here too" if _exists(path) else "which is not here"
        if kind == "user" and not mapped:
            yield HostPart(pointer, f"the user namespace {path}", f"{state}; a new one would need mappings", REMOVED)
        else:
            yield HostPart(f"{pointer}/path", path, f"the {kind} namespace of a pod or process there, {state}", REMOVED)


def _cgroup(document: Document, here: Here) -> Iterator[HostPart]:
    path = one(document, "/linux/cgroupsPath", str)
    if path:
        how = (
            "systemd's slice:prefix:name, which needs --systemd-cgroup" if path.count(":") == 2 else "that host's tree"
        )
        yield HostPart("/linux/cgroupsPath", path, f"a place in {how}; without it the container's id names it", REMOVED)
    unified = one(document, "/linux/resources/unified", dict)
    if unified and not here.unified:
        yield HostPart(
            "/linux/resources/unified", ", ".join(unified), "this host has no cgroup v2 controllers", REMOVED
        )
    swap = one(document, "/linux/resources/memory/swap", int)
    if swap is not None and not here.swap_limit:
        yield HostPart("/linux/resources/memory/swap", str(swap), "this kernel does not account for swap", REMOVED)
    for field, names in CONTROLLERS.items():
        pointer = f"/linux/resources/{field}"
        if get(document, pointer, None) and here.controllers.isdisjoint(names):
            yield HostPart(
                pointer, f"a limit of {names[0]}", "no runtime can use that controller on this host", REMOVED
            )


def _resources(document: Document, here: Here) -> Iterator[HostPart]:
    for field, there in (("cpus", here.cpus), ("mems", here.nodes)):
        pointer = f"/linux/resources/cpu/{field}"
        text = one(document, pointer, str)
        wanted = parse_list(text) if text else None
        if wanted is not None and there is not None and not wanted <= there:
            left = ",".join(map(str, sorted(wanted & there)))
            yield HostPart(pointer, text or "", f"online here: {_ranges(there)}", left or REMOVED)
    for pointer, entry in select(document, "/linux/resources/hugepageLimits/*", dict):
        size = entry.get("pageSize")
        if isinstance(size, str) and size not in here.hugepage_sizes:
            sizes = ", ".join(sorted(here.hugepage_sizes)) or "none"
            yield HostPart(pointer, f"huge pages of {size}", f"this kernel has {sizes}", REMOVED)
    for pointer, entry in select(document, "/linux/resources/blockIO/*/*", dict):
        number = f"{entry.get('major')}:{entry.get('minor')}"
        if not _exists(f"/sys/dev/block/{number}"):
            yield HostPart(pointer, f"the block device {number}", "not on this host", REMOVED)
    if one(document, "/linux/intelRdt", dict) is not None and not here.rdt:
        yield HostPart("/linux/intelRdt", "cache and bandwidth classes", "no resctrl file system on this host", REMOVED)
    for pointer, _ in select(document, "/linux/netDevices/*", dict):
        name = parse(pointer)[-1]
        yield HostPart(pointer, f"the interface {name}", "it would be taken away from this host", REMOVED)


def _ranges(numbers: frozenset[int]) -> str:
    ordered = sorted(numbers)
    return f"{ordered[0]}-{ordered[-1]}" if ordered == list(range(ordered[0], ordered[-1] + 1)) else str(ordered)[1:-1]


def _devices(document: Document, _: Here) -> Iterator[HostPart]:
    folder = {"c": "char", "u": "char", "b": "block"}
    for pointer, device in select(document, "/linux/devices/*", dict):
        kind, path = device.get("type"), device.get("path")
        number = f"{device.get('major')}:{device.get('minor')}"
        if isinstance(kind, str) and kind in folder and not _exists(f"/sys/dev/{folder[kind]}/{number}"):
            yield HostPart(pointer, f"{path} ({kind} {number})", "no driver here has this device", REMOVED)


def _security(document: Document, here: Here) -> Iterator[HostPart]:
    profile = one(document, "/process/apparmorProfile", str)
    if profile and profile != "unconfined" and (here.apparmor is None or profile not in here.apparmor):
        why = "AppArmor is off here" if here.apparmor is None else "not loaded here"
        yield HostPart("/process/apparmorProfile", profile, why, REMOVED)
    for pointer in ("/process/selinuxLabel", "/linux/mountLabel"):
        label = one(document, pointer, str)
        if label and not here.selinux:
            yield HostPart(pointer, label, "SELinux is off here", REMOVED)
    for pointer, option in select(document, "/mounts/*/options/*", str):
        if option.startswith(("context=", "fscontext=", "defcontext=", "rootcontext=")) and not here.selinux:
            yield HostPart(pointer, option, "SELinux is off here", REMOVED)
    listener = one(document, "/linux/seccomp/listenerPath", str)
    if listener and not _exists(listener):
        why = "no socket here"
        yield HostPart("/linux/seccomp/listenerPath", listener, why, REMOVED)
        yield from (
            HostPart(pointer, "asks a listener", why, "SCMP_ACT_ALLOW")
            for pointer, action in select(document, "/linux/seccomp/syscalls/*/action", str)
            if action == "SCMP_ACT_NOTIFY"
        )
        if one(document, "/linux/seccomp/listenerMetadata", str) is not None:
            yield HostPart("/linux/seccomp/listenerMetadata", "for the listener", why, REMOVED)


def _process(document: Document, here: Here) -> Iterator[HostPart]:
    for pointer, name in select(document, "/process/capabilities/*/*", str):
        if name not in here.capabilities:
            yield HostPart(pointer, name, "this host cannot give it (not in our bounding set)", REMOVED)
    for pointer, limit in select(document, "/process/rlimits/*", dict):
        kind, hard, soft = limit.get("type"), limit.get("hard"), limit.get("soft")
        own = here.hard_limits.get(kind) if isinstance(kind, str) else None
        if own is None or here.raises_limits or type(hard) is not int or type(soft) is not int or hard <= own:
            continue
        why = f"our hard limit is {own}, and we lack CAP_SYS_RESOURCE to raise it"
        yield HostPart(f"{pointer}/hard", f"{kind} {hard}", why, own)
        if soft > own:
            yield HostPart(f"{pointer}/soft", f"{kind} {soft}", why, own)
    score = one(document, "/process/oomScoreAdj", int)
    if score is not None and score < here.oom_score_adj and not here.raises_limits:
        why = f"ours is {here.oom_score_adj}, and we lack CAP_SYS_RESOURCE to lower it"
        yield HostPart("/process/oomScoreAdj", str(score), why, here.oom_score_adj)
    if one(document, "/process/terminal", bool):
        yield HostPart(
            "/process/terminal", "a terminal", "create needs a console socket for it (run --tty has one)", False
        )


def _hooks(document: Document, _: Here) -> Iterator[HostPart]:
    for pointer, hook in select(document, "/hooks/*/*", dict):
        path = hook.get("path")
        if isinstance(path, str) and not _exists(path):
            yield HostPart(pointer, path, "no such program here", REMOVED)
        elif isinstance(path, str):
            yield HostPart(pointer, path, "this host's own program of that name runs as root outside of the container")


def _user_namespace(document: Document, here: Here) -> Iterator[HostPart]:
    missing = False
    for name, mapped in (("uidMappings", here.uids), ("gidMappings", here.gids)):
        for pointer, mapping in select(document, f"/linux/{name}/*", dict):
            start, size = mapping.get("hostID"), mapping.get("size")
            if type(start) is int and type(size) is int and not _covered(start, size, mapped):
                missing = True
                what = f"host ids {start} to {start + size - 1}"
                yield HostPart(pointer, what, "not mapped in the user namespace that we are in")
    if missing:
        for name in ("uidMappings", "gidMappings"):
            yield HostPart(f"/linux/{name}", "the id mappings", "they cannot be had here", REMOVED)
        for pointer, kind in select(document, "/linux/namespaces/*/type", str):
            if kind == "user":
                yield HostPart(pointer.removesuffix("/type"), "a user namespace", "its ids cannot be had here", REMOVED)


def _covered(start: int, size: int, mapped: tuple[range, ...]) -> bool:
    return any(start in span and start + size <= span.stop for span in mapped)


def _sysctl(document: Document, _: Here) -> Iterator[HostPart]:
    for pointer, _value in select(document, "/linux/sysctl/*", str):
        name = parse(pointer)[-1]
        parts = name.split("/") if "/" in name else name.split(".")
        interface = (
            parts[3] if parts[:1] == ["net"] and parts[2:3] in (["conf"], ["neigh"]) and len(parts) > 4 else "all"
        )
        if interface not in ("all", "default", "lo"):
            yield HostPart(pointer, name, f"the container's network has no interface {interface}", REMOVED)
        elif not _exists(posixpath.join("/proc/sys", *parts)):
            yield HostPart(pointer, name, "this kernel has no such sysctl", REMOVED)


def _version(document: Document, _: Here) -> Iterator[HostPart]:
    version, needed = one(document, "/ociVersion", str), minimum_version(document)
    if version is not None and _RELEASE.match(version) and release(version) > release(needed):
        yield HostPart(
            "/ociVersion",
            version,
            f"its fields need no more than {needed}, and some runtimes refuse newer ones",
            needed,
        )


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - unlike Path.exists it never raises, for a NUL say


RULES: tuple[Callable[[Document, Here], Iterator[HostPart]], ...] = (
    _version,
    _namespaces,
    _user_namespace,
    _cgroup,
    _resources,
    _annotations,
    _security,
    _process,
    _hooks,
    _sysctl,
    _devices,
)
