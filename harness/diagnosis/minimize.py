"""Find a smallest config.json that still fails of the same cause at the same stage, and prove each part that is left.

The failing document is compared with a skeleton that starts (skeleton.py): what differs is searched, units first, then
what is in those that matter. A candidate counts only if it fails as the original does; a failure of another cause, or
at another stage, counts as none. All of it runs on an overlay of the bundle's rootfs and in a cgroup of the run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from harness.diagnosis.anatomy import Anatomy, State, shown
from harness.diagnosis.oracle import SETTLE_S, Candidate, Oracle, Outcome
from harness.diagnosis.reduced import Kept, Result, Rootfs
from harness.diagnosis.reduction import shrink
from harness.diagnosis.skeleton import PAYLOAD, SET_ASIDE, STAND_IN, of_rootfs
from harness.diagnosis.suspects import Suspicion
from harness.errors import InputError
from harness.oci import pointer as json_pointer
from harness.oci.bundle import Bundle

if TYPE_CHECKING:
    from harness.runtime.discovery import Runtime
    from harness.runtime.session import Session

REPEATS: Final = 3  # times that the original must fail in the same way
MAX_TESTS: Final = 200
_LEVEL_LIMIT: Final = 24  # tests for what is inside units, a level; a filter's hundreds of names are not worth more


class Progress(Struct, frozen=True):
    """After each test: how many there were, and how many values of the original the smallest failing one has."""

    tests: int
    values: int
    total: int


class _Exhausted(Exception):
    """Internal: max_tests are done."""


class _Search:
    """The state of one reduction."""

    def __init__(
        self, oracle: Oracle, anatomy: Anatomy, lower: Path, max_tests: int, tick: Callable[[Progress], None]
    ) -> None:
        self.oracle = oracle
        self.anatomy = anatomy
        self.lower = lower
        self.max_tests = max_tests
        self.tick = tick
        self.tests = self.cached = self.calls = 0
        self.settle_s = SETTLE_S
        self.targets: list[Outcome] = []  # of the original, in the words of each run
        self.best: State | None = None
        self._cache: dict[tuple[str, Path], Outcome] = {}

    def candidate(self, state: State, lower: Path) -> tuple[Candidate, dict[str, str]]:
        document, places = self.anatomy.compose(state)
        root = json_pointer.one(document, "/root/path", str)
        if "/root/path" in state and root:
            json_pointer.set(document, "/root/path", str(self.oracle.bundle / root))
        own = "/process/args" not in state and json_pointer.get(document, "/process/args", None) == [PAYLOAD]
        return Candidate(document, lower, own, "/linux/cgroupsPath" not in state), places

    def outcome(self, state: State, lower: Path | None = None, *, again: bool = False) -> Outcome:
        """What becomes of it; `again`: also where that is known. Raises _Exhausted."""
        candidate, _ = self.candidate(state, lower or self.lower)
        # a canonical form: what differs in the order of members only is the same config.json
        key = (json.dumps(candidate.document, sort_keys=True), candidate.lower)
        if key in self._cache and not again:
            self.cached += 1
            return self._cache[key]
        if self.tests >= self.max_tests:
            raise _Exhausted
        self.tests += 1
        found = self._cache[key] = self.oracle.run(candidate, self.settle_s)
        self.calls += found.calls
        self.tick(Progress(self.tests, self.anatomy.values(self.best or state), self.anatomy.total()))
        return found

    def fails(self, state: State) -> bool:
        """Whether it fails as the original does."""
        if not self.is_same(self.outcome(state)):
            return False
        if self.best is None or self.anatomy.values(state) < self.anatomy.values(self.best):
            self.best = state
        return True

    def is_same(self, found: Outcome) -> bool:
        return any(found.same(target) for target in self.targets)

    # --- the steps ---

    def baseline(self, own_rootfs: bool) -> tuple[State, list[Outcome]]:
        """The state that fails, with as much set aside as can be, and its outcomes; one that starts: no failure."""
        nodes = self.anatomy.nodes
        aside = [each for each in SET_ASIDE if each in nodes and nodes[each].value]
        if not own_rootfs and "/root/path" in aside:
            aside.remove("/root/path")
        whole = self.anatomy.whole(self.anatomy.units)
        for number in range(len(aside) + 1):
            state = whole.difference(*(self.anatomy.subtree(each) for each in aside[number:]))
            found = self.outcome(state)
            if found.stage is not None:
                break
        else:
            return state, [found]
        outcomes = [found, *(self.outcome(state, again=True) for _ in range(REPEATS - 1))]
        self.targets = outcomes
        if found.stage != "run":
            self.settle_s = 0.0  # a program that was started has passed
        return state, outcomes

    def reduce(self, state: State) -> State:
        """The smallest that is found; `best` has it too, also when this is cut short."""
        self.best = state
        first = self.targets[0]
        suspicion = Suspicion(f"{first.clause}\n{first.text}", first.cause, first.fields.values())
        state = self._units(state, suspicion)
        state = self._insides(state, suspicion)
        return self._superfluous(state)

    def _units(self, state: State, suspicion: Suspicion) -> State:
        anatomy = self.anatomy
        units = [(each, anatomy.nodes[each].value) for each in anatomy.chosen(state)]
        ordered, likely = suspicion.order(units)
        return anatomy.whole(shrink(ordered, lambda some: self.fails(anatomy.whole(some)), likely=likely))

    def _insides(self, state: State, suspicion: Suspicion) -> State:
        """Level by level: what may go of what is left."""
        anatomy = self.anatomy
        level = anatomy.chosen(state)
        while level:
            inside = [child for each in level for child in anatomy.nodes[each].children if child in state]
            needed = anatomy.needed(state)
            free = [each for each in inside if anatomy.nodes[each].optional and each not in needed]
            if free:
                state = self._level(state, free, suspicion)
            level = [each for each in inside if each in state]
        return state

    def _level(self, state: State, free: list[str], suspicion: Suspicion) -> State:
        anatomy = self.anatomy
        ordered, likely = suspicion.order((each, anatomy.nodes[each].value) for each in free)
        ordered.sort(key=lambda each: bool(anatomy.needs(each)))  # what brings others comes after these

        def with_only(some: list[str]) -> State:
            return anatomy.without(state, [*set(free).difference(some)])

        needed = shrink(ordered, lambda some: self.fails(with_only(some)), likely=likely, limit=_LEVEL_LIMIT)
        return with_only(needed)

    def _superfluous(self, state: State) -> State:
        """Each part that is left, taken away alone: what does not matter after all goes. Thus the counterfactuals."""
        again = True
        while again:
            again = False
            for name in self.anatomy.kept(state):
                without = self.anatomy.without(state, [name])
                if not without < state:  # another part needs it
                    self.outcome(self.anatomy.bare(state, name))
                elif self.fails(without):
                    state, again = without, True
                    break
        return state


def minimize(
    session: Session,
    runtime: Runtime,
    bundle: Bundle,
    *,
    max_tests: int = MAX_TESTS,
    tick: Callable[[Progress], None] = lambda _: None,
) -> Result:
    """Reduce a failing bundle on one runtime. The bundle itself is not changed.

    Ctrl-C and `max_tests` end the search with what there is so far, verdict partial; Ctrl-C before the failure is
    established is raised. Raises HostError, OSError.
    """
    started = time.monotonic()
    own_rootfs, lower = _rootfs(session, bundle)
    anatomy = Anatomy(bundle.config.document, own_rootfs=own_rootfs)
    search = _Search(Oracle(session, runtime, bundle.path), anatomy, lower, max_tests, tick)
    try:
        state, outcomes = search.baseline(own_rootfs)
    except _Exhausted:
        raise InputError(f"--max-tests {max_tests}: too few to see that the bundle always fails") from None
    first = outcomes[0]
    result = Result(
        "minimized", bundle.path, runtime.name, runtime.version, session.choice.view, first, outcomes, lower=lower
    )
    try:
        if first.stage is None:
            result.verdict, result.reason = "starts", f"it starts on {runtime.name}: there is no failure to minimize"
        elif len({each.kind for each in outcomes}) > 1:
            told = "; ".join(f"run {number}: {each.describe()}" for number, each in enumerate(outcomes, 1))
            result.verdict, result.reason = "unstable", f"it does not always fail in the same way ({told})"
        else:
            try:
                state = search.reduce(state)
                result.rootfs = _choose_rootfs(search, state, own_rootfs)
            except _Exhausted:
                result.verdict, result.reason = "partial", f"stopped after {max_tests} tests"
            except KeyboardInterrupt:
                result.verdict, result.reason = "partial", "interrupted"
            if result.verdict == "partial":
                state = search.best or state
                result.rootfs = "in-place" if "/root/path" in state else "copied"
            _fill_in(result, search, state)
    finally:
        result.tests_run, result.cached, result.runtime_calls = search.tests, search.cached, search.calls
        result.seconds = time.monotonic() - started
    return result


def _rootfs(session: Session, bundle: Bundle) -> tuple[bool, Path]:
    """(whether the bundle has a rootfs, the directory below the overlay)."""
    path = json_pointer.one(bundle.config.document, "/root/path", str)
    if path and "\0" not in path and (bundle.path / path).is_dir():
        return True, bundle.path / path
    return False, session.template("minimal").lower


def _choose_rootfs(search: _Search, state: State, own_rootfs: bool) -> Rootfs:
    """Whether the bundle's files matter: only asked where no part that is left speaks of files in the container."""
    if "/root/path" in state:
        return "in-place"
    if not own_rootfs:
        return "embedded"
    embedded = search.oracle.session.template("minimal").lower
    if of_rootfs(search.anatomy.kept(state)):
        return "copied"
    return "embedded" if search.is_same(search.outcome(state, embedded)) else "copied"


