"""The cgroup drivers, seen from where init really is: what no error text tells, the place in the tree does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from harness.cgroup.hierarchy import Layout, cgroup_paths
from harness.errors import HarnessError
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.failures import check, describe
from harness.runtime.options import CreateOptions
from harness.runtime.session import Session

SYSTEMD_RUNS = Path("/run/systemd/system")
# crun puts init one deeper, so that the scope itself can have limits of its own.
SUBGROUP = {"crun": "/container"}
# A path that is not absolute: crun takes it from the root; runc from the parent of the cgroup that it is called in
# (libcontainer/cgroups/fs2/defaultpath.go), which for a daemon of systemd's is system.slice.
RELATIVE_TO_CALLER = frozenset({"runc"})


class Case(Struct, frozen=True):
    """{run}: the run's name, by which gc finds what is left; {nested}: the slices that systemd makes of it."""

    by_systemd: bool  # --systemd-cgroup
    cgroups_path: str
    place: str  # where init must be


CASES = {
    "driver-systemd-scope": Case(True, "system.slice:{run}:{id}", "/system.slice/{run}-{id}.scope"),
    "driver-systemd-slice": Case(True, "{run}.slice:cri:{id}", "{nested}/cri-{id}.scope"),
    "driver-cgroupfs-path": Case(False, "/{run}/{id}", "/{run}/{id}"),
    # the mismatch that nobody reports: a path for systemd taken literally, so the slice's limits hold for nothing
    "driver-mismatch-silent": Case(False, "{run}.slice:cri:{id}", "{relative}/{run}.slice:cri:{id}"),
}


def _nested(name: str) -> str:
    """`a-b-c` -> `/a.slice/a-b.slice/a-b-c.slice`."""
    parts = name.split("-")
    return "".join(f"/{'-'.join(parts[: count + 1])}.slice" for count in range(len(parts)))


def _place(pid: int | Literal["self"], layout: Layout) -> str:
    """The deepest of its cgroups, from the root of the hierarchy."""
    return "/" + max((path for _, path in cgroup_paths(pid, layout).values()), key=len).strip("/")


def run_case(session: Session, runtime: Runtime, name: str) -> dict[str, Any]:
    """One whole lifecycle; `text` of the cell is where init was."""
    case = CASES[name]
    if case.by_systemd and not SYSTEMD_RUNS.exists():
        return {"verdict": "not-applicable", "as_expected": True, "reason": "systemd does not run"}
    container = session.container(runtime, "pause", f"{name}-{runtime.name}")
    own = Path(_place("self", session.layout)).parent
    relative = str(own).rstrip("/") if runtime.dialect.name in RELATIVE_TO_CALLER else ""
    run = session.workspace.cgroup
    names = {"run": run, "id": container.id, "nested": _nested(run), "relative": relative}
    expected = case.place.format_map(names) + (SUBGROUP.get(runtime.dialect.name, "") if case.by_systemd else "")
    container.client = replace(container.client, systemd_cgroup=case.by_systemd)
    container.bundle.config.set("/linux/cgroupsPath", case.cgroups_path.format_map(names))
    (container.bundle.path / "config.json").write_bytes(container.bundle.config.encode())
    try:
        seen = _lifecycle(container, session.layout)
    except (HarnessError, OSError) as error:
        last = container.operations[-1] if container.operations else None
        said = describe(last) if last is not None and last.exit_status != 0 else str(error)
        return {"verdict": "fails", "as_expected": False, "text": said}
    finally:
        container.clean_up()
    left = [hierarchy.mount_point + seen for hierarchy in session.layout.hierarchies]
    left = [path for path in left if session.namespace.call(Path(path).exists)]
    reason = (
        f"init should be in {expected}" if seen != expected else f"left behind: {', '.join(left)}" if left else None
    )
    if reason is None:
        return {"verdict": "passes", "as_expected": True, "text": seen}
    return {"verdict": "fails", "as_expected": False, "text": seen, "reason": reason}


def _lifecycle(container: Container, layout: Layout) -> str:
    """Create, look where init is, start, kill, delete. Raises OperationError."""
    check(container.create(CreateOptions(str(container.bundle.path), f"{container.directory}/pid")))
    assert container.init is not None  # create went well
    place = _place(container.init.pid, layout)
    check(container.start())
    check(container.kill())
    container.wait()
    check(container.delete())
    return place
