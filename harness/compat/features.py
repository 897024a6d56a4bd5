"""What a runtime declares, what it accepts in config.json, and what really shows in the container: three columns."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from harness.compat.deny import not_running
from harness.compat.feature_cases import Feature, Hook, Shell, load_features, substituted
from harness.compat.feature_sight import Seen, Sight
from harness.errors import HarnessError, InputError, OperationError
from harness.faults.preconditions import unmet
from harness.kernel import shim
from harness.oci import pointer
from harness.runtime.client import Client
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.failures import check
from harness.runtime.session import Session
from harness.runtime.workspace import remove_tree

SCHEMA: Final = "oci-harness/features/1"
# mount(2): MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME
STRICT: Final = shim.MS_RDONLY | shim.MS_NOSUID | shim.MS_NODEV | shim.MS_NOEXEC | 256 | 1024 | 2048


class Row(Struct, frozen=True):
    """One feature of one runtime. None: declared - it has no word for it; configured - not tried here (see `text`);
    exercised - nothing shows it, or it cannot be looked at."""

    feature: Feature
    declared: bool | None
    configured: bool | None
    exercised: bool | None
    text: str | None = None  # why not

    @property
    def columns(self) -> tuple[bool | None, bool | None, bool | None]:
        return self.declared, self.configured, self.exercised

    @property
    def contradiction(self) -> bool:
        """Declared and yet without effect, or not declared and yet done."""
        return self.declared is not None and self.exercised is not None and self.declared != self.exercised

    def to_json(self) -> dict[str, Any]:
        return {
            "group": self.feature.group,
            "name": self.feature.name,
            "declared": self.declared,
            "configured": self.configured,
            "exercised": self.exercised,
            "text": self.text,
        }


class Checked(Struct):
    """All rows of one runtime."""

    runtime: Runtime
    declares: bool  # whether it has a `features` command
    rows: list[Row] = field(default_factory=list)
    containers: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "runtime": self.runtime.name,
            "version": self.runtime.version,
            "path": self.runtime.path,
            "declares": self.declares,
            "containers": self.containers,
            "seconds": round(self.seconds, 3),
            "features": [row.to_json() for row in self.rows],
        }


def differences(found: Sequence[Checked]) -> list[tuple[Row, ...]]:
    """Rows, one of each runtime, that differ in what is accepted or shows; what is not known is no difference."""
    tables = [{row.feature.key: row for row in each.rows} for each in found]
    together = [tuple(table[key] for table in tables) for key in tables[0]] if tables else []
    return [
        rows
        for rows in together
        if any(len({known for row in rows if (known := row.columns[at]) is not None}) > 1 for at in (1, 2))
    ]


def declared_features(runtime: Runtime, directory: Path) -> dict[str, Any] | None:
    """The document of the runtime's `features` command; None where it has none, or prints something else."""
    if "features" not in runtime.verbs:
        return None
    try:
        return Client(runtime, str(directory), str(directory)).features().document
    except HarnessError:
        return None


def is_declared(feature: Feature, document: dict[str, Any] | None) -> bool | None:
    """None: the document has no word for it."""
    if document is None or feature.declared is None:
        return None
    where, value = feature.declared
    found = pointer.get(document, where, None)
    if value is not None:
        return value in found if isinstance(found, list) else None
    return found if isinstance(found, bool) else None


def _disk() -> tuple[int, int] | None:
    for entry in sorted(Path("/sys/block").glob("*")):
        major, minor = map(int, (entry / "dev").read_text().split(":"))
        if major not in (1, 7):  # ram, loop
            return major, minor
    return None


