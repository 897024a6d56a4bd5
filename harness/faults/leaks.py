"""What a runtime has left of a container, and its removal: state directory, cgroups, processes in those."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from harness.cgroup import groups
from harness.errors import HarnessError
from harness.kernel import procfs
from harness.process.children import kill_processes
from harness.runtime.container import Container
from harness.runtime.session import Session
from harness.runtime.workspace import remove_tree

SETTLE_S = 0.25  # a process killed just now is there for some more milliseconds, and so is its cgroup
_PERIOD_S = 0.001


def _cgroups(session: Session, container: Container) -> dict[str, list[str]]:
    """{path: mount points} of the cgroups, anywhere, that have the container's id in their path.

    All are looked through only where the fault has asked for another place than the one that a container is given.
    """
    container_id = container.id
    usual = f"{session.workspace.cgroup}/{container_id}"
    if container.bundle.config.get("/linux/cgroupsPath", None) == f"/{usual}":
        mount_points = [h.mount_point for h in session.layout.hierarchies if Path(h.mount_point, usual).is_dir()]
        return {usual: mount_points} if mount_points else {}
    found: dict[str, list[str]] = {}
    for hierarchy in session.layout.hierarchies:
        for directory, _, _ in os.walk(hierarchy.mount_point):
            path = directory.removeprefix(hierarchy.mount_point).strip("/")
            if container_id in path:
                found.setdefault(path, []).append(hierarchy.mount_point)
    return found


def _present(session: Session, container: Container) -> set[str]:
    found = set()
    state = Path(container.client.root) / container.id
    if state.exists():
        found.add(f"state: {state}")
    cgroups = _cgroups(session, container)
    own = str(container.bundle.config.get("/linux/cgroupsPath", "")).strip("/")
    for path, mount_points in cgroups.items():
        if not own.startswith(f"{path}/"):  # no runtime removes the parents that it has made
            found.add(f"cgroup: {path} in {', '.join(mount_points)}")
    for pid in set().union(*(groups.processes(session.layout, path) for path in cgroups)):
        stat = procfs.process_stat(pid)
        if stat is not None and stat.state not in "ZX":
            found.add(f"process: {pid} ({stat.comm})")
    return found


def present(session: Session, container: Container) -> set[str]:
    """One line `KIND: WHAT` for all that there is of a container now; KIND is a schema.Leak."""
    return session.namespace.call(_present, session, container)


def left_since(session: Session, container: Container, before: set[str]) -> list[str]:
    """What is there that was not `before`, and does not go by itself within a moment: only a dying process does."""
    deadline = time.monotonic() + SETTLE_S
    pause_s = _PERIOD_S
    while (left := present(session, container) - before) and time.monotonic() < deadline:
        if not any(line.startswith("process:") for line in left):
            break
        time.sleep(pause_s)  # nothing tells of the end of a process that is not ours
        pause_s *= 2
    return sorted(left)


def sweep(session: Session, container: Container) -> None:
    """End and remove what still has the container's id: the next attempt must not meet it."""

    def remove() -> None:
        for path in _cgroups(session, container):
            with contextlib.suppress(HarnessError, OSError):  # what will not go is gc's, and the leak check has told
                groups.thaw(session.layout, path)
                stats = [procfs.process_stat(pid) for pid in groups.processes(session.layout, path)]
                kill_processes([stat for stat in stats if stat is not None])  # reaps those that became our children
                groups.kill(session.layout, path)
                groups.remove(session.layout, path, timeout_s=1.0)

    session.namespace.call(remove)
    remove_tree(Path(container.client.root) / container.id)
