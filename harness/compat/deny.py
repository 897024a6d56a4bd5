"""Which system calls a runtime cannot do without: a minimum kernel for any binary, in seconds and without a guest.

A seccomp filter takes one call at a time away (ENOSYS, as on a kernel that is older than the call), through a whole
lifecycle. What flags and options of older calls need is not seen, so the estimate is a lower bound.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from harness.diagnosis import diagnose
from harness.errors import HarnessError, HostError, InputError, OperationError
from harness.kernel import shim
from harness.oci.bundle import Template
from harness.oci.recipe import data_root
from harness.process.children import adopt_naming, reap_orphans
from harness.process.operation import Operation
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.failures import check
from harness.runtime.session import Session

SCHEMA: Final = "oci-harness/compat/1"
OLDEST: Final = "3.10"  # what is needed of older kernels is not looked at
TIMEOUT_S = 10.0  # where the session has none
# The richest that the runtime takes; the first with a seccomp profile, which every engine gives.
RECIPES: Final = ("kubernetes", "default")
SECCOMP: Final = (
    "/linux/seccomp",
    {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]},
)
Use = Literal["fatal", "tolerated", "unused"]


class Call(Struct, frozen=True):
    """A system call of bundles/syscalls.toml on this architecture."""

    name: str
    since: str  # the release that brought it
    number: int

    @property
    def release(self) -> tuple[int, ...]:
        return tuple(map(int, self.since.split(".")))


@cache
def load_calls() -> dict[str, Call]:
    """{name: Call}, oldest first. Raises HostError for an architecture without numbers."""
    machine = os.uname().machine
    table = tomllib.loads((data_root() / "syscalls.toml").read_text(encoding="utf-8"))
    calls = [Call(name, entry["since"], entry[machine]) for name, entry in table.items() if machine in entry]
    if not calls:
        raise HostError(f"no numbers of system calls for {machine}: add them to bundles/syscalls.toml")
    return {call.name: call for call in sorted(calls, key=lambda call: (call.release, call.number))}


def chosen_calls(text: str | None) -> list[Call]:
    """The calls of `a,b,c`, or all. Raises InputError for one that is not in the table."""
    known = load_calls()
    if text is None:
        return list(known.values())
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise InputError(
                f"--deny {name}: no system call that is younger than Linux {OLDEST}; there are {', '.join(known)}"
            )
    if not names:
        raise InputError("--deny: name at least one system call, as in --deny openat2,clone3")
    return [known[name] for name in names]


class Outcome(Struct, frozen=True):
    """One call denied. `who`: names of the processes that make it: the runtime, its init, the container's own."""

    call: Call
    use: Use
    who: tuple[str, ...] = ()
    stage: str | None = None  # fatal: the operation that failed
    text: str | None = None  # and what the runtime said
    cause: str | None = None  # and which cause that text leads to

    def to_json(self) -> dict[str, Any]:
        return {
            "call": self.call.name,
            "since": self.call.since,
            "use": self.use,
            "who": list(self.who),
            "stage": self.stage,
            "text": self.text,
            "cause": self.cause,
        }


class Estimate(Struct):
    """What one runtime needs. `confirmed`: with all calls that are younger taken away at once it still works."""

    runtime: Runtime
    error: str
    recipe: str  # what the container was
    outcomes: list[Outcome] = field(default_factory=list)
    minimum: str = OLDEST
    confirmed: bool | None = None  # None: not all calls were asked for, so it cannot be told
    seconds: float = 0.0

    @property
    def decided_by(self) -> list[str]:
        return [each.call.name for each in self.outcomes if each.use == "fatal" and each.call.since == self.minimum]

    def to_json(self) -> dict[str, Any]:
        return {
            "runtime": self.runtime.name,
            "version": self.runtime.version,
            "path": self.runtime.path,
            "errno": self.error,
            "recipe": self.recipe,
            "minimum_kernel": self.minimum,
            "decided_by": self.decided_by,
            "confirmed": self.confirmed,
            "calls": [each.to_json() for each in self.outcomes],
            "seconds": round(self.seconds, 3),
        }


class Failure(Struct, frozen=True):
    stage: str
    text: str


def _program(name: str) -> str:
    path = Path(str(data_root() / "payload" / name))
    if not path.is_file():
        raise HostError(f"{path} is not built; run: pip install -e . in the checkout")
    return str(path)


def _template(session: Session, recipe: str) -> Template:
    settings = [("/process/args", ["/payload", "pause"])]
    return session.template(recipe, (*settings, *((SECCOMP,) if recipe == RECIPES[0] else ())))


def _lifecycle(session: Session, runtime: Runtime, recipe: str, prefix: Sequence[str] = ()) -> Failure | None:
    """create, start, exec, kill, wait, delete through `prefix`; None: all went well. Cleaned up without it."""
    template = _template(session, recipe)
    container = session.container(runtime, template)
    sound = container.client
    container.client = replace(sound, prefix=tuple(prefix))
    deadline_s = session.timeout_s or TIMEOUT_S
    try:
        return (
            _failed("create", container.create)
            or _failed("start", container.start)
            or not_running(container, deadline_s)
            or _failed("exec", lambda: container.exec("/payload", timeout_s=deadline_s))
            or _failed("kill", container.kill)
            or _not_ended(container, deadline_s)
            or _failed("delete", container.delete)
        )
    finally:
        container.client = sound
        container.clean_up()


