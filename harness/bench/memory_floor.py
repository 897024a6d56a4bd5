"""The smallest memory limit with which each runtime starts a container, found by bisection, and what it says below.

The limit is the container's own (linux.resources.memory.limit); what has to fit in is the part of the runtime that runs
in the container's cgroup, and the payload, which needs next to nothing. Near the edge a start is a matter of luck (what
the kernel charges depends on which CPU's caches are used), so every limit is tried several times: the floor is the
smallest limit found at which all attempts went well, and the success rates around it are told.

JSON, schema "oci-harness/memory-floor/1" (MemoryFloors.to_json):
    settings, environment, caveats[]
    floors{RUNTIME{floor_bytes, reason?, attempts[{limit_bytes, tries, started}], edge{...}?, peak{...}}}
    edge: the largest limit at which an attempt failed: limit_bytes, tries, started, stage, text, cause, cause_from
    peak: the runtime's own peak memory without a limit (footprint.py)
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct, field

from harness.bench.caveats import find_host_caveats
from harness.bench.environment import record
from harness.bench.footprint import measure_footprint
from harness.bench.lifecycle import Bench, Sample
from harness.bench.plan import Turn
from harness.diagnosis import diagnose
from harness.runtime.discovery import Runtime
from harness.runtime.session import Session

SCHEMA = "oci-harness/memory-floor/1"
PAGE: Final = 4096
SMALLEST: Final = 64 * 1024
LARGEST: Final = 256 * 1024 * 1024  # what does not start with this fails for another reason
PRECISION: Final = 1.03  # upper end by lower end at which the bisection stops
LIMIT: Final = "/linux/resources/memory/limit"
CLIMB: Final = 1.05  # a floor that fails when tried again is raised by this much
MOST_CLIMBS: Final = 40
RECIPE: Final = "default"
MAX_TIME_S: Final = 240.0
OOM: Final = "oom-during-init"


class Attempts(Struct):
    """What happened at one limit."""

    limit_bytes: int
    tries: int = 0
    started: int = 0
    stage: str | None = None  # of the last failure
    text: str | None = None
    killed: bool = False  # the container itself was, by a signal that nobody here sent

    @property
    def all_started(self) -> bool:
        return self.started == self.tries > 0

    def to_json(self) -> dict[str, Any]:
        return {"limit_bytes": self.limit_bytes, "tries": self.tries, "started": self.started}


class Floor(Struct):
    """One runtime's floor; None and the reason where there is none to find."""

    runtime: str
    floor_bytes: int | None = None
    reason: str | None = None
    attempts: list[Attempts] = field(default_factory=list)
    peak: dict[str, Any] = field(default_factory=dict)

    @property
    def edge(self) -> Attempts | None:
        """The largest limit at which an attempt failed."""
        failed = [each for each in self.attempts if each.started < each.tries]
        return max(failed, key=lambda each: each.limit_bytes, default=None)

    def to_json(self) -> dict[str, Any]:
        edge = self.edge
        return {
            "floor_bytes": self.floor_bytes,
            **({"reason": self.reason} if self.reason else {}),
            "attempts": [each.to_json() for each in sorted(self.attempts, key=lambda each: each.limit_bytes)],
            "edge": None if edge is None else edge.to_json() | describe_edge(edge),
            "peak": self.peak,
        }


class MemoryFloors(Struct):
    settings: dict[str, Any]
    environment: dict[str, Any]
    floors: list[Floor] = field(default_factory=list)

    @property
    def caveats(self) -> list[dict[str, str]]:
        found = find_host_caveats(self.environment)
        if self.environment["swap_bytes"]:
            text = "swap is on: below its limit a container may be swapped out instead of killed"
            found.append({"id": "swap", "message": text})
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "settings": self.settings,
            "environment": self.environment,
            "caveats": self.caveats,
            "floors": {floor.runtime: floor.to_json() for floor in self.floors},
        }


def describe_edge(edge: Attempts) -> dict[str, Any]:
    """The failure's text and its cause, `cause_from` the text or the signal; None where neither tells.

    A SIGKILL that nobody here sent can only come from the kernel's OOM killer, and it leaves no text.
    """
    named = diagnose(edge.text or "").primary
    cause, source = (named.cause, "text") if named is not None and named.named else (None, None)
    if cause is None and edge.killed:
        cause, source = OOM, "signal"
    return {
        "stage": edge.stage,
        "text": edge.text,
        "cause": cause,
        "cause_from": source,
        "decisive": named.decisive if named is not None and source == "text" else None,
    }


