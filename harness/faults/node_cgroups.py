"""Cgroups of a fault: made with values in their files, frozen, occupied by a process of ours, or the runtime's own."""

from __future__ import annotations

import os
import shlex
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cgroup import groups
from harness.faults import schema

if TYPE_CHECKING:
    from harness.faults.node import Node


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
        thaw = partial(call, lambda: groups.thaw(layout, path))
        node.undo.callback(thaw)
        node.frozen.append(thaw)
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
    """Thaw frozen cgroups right after the deadline: who is killed in one of v1 dies when that thaws, and not before."""
    for thaw in node.frozen:
        timer = threading.Timer(timeout_s + 0.1, thaw)
        timer.daemon = True
        timer.start()
        node.undo.callback(timer.join)
        node.undo.callback(timer.cancel)
