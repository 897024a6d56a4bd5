"""All probes of this host, side by side in child processes, and what they have found."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from harness.cgroup import groups
from harness.cgroup.hierarchy import Layout, detect, parse_mountinfo, parse_proc_cgroups
from harness.cgroup.view import VIEWS, View
from harness.compat.probes.controllers import Controller, try_controllers
from harness.compat.probes.settings import settings, subordinate_ids
from harness.compat.probes.starts import Start, all_views, distinct_views, starts_in, starts_with_systemd
from harness.compat.probes.tries import NOBODY, Try, try_all
from harness.diagnosis.node.finding import Finding, Unseen
from harness.errors import HarnessError
from harness.runtime.discovery import Runtime
from harness.runtime.workspace import Workspace, base_directory

# Where runtimes and engines keep root file systems; each file system among them is tried once.
STORES = ("/var/lib/containers", "/var/lib/containerd", "/var/lib/docker", "/var/lib", "/run", "/tmp", "/")
WORKERS = 4


class Probed(Struct):
    """What was tried. `tries` is as this user, `rootless` as nobody in a user namespace of its own."""

    layout: Layout
    controllers: dict[str, Controller] = field(default_factory=dict)
    tries: dict[str, Try] = field(default_factory=dict)
    rootless: dict[str, Try] = field(default_factory=dict)
    starts: dict[str, dict[View, Start]] = field(default_factory=dict)
    systemd: dict[str, Start] = field(default_factory=dict)  # {runtime: with the systemd cgroup driver}
    settings: dict[str, Any] = field(default_factory=dict)
    stores: dict[str, str] = field(default_factory=dict)  # {directory: its file system}
    subordinate: dict[str, dict[str, int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """What the `host` document has more than its basic facts."""
        return {
            "probes": {
                name: self.tries[name].to_json()
                | {"rootless": self.rootless[name].to_json() if name in self.rootless else None}
                for name in self.tries
            },
            "drivers": self.drivers(),
            "delegation": self.delegation(),
            "rootless": {
                "user": NOBODY if os.geteuid() == 0 else os.geteuid(),
                "subordinate_ids": self.subordinate,
                "newuidmap": shutil.which("newuidmap"),
                "newgidmap": shutil.which("newgidmap"),
            },
            "stores": self.stores,
            "settings": self.settings,
            "probe_seconds": round(self.seconds, 3),
        }

    def drivers(self) -> dict[str, Any]:
        """{"cgroupfs": ..., "systemd": ...}: whether a container really starts with it, for each runtime."""
        cgroupfs = {name: views["host"] for name, views in self.starts.items()}
        return {
            driver: {
                "works": any(each.works for each in found.values()) if found else None,
                "runtimes": {name: {"works": each.works, "reason": each.reason} for name, each in found.items()},
            }
            for driver, found in (("cgroupfs", cgroupfs), ("systemd", self.systemd))
        }

    def delegation(self) -> dict[str, Any]:
        """Whether a user who owns a cgroup v2 directory can make a child there and go into it."""
        joined = self.rootless.get("cgroup:join")
        if joined is None or self.layout.unified is None:
            return {"works": None, "reason": "cgroup v2 is not mounted", "controllers": []}
        names = [name for name, each in self.controllers.items() if each.version == 2 and each.usable]
        return joined.to_json() | {"controllers": names}


def _stores() -> dict[str, str]:
    """{directory: file system type} for one directory of each file system."""
    types = {}
    with contextlib.suppress(OSError, ValueError):
        types = {m.device: m.fstype for m in parse_mountinfo(Path("/proc/thread-self/mountinfo").read_text())}
    found: dict[int, str] = {}
    for path in (str(base_directory().parent), *STORES):
        with contextlib.suppress(OSError):
            found.setdefault(os.stat(path).st_dev, path)
    return {path: types.get(f"{os.major(dev)}:{os.minor(dev)}", "unknown") for dev, path in found.items()}


def _owned(path: Path, uid: int) -> Path:
    path.mkdir(mode=0o755)
    with contextlib.suppress(PermissionError):  # then the probe that works there says so
        os.chown(path, uid, uid)
    return path


class _Places(Struct, frozen=True):
    """Where the probe program may work, twice: for this user and for nobody."""

    directories: tuple[Path | None, Path | None] = (None, None)
    cgroups: tuple[str | None, str | None] = (None, None)


def _delegated(layout: Layout, name: str, uid: int) -> str | None:
    """A cgroup v2 directory that belongs to `uid` (cgroup-v2.rst, "Model of Delegation")."""
    if layout.unified is None:
        return None
    groups.create(layout, name, ("",))
    directory = f"{layout.unified.mount_point}/{name}"
    for file in ("", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"):
        os.chown(f"{directory}{file}", uid, uid)
    return directory


@contextlib.contextmanager
def _places(layout: Layout, unseen: list[Unseen]) -> Iterator[tuple[_Places, str | None]]:
    """Directories and cgroups of one run's name, removed at the end; none of them where they cannot be made."""
    try:
        workspace = Workspace("host")
    except HarnessError as error:
        unseen.append(Unseen("overlay on this file system", str(error)))
        yield _Places(), None
        return
    name = workspace.cgroup
    before = groups.subtree_control(layout)
    workspace.note_subtree_control(before)
    try:
        directories = (_owned(workspace.path / "own", os.geteuid()), _owned(workspace.path / "rootless", NOBODY))
        try:
            cgroups = (_delegated(layout, f"{name}/own", os.geteuid()), _delegated(layout, f"{name}/rootless", NOBODY))
        except (OSError, HarnessError) as error:
            unseen.append(Unseen("cgroup v2 probes", f"no child of the root can be made: {error}"))
            cgroups = (None, None)
        yield _Places(directories, cgroups), name
    finally:
        try:
            groups.remove(layout, name)
            groups.restore_subtree_control(layout, before)
        except (OSError, HarnessError) as error:
            unseen.append(Unseen("cgroups of the probes", f"not all could be removed: {error}; oci-harness gc does it"))
        workspace.remove()