class Checker:
    """Checks one runtime in one session; use as a context manager."""

    def __init__(self, session: Session, runtime: Runtime) -> None:
        self.session = session
        self.runtime = runtime
        self.directory = session.workspace.path / f"features-{runtime.name}"
        self.marks = self.directory / "marks"
        self.disk = _disk()
        self.containers = 0
        self._listener: socket.socket | None = None
        self._no_agent: str | None = None

    def __enter__(self) -> Checker:
        self.marks.mkdir(parents=True)
        self.marks.chmod(0o777)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.session.namespace.call(self._make_tree)
            self._listen(self._listener)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _listen(self, listener: socket.socket) -> None:
        try:
            listener.bind(str(self.directory / "agent"))
        except OSError as error:  # the path is too long for a socket (unix(7))
            self._no_agent = f"{self.directory}/agent can be no socket: {error}"
            return
        listener.listen()
        listener.setblocking(False)

    def __exit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.close()
        for name in ("sub", "strict"):
            with contextlib.suppress(OSError):
                self.session.namespace.call(shim.umount, str(self.directory / "tree" / name), shim.MNT_DETACH)
        remove_tree(self.directory)

    def _make_tree(self) -> None:
        tree = self.directory / "tree"
        for name, flags in (("sub", 0), ("strict", STRICT)):
            (tree / name).mkdir(parents=True)
            shim.mount("oci-harness", str(tree / name), "tmpfs", flags)
        (tree / "mark").touch()

    def _words(self) -> dict[str, Any]:
        major, minor = self.disk or (0, 0)
        return {
            "tree": str(self.directory / "tree"),
            "marks": str(self.marks),
            "listener": str(self.directory / "agent"),
            "disk_major": major,
            "disk_minor": minor,
            "run": self.session.workspace.cgroup,
        }

    def inapplicable(self, feature: Feature) -> str | None:
        """Why this host has not what the feature needs."""
        own = {"disk": self._no_disk(), "io": self._no_io(), "agent": self._no_agent}
        for need in feature.needs:
            reason = own[need] if need in own else unmet(self.session, [need])
            if reason is not None:
                return reason
        return None

    def _no_disk(self) -> str | None:
        return None if self.disk else "no disk on this host"

    def _no_io(self) -> str | None:
        layout = self.session.layout
        return None if layout.version("io") or layout.version("blkio") else "no io controller in this view"

    def rows(self, features: Sequence[Feature], document: dict[str, Any] | None) -> list[Row]:
        """All in one container where that can be created; else halved until the one that is refused is found."""
        seen, refused = self._together(features)
        if len(features) > 1 and refused:
            middle = len(features) // 2
            return self.rows(features[:middle], document) + self.rows(features[middle:], document)
        found = []
        for feature in features:
            declared = is_declared(feature, document)
            if refused:
                found.append(Row(feature, declared, False, False, refused[feature.key]))
                continue
            result = seen[feature.key]
            if result.shows is False and len(features) > 1:  # perhaps another one's doing
                found += self.rows([feature], document)
            else:
                found.append(Row(feature, declared, True, result.shows, result.text))
        return found

    def _together(self, features: Sequence[Feature]) -> tuple[dict[str, Seen], dict[str, str]]:
        """({key: what shows}, {}) or, where the container cannot be created, ({}, {key: the runtime's words})."""
        self.containers += 1
        for mark in self.marks.iterdir():
            mark.unlink()
        settings: dict[object, tuple[str, Any]] = {}
        for feature in features:
            for index, (where, value) in enumerate(substituted(list(map(list, feature.settings)), self._words())):
                # the same thing asked for by two features is asked for once; what is appended stays apart
                settings[where if not where.endswith("/-") else (where, feature.key, index)] = (where, value)
        container = self._container(list(settings.values()))
        try:
            operation = container.create()
            if operation.exit_status != 0 or operation.timed_out:
                return {}, dict.fromkeys((feature.key for feature in features), operation.message)
            return self._look(container, features), {}
        except OperationError as error:
            return {}, dict.fromkeys((feature.key for feature in features), str(error))
        finally:
            container.clean_up()

    def _container(self, settings: list[tuple[str, Any]]) -> Container:
        """Settings are applied to a copy of the recipe's config, one after the other."""
        template = self.session.template("default", (("/process/args", ["/payload", "pause"]),))
        config = template.config.copy()
        for where, value in settings:
            _set(config.document, where, value)
        return self.session.container(self.runtime, replace(template, config=config))

    def _look(self, container: Container, features: Sequence[Feature]) -> dict[str, Seen]:
        assert self._listener is not None  # between __enter__ and __exit__
        sight = Sight(self.session, container, self.marks, self._listener)
        started = container.start()
        deadline_s = self.session.timeout_s or 10.0
        failure = not_running(container, deadline_s) if started.exit_status == 0 else None
        if started.exit_status != 0 or failure is not None:
            text = f"start: {started.message}" if failure is None else f"{failure.stage}: {failure.text}"
            return {feature.key: Seen(False, text) for feature in features}
        commands = [see.run for feature in features for see in feature.see if isinstance(see, Shell)]
        with contextlib.suppress(OperationError):
            sight.run_inside(commands)
        early = {id(see): sight.look(see) for feature in features for see in feature.see if not isinstance(see, Hook)}
        for step in (container.kill, lambda: container.wait(deadline_s), container.delete):
            with contextlib.suppress(OperationError, TimeoutError):
                step()
        return {
            feature.key: _worst([early[id(see)] if id(see) in early else sight.look(see) for see in feature.see])
            for feature in features
        }


