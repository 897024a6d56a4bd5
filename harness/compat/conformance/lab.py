"""Containers for the cases: a small config.json with a case's own part in it, and what the container says of itself."""

from __future__ import annotations

import errno
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct, field

from harness.cgroup.hierarchy import Mount, parse_mountinfo
from harness.kernel import shim
from harness.oci.bundle import Template
from harness.oci.recipe import merge_patch
from harness.oci.rootfs import build_default
from harness.oci.spec import Config
from harness.oci.version import minimum_version
from harness.process.command import Stdio
from harness.process.operation import Operation
from harness.runtime.client import Client
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.failures import check, describe
from harness.runtime.options import CreateOptions
from harness.runtime.session import Session

ANSWER_TIMEOUT_S = 10.0
END = b'"end"\n'

PROC: dict[str, Any] = {"destination": "/proc", "type": "proc", "source": "proc"}
DEV: list[dict[str, Any]] = [
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
    },
]
NAMESPACES: list[dict[str, Any]] = [{"type": "pid"}, {"type": "mount"}]
# What every case starts from. As little as a runtime takes: a field that a case is not about can neither fail nor
# help it.
BASE: dict[str, Any] = {
    "ociVersion": "",
    "process": {"user": {"uid": 0, "gid": 0}, "args": [], "env": ["PATH=/"], "cwd": "/"},
    "root": {"path": "rootfs"},
    "mounts": [PROC],
    "linux": {"namespaces": NAMESPACES},
}

_NUMBERS = {
    "x86_64": {"openat": 257, "getpriority": 140, "ioprio_get": 252, "getpgid": 121, "getsid": 124, "close": 3},
    "aarch64": {"openat": 56, "getpriority": 141, "ioprio_get": 31, "getpgid": 155, "getsid": 156, "close": 57},
}
SYSCALLS = _NUMBERS.get(platform.machine(), _NUMBERS["x86_64"])

Words = tuple[str, ...]


def read(path: str) -> Words:
    """Ask for a file's text, seen from inside."""
    return ("read", path)


def link(path: str) -> Words:
    """Ask where a symbolic link points to, seen from inside."""
    return ("link", path)


def call(name: str, *arguments: int | str) -> Words:
    """Ask for the result of a system call: >= 0 or -errno. A string is passed as a pointer to it."""
    return ("call", str(SYSCALLS[name]), *(f"@{each}" if isinstance(each, str) else str(each) for each in arguments))


def opened(path: str, flags: int = os.O_RDONLY) -> Words:
    """Ask for the result of openat(2)."""
    return call("openat", -100, path, flags, 0)


def args_for(questions: tuple[Words, ...]) -> list[str]:
    words: list[str] = []
    for question in questions:
        words += [*([","] if words else []), *question]
    return ["/payload", "ask", *words]


class Running(Struct):
    """A container whose process has answered and waits."""

    container: Container
    answers: dict[Words, list[Any]]

    @property
    def own_kernel(self) -> bool:
        """Whether Linux is emulated in there: then its /proc lacks much, which is no matter of the spec."""
        return not self.container.client.runtime.dialect.shares_host_clock

    @property
    def pid(self) -> int:
        """Of the container's process, on this host."""
        assert self.container.init is not None
        return self.container.init.pid

    def text(self, question: Words) -> str:
        """Fails the case when the file could not be read inside; skips it where that says nothing of the runtime."""
        error, text = self.answers[question]
        if error == -errno.ENOENT and self.own_kernel and question[1].startswith("/proc/"):
            pytest.skip(f"the runtime's own kernel has no {question[1]}")
        assert error == 0, f"{' '.join(question)} inside the container: {os.strerror(-error)}"
        return str(text)

    def result(self, question: Words) -> int:
        return int(self.answers[question][0])

    def status(self, name: str) -> str:
        """A line of /proc/self/status; the container must have been asked for it."""
        lines = dict(line.split(":", 1) for line in self.text(STATUS).splitlines() if ":" in line)
        if name not in lines and self.own_kernel:
            pytest.skip(f"the runtime's own kernel has no {name} in /proc/self/status")
        return lines[name].strip()

    def mounts(self) -> list[Mount]:
        return parse_mountinfo(self.text(MOUNTS))

    def mount(self, where: str) -> Mount:
        """The mount on top of `where`. Fails the case when nothing is mounted there."""
        found = [mount for mount in self.mounts() if mount.mount_point == where]
        assert found, f"nothing is mounted on {where}: {[mount.mount_point for mount in self.mounts()]}"
        return found[-1]

    def stat(self, path: str) -> os.stat_result:
        """Of a path in the container's root, from outside; follows no link at its end."""
        return os.stat(f"/proc/{self.pid}/root{path}", follow_symlinks=False)


STATUS = read("/proc/self/status")
MOUNTS = read("/proc/self/mountinfo")


def namespace(kind: str) -> Words:
    return link(f"/proc/self/ns/{kind}")


def build_rootfs(target: Path) -> None:
    """The default root file system, with what the cases look at."""
    build_default(target)
    for name in ("secrets", "writable", "m", "m/a", "m/b"):
        (target / name).mkdir()
        (target / name).chmod(0o755)
    for name in ("secret", "secrets/file", "writable/file"):
        (target / name).write_text("plain\n")
        (target / name).chmod(0o666)


class Stage(Struct):
    """What the cases of one module on one runtime share."""

    session: Session
    runtime: Runtime
    lower: Path
    running: dict[str, Running] = field(default_factory=dict)

    def close(self) -> list[str]:
        left = [line for each in self.running.values() for line in each.container.clean_up()]
        self.running.clear()
        return left


