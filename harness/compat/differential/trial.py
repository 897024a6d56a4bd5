"""One config.json on one runtime: created, started, looked at, ended, deleted; and nothing of it left."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from harness.cgroup.hierarchy import parse_proc_cgroup
from harness.compat.differential.bounds import OWN_PATH, WAITS, marked_path
from harness.compat.differential.edits import Document, encode
from harness.compat.differential.observed import Facts, changed_files, observe, worded
from harness.diagnosis import diagnose
from harness.diagnosis.oracle import Outcome, link_relative, place_payload
from harness.errors import OperationError
from harness.faults import leaks
from harness.oci import pointer as json_pointer
from harness.oci.bundle import Template
from harness.oci.spec import Config
from harness.process.command import Stdio
from harness.process.operation import Operation
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.session import Session

SETTLE_S: Final = 0.3  # so long may the container's program take to show that it runs, or to end
_TAIL: Final = 16384  # characters of a stream that are looked at


class Behaviour(Struct, frozen=True):
    """`outcome.stage` None: it started. `facts` of a container that ran; empty where none can be had."""

    outcome: Outcome
    facts: Facts = field(default_factory=dict)
    leaks: tuple[str, ...] = ()  # what was there after delete, or after a create that failed

    @property
    def word(self) -> str:
        """How it ended, in the words that differences are known by."""
        found = self.outcome
        if found.timed_out:
            return f"hangs at {found.stage}"
        return "runs" if found.stage is None else f"fails at {found.stage}"


class Trial:
    """Runs documents in one session; `lower` is what their rootfs shows, `source` the bundle that they come from."""

    def __init__(self, session: Session, lower: Path, source: Path | None = None) -> None:
        self.session = session
        self.lower = lower
        self.source = source
        # what the container and its runtime say on stderr: one file for all, emptied before each
        path = session.workspace.path / "stderr"
        self._said = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._own_paths = {line.path for line in parse_proc_cgroup(_own_cgroups())} - {"/"}
        self.operations = 0
        self._serial = 0

    def run(self, runtime: Runtime, document: Document) -> Behaviour:
        """One lifecycle. Raises HostError, OSError only for what the harness itself cannot do."""
        self._serial += 1
        # in the id, so that the cgroup which a runtime takes by default has the run's name too
        container_id = f"{self.session.workspace.name}-{self._serial}"
        container: Container | None = None
        with contextlib.ExitStack() as descriptors:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            descriptors.callback(os.close, reader)
            descriptors.callback(os.close, writer)
            try:
                template = Template(Config({}), self.lower)
                stdio = Stdio(stdout=writer, stderr=self._said)
                os.ftruncate(self._said, 0)
                container = self.session.container(runtime, template, container_id, stdio=stdio)
                words = self._words(container)
                self._prepare(container, document)
                return self._lifecycle(container, reader, words)
            finally:
                if container is not None:
                    self._end(container)

    def _end(self, container: Container) -> None:
        try:
            container.clean_up()
        finally:
            self.operations += len(container.operations)
            leaks.sweep(self.session, container)

    def _words(self, container: Container) -> dict[str, str]:
        """What of this run stands in the facts: longest first."""
        workspace = self.session.workspace
        own = {path.lstrip("/"): "OWN" for path in sorted(self._own_paths, key=len, reverse=True)}
        words = {str(container.directory): "BUNDLE", container.id: "ID", str(workspace.path): "RUN"}
        return {**words, workspace.name: "RUN", **own}

    def close(self) -> None:
        os.close(self._said)

    def _stderr(self) -> str:
        return os.pread(self._said, _TAIL, max(0, os.fstat(self._said).st_size - _TAIL)).decode(errors="replace")

    def _prepare(self, container: Container, document: Document) -> None:
        config = container.bundle.config
        own = config.get("/linux/cgroupsPath")
        config.document = document
        path = json_pointer.one(document, "/linux/cgroupsPath", str)
        if path is not None:
            marked = own if path == OWN_PATH else marked_path(path, container.id)
            config.document = {**document, "linux": {**document["linux"], "cgroupsPath": marked or own}}
        (container.bundle.path / "config.json").write_bytes(encode(config.document))
        if self.source is not None:
            link_relative(document, self.source, container.bundle.path)
            self.session.namespace.call(place_payload, container.bundle.path / "rootfs")

    def _lifecycle(self, container: Container, reader: int, words: dict[str, str]) -> Behaviour:
        try:
            if _failed(operation := container.create()):
                return self._failure(container, operation, words)
            if _failed(operation := container.start()):
                return self._failure(container, operation, words)
            if not self._alive(container, reader):
                return self._ended(container, words)
            facts = self._facts(container, words)
            if container.init is not None:
                container.init.signal(signal.SIGKILL)
            with contextlib.suppress(TimeoutError, OSError):
                container.wait(5.0)
            return self._deleted(container, Outcome(None), facts, words)
        except OperationError as error:
            return self._failure(container, error.operation, words)

    @staticmethod
    def _alive(container: Container, reader: int) -> bool:
        """Whether the program runs: a payload that waits says so with a stamp, any other by not ending at once."""
        assert container.init is not None
        waits = select.poll()
        stays = container.bundle.config.get("/process/args", None) == WAITS
        for fd in (container.init.pidfd, *([reader] if stays else [])):
            waits.register(fd, select.POLLIN)
        ready = [fd for fd, _ in waits.poll(SETTLE_S * 1000)]
        return container.init.pidfd not in ready

    def _facts(self, container: Container, words: dict[str, str]) -> Facts:
        facts: Facts = {}
        with contextlib.suppress(OperationError, OSError):
            state = container.state()
            facts["state status"] = state.status
            facts["state ociVersion"] = state.oci_version
            facts["state annotations"] = " ".join(f"{name}={text}" for name, text in sorted(state.annotations.items()))
        if not container.client.runtime.dialect.uses_host_cgroups or container.init is None:
            return facts
        names = [place for place, _ in json_pointer.select(container.bundle.config.document, "/linux/sysctl/*", str)]
        sysctls = [json_pointer.parse(place)[-1] for place in names]
        with contextlib.suppress(ProcessLookupError):
            facts |= observe(self.session, container.init.pid, sysctls, words=words)
            facts |= changed_files(container.directory / "upper", words)
        return facts

    def _ended(self, container: Container, words: dict[str, str]) -> Behaviour:
        """The program has ended by itself: well, or as a failure of stage run."""
        ended = container.wait(5.0)
        outcome = Outcome(None, exit_status=0)
        if ended.status != 0:
            said = self._stderr().strip()
            outcome = named("run", [said.rpartition("\n")[2], said], ended.status)
        return self._deleted(container, outcome, {"process exit status": str(ended.status)}, words)

    def _deleted(self, container: Container, outcome: Outcome, facts: Facts, words: dict[str, str]) -> Behaviour:
        operation = container.delete()
        if outcome.stage is None and _failed(operation):
            return self._failure(container, operation, words)
        return Behaviour(outcome, facts, self._left(container, words))

    def _failure(self, container: Container, operation: Operation, words: dict[str, str]) -> Behaviour:
        stderr = self._stderr()
        errors = [record.msg for record in operation.log if record.level in ("error", "fatal", None)]
        outcome = named(
            operation.verb,
            [operation.message or stderr.strip().rpartition("\n")[2], "\n".join([*errors, stderr])],
            operation.exit_status,
        )
        if operation.timed_out:
            outcome = replace(outcome, timed_out=True)
        outcome = replace(outcome, text=worded(outcome.text, words), clause=worded(outcome.clause, words))
        left = self._left(container, words) if operation.verb in ("create", "delete") else ()
        return Behaviour(outcome, {}, left)

    def _left(self, container: Container, words: dict[str, str]) -> tuple[str, ...]:
        left = leaks.left_since(self.session, container, set())
        told = set()
        for line in left:
            where = worded(line, words).partition(" in ")[0]
            told.add(where if where.startswith("cgroup") else where.partition(":")[0])
        return tuple(sorted(told))


def _own_cgroups() -> str:
    return Path("/proc/self/cgroup").read_bytes().decode(errors="backslashreplace")


def _failed(operation: Operation) -> bool:
    return operation.exit_status != 0 or operation.timed_out


def named(stage: str, texts: list[str], exit_status: int) -> Outcome:
    """The first of `texts` in which a cause is found; else what is said of the first."""
    primaries = [primary for text in texts if (primary := diagnose(text).primary) is not None]
    best = next((each for each in primaries if each.named), primaries[0] if primaries else None)
    if best is None:
        return Outcome(stage, texts[0], exit_status=exit_status)
    return Outcome(stage, texts[0], best.cause, best.variant, best.side, best.decisive, dict(best.fields), exit_status)