def _set(document: dict[str, Any], where: str, value: Any) -> None:
    """As pointer.set, with parents that are missing made: an array for -, else an object."""
    tokens = pointer.parse(where)
    here: Any = document
    for token, following in itertools.pairwise(tokens):
        if isinstance(here, dict):
            if here.get(token) is None:
                here[token] = [] if following == "-" else {}
            here = here[token]
        else:
            here = here[int(token)]
    pointer.set(document, where, value)


def _worst(seen: list[Seen]) -> Seen:
    """All must hold; none to look at is None."""
    for wanted in (False, None):
        for each in seen:
            if each.shows is wanted:
                return each
    return Seen(True) if seen else Seen(None, "nothing shows it")


def _batches(features: Sequence[Feature]) -> Iterator[list[Feature]]:
    """Those that share a container: of one group, as far as they do not ask for one of their own."""
    shared: dict[str, list[Feature]] = {}
    for feature in features:
        if feature.alone:
            yield [feature]
        else:
            shared.setdefault(feature.group, []).append(feature)
    yield from shared.values()


def chosen_features(groups: Sequence[str]) -> tuple[Feature, ...]:
    """Those of the named groups, or all. Raises InputError."""
    features = load_features()
    known = list(dict.fromkeys(feature.group for feature in features))
    for group in groups:
        if group not in known:
            raise InputError(f"--group {group}: there are {', '.join(known)}")
    return tuple(feature for feature in features if not groups or feature.group in groups)


def check_features(
    session: Session,
    runtime: Runtime,
    features: Sequence[Feature],
    on_row: Callable[[Row], None] = lambda _: None,
) -> Checked:
    """Every feature on one runtime, in the order of the table. Raises HarnessError when the runtime does not work."""
    begin = time.monotonic()
    check(session.probe(runtime))
    found: dict[str, Row] = {}
    with Checker(session, runtime) as checker:
        document = declared_features(runtime, checker.directory)
        applicable = []
        for feature in features:
            reason = checker.inapplicable(feature)
            if reason is None:
                applicable.append(feature)
            else:
                found[feature.key] = Row(feature, is_declared(feature, document), None, None, reason)
        for batch in _batches(applicable):
            for row in checker.rows(batch, document):
                found[row.feature.key] = row
                on_row(row)
        result = Checked(runtime, document is not None, [found[f.key] for f in features], checker.containers)
    result.seconds = time.monotonic() - begin
    return result
