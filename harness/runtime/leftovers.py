"""Find and remove what dead runs left behind: by the run's name and its owner. A live run is never touched."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from harness.cgroup import groups
from harness.cgroup.hierarchy import Layout, detect
from harness.errors import HarnessError
from harness.kernel import procfs, tracefs
from harness.process.children import kill_processes
from harness.runtime.workspace import (
    KEPT_PREFIX,
    PREFIX,
    SUBTREE_CONTROL,
    Owner,
    base_directory,
    remove_empty_base,
    remove_tree,
)

Fate = Literal["live", "kept", "dead"]


class Leftover(Struct, frozen=True):
    """A run that has left something: its directory, cgroups or processes."""

    name: str
    fate: Fate  # live: its owner runs; kept: a container made by `create`; dead: to be removed
    directory: Path | None
    cgroups: tuple[str, ...]
    processes: tuple[procfs.ProcessStat, ...]
    trace_instance: bool = False  # of tracefs, with the run's name

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "fate": self.fate,
            "directory": None if self.directory is None else str(self.directory),
            "cgroups": list(self.cgroups),
            "processes": [{"pid": stat.pid, "comm": stat.comm} for stat in self.processes],
            "trace_instance": self.trace_instance,
        }


class Removal(Struct, frozen=True):
    """What became of one leftover; `failed` has one line for each thing that would not go."""

    leftover: Leftover
    failed: tuple[str, ...] = ()


def _fate(name: str, directory: Path | None, stats: list[procfs.ProcessStat]) -> Fate:
    """An owner's note is there before anything else is made; without one the maker's pid in the name decides."""
    if directory is None:  # perhaps a run below another $OCI_HARNESS_DIR
        return "live" if _maker_lives(name) or (name.startswith(KEPT_PREFIX) and stats) else "dead"
    try:
        owner = Owner.parse((directory / "owner.json").read_bytes())
    except FileNotFoundError:
        # the moment between mkdir and the note: the name has the maker's pid
        return "live" if _maker_lives(name) else "dead"
    except (OSError, ValueError):
        return "dead"
    if owner.kept:
        return "kept" if owner.boot_id == procfs.boot_id() else "dead"
    return "live" if owner.alive else "dead"


def _maker_lives(name: str) -> bool:
    """A name is PREFIX kind-pid-random; a maker that has just been born has not written its note yet."""
    parts = name.removeprefix(PREFIX).split("-")
    return len(parts) >= 3 and parts[0] != "c" and parts[1].isdigit() and procfs.process_stat(int(parts[1])) is not None


def _run_name(path: str) -> str:
    """The run that a cgroup path belongs to: its first component of ours."""
    return next((part for part in path.split("/") if part.startswith(PREFIX)), "")


def find_leftovers(layout: Layout | None = None) -> list[Leftover]:
    """Every run that has a directory, a cgroup, a trace instance or a process here, live ones included."""
    layout = layout or detect()
    base = base_directory()
    directories = {path.name: path for path in base.glob(f"{PREFIX}*") if path.is_dir()}
    cgroups: dict[str, set[str]] = {}
    for path in groups.find(layout, PREFIX):
        cgroups.setdefault(_run_name(path), set()).add(path)
    instances = set(tracefs.find_instances(PREFIX))
    found = []
    for name in sorted({*directories, *cgroups, *instances} - {""}):
        stats = procfs.processes_naming(name, ignore=frozenset({os.getpid()}))
        fate = _fate(name, directories.get(name), stats)
        own = tuple(sorted(cgroups.get(name, ())))
        found.append(Leftover(name, fate, directories.get(name), own, tuple(stats), name in instances))
    return found


def _attempt(what: str, action: Callable[[], object]) -> tuple[str, ...]:
    """No line when it went well, else one."""
    try:
        action()
    except (HarnessError, OSError) as error:
        return (f"{what}: {error}",)
    return ()


def remove_cgroups(name: str, layout: Layout) -> tuple[str, ...]:
    """Thaw and remove a run's cgroups in every hierarchy of `layout`; one line for each thing that would not go.

    Wherever they are: a runtime that is given a relative cgroupsPath makes them below its own cgroup.
    """
    failed: tuple[str, ...] = ()
    for path in groups.find(layout, name):
        failed += _attempt(f"cgroup {path}", partial(groups.remove, layout, path))
    return failed


def _restore_subtree_control(directory: Path | None, layout: Layout) -> None:
    """As the run's note says; without a note nobody knows what was there before."""
    if directory is not None:
        with contextlib.suppress(FileNotFoundError):
            before = (directory / SUBTREE_CONTROL).read_text().split()
            groups.restore_subtree_control(layout, before)


def remove_run(name: str, directory: Path | None, layout: Layout) -> tuple[str, ...]:
    """End all processes of a run, remove its cgroups, then its directory; one line for each thing that would not go."""
    failed: tuple[str, ...] = ()
    # twice: a runtime that was still at work may have made one more
    for _ in range(2):
        stats = procfs.processes_naming(name, ignore=frozenset({os.getpid()}))
        if not stats:
            break
        failed += _attempt(f"cgroup {name}", lambda: groups.thaw(layout, name))
        failed += tuple(f"process {pid} would not die" for pid in kill_processes(stats))
    failed += remove_cgroups(name, layout)
    failed += _attempt("cgroup.subtree_control", lambda: _restore_subtree_control(directory, layout))
    if directory is not None:
        failed += _attempt(str(directory), lambda: remove_tree(directory))
    return failed


def remove(leftover: Leftover, layout: Layout | None = None) -> Removal:
    """Remove all that a dead run left."""
    failed: tuple[str, ...] = ()
    if leftover.trace_instance:
        failed = _attempt(f"trace instance {leftover.name}", partial(tracefs.remove_instance, leftover.name))
    return Removal(leftover, failed + remove_run(leftover.name, leftover.directory, layout or detect()))


def collect(kept: bool = False) -> Iterator[Removal]:
    """Remove all dead runs, and with `kept` the containers made by hand as well."""
    layout = detect()
    for leftover in find_leftovers(layout):
        if leftover.fate == "dead" or (kept and leftover.fate == "kept"):
            yield remove(leftover, layout)
    remove_empty_base()
