"""What dead containers left: recorded state whose process is gone or another, task directories without a shim."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from harness.diagnosis.node.finding import Evidence, Finding, some
from harness.diagnosis.node.mounts import mounts_of
from harness.diagnosis.node.processes import Table, read_stat, table_of
from harness.diagnosis.node.tree import Tree

# directories of one container each, below the --root that its caller gives the runtime
STATES = (
    "/run/runc/*",
    "/run/crun/*",
    "/run/containerd/runc/*/*",
    "/run/containerd/crun/*/*",
    "/run/k3s/containerd/runc/*/*",
    "/run/docker/runtime-runc/*/*",
    "/run/docker/runtime-crun/*/*",
    "/run/user/*/runc/*",
    "/run/user/*/crun/*",
)
TASKS = (
    "/run/containerd/io.containerd.runtime.v2.task/*/*",
    "/run/k3s/containerd/io.containerd.runtime.v2.task/*/*",
    "/run/docker/containerd/daemon/io.containerd.runtime.v2.task/*/*",
)
METADATA = (
    "/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db",
    "/var/lib/docker/containerd/daemon/io.containerd.metadata.v1.bolt/meta.db",
    "/var/lib/rancher/k3s/agent/containerd/io.containerd.metadata.v1.bolt/meta.db",
)
FIRST_PID_NAMESPACE = 0xEFFFFFFC  # include/linux/proc_ns.h, PROC_PID_INIT_INO
_BOLT = b"\xed\xda\x0c\xed"  # go.etcd.io/bbolt, both meta pages, 16 bytes into each
_GROUPS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")  # containers that share one shim
_OPTION = re.compile(r"-{1,2}(namespace|id)[ =](\S+)")


class Recorded(Struct, frozen=True):
    """A runtime's own note of one container."""

    path: str  # of the file
    id: str
    pid: int
    start_ticks: int | None


def recorded_state(tree: Tree) -> Iterator[Finding]:
    """state.json of runc and status of crun, against the processes there are."""
    stale: dict[str, list[tuple[Recorded, str]]] = {}
    table = None
    for pattern in STATES:
        for directory in tree.glob(pattern):
            if not tree.is_directory(directory):
                continue
            path = next(
                (f"{directory}/{name}" for name in ("state.json", "status") if _is(tree, directory, name)), None
            )
            if path is None:
                yield from _without_state(tree, directory)
                continue
            try:
                recorded = _parse(tree, path)
            except ValueError as error:
                yield _damaged(path, str(error))
                continue
            if recorded is None:
                continue
            table = table or table_of(tree)
            fate = _fate(tree, recorded, table)
            if fate is not None:
                stale.setdefault(directory.rpartition("/")[0], []).append((recorded, fate))
    if tree.live and stale and os.stat("/proc/self/ns/pid").st_ino != FIRST_PID_NAMESPACE:
        tree.miss("pids of recorded state", "this is not the first pid namespace: they may be those of another one")
    for root, each in stale.items():
        yield _stale(root, each)


def _is(tree: Tree, directory: str, name: str) -> bool:
    return tree.exists(f"{directory}/{name}")


def _parse(tree: Tree, path: str) -> Recorded | None:
    """Raises ValueError: not what the runtime writes. None: not to be read, which is noted."""
    data = tree.read_bytes(path)
    if data is None:
        return None
    if not data.strip():
        raise ValueError("it is empty")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON, perhaps cut off") from None
    names = ("init_process_pid", "init_process_start") if path.endswith("state.json") else ("pid", "process-start-time")
    pid, start = (document.get(name) if isinstance(document, dict) else None for name in names)
    if not isinstance(pid, int):
        raise ValueError(f"it has no {names[0]}")
    return Recorded(path, path.split("/")[-2], pid, start if isinstance(start, int) and start else None)


def _fate(tree: Tree, recorded: Recorded, table: Table | None) -> str | None:
    """Why the recorded process is not there; None: it is, or nobody can say."""
    if recorded.pid <= 0:
        return "no process is recorded"
    stat = read_stat(tree, recorded.pid)
    if stat is not None:
        if recorded.start_ticks is not None and stat.start_ticks != recorded.start_ticks:
            return f"pid {recorded.pid} is another process by now ({stat.comm})"
        return f"pid {recorded.pid} is a zombie" if stat.state == "Z" else None
    if table is None or recorded.pid in table.processes:
        return None
    return f"pid {recorded.pid} is gone"


