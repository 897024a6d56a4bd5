"""All that the containers of one run share: directory, private mount namespace with a view, root file systems."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from harness.cgroup import groups
from harness.cgroup.hierarchy import Layout, detect
from harness.cgroup.view import NEAREST, Step, View, checked_view, show
from harness.errors import HostError
from harness.kernel import shim
from harness.kernel.mounts import MountNamespace
from harness.oci.bundle import Bundle, Template, check_container_id, recipe_config
from harness.oci.recipe import load_recipe
from harness.oci.rootfs import build_default
from harness.process.children import become_subreaper
from harness.process.command import Place, Stdio
from harness.runtime.client import Client
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.failures import describe
from harness.runtime.leftovers import remove_cgroups, remove_run
from harness.runtime.options import CreateOptions
from harness.runtime.workspace import Workspace, remove_tree

if TYPE_CHECKING:
    from harness.process.operation import Operation


class ViewChoice(Struct, frozen=True):
    """Which view was taken, what was mounted for it, and why not the ones before it."""

    view: View
    asked: str
    mode: str  # the cgroup mode that runtimes see in it
    steps: tuple[Step, ...] = ()
    refused: dict[str, dict[str, str]] = field(default_factory=dict)  # {view: {runtime: what it said}}

    def to_json(self) -> dict[str, Any]:
        return {
            "view": self.view,
            "asked": self.asked,
            "mode": self.mode,
            "steps": [str(step) for step in self.steps],
            "refused": self.refused,
        }

    @property
    def explanation(self) -> str | None:
        """One line on what was done and why; None when the host's own layout was taken."""
        if not self.steps:
            return None
        why = "; ".join(f"{name}: {text}" for said in self.refused.values() for name, text in said.items())
        done = "; ".join(map(str, self.steps))
        return f"view {self.view}: {done}, in a private mount namespace" + (f" (because {why})" if why else "")


def require_root() -> None:
    """Raises HostError unless this process is root."""
    if os.geteuid() != 0:
        raise HostError("this must run as root: it makes mount namespaces and cgroups; try sudo")


