"""Rules of config-linux.md that join several places of a config.json: namespaces, ids, resources, seccomp, sysctl."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.oci.document import describe
from harness.oci.finding import Finding, error, warning
from harness.oci.pointer import one, select
from harness.oci.rules import duplicates, has_namespace

Document = dict[str, Any]

_ID_LIMIT = 2**32  # ids are uint32

# What has no meaning, or would change the host, without a namespace of this kind.
NEEDS_NAMESPACE = (
    ("/hostname", "uts"),
    ("/domainname", "uts"),
    ("/linux/timeOffsets", "time"),
    ("/linux/uidMappings", "user"),
    ("/linux/gidMappings", "user"),
    ("/linux/netDevices", "network"),
    ("/linux/maskedPaths", "mount"),
    ("/linux/readonlyPaths", "mount"),
)

_IPC_SYSCTLS = (
    "auto_msgmni msgmax msgmnb msgmni msg_next_id sem sem_next_id shmall shmmax shmmni shm_next_id shm_rmid_forced"
)

# Which namespace a sysctl belongs to: its whole name, or its beginning where that ends with a dot. Kernel:
# ipc/ipc_sysctl.c, ipc/mq_sysctl.c, kernel/utsname_sysctl.c, kernel/ucount.c.
SYSCTL_NAMESPACES = (
    ("net.", "network"),
    ("fs.mqueue.", "ipc"),
    *((f"kernel.{name}", "ipc") for name in _IPC_SYSCTLS.split()),
    ("kernel.domainname", "uts"),
    ("user.", "user"),
)


def linux_findings(document: Document) -> Iterator[Finding]:
    """All rules of this module."""
    yield from _namespaces(document)
    yield from _id_mappings(document)
    yield from _sysctl(document)
    yield from _devices(document)
    yield from _memory(document)
    yield from _cpu(document)
    yield from _per_device(document)
    yield from _seccomp(document)


def _namespaces(document: Document) -> Iterator[Finding]:
    """Namespaces; and what needs one."""
    for pointer, name in duplicates(document, "/linux/namespaces/*/type"):
        yield error(pointer, f"{name} is there twice; leave one")
    for pattern, kind in NEEDS_NAMESPACE:
        for value_type in (str, list, dict):
            for pointer, value in select(document, pattern, value_type):
                if value and not has_namespace(document, kind):
                    yield error(pointer, f"needs a namespace of type {kind}; add it or take this out")
    for pointer, clock in select(document, "/linux/timeOffsets/*", dict):
        if pointer.rpartition("/")[2] not in ("monotonic", "boottime"):
            yield error(pointer, f"{describe(clock)} of an unknown clock; known are monotonic, boottime")


def _id_mappings(document: Document) -> Iterator[Finding]:
    """User namespace mappings; user_namespaces(7)."""
    for pointer, namespace in select(document, "/linux/namespaces/*", dict):
        if namespace.get("type") == "user" and not namespace.get("path"):
            for name in ("uidMappings", "gidMappings"):
                if not one(document, f"/linux/{name}", list):
                    yield error(f"/linux/{name}", f"missing; the new user namespace of {pointer} needs it")
    for pattern in ("/linux", "/mounts/*"):
        for name in ("uidMappings", "gidMappings"):
            for pointer, mappings in select(document, f"{pattern}/{name}", list):
                for side in ("containerID", "hostID"):
                    yield from _overlaps(pointer, mappings, side)
    for field, name in (("uid", "uidMappings"), ("gid", "gidMappings")):
        wanted = one(document, f"/process/user/{field}", int)
        spans = [span for _, span in _spans(one(document, f"/linux/{name}", list) or [], "containerID")]
        if wanted is not None and spans and not any(wanted in span for span in spans):
            yield error(f"/process/user/{field}", f"{wanted} is not mapped; map it in /linux/{name} or use another")


def _overlaps(pointer: str, mappings: list[Any], side: str) -> Iterator[Finding]:
    earlier: list[range] = []
    for index, span in _spans(mappings, side):
        place = f"{pointer}/{index}/{side}"
        if span.stop > _ID_LIMIT:
            yield error(place, f"ends at id {span.stop - 1}, above {_ID_LIMIT - 1}; make size smaller")
        if any(span.start < other.stop and other.start < span.stop for other in earlier):
            yield error(place, f"ids {span.start} to {span.stop - 1} overlap an earlier entry; the kernel refuses it")
        earlier.append(span)


def _spans(mappings: list[Any], side: str) -> Iterator[tuple[int, range]]:
    for index, mapping in enumerate(mappings):
        start, size = one(mapping, f"/{side}", int), one(mapping, "/size", int)
        if start is not None and size is not None and size > 0:
            yield index, range(start, start + size)


def _sysctl(document: Document) -> Iterator[Finding]:
    """Sysctl: each runtime refuses one that would reach beyond the container."""
    for pointer, _ in select(document, "/linux/sysctl/*", str):
        name = pointer.removeprefix("/linux/sysctl/").replace("~1", ".")  # sysctl(8): / separates too
        if name == "kernel.hostname":
            yield error(pointer, "runtimes refuse it; use /hostname")
            continue
        kind = next((kind for known, kind in SYSCTL_NAMESPACES if _is_or_below(name, known)), None)
        if kind is None:
            yield error(pointer, "belongs to no namespace, so it would change the host; take it out")
        elif not has_namespace(document, kind):
            yield error(pointer, f"needs a namespace of type {kind}, else it would change the host; add it")


def _is_or_below(name: str, known: str) -> bool:
    return name.startswith(known) if known.endswith(".") else name == known


def _devices(document: Document) -> Iterator[Finding]:
    """Devices: numbers are needed unless it is a fifo."""
    for pointer, device in select(document, "/linux/devices/*", dict):
        if device.get("type") == "p":
            continue
        for number in ("major", "minor"):
            if device.get(number) is None:
                yield error(f"{pointer}/{number}", "missing; only a device of type p goes without it")


def _memory(document: Document) -> Iterator[Finding]:
    """Memory: swap is memory and swap together."""
    limit = one(document, "/linux/resources/memory/limit", int)
    swap = one(document, "/linux/resources/memory/swap", int)
    place = "/linux/resources/memory/swap"
    if swap is None or swap <= 0:
        return
    if not limit:
        yield warning(place, "has no effect, or is refused, without memory.limit; set it")
    elif limit > swap:
        yield error(place, f"{swap} is below memory.limit {limit}; it counts memory and swap together, so raise it")
    elif limit == -1:
        yield error(place, f"{swap} is below memory.limit, which is unlimited; set memory.limit")


def _cpu(document: Document) -> Iterator[Finding]:
    """CPU: burst and realtime stay within what they belong to."""
    cpu = one(document, "/linux/resources/cpu", dict) or {}
    for low, high in (("burst", "quota"), ("realtimeRuntime", "realtimePeriod")):
        small, large = one(cpu, f"/{low}", int), one(cpu, f"/{high}", int)
        if small is not None and large is not None and small > large > 0:
            yield error(f"/linux/resources/cpu/{low}", f"{small} is above {high} {large}; lower it")


def _per_device(document: Document) -> Iterator[Finding]:
    """Block IO and RDMA: an entry must limit something."""
    for pattern, names in (
        ("/linux/resources/blockIO/weightDevice/*", ("weight", "leafWeight")),
        ("/linux/resources/rdma/*", ("hcaHandles", "hcaObjects")),
    ):
        for pointer, entry in select(document, pattern, dict):
            if all(entry.get(name) is None for name in names):
                yield error(pointer, f"limits nothing; give {' or '.join(names)}")


def _seccomp(document: Document) -> Iterator[Finding]:
    """Seccomp: errno only where an action returns one; the listener."""
    seccomp = one(document, "/linux/seccomp", dict)
    if seccomp is None:
        return
    rules = [(f"/linux/seccomp{place}", rule) for place, rule in select(seccomp, "/syscalls/*", dict)]
    yield from _errno("/linux/seccomp/defaultErrnoRet", seccomp, "defaultAction", "defaultErrnoRet")
    for pointer, rule in rules:
        yield from _errno(f"{pointer}/errnoRet", rule, "action", "errnoRet")
        if rule.get("names") == []:
            yield error(f"{pointer}/names", "empty; name at least one syscall")
    has_listener = bool(seccomp.get("listenerPath"))
    if seccomp.get("listenerMetadata") and not has_listener:
        yield error("/linux/seccomp/listenerMetadata", "needs listenerPath; add it or take this out")
    notifying = [f"{pointer}/action" for pointer, rule in rules if rule.get("action") == "SCMP_ACT_NOTIFY"]
    if notifying and not has_listener:
        yield error(notifying[0], "SCMP_ACT_NOTIFY needs /linux/seccomp/listenerPath; add it")


def _errno(pointer: str, rule: Document, action: str, errno: str) -> Iterator[Finding]:
    name = rule.get(action)
    if rule.get(errno) is not None and isinstance(name, str) and name not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        yield error(pointer, f"{describe(name)} returns no errno; only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do")