def _stale(root: str, found: list[tuple[Recorded, str]]) -> Finding:
    runtime = "crun" if found[0][0].path.endswith("status") else "runc"
    number = f"{len(found)} containers" if len(found) > 1 else "a container"
    who = some([f"{recorded.id} ({fate})" for recorded, fate in found])
    return Finding(
        "stale-state",
        "warning",
        f"{root}: the state of {number} whose process has ended: {who}; the id is taken until it is deleted",
        "state-exists",
        f"If no daemon is to do it: {runtime} --root {root} delete --force {found[0][0].id}",
        tuple(Evidence(recorded.path, fate) for recorded, fate in found[:3]),
    )


def _damaged(path: str, reason: str) -> Finding:
    directory = path.rpartition("/")[0]
    return Finding(
        "damaged-state",
        "error",
        f"{path} cannot be used: {reason}; every operation on that container fails",
        "state-missing",
        f"Once no process of the container lives, remove {directory}; then let the container be made anew.",
        (Evidence(path, reason),),
    )


def _without_state(tree: Tree, directory: str) -> Iterator[Finding]:
    """A create that was killed half-way leaves the directory alone; one at work is no finding, but one cannot tell."""
    names = tree.entries(directory)
    if names in ([], ["exec.fifo"], ["config.json"]):
        yield Finding(
            "state-directory-without-state",
            "warning",
            f"{directory} holds no state ({', '.join(names) or 'nothing'}): a create that was killed, or one at work",
            "state-exists",
            f"If no runtime is at work on it, remove {directory}; its id is taken until then.",
            (Evidence(directory, ", ".join(names) or "empty"),),
        )


def containerd_tasks(tree: Tree) -> Iterator[Finding]:
    """Task directories that no shim serves."""
    directories = [path for pattern in TASKS for path in tree.glob(pattern) if tree.is_directory(path)]
    table = table_of(tree) if directories else None
    if table is None:
        if directories:
            tree.miss("shims of containerd tasks", "the processes are not known")
        return
    shims = table.of_role("shim")
    if any(not shim.arguments for shim in shims if shim.state != "Z"):
        tree.miss("shims of containerd tasks", "the arguments of a shim cannot be read")
        return
    served = {(name, number) for shim in shims for name, number in [_served(shim.arguments or "")] if number}
    mounts = [mount.mount_point for mount in mounts_of(tree)[1]]
    for directory in directories:
        namespace, own = directory.split("/")[-2:]
        if (namespace, own) in served or any((namespace, group) in served for group in _groups(tree, directory)):
            continue
        pid = tree.number(f"{directory}/init.pid")
        orphan = pid is not None and pid in table.processes
        mounted = [point for point in mounts if point.startswith(f"{directory}/")]
        details = f"init {pid} still runs" if orphan else "its init is gone" if pid else "no init is recorded"
        if mounted:
            details += f"; {some(mounted)} still mounted"
        yield Finding(
            "task-without-shim",
            "warning",
            f"containerd task {own} ({namespace}) has no shim: {details}",
            "shim-died" if orphan else "state-exists",
            f"ctr -n {namespace} task delete --force {own}; containerd does so itself when it starts anew. What killed "
            "the shim is in dmesg (OOM) or the journal of containerd.",
            (Evidence(directory, f"init.pid {pid}" if pid else ", ".join(tree.entries(directory))),),
        )


def _served(arguments: str) -> tuple[str, str]:
    options = dict(_OPTION.findall(arguments))
    return options.get("namespace", ""), options.get("id", "")


def _groups(tree: Tree, directory: str) -> list[str]:
    try:
        document: Any = json.loads(tree.read_bytes(f"{directory}/config.json") or b"{}")
    except (ValueError, RecursionError):
        return []
    annotations = document.get("annotations") if isinstance(document, dict) else None
    if not isinstance(annotations, dict):
        return []
    return [str(annotations[name]) for name in _GROUPS if name in annotations]


def containerd_metadata(tree: Tree) -> Iterator[Finding]:
    """containerd's database has its magic number in one of its two meta pages; an empty file is made anew."""
    for path in METADATA:
        head = tree.read_bytes(path, 64 * 1024 + 32)
        if head and not any(head[page + 16 : page + 20] == _BOLT for page in (0, 4096, 16384, 65536)):
            yield Finding(
                "damaged-metadata",
                "error",
                f"{path} is no database of containerd any more (no magic number in its first pages)",
                "state-missing",
                "Check the disk (dmesg, fsck). Stop containerd, move the file away, start it, pull the images again.",
                (Evidence(path, f"begins with {head[:24].hex()}"),),
            )