class Session:
    """As a context manager: on exit no process, cgroup, mount or file of the run is left.

    `view`: host, legacy, hybrid, unified, or auto: the first view in which all of `runtimes` start a container.
    Raises HostError when not root, or when a view cannot be made.
    """

    def __init__(
        self,
        view: str = "auto",
        runtimes: Sequence[Runtime] = (),
        *,
        kind: str = "run",
        workspace: Workspace | None = None,
        timeout_s: float | None = 30.0,
    ) -> None:
        require_root()
        become_subreaper()
        self.timeout_s = timeout_s
        self.workspace = workspace or Workspace(kind)
        self._serial = itertools.count()
        self._templates: dict[str, Template] = {}
        self._namespace: MountNamespace | None = None
        self.layout: Layout = detect()
        self.choice = ViewChoice("host", view, self.layout.mode)  # until another is taken: close() asks for its steps
        try:
            if self.workspace.fresh:
                self.workspace.note_subtree_control(groups.subtree_control(self.layout))
            if view == "auto":
                self._choose(runtimes)
            else:
                self._enter(checked_view(view))
        except BaseException:
            if self.workspace.fresh:
                self.close()
            raise

    @property
    def namespace(self) -> MountNamespace:
        if self._namespace is None:
            raise HostError("the session is closed")
        return self._namespace

    def _enter(self, view: View, asked: str | None = None, refused: dict[str, dict[str, str]] | None = None) -> None:
        self._leave()
        self._namespace = MountNamespace()
        steps, self.layout = show(self._namespace, view)
        self.choice = ViewChoice(view, asked or view, self.layout.mode, tuple(steps), refused or {})

    def _leave(self) -> None:
        if self._namespace is not None:
            self._namespace.close()
            self._namespace = None

    def _choose(self, runtimes: Sequence[Runtime]) -> None:
        refused: dict[str, dict[str, str]] = {}
        candidates = NEAREST[self.layout.mode] if runtimes else ("host",)
        for view in candidates:
            try:
                self._enter(view, "auto", dict(refused))
                said = {runtime.name: text for runtime in runtimes if (text := self._refusal(runtime)) is not None}
            except HostError as error:
                said = {"(view)": str(error)}
            if not said:
                return
            refused[view] = said
        self._leave()
        told = "; ".join(f"{view}: {name}: {text}" for view, names in refused.items() for name, text in names.items())
        raise HostError(f"no view in which every runtime starts a container ({told}); choose one with --view")

    def _refusal(self, runtime: Runtime) -> str | None:
        """What a runtime says when it cannot start the smallest container here; None when it can."""
        operation = self.probe(runtime)
        return None if operation.exit_status == 0 else describe(operation)

    def probe(self, runtime: Runtime, recipe: str = "minimal") -> Operation:
        """Run the smallest container to its end with `runtime run`."""
        container = self.container(runtime, self.template(recipe, (("/process/args", ["/payload"]),)))
        options = CreateOptions(str(container.bundle.path), verb="run")
        try:
            return container.client.run(container.id, options, timeout_s=self.timeout_s)
        finally:
            container.clean_up()

    def template(self, recipe: str = "default", settings: tuple[tuple[str, Any], ...] = ()) -> Template:
        """A recipe made ready once; its containers share the lower directory."""
        key = repr((recipe, settings))
        if key not in self._templates:
            loaded = load_recipe(recipe)
            links = loaded.rootfs.get("links") or {}
            lower = self.workspace.path / "rootfs" / ("default" if not links else f"r{len(self._templates)}")
            if not lower.exists():
                lower.mkdir()
                build_default(lower, links)
            self._templates[key] = Template(recipe_config(loaded, settings), lower)
        return self._templates[key]

    def client(self, runtime: Runtime, log_dir: Path, place: Place | None = None) -> Client:
        return Client(
            runtime,
            root=str(self.workspace.root(runtime.name)),
            log_dir=str(log_dir),
            place=place or Place(mount_ns_fd=self.namespace.fd),
            timeout_s=self.timeout_s,
        )

    def container(
        self,
        runtime: Runtime,
        source: str | Template | Bundle = "default",
        container_id: str | None = None,
        *,
        stdio: Stdio | None = None,
        place: Place | None = None,
    ) -> Container:
        """A container ready to be created. `source`: a recipe's name, a Template, or a Bundle on disk.

        Raises InputError for an id that cannot be, FileExistsError for one that is taken in this run.
        """
        container_id = check_container_id(container_id or f"c{next(self._serial)}")
        directory = self.workspace.container(container_id)
        if isinstance(source, Bundle):
            bundle = source
        else:
            template = self.template(source) if isinstance(source, str) else source
            cgroups_path = f"/{self.workspace.cgroup}/{container_id}"
            bundle = template.instantiate(directory, cgroups_path, self.namespace.call)
        return Container(self.client(runtime, directory, place), bundle, container_id, stdio, self._discard)

    def _discard(self, container: Container) -> None:
        """Unmount a finished container's rootfs and remove its directory."""
        with contextlib.suppress(OSError):
            self.namespace.call(shim.umount, str(container.directory / "rootfs"), shim.MNT_DETACH)
        remove_tree(container.directory)

    def close(self) -> tuple[str, ...]:
        """End and remove all that carries the run's name; returns one line for each thing that would not go."""
        failed = remove_run(self.workspace.name, self.workspace.path, detect())
        if self._namespace is not None and self.choice.steps:  # hierarchies that only this view shows
            failed += self._namespace.call(remove_cgroups, self.workspace.name, self.layout)
        self._leave()
        self.workspace.remove()
        return failed

    def detach(self) -> None:
        """Let go of the private mount namespace and leave the rest for another process."""
        self._leave()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        failed = self.close()
        if failed and kind is None:
            raise HostError(f"not all of {self.workspace.name} could be removed: {'; '.join(failed)}")