def death(sample: Sample) -> str | None:
    """How a container ended that should have ended with 0, in one line; None when it did.

    A runtime may say that all went well, although the kernel killed the payload before its first instruction.
    """
    if sample.error is not None or sample.exit_status == 0:
        return sample.error
    when = "after" if sample.first_instruction_ns is not None else "before"
    status = sample.exit_status or 0
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"the runtime reported success, but the container {how} {when} its first instruction"


def round_to_page(value: float) -> int:
    return max(PAGE, int(value) // PAGE * PAGE)


class Search:
    """The attempts with one runtime."""

    def __init__(self, session: Session, runtime: Runtime, tries: int, timeout_s: float) -> None:
        self.session = session
        self.runtime = runtime
        self.tries = tries
        self.timeout_s = timeout_s
        self.known: dict[int, Attempts] = {}
        self._serial = 0

    def attempt(self, limit: int, tries: int | None = None, stop_at_failure: bool = True) -> Attempts:
        """Try a limit `tries` times more; one failure decides."""
        found = self.known.setdefault(limit, Attempts(limit))
        template = self.session.template(RECIPE, ((LIMIT, limit),))
        bench = Bench(self.session, template, "exit", self.timeout_s)
        for _ in range(self.tries if tries is None else tries):
            self._serial += 1
            sample = bench.run(self.runtime, Turn(f"{self.runtime.name}-floor", 0, 30_000_000 + self._serial))
            found.tries += 1
            died = death(sample)
            if died is None:
                found.started += 1
                continue
            found.stage, found.text = sample.failed_stage or "run", died
            found.killed = sample.exit_status == -signal.SIGKILL
            if stop_at_failure:
                break
        return found

    def floor(self) -> int | None:
        """None: not even LARGEST is enough."""
        low, high = SMALLEST, LARGEST
        if not self.attempt(high, 1).all_started:
            return None
        if self.attempt(low).all_started:
            return low
        while high / low > PRECISION and high - low > PAGE:
            middle = round_to_page((high * low) ** 0.5)
            if middle in (low, high):
                break
            low, high = (low, middle) if self.attempt(middle).all_started else (middle, high)
        for _ in range(MOST_CLIMBS):  # what held a few times may not hold for good
            if self.attempt(high, 2 * self.tries).all_started:
                return high
            high = round_to_page(high * CLIMB) + PAGE
        return None


def find_floors(
    session: Session,
    runtimes: list[Runtime],
    *,
    tries: int = 5,
    timeout_s: float = 10.0,
    max_time_s: float = MAX_TIME_S,
    footprint_runs: int = 5,
    on_floor: Callable[[Floor], None] = lambda _: None,
) -> MemoryFloors:
    """The floor of each runtime. `tries` attempts at each limit while searching, twice as many at the floor itself."""
    settings = {"tries": tries, "timeout_s": timeout_s, "recipe": RECIPE, "precision": PRECISION}
    done = MemoryFloors(settings, record(runtimes, session.choice))
    end = time.monotonic() + max_time_s
    for runtime in runtimes:
        found = Floor(runtime.name)
        done.floors.append(found)
        if session.layout.hierarchy("memory") is None:
            found.reason = f"no memory controller in the {session.choice.view} view"
        elif not runtime.dialect.uses_host_cgroups:
            found.reason = dict(runtime.dialect.lacks).get("host-cgroup", "the runtime sets no limits on the host")
        elif time.monotonic() > end:
            found.reason = "no time left"
        else:
            search = Search(session, runtime, tries, timeout_s)
            try:
                found.floor_bytes = search.floor()
            finally:
                found.attempts = list(search.known.values())
            if found.floor_bytes is None:
                found.reason = f"fails even with {LARGEST} bytes, or not reliably at any limit"
            bench = Bench(session, session.template(RECIPE), "exit", timeout_s)
            found.peak = measure_footprint(bench, [runtime], footprint_runs)[runtime.name]
        on_floor(found)
    return done