def _fill_in(result: Result, search: _Search, state: State) -> None:
    anatomy = search.anatomy
    candidate, places = search.candidate(state, search.lower)
    names = anatomy.kept(state)
    needed_by = _needed_by(anatomy, names)
    for name in names:
        pointer, missing = shown(name)
        outcome = None
        if result.verdict == "minimized":
            outcome = search.outcome(anatomy.bare(state, name))  # known from the last round
        value = anatomy.nodes[name].value
        result.kept.append(Kept(pointer, places.get(name), missing, value, outcome, needed_by[name]))
    result.document = candidate.document
    result.skeleton = _skeleton(
        candidate.document, {places[name] for name in state if name in places and name in names}
    )
    result.total_count = anatomy.total()
    result.removed_count = result.total_count - anatomy.values(state)


def _needed_by(anatomy: Anatomy, names: list[str]) -> dict[str, list[str]]:
    """{name: pointers of the others that would be another thing without it}."""
    holder = {place: name for name in names for place in anatomy.subtree(name)}
    found: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
        wanted = anatomy.needed(frozenset({*anatomy.subtree(name), anatomy.unit_of(name)}))
        for other in sorted({holder[place] for place in wanted if place in holder} - {name}):
            found[other].append(shown(name)[0])
    return found


def _skeleton(document: dict[str, Any], kept: set[str]) -> list[str]:
    """Pointers of the reduced document that are there because no bundle starts without them."""
    fixed = ["/ociVersion", "/root/path", "/process/args", "/process/cwd", "/process/user"]
    for place, mount in json_pointer.select(document, "/mounts/*", dict):
        if mount.get("destination") == "/proc" and mount.get("type") == "proc":
            fixed.append(place)
    for place, entry in json_pointer.select(document, "/linux/namespaces/*", dict):
        if entry in STAND_IN["linux"]["namespaces"]:
            fixed.append(place)
    present = [each for each in fixed if json_pointer.get(document, each, None) is not None]
    return [each for each in present if not any(each == one or each.startswith(one + "/") for one in kept)]