class Lab(Struct):
    """Makes one case's containers; `close` ends those that are not shared. `documents`: each config.json it used."""

    stage: Stage
    documents: list[dict[str, Any]] = field(default_factory=list)
    made: list[Container] = field(default_factory=list)

    @property
    def session(self) -> Session:
        return self.stage.session

    @property
    def runtime(self) -> Runtime:
        return self.stage.runtime

    @property
    def client(self) -> Client:
        """For calls about a container that this case did not make."""
        logs = self.session.workspace.path / "conformance"
        logs.mkdir(exist_ok=True)
        return self.session.client(self.runtime, logs)

    def document(self, patch: dict[str, Any], questions: tuple[Words, ...] = ()) -> dict[str, Any]:
        """BASE with the merge patch on it; without args of its own the process answers the questions."""
        document: dict[str, Any] = merge_patch(BASE, patch)
        if document.get("process") and not document["process"]["args"]:
            document["process"]["args"] = args_for(questions)
        document["ociVersion"] = document["ociVersion"] or minimum_version(document)
        return document

    def container(
        self, patch: dict[str, Any], *questions: Words, container_id: str | None = None, stdio: Stdio | None = None
    ) -> Container:
        """Not yet created; gone at the end of the case."""
        made = self._make(self.document(patch, questions), container_id, stdio)
        self.made.append(made)
        return made

    def _make(self, document: dict[str, Any], container_id: str | None, stdio: Stdio | None) -> Container:
        template = Template(Config(document), self.stage.lower)
        made = self.session.container(self.runtime, template, container_id, stdio=stdio)
        asked = document["linux"].get("cgroupsPath")
        if asked is not None:  # instead of the run's own
            self.rewrite(made, {"linux": {"cgroupsPath": asked}})
        self.documents.append(made.bundle.config.document)
        return made

    def rewrite(self, container: Container, patch: dict[str, Any]) -> None:
        """Put a merge patch on a container's config.json."""
        document = merge_patch(container.bundle.config.document, patch)
        container.bundle.config.document.clear()
        container.bundle.config.document.update(document)
        (container.bundle.path / "config.json").write_bytes(container.bundle.config.encode())

    def created(self, patch: dict[str, Any], *questions: Words, **options: Any) -> Container:
        """Created; raises OperationFailed."""
        container = self.container(patch, *questions, **options)
        check(container.create())
        return container

    def run(
        self,
        patch: dict[str, Any],
        *questions: Words,
        container_id: str | None = None,
        prepare: Callable[[Container], None] = lambda _: None,
    ) -> Running:
        """A container of this case alone, started; its answers are there. `prepare` is called before its create."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            container = self.container(patch, *questions, container_id=container_id, stdio=Stdio(stdout=writer))
            prepare(container)
            return _answered(container, questions, reader, writer)
        finally:
            os.close(reader)

    def share(self, patch: dict[str, Any], *questions: Words) -> Running:
        """The same container for all cases of a module that ask the same."""
        document = self.document(patch, questions)
        key = json.dumps(document)
        if key not in self.stage.running:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            container = self._make(document, None, Stdio(stdout=writer))
            try:
                self.stage.running[key] = _answered(container, questions, reader, writer)
            except BaseException:
                container.clean_up()
                raise
            finally:
                os.close(reader)
        else:
            self.documents.append(self.stage.running[key].container.bundle.config.document)
        return self.stage.running[key]

    def refused(self, patch: dict[str, Any], *, at_start: bool = False) -> Operation:
        """The runtime must generate an error, and no container may be there then.

        `at_start`: the error may come from `start` as well. Fails the case otherwise.
        """
        container = self.container(patch)
        operation = container.create()
        if operation.exit_status == 0 and at_start:
            operation = container.start()
        assert not operation.timed_out, describe(operation)
        assert operation.exit_status != 0, f"{self.runtime.name} {operation.verb} generated no error"
        if operation.verb == "create":
            assert not self.exists(container.id), f"the create failed ({operation.message}), but a container was made"
        return operation

    def exists(self, container_id: str) -> bool:
        from harness.runtime.options import STATE

        return self.client.call(STATE, container_id).exit_status == 0

    def close(self) -> list[str]:
        left = [line for container in self.made for line in container.clean_up()]
        self.made.clear()
        return left


def _answered(container: Container, questions: tuple[Words, ...], reader: int, writer: int) -> Running:
    """Create and start; wait until the process has answered. Closes `writer`."""
    try:
        check(container.create())
    finally:
        os.close(writer)
    check(container.start())
    return Running(container, dict(zip(questions, _answers(reader), strict=True)))


def _answers(reader: int) -> list[list[Any]]:
    seen = b""
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while not seen.endswith(END):
        left = deadline - time.monotonic()
        ready = left > 0 and shim.poll(reader, shim.POLLIN, int(left * 1e9))
        part = os.read(reader, 65536) if ready else b""
        assert part, f"the container's process ended or hung before its answers were complete; it wrote {seen[-200:]!r}"
        seen += part
    return [json.loads(line) for line in seen.splitlines()[1:-1]]


def terminal(container: Container, console_socket: str) -> CreateOptions:
    """Options of a create that hands the terminal over."""
    return CreateOptions(
        str(container.bundle.path), f"{container.directory}/pid", console_socket=console_socket, stdio=Stdio()
    )


@contextmanager
def closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
