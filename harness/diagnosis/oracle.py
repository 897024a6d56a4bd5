"""What becomes of one config.json on one runtime: it starts, or it fails, and then where and of what cause."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from harness.diagnosis.rules import SYMPTOM_ONLY
from harness.errors import OperationError
from harness.faults import leaks
from harness.oci import pointer as json_pointer
from harness.oci.bundle import Template
from harness.oci.rootfs import copy_file, payload_binary
from harness.oci.spec import Config
from harness.process.operation import Operation

if TYPE_CHECKING:
    from harness.runtime.container import Container
    from harness.runtime.discovery import Runtime
    from harness.runtime.session import Session

SETTLE_S: Final = 1.0  # so long may a program of the bundle's own take to fail after start
_TAIL: Final = 16384  # characters of a stream that are looked at

# What makes it the same failure, where the text says it; all other fields are values and places that may differ.
_SUBJECT: Final = ("errno", "cgroup_file", "controller", "sysctl", "syscall", "capability", "profile", "rlimit")
_CHANGING: Final = re.compile(r"oci-harness-[\w.-]+|[/\w.-]*/[\w./-]*|\b0x[0-9a-f]+\b|\d+")


class Outcome(Struct, frozen=True):
    """`stage` None: it started, and its program had not failed when it was ended."""

    stage: str | None
    text: str = ""  # the runtime's last word, or the last line of the program's stderr
    cause: str | None = None  # None: it fails, and no rule knows the text
    variant: str | None = None
    side: str | None = None
    clause: str = ""  # the decisive part of the text
    fields: dict[str, str] = field(default_factory=dict)
    exit_status: int | None = None
    timed_out: bool = False
    calls: int = 0  # operations of the runtime

    @property
    def word(self) -> str:
        return "starts" if self.stage is None else "fails"

    @property
    def family(self) -> tuple[str, ...]:
        """Stage and cause; of what has no name the words of the text without paths and numbers."""
        if self.cause not in (None, SYMPTOM_ONLY):
            return (self.stage or "", self.cause or "", self.variant or "")
        words = " ".join(_CHANGING.sub("#", self.clause or self.text).lower().split())
        return (self.stage or "", words or f"exit status {self.exit_status}")

    @property
    def kind(self) -> tuple[str, ...]:
        """What must not change from run to run: a race may put one cause into other words."""
        return self.family if self.cause is None else (self.stage or "", self.cause)

    def same(self, other: Outcome) -> bool:
        """Whether both are one failure: the same cause at the same stage, of the same thing where both name it."""
        return (
            self.stage is not None
            and self.family == other.family
            and all(self.fields.get(name) == other.fields.get(name) for name in _SUBJECT if name in other.fields)
        )

    def describe(self) -> str:
        if self.stage is None:
            return "it starts"
        return (
            f"fails at {self.stage}: {self.cause or 'no known cause'}: {self.clause or self.text or 'without a word'}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "outcome": self.word,
            "stage": self.stage,
            "cause": self.cause,
            "variant": self.variant,
            "clause": self.clause,
            "text": self.text,
            "exit_status": self.exit_status,
        }


class Candidate(Struct, frozen=True):
    """A config.json to try. `lower`: what its rootfs, an overlay, shows."""

    document: dict[str, Any]
    lower: Path
    needs_payload: bool  # its command is the harness's own program
    relocated: bool  # it gets a cgroup of this run, in place of its own cgroupsPath


class Oracle:
    """Tries candidates in one session. Nothing of them stays, and the bundle itself is never written to."""

    def __init__(self, session: Session, runtime: Runtime, bundle: Path) -> None:
        self.session = session
        self.runtime = runtime
        self.bundle = bundle

    def run(self, candidate: Candidate, settle_s: float = SETTLE_S) -> Outcome:
        """One lifecycle. `settle_s`: how long a program of the bundle's own is watched, 0: not at all."""
        container = self.session.container(self.runtime, Template(Config({}), candidate.lower))
        own_path = None if candidate.relocated else json_pointer.one(candidate.document, "/linux/cgroupsPath", str)
        with self._cgroups_of(own_path):
            try:
                self._prepare(container, candidate)
                outcome = self._lifecycle(container, candidate, settle_s)
            finally:
                try:
                    container.clean_up()
                finally:
                    leaks.sweep(self.session, container)
        return replace(outcome, calls=len(container.operations))

    def _prepare(self, container: Container, candidate: Candidate) -> None:
        config = container.bundle.config
        cgroups_path = config.get("/linux/cgroupsPath")
        config.document = candidate.document
        if candidate.relocated and isinstance(candidate.document.get("linux"), dict):
            config.document = {
                **candidate.document,
                "linux": {**candidate.document["linux"], "cgroupsPath": cgroups_path},
            }
        config.save(container.bundle.path / "config.json")
        link_relative(candidate.document, self.bundle, container.bundle.path)
        if candidate.needs_payload:
            self.session.namespace.call(place_payload, container.bundle.path / "rootfs")

    def _lifecycle(self, container: Container, candidate: Candidate, settle_s: float) -> Outcome:
        verbs: tuple[Callable[[], Operation], ...] = (container.create, container.start)
        try:
            for verb in verbs:
                if _failed(operation := verb()):
                    return _of_operation(operation)
            patience_s = (self.session.timeout_s or SETTLE_S) if candidate.needs_payload else settle_s
            try:
                ended = container.wait(patience_s)
            except TimeoutError:
                return Outcome(None)  # it runs; cleaning up ends it
            if ended.status != 0:
                return _of_program(container, ended.status)
            return _of_operation(operation) if _failed(operation := container.delete()) else Outcome(None)
        except OperationError as error:
            return _of_operation(error.operation)

    @contextlib.contextmanager
    def _cgroups_of(self, cgroups_path: str | None) -> Iterator[None]:
        """Afterwards the cgroups of a path that is not ours are as before: what was not there is removed if empty."""
        if cgroups_path is None:
            yield
            return
        names = {name for name in cgroups_path.replace(":", "/").split("/") if name not in ("", ".", "..")}
        call, layout = self.session.namespace.call, self.session.layout
        mount_points = [hierarchy.mount_point for hierarchy in layout.hierarchies]
        before = call(_directories, mount_points)
        try:
            yield
        finally:
            new = [each for each in call(_directories, mount_points) - before if names & {*each.split("/")[1:]}]
            call(_remove_empty, sorted(new, key=len, reverse=True))


