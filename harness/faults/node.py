"""Reversible changes of the node for one attempt. Mounts are made in the session's private mount namespace."""

from __future__ import annotations

import contextlib
import os
import signal
import string
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.cgroup import groups
from harness.errors import HarnessError, HostError
from harness.faults import schema
from harness.kernel import shim
from harness.oci.recipe import data_root
from harness.process.children import Child
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.session import Session

REMOUNT_FLAGS = {
    "ro": shim.MS_RDONLY,
    "noexec": shim.MS_NOEXEC,
    "nosuid": shim.MS_NOSUID,
    "nodev": shim.MS_NODEV,
}
PROPAGATION = {"shared": shim.MS_SHARED, "unbindable": shim.MS_UNBINDABLE}


def expand(text: str, variables: dict[str, str]) -> str:
    """`${work}` and the like. Raises HostError for a name that is not there; a test of the catalogue finds those."""
    try:
        return string.Template(text).substitute(variables)
    except (KeyError, ValueError) as error:
        raise HostError(f"{text!r}: no such variable {error}; there are {', '.join(sorted(variables))}") from None


def expand_all(value: Any, variables: dict[str, str]) -> Any:
    """`expand` in every string of a JSON value."""
    if isinstance(value, str):
        return expand(value, variables) if "${" in value else value
    if isinstance(value, list):
        return [expand_all(each, variables) for each in value]
    if isinstance(value, dict):
        return {expand_all(key, variables): expand_all(each, variables) for key, each in value.items()}
    return value


