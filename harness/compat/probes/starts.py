"""Does a minimal container start: each runtime in each view of the cgroups, and with each cgroup driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from harness.cgroup.hierarchy import Layout
from harness.cgroup.view import VIEWS, View
from harness.diagnosis import diagnose
from harness.diagnosis.explain import explain
from harness.errors import HarnessError
from harness.process.operation import Operation
from harness.runtime.discovery import Runtime
from harness.runtime.failures import describe
from harness.runtime.options import CreateOptions
from harness.runtime.session import Session

TIMEOUT_S = 5.0


class Start(Struct, frozen=True):
    """One attempt. `works` None: it could not be tried, and `reason` says why."""

    view: View
    mode: str | None  # the layout that the runtime saw
    works: bool | None
    reason: str | None = None  # the runtime's words
    cause: str | None = None  # slug of the taxonomy
    side: str | None = None
    decisive: str | None = None  # the clause of the runtime's words that names the cause
    fix: str | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        names = ("mode", "works", "reason", "cause", "side", "decisive", "fix")
        return {name: getattr(self, name) for name in names} | {"seconds": round(self.seconds, 3)}


def _judged(view: View, mode: str, operation: Operation) -> Start:
    seconds = operation.duration_ns / 1e9
    if operation.exit_status == 0 and not operation.timed_out:
        return Start(view, mode, True, seconds=seconds)
    said = describe(operation)
    primary = diagnose(operation.message).primary
    if primary is None or primary.cause is None:
        return Start(view, mode, False, said, seconds=seconds)
    fix = explain(primary).fix
    return Start(view, mode, False, said, primary.cause, primary.side, primary.decisive, fix, seconds)


def _untried(view: View, error: Exception) -> Start:
    return Start(view, None, None, str(error))


def _start(session: Session, view: View, runtime: Runtime, *, systemd: bool = False) -> Start:
    """Run the smallest container to its end. Under an id of its own: runsc's control sockets are named by it alone."""
    template = session.template("minimal", (("/process/args", ["/payload"]),))
    container_id = f"{session.workspace.name.removeprefix('oci-harness-')}-{runtime.name}"
    container = session.container(runtime, template, container_id)
    if systemd:
        config = container.bundle.config
        config.set("/linux/cgroupsPath", f"system.slice:oci-harness:{container_id}")
        (container.bundle.path / "config.json").write_bytes(config.encode())
        container.client = replace(container.client, systemd_cgroup=True)
    options = CreateOptions(str(container.bundle.path), verb="run")
    try:
        operation = container.client.run(container.id, options, timeout_s=TIMEOUT_S)
    finally:
        container.clean_up()
    return _judged(view, session.layout.mode, operation)


def starts_in(view: View, runtimes: Sequence[Runtime], *, systemd: bool = False) -> dict[str, Start]:
    """{runtime: Start} in one view, in cgroups made by the runtime itself or, with `systemd`, by systemd."""
    found: dict[str, Start] = {}
    try:
        with Session(view, kind="host", timeout_s=TIMEOUT_S) as session:
            for runtime in runtimes:
                try:
                    found[runtime.name] = _start(session, view, runtime, systemd=systemd)
                except (HarnessError, OSError) as error:
                    found[runtime.name] = _untried(view, error)
    except (HarnessError, OSError) as error:
        return {runtime.name: found.get(runtime.name, _untried(view, error)) for runtime in runtimes}
    return found


def distinct_views(layout: Layout) -> tuple[View, ...]:
    """Views that differ from the host's own layout, and that layout."""
    return tuple(view for view in VIEWS if view != layout.mode)


def all_views(layout: Layout, starts: dict[View, dict[str, Start]]) -> dict[str, dict[View, Start]]:
    """{runtime: {view: Start}}; the view of the host's own mode is the host's."""
    names = list(starts["host"])
    own = {name: {view: replace(starts["host"][name], view=view) for view in VIEWS} for name in names}
    return {
        name: {view: own[name][view] if view == layout.mode else starts[view][name] for view in VIEWS} for name in names
    }


def starts_with_systemd(runtime: Runtime, views: dict[View, Start]) -> Start:
    """Whether a minimal container starts with the systemd driver, in the host's view or the first that works."""
    view: View = next((view for view, start in views.items() if start.works), "host")
    if not runtime.dialect.uses_host_cgroups or runtime.dialect.systemd_cgroup_arg is None:
        return Start(view, None, None, f"{runtime.dialect.name} is run without cgroups")
    return starts_in(view, [runtime], systemd=True)[runtime.name]