def _directories(mount_points: list[str]) -> set[str]:
    return {directory for root in mount_points for directory, _, _ in os.walk(root)}


def _remove_empty(directories: list[str]) -> None:
    for each in directories:
        with contextlib.suppress(OSError):  # in use by now, so not ours alone
            os.rmdir(each)  # noqa: PTH106 - a cgroup's directory goes by its name as the walk gave it


def place_payload(rootfs: Path) -> None:
    """The harness's program as /payload, in place of what the image may have there."""
    target = rootfs / "payload"
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    copy_file(payload_binary(), target)
    target.chmod(0o755)


def link_relative(document: dict[str, Any], bundle: Path, directory: Path) -> None:
    """Sources of bind mounts may be relative to the bundle: link what they begin with."""
    for _, source in json_pointer.select(document, "/mounts/*/source", str):
        first = source.split("/")[0]
        if first in ("", ".", "..") or not os.path.lexists(bundle / first) or os.path.lexists(directory / first):
            continue
        (directory / first).symlink_to(bundle / first)


def _failed(operation: Operation) -> bool:
    return operation.exit_status != 0 or operation.timed_out


def _of_operation(operation: Operation) -> Outcome:
    """What the runtime said, its last word first; where that has no name, all of its errors."""
    stderr = operation.stderr.decode(errors="replace")[-_TAIL:]
    errors = [record.msg for record in operation.log if record.level in ("error", "fatal", None)]
    outcome = _named(operation.verb, [operation.message, "\n".join([*errors, stderr])], operation.exit_status)
    if operation.timed_out:
        return replace(outcome, timed_out=True, cause=outcome.cause or "runtime-timeout")
    return outcome


def _of_program(container: Container, status: int) -> Outcome:
    """What the container's process said before it ended; before its exec that is the runtime's own child."""
    said = container.stderr.decode(errors="replace")[-_TAIL:].strip()
    return _named("run", [said.rpartition("\n")[2], said], status)


def _named(stage: str, texts: list[str], exit_status: int) -> Outcome:
    """The first of `texts` in which a cause is found; else what is said of the first."""
    from harness.diagnosis import diagnose

    primaries = [primary for text in texts if (primary := diagnose(text).primary) is not None]
    best = next((each for each in primaries if each.named), primaries[0] if primaries else None)
    if best is None:
        return Outcome(stage, texts[0], exit_status=exit_status)
    return Outcome(
        stage,
        texts[0],
        best.cause,
        best.variant,
        best.side,
        best.decisive,
        dict(best.fields),
        exit_status,
    )
