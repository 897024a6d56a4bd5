"""Reversible changes of the node for one attempt. Mounts are made in the session's private mount namespace."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import string
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from harness.errors import HarnessError, HostError, InputError
from harness.faults import apparmor, key_quota, node_cgroups, schema
from harness.kernel import shim
from harness.oci.recipe import data_root
from harness.oci.spec import Config
from harness.process import companion
from harness.process.children import Child
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.failures import check
from harness.runtime.session import Session

# What ${NAME} may stand for in a fault file.
VARIABLES = ("id", "bundle", "rootfs", "work", "run", "cgroup", "root")
REMOUNT_FLAGS = {
    "ro": shim.MS_RDONLY,
    "noexec": shim.MS_NOEXEC,
    "nosuid": shim.MS_NOSUID,
    "nodev": shim.MS_NODEV,
}
# Flags and options that deny-syscalls may name; {name: what the deny program compares the first argument with}
CALL_FLAGS = {
    **{f"CLONE_NEW{kind.upper()}": f"&{flag}" for kind, flag in shim.CLONE_FLAGS.items() if kind != "mnt"},
    "CLONE_NEWNS": f"&{shim.CLONE_FLAGS['mnt']}",
    "PR_SET_SECCOMP": "=22",
    "PR_CAPBSET_DROP": "=24",
    "PR_SET_NO_NEW_PRIVS": "=38",
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


def filtered_call(name: str) -> str:
    """`unshare(CLONE_NEWUSER)` as the deny program takes it: `272&268435456`. Raises InputError, OSError."""
    call, _, flag = name.removesuffix(")").partition("(")
    if flag and flag not in CALL_FLAGS:
        raise InputError(f"{name}: there is no {flag!r}; allowed there: {', '.join(CALL_FLAGS)}")
    return f"{shim.syscall_number(call)}{CALL_FLAGS[flag] if flag else ''}"


def apply_patches(config: Config, patches: list[schema.Patch], variables: dict[str, str]) -> list[str]:
    """Change config.json as a fault says; returns what was done, in words."""
    done = []
    for patch in patches:
        if patch.delete:
            config.delete(patch.pointer)
        else:
            config.set(patch.pointer, expand_all(patch.value, variables))
        value = "(deleted)" if patch.delete else msgspec.json.encode(patch.value).decode()
        done.append(f"config.json {patch.pointer} = {value}")
    return done


class Node(Struct):
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
    frozen: list[str] = field(default_factory=list)  # paths of cgroups; see node_cgroups.thaw_after

    def path(self, text: str) -> Path:
        return Path(expand(text, self.variables))

    def apply(self, step: schema.NodeStep) -> None:
        """Raises OSError, HarnessError where this node will not be changed so."""
        getattr(self, "_" + type(step).__name__.lower())(step)

    def at(self, moment: schema.Moment, container: Container) -> None:
        for action in self.later.get(moment, []):
            action(container)

    def _mounted(self, path: Path) -> None:
        """To be taken away later; may be called in the namespace's own thread."""
        self.undo.callback(self.session.namespace.call, shim.umount, str(path), shim.MNT_DETACH)

    def _tmpfs(self, step: schema.Tmpfs) -> None:
        path = self.path(step.path)
        options = [f"size={step.bytes}", "mode=755"]
        options += [f"nr_inodes={step.inodes}"] if step.inodes else []
        options += [step.options] if step.options else []

        def mount() -> None:
            path.mkdir(parents=True, exist_ok=True)
            kept = self.path("${work}/kept")
            if step.keep:
                shutil.copytree(path, kept, symlinks=True)
            shim.mount("oci-harness", str(path), "tmpfs", 0, ",".join(options))
            self._mounted(path)
            if step.keep:
                shutil.copytree(kept, path, symlinks=True, dirs_exist_ok=True)
            if step.fill == "bytes":
                _fill_bytes(path / "filler")
            elif step.fill == "inodes":
                _fill_inodes(path)

        self.session.namespace.call(mount)
        self.done.append(f"mount -t tmpfs -o {','.join(options)} none {path}; fill its {step.fill}")

    def _remount(self, step: schema.Remount) -> None:
        path = self.path(step.path)
        if step.whole:
            self._readonly(path)
            return
        flags = 0
        for name in step.flags:
            flags |= REMOUNT_FLAGS.get(name, 0)

        def mount() -> None:
            shim.mount(str(path), str(path), None, shim.MS_BIND)
            self._mounted(path)
            if flags:
                shim.mount(None, str(path), None, shim.MS_BIND | shim.MS_REMOUNT | flags)
            for name in step.flags:
                if name in PROPAGATION:
                    shim.mount(None, str(path), None, PROPAGATION[name])

        self.session.namespace.call(mount)
        self.done.append(f"mount --bind {path} {path}; mount -o remount,bind,{','.join(step.flags)} {path}")

    def _readonly(self, path: Path) -> None:
        if path != self.path("${rootfs}"):
            raise HostError(f"a fault may make only the bundle's own ${{rootfs}} read-only as a whole, not {path}")
        remount = partial(self.session.namespace.call, shim.mount, None, str(path), None)
        remount(shim.MS_REMOUNT | shim.MS_RDONLY)
        self.undo.callback(remount, shim.MS_REMOUNT)
        self.done.append(f"mount -o remount,ro {path}")

    def _hostpath(self, step: schema.HostPath) -> None:
        path = self.path(step.path)
        if ".." in path.parts or not path.is_relative_to(self.variables["bundle"]):
            raise HostError(f"a fault may only change ${{bundle}} and what is below it, not {path}")
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
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        self.done.append(f"{step.kind} {path}")

    def _cgroup(self, step: schema.Cgroup) -> None:
        node_cgroups.make(self, step)

    def child(self, *argv: str, stdin: int | None = None, stdout: int | None = None) -> Child:
        """A process that lives as long as the attempt."""
        child = companion.start(argv, stdin, stdout)
        self.undo.callback(child.kill)
        return child

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
        argv = [expand(word, self.variables) for word in step.argv]
        found = shutil.which(argv[0])
        if found is None:
            raise HostError(f"{argv[0]} is not on this host")
        self.prefix += [found, *argv[1:]]
        self.done.append(f"the runtime is called through {' '.join(argv)}")

    def _denysyscalls(self, step: schema.DenySyscalls) -> None:
        numbers = ",".join(filtered_call(name) for name in step.names)
        program = str(data_root() / "payload" / "deny")
        self.prefix += [program, str(getattr(errno, step.errno)), numbers]
        self.done.append(f"{', '.join(step.names)} fail with {step.errno}")

    def _keyquota(self, step: schema.KeyQuota) -> None:
        key_quota.use_up(self, step)

    def _apparmorprofile(self, step: schema.AppArmorProfile) -> None:
        name = expand(step.name, self.variables)
        apparmor.load(name, step.rules)
        self.undo.callback(apparmor.remove, name)
        self.done.append(f"apparmor_parser -r: profile {name} {{ {' '.join(step.rules.split())} }}")

    def _takenid(self, step: schema.TakenId) -> None:
        other = self.session.container(self.runtime, "pause", f"{self.variables['id']}-holder")
        client = other.client
        self.undo.callback(other.clean_up)
        renamed = Container(client, other.bundle, self.variables["id"])
        self.undo.callback(renamed.clean_up)
        check(renamed.create())
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


def _put_back(file: Path, content: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        file.write_bytes(content)