def _failed(stage: str, step: Callable[[], Operation]) -> Failure | None:
    try:
        check(operation := step())
    except OperationError as error:
        operation = error.operation
        return Failure(stage, operation.message or str(error))
    return None


def not_running(container: Container, deadline_s: float) -> Failure | None:
    """Whether the container's own program has written its line; the runtime does not wait for that."""
    end = time.monotonic() + deadline_s
    while not container.stdout:
        init = container.init
        if init is None or shim.poll(init.pidfd, shim.POLLIN, 1_000_000) or time.monotonic() > end:
            said = container.stderr.decode(errors="replace").strip().splitlines()
            return Failure("run", said[-1] if said else "the container's program does not run")
    return None


def _not_ended(container: Container, deadline_s: float) -> Failure | None:
    try:
        container.wait(deadline_s)
    except TimeoutError:
        return Failure("kill", "the container's process did not end")
    return None


def _recipe(session: Session, runtime: Runtime) -> str:
    """The richest recipe that works with all calls. Raises HostError when none does."""
    failure: Failure | None = None
    for recipe in RECIPES:
        failure = _lifecycle(session, runtime, recipe)
        if failure is None:
            return recipe
    said = f": {failure.stage}: {failure.text}" if failure else ""
    raise HostError(f"{runtime.name} does not work here even with all calls{said}")


def _learn(session: Session, runtime: Runtime, recipe: str, calls: Sequence[Call]) -> dict[str, tuple[str, ...]]:
    """{call: who makes it} of a lifecycle in which nothing is denied. Raises HostError when that one fails."""
    log = session.workspace.path / f"calls-{runtime.name}.log"
    numbers = {call.number: call.name for call in calls}
    prefix = (_program("calls"), str(log), ",".join(map(str, numbers)))
    try:
        failure = _lifecycle(session, runtime, recipe, prefix)
        if failure is not None:
            raise HostError(f"{runtime.name} cannot be watched: {failure.stage}: {failure.text}")
        who: dict[str, list[str]] = {}
        for line in log.read_text().splitlines() if log.exists() else ():
            number, _, comm = line.partition(" ")
            names = who.setdefault(numbers[int(number)], [])
            if comm not in names:
                names.append(comm)
        return {name: tuple(names) for name, names in who.items()}
    finally:
        for watcher in adopt_naming(str(log)):  # they end when nobody is left to be watched
            try:
                watcher.wait(1.0)
            except TimeoutError:
                watcher.kill()
        reap_orphans(frozenset({"calls"}))  # those that have ended already, and name nothing any more
        log.unlink(missing_ok=True)


def _denied(calls: Sequence[Call], error: str) -> tuple[str, ...]:
    return (_program("deny"), str(getattr(errno, error)), ",".join(str(call.number) for call in calls))


def _try_without(session: Session, result: Estimate, call: Call, who: tuple[str, ...]) -> Outcome:
    failure = _lifecycle(session, result.runtime, result.recipe, _denied([call], result.error))
    if failure is None:
        return Outcome(call, "tolerated", who)
    primary = diagnose(failure.text).primary
    return Outcome(call, "fatal", who, failure.stage, failure.text, primary.cause if primary else None)


def estimate(
    session: Session,
    runtime: Runtime,
    calls: Sequence[Call],
    error: str = "ENOSYS",
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> Estimate:
    """Take each of `calls` away and see. Raises HostError when the runtime does not work with all of them."""
    begin = time.monotonic()
    recipe = _recipe(session, runtime)
    used = _learn(session, runtime, recipe, calls)
    result = Estimate(runtime, error, recipe)
    for call in calls:
        who = used.get(call.name)
        # not made at all, so that taking it away changes nothing
        outcome = Outcome(call, "unused") if who is None else _try_without(session, result, call, who)
        result.outcomes.append(outcome)
        on_outcome(outcome)
    fatal = [each.call for each in result.outcomes if each.use == "fatal"]
    if fatal:
        result.minimum = max(fatal, key=lambda call: call.release).since
    if {call.name for call in calls} >= set(load_calls()):
        _confirm(session, result, [call for call in calls if call.name in used])
    result.seconds = time.monotonic() - begin
    return result


def _confirm(session: Session, result: Estimate, used: Sequence[Call]) -> None:
    """Raise the estimate until the runtime works without all calls that are younger, taken away at once.

    A runtime may tolerate that each of two calls is missing, but not both.
    """
    releases = [OLDEST, *dict.fromkeys(call.since for call in used)]
    for release in releases[releases.index(result.minimum) :]:
        result.minimum = release
        younger = [call for call in load_calls().values() if call.release > tuple(map(int, release.split(".")))]
        with contextlib.suppress(HarnessError):
            denied = _denied(younger, result.error) if younger else ()
            if _lifecycle(session, result.runtime, result.recipe, denied) is None:
                result.confirmed = True
                return
    result.confirmed = False
