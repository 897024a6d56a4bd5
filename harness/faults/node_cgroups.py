"""Cgroups of a fault: made with values in their files, frozen, occupied by a process of ours, or the runtime's own."""

from __future__ import annotations

import os
import shlex
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cgroup import groups
from harness.faults import schema
from harness.kernel import procfs

if TYPE_CHECKING:
    from harness.faults.node import Node

_LOOK_S = 0.02  # nothing tells of a signal that is pending


def make(node: Node, step: schema.Cgroup) -> None:
    """Raises OSError, HarnessError; what is done until then is taken back with the node."""
    layout, call = node.session.layout, node.session.namespace.call
    path = str(node.path(step.path)).strip("/")
    created = call(lambda: groups.create(layout, path, step.controllers or None, exist_ok=True))
    node.undo.callback(call, lambda: groups.remove(layout, path, enabled=created.enabled))
    node.done.append(f"mkdir {' '.join(created.directories)}")
    for name, value in step.files.items():
        controller = name.partition(".")[0]
        hierarchy = layout.unified if controller == "cgroup" else layout.hierarchy(controller)
        if hierarchy is not None:
            file = Path(hierarchy.mount_point) / path / name
            if call(_write, file, value):
                node.done.append(f"echo {value} > {file}")
    directories = [f"{hierarchy.mount_point}/{path}" for hierarchy in layout.hierarchies]
    directories = [directory for directory in directories if call(os.path.isdir, directory)]
    if step.occupied:
        _occupy(node, directories)
    if step.holds_runtime:
        _hold_runtime(node, directories)
    if step.frozen:
        call(lambda: groups.freeze(layout, path))
        node.undo.callback(call, lambda: groups.thaw(layout, path))
        node.frozen.append(path)
        node.done.append(f"freeze cgroup {path}")


def _write(file: Path, value: str) -> bool:
    """False where there is no such file: another version's, or of a controller that is not there."""
    there = file.exists()
    if there:
        file.write_text(value)
    return there


def _occupy(node: Node, directories: list[str]) -> None:
    """A sleeping process of ours in each of these cgroups."""
    child = node.child("/bin/sleep", "1000")
    for directory in directories:
        node.session.namespace.call(_write, Path(directory) / "cgroup.procs", str(child.pid))
    node.done.append(f"process {child.pid} sits in {' '.join(directories)}")


def _hold_runtime(node: Node, directories: list[str]) -> None:
    """The runtime is started in them by a shell.

    Not by our own child before its exec: it shares its memory with us, and the OOM killer would take us along.
    """
    words = " ".join(shlex.quote(directory) for directory in directories)
    joins = f"for d in {words}; do echo $$ >$d/cgroup.procs || exit 125; done"
    node.prefix += ["/bin/sh", "-c", f'{joins}; exec "$0" "$@"']
    node.done.append(f"the runtime is started in {' '.join(directories)}")


def thaw_after(node: Node, timeout_s: float) -> None:
    """After the deadline thaw frozen cgroups, each as soon as who is in it has been sent SIGKILL.

    Who is killed in a frozen cgroup of v1 dies when that thaws, and not before; who is thawed first goes on.
    """
    if not node.frozen:
        return
    over = threading.Event()
    thread = threading.Thread(target=_thaw_the_killed, args=(node, timeout_s, over), daemon=True)
    thread.start()
    node.undo.callback(thread.join)
    node.undo.callback(over.set)


def _thaw_the_killed(node: Node, timeout_s: float, over: threading.Event) -> None:
    layout, call = node.session.layout, node.session.namespace.call
    left = list(node.frozen)
    over.wait(timeout_s)
    while left and not over.wait(_LOOK_S):
        for path in list(left):
            if any(procfs.is_killed(pid) for pid in call(groups.processes, layout, path)):
                call(groups.thaw, layout, path)
                left.remove(path)