@dataclass
class Node:
    """The node as one attempt's runtime meets it; `undo` takes everything back."""

    session: Session
    runtime: Runtime
    variables: dict[str, str]
    binary: str  # what is called as the runtime
    prefix: list[str] = field(default_factory=list)
    global_args: list[str] = field(default_factory=list)
    create_args: list[str] = field(default_factory=list)
    timeout_s: float | None = None
    undo: ExitStack = field(default_factory=ExitStack)
    later: dict[schema.Moment, list[Callable[[Container], None]]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)  # what was done, in words

    def path(self, text: str) -> Path:
        return Path(expand(text, self.variables))

    def apply(self, step: schema.NodeStep) -> None:
        """Raises OSError, HarnessError where this node will not be changed so."""
        getattr(self, "_" + type(step).__name__.lower())(step)

    def at(self, moment: schema.Moment, container: Container) -> None:
        for action in self.later.get(moment, []):
            action(container)

    def _mounted(self, path: Path) -> None:
        self.undo.callback(self.session.namespace.call, shim.umount, str(path), shim.MNT_DETACH)

    def _tmpfs(self, step: schema.Tmpfs) -> None:
        path = self.path(step.path)
        options = [f"size={step.bytes}", "mode=755"]
        options += [f"nr_inodes={step.inodes}"] if step.inodes else []
        options += [step.options] if step.options else []

        def mount() -> None:
            path.mkdir(parents=True, exist_ok=True)
            shim.mount("oci-harness", str(path), "tmpfs", 0, ",".join(options))
            if step.fill == "bytes":
                _fill_bytes(path / "filler")
            elif step.fill == "inodes":
                _fill_inodes(path)

        self.session.namespace.call(mount)
        self._mounted(path)
        self.done.append(f"mount -t tmpfs -o {','.join(options)} none {path}; fill its {step.fill}")

    def _remount(self, step: schema.Remount) -> None:
        path = self.path(step.path)
        flags = 0
        for name in step.flags:
            flags |= REMOUNT_FLAGS.get(name, 0)

        def mount() -> None:
            shim.mount(str(path), str(path), None, shim.MS_BIND)
            if flags:
                shim.mount(None, str(path), None, shim.MS_BIND | shim.MS_REMOUNT | flags)
            for name in step.flags:
                if name in PROPAGATION:
                    shim.mount(None, str(path), None, PROPAGATION[name])

        self.session.namespace.call(mount)
        self._mounted(path)
        self.done.append(f"mount --bind {path} {path}; mount -o remount,bind,{','.join(step.flags)} {path}")

    def _hostpath(self, step: schema.HostPath) -> None:
        path = self.path(step.path)
        if not str(path).startswith(self.variables["work"] + "/"):
            raise HostError(f"a fault may only change paths below ${{work}}, not {path}")
        match step.kind:
            case "file":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(step.text)
                path.chmod(step.mode)
            case "directory":
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(step.mode)
            case "fifo":
                os.mkfifo(path, step.mode)
            case "absent":
                path.unlink(missing_ok=True)
        self.done.append(f"{step.kind} {path}")

    def _cgroup(self, step: schema.Cgroup) -> None:
        layout = self.session.layout
        path = expand(step.path, self.variables).strip("/")
        call = self.session.namespace.call
        created = call(lambda: groups.create(layout, path, step.controllers or None, exist_ok=True))
        self.undo.callback(call, lambda: groups.remove(layout, path, enabled=created.enabled))
        for name, value in step.files.items():
            controller = name.partition(".")[0]
            hierarchy = layout.unified if controller == "cgroup" else layout.hierarchy(controller)
            if hierarchy is None:
                continue
            file = Path(hierarchy.mount_point) / path / name
            call(_write_value, file, value)
            self.done.append(f"echo {value} > {file}")
        if step.occupied:
            self._occupy(path)
        if step.frozen:
            call(lambda: groups.freeze(layout, path))
            self.undo.callback(call, lambda: groups.thaw(layout, path))
            self.done.append(f"freeze cgroup {path}")

    def _occupy(self, path: str) -> None:
        """A sleeping process of ours in every hierarchy's cgroup of that path."""
        sleeper = shim.spawn("/bin/sleep", ["sleep", "1000"], (), fds=[0, 1, 2], flags=shim.SPAWN_PDEATHSIG)
        child = Child(sleeper.pid, sleeper.pidfd)
        self.undo.callback(child.kill)

        def join() -> None:
            for hierarchy in self.session.layout.hierarchies:
                with contextlib.suppress(OSError):
                    (Path(hierarchy.mount_point) / path / "cgroup.procs").write_text(str(sleeper.pid))

        self.session.namespace.call(join)
        self.done.append(f"process {sleeper.pid} sits in cgroup {path}")

    def _fakeruntime(self, step: schema.FakeRuntime) -> None:
        path = self.path("${work}/fake-runtime") / Path(self.binary).name
        path.parent.mkdir()
        match step.kind:
            case "script":
                path.write_text(expand(step.text, self.variables | {"real": self.binary}))
                path.chmod(0o755)
            case "not-executable":
                path.write_bytes(Path(self.binary).read_bytes())
                path.chmod(0o644)
            case "foreign-machine":
                from harness.faults.rootfs_steps import apply

                apply(schema.CopyBinary(path=path.name, damage="foreign-machine"), path.parent)
            case "directory":
                path.mkdir()
        self.binary = str(path)
        self.done.append(f"the runtime is {path} ({step.kind})")

    def _wrap(self, step: schema.Wrap) -> None:
        import shutil

        argv = [expand(word, self.variables) for word in step.argv]
        found = shutil.which(argv[0])
        if found is None:
            raise HostError(f"{argv[0]} is not on this host")
        self.prefix += [found, *argv[1:]]
        self.done.append(f"the runtime is called through {' '.join(argv)}")

    def _denysyscalls(self, step: schema.DenySyscalls) -> None:
        import errno

        numbers = ",".join(str(shim.syscall_number(name)) for name in step.names)
        program = str(data_root() / "payload" / "deny")
        self.prefix += [program, str(getattr(errno, step.errno)), numbers]
        self.done.append(f"{', '.join(step.names)} fail with {step.errno}")

    def _takenid(self, step: schema.TakenId) -> None:
        other = self.session.container(self.runtime, "pause", f"{self.variables['id']}-holder")
        client = other.client
        renamed = Container(client, other.bundle, self.variables["id"])
        renamed.create()
        self.undo.callback(other.clean_up)
        self.undo.callback(renamed.clean_up)
        self.done.append(f"container {self.variables['id']} is there already")

    def _later(self, moment: schema.Moment, action: Callable[[Container], None], words: str) -> None:
        self.later.setdefault(moment, []).append(action)
        self.done.append(f"{moment}: {words}")

    def _statefile(self, step: schema.StateFile) -> None:
        directory = Path(self.variables["root"]) / self.variables["id"]

        def change(_: Container) -> None:
            for name in ("state.json", "status", "meta.json"):
                file = directory / name
                if not file.exists():
                    continue
                before = file.read_bytes()
                self.undo.callback(_put_back, file, before)
                if step.change == "remove":
                    file.unlink()
                else:
                    file.write_bytes(before[: len(before) // 2] if step.change == "truncate" else b"\0garbage")

        self._later(step.when, change, f"{step.change} the runtime's record in {directory}")

    def _killinit(self, step: schema.KillInit) -> None:
        def kill(container: Container) -> None:
            if container.init is not None:
                container.init.signal(signal.SIGKILL)
                container.wait(10.0)

        self._later(step.when, kill, "kill -9 init")

    def _globaloptions(self, step: schema.GlobalOptions) -> None:
        self.global_args += [expand(word, self.variables) for word in step.args]
        self.done.append(f"global options {' '.join(step.args)}")

    def _createarguments(self, step: schema.CreateArguments) -> None:
        self.create_args += [expand(word, self.variables) for word in step.args]
        self.done.append(f"create options {' '.join(step.args)}")

    def _deadline(self, step: schema.Deadline) -> None:
        self.timeout_s = step.seconds

    def close(self) -> None:
        """Take everything back. Raises HostError with what would not go back; the rest is taken back all the same."""
        try:
            self.undo.close()
        except (HarnessError, OSError) as error:
            raise HostError(f"the node could not be put back: {error}") from None


def _fill_bytes(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def _fill_inodes(path: Path) -> None:
    with contextlib.suppress(OSError):
        for index in range(1_000_000):
            (path / f"filler{index}").touch()


def _write_value(file: Path, value: str) -> None:
    if file.exists():
        file.write_text(value)


def _put_back(file: Path, content: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        file.write_bytes(content)