def _try_kernel(probed: Probed, places: _Places, pool: ThreadPoolExecutor) -> None:
    """All of the probe program, as this user and as nobody; what was late is tried once more, alone."""
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    ways: tuple[tuple[str, int | None, Sequence[str]], ...] = (("own", None, list(probed.stores)), ("nobody", user, ()))

    def attempt(way: int, names: Sequence[str] = ()) -> dict[str, Try]:
        _, rootless, idmap = ways[way]
        try:
            return try_all(
                names, rootless=rootless, directory=places.directories[way], cgroup=places.cgroups[way], idmap=idmap
            )
        except HarnessError as error:
            probed.unseen.append(Unseen(f"kernel probes ({ways[way][0]})", str(error)))
            return {}

    found = list(pool.map(attempt, (0, 1)))
    for way, tries in enumerate(found):
        late = [name for name, each in tries.items() if each.late]
        if late:
            tries.update(attempt(way, late))
    probed.tries, probed.rootless = found


def _known_controllers() -> list[str]:
    try:
        return [each.name for each in parse_proc_cgroups(Path("/proc/cgroups").read_text())]
    except (OSError, ValueError):
        return []


def probe_host(runtimes: Sequence[Runtime]) -> Probed:
    """Try all there is to try, in less than 3 s for three runtimes; nothing is left behind, findings gravest first.

    Never raises for what this host refuses: what could not be tried is in `unseen`.
    """
    from harness.compat.probes.findings import findings

    begin = time.monotonic()
    layout = detect()
    probed = Probed(layout, settings=settings(layout), stores=_stores())
    root = os.geteuid() == 0
    with _places(layout, probed.unseen) as (places, name), ThreadPoolExecutor(WORKERS) as pool:
        _try_kernel(probed, places, pool)
        views = distinct_views(layout) if root else ()
        started = {view: pool.submit(starts_in, view, runtimes) for view in views}
        if name is not None:
            probed.controllers = try_controllers(
                layout,
                f"{name}/limits",
                _known_controllers(),
                lambda line: probed.unseen.append(Unseen("cgroup controllers", line)),
            )
        if root:
            probed.starts = all_views(layout, {view: future.result() for view, future in started.items()})
            tried = {each.name: pool.submit(starts_with_systemd, each, probed.starts[each.name]) for each in runtimes}
            probed.systemd = {each: future.result() for each, future in tried.items()}
        else:
            untried = {view: Start(view, None, None, "only root can make views and start containers") for view in VIEWS}
            probed.starts = {each.name: dict(untried) for each in runtimes}
    probed.subordinate = subordinate_ids()
    probed.findings = findings(probed)
    probed.seconds = time.monotonic() - begin
    return probed
