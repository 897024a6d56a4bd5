"""The phases of one start: contiguous, each ended by an event, the same for all runtimes.

A phase is named for what is reached at its end. One whose event this runtime or this host does not show is absent, with
the reason, and its time belongs to the phase around it, which names it. So the phases always add up to the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from harness.process.operation import Operation
from harness.runtime.dialects import Dialect
from harness.runtime.lifecycle import Lifecycle
from harness.trace.tree import ProcessTree

# name: what ends it. In the order in which they are first expected; where a runtime does two of them the other way
# round they stand in that order.
PHASES: dict[str, str] = {
    "spawn": "the runtime's binary is executed (exec event of the process that the harness cloned)",
    "runtime loaded": "the runtime has executed itself for the last time, if it does so at all",
    "helper forked": "the runtime forks its first process, if that is not init itself",
    "init helper executed": "a process of the runtime executes a binary",
    "init forked": "the process is forked that becomes the container's init (the pid of --pid-file)",
    "cgroup joined": "the last process of the container has been moved into its last cgroup (cgroup_attach_task)",
    "namespaces entered": "the last clone, unshare or setns with a new namespace has returned",
    "session led": "init calls setsid: it is in its namespaces and sets itself up",
    "ready for start": "create has returned",
    "start called": "the harness clones the runtime again; the time is the harness's own",
    "start spawned": "the runtime's binary is executed",
    "payload executed": "the last exec event of init",
    "first instruction": "the payload's own clock",
    "start returned": "start has returned",
    "kill called": "the harness has read the stamp and clones the runtime again; the time is the harness's own",
    "kill spawned": "the runtime's binary is executed",
    "exit": "the exit event of init",
    "kill returned": "kill has returned",
    "reaped": "the harness's wait for init has returned",
    "delete called": "the harness clones the runtime again; the time is the harness's own",
    "delete spawned": "the runtime's binary is executed",
    "delete": "delete has returned",
}
HARNESS_OWN = frozenset({"start called", "kill called", "delete called"})
RANK = {name: rank for rank, name in enumerate(PHASES)}
# What only tracefs shows, and where its time lies without it: {dialect: {phase: the phase around it}}
HIDDEN = {
    "runc": {"cgroup joined": "init forked", "namespaces entered": "init forked"},
    "crun": {"cgroup joined": "session led", "namespaces entered": "session led"},
}


class Mark(Struct, frozen=True):
    """The moment at which a phase ends. CLOCK_MONOTONIC nanoseconds."""

    name: str
    time_ns: int
    pid: int | None = None


class Step(Struct, frozen=True):
    """A part of a phase, ended by another event of the same tree of processes. Nanoseconds since the start."""

    name: str
    start_ns: int
    end_ns: int
    pid: int | None


class Phase(Struct, frozen=True):
    """Nanoseconds since the clone of create."""

    name: str
    start_ns: int
    end_ns: int
    pid: int | None = None  # of the process whose event ends it
    includes: tuple[str, ...] = ()  # absent phases whose time is in this one
    steps: tuple[Step, ...] = ()

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "start_ns": self.start_ns,
            "end_ns": self.end_ns,
            "pid": self.pid,
            "includes": list(self.includes),
            "steps": [{"name": s.name, "start_ns": s.start_ns, "end_ns": s.end_ns, "pid": s.pid} for s in self.steps],
        }


class Absent(Struct, frozen=True):
    """A phase that this start does not show; `within` is the phase that has its time, None where it takes none."""

    name: str
    reason: str
    within: str | None

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "reason": self.reason, "within": self.within}


def divide(
    lived: Lifecycle,
    dialect: Dialect,
    tree: ProcessTree | None,
    why_no_tree: str = "",
    deep_marks: Sequence[Mark] | None = None,
) -> tuple[tuple[Phase, ...], tuple[Absent, ...]]:
    """One start's phases in the order of time, and what is absent.

    `tree` is None where there are no process events, and `deep_marks` where there is no tracefs.
    """
    marks = [*_clock_marks(lived), *(deep_marks or ())]
    reasons: dict[str, str] = {}
    if tree is None:
        reasons |= dict.fromkeys(PHASES, why_no_tree)
    else:
        shown, reasons = _tree_marks(lived, dialect, tree)
        marks += shown
    began = lived.create.start_ns
    end = lived.delete.end_ns
    # a mark outside would be another container's; exit_notify wakes the waiter before the exit event is stamped
    limits = {"exit": lived.ended.end_ns}
    marks = [Mark(m.name, min(max(m.time_ns, began), limits.get(m.name, end), end), m.pid) for m in marks]
    marks.sort(key=lambda mark: (mark.time_ns, RANK[mark.name]))
    absent = tuple(_absent(marks, dialect, reasons, lived, deep_marks is not None))
    phases = []
    at = began
    for mark in marks:
        includes = tuple(one.name for one in absent if one.within == mark.name)
        steps = _steps(tree, at, mark, began) if tree is not None else ()
        phases.append(Phase(mark.name, at - began, mark.time_ns - began, mark.pid, includes, steps))
        at = mark.time_ns
    return tuple(phases), absent


def _clock_marks(lived: Lifecycle) -> list[Mark]:
    """What the harness's own clocks and the payload's show."""
    marks = [
        Mark("ready for start", lived.create.end_ns),
        Mark("start called", lived.start.start_ns),
        Mark("start returned", lived.start.end_ns),
        Mark("reaped", max(lived.ended.end_ns, (lived.kill or lived.start).end_ns)),
        Mark("delete called", lived.delete.start_ns),
        Mark("delete", lived.delete.end_ns),
    ]
    if lived.stamp_ns is not None:
        marks.append(Mark("first instruction", lived.stamp_ns, lived.init))
    if lived.kill is not None:
        marks += [Mark("kill called", lived.kill.start_ns), Mark("kill returned", lived.kill.end_ns)]
    return marks


def _spawned(operation: Operation, tree: ProcessTree) -> tuple[int | None, list[int]]:
    """(pid of the runtime, times of its exec events)."""
    pid = tree.spawned(operation.start_ns, operation.end_ns)
    return pid, [] if pid is None else tree.execs(pid, operation.start_ns, operation.end_ns)


def _tree_marks(lived: Lifecycle, dialect: Dialect, tree: ProcessTree) -> tuple[list[Mark], dict[str, str]]:
    marks: list[Mark] = []
    for name, operation in (("start", lived.start), ("kill", lived.kill), ("delete", lived.delete)):
        if operation is not None:
            pid, times = _spawned(operation, tree)
            marks += [Mark(f"{name} spawned", times[0], pid)] if times else []
    more, reasons = _helper_marks(lived, tree)
    marks += more
    born = tree.born(lived.init)
    if born is not None:
        marks.append(Mark("init forked", born, lived.init))
    session = tree.session(lived.init)
    if session is not None:
        marks.append(Mark("session led", session, lived.init))
    if dialect.shares_host_clock:
        executed = tree.execs(lived.init, lived.start.start_ns, lived.stamp_ns or lived.ended.end_ns)
        marks += [Mark("payload executed", executed[-1], lived.init)] if executed else []
    else:
        reasons["payload executed"] = "the container's processes live inside the sandbox"
    gone = tree.gone(lived.init, lived.ended.end_ns)
    if gone is not None:
        marks.append(Mark("exit", gone, lived.init))
    return marks, reasons


def _helper_marks(lived: Lifecycle, tree: ProcessTree) -> tuple[list[Mark], dict[str, str]]:
    """Of `create`: up to the first binary that is executed on behalf of init."""
    marks: list[Mark] = []
    reasons: dict[str, str] = {}
    runtime, times = _spawned(lived.create, tree)
    begin, ready = lived.create.start_ns, lived.create.end_ns
    forks = [] if runtime is None else tree.forks(begin, ready)
    first = forks[0] if forks else None
    if times:
        marks.append(Mark("spawn", times[0], runtime))
        own = [time for time in times if first is None or time < first.time_ns]
        if len(own) > 1:
            marks.append(Mark("runtime loaded", own[-1], runtime))
        else:
            reasons["runtime loaded"] = "the runtime executes itself only once"
    if first is not None and first.pid != lived.init:
        marks.append(Mark("helper forked", first.time_ns, first.pid))
    elif first is not None:
        reasons["helper forked"] = "the first process that the runtime forks is init itself"
    helper = tree.first_exec(begin, ready, {runtime} if runtime is not None else set())
    if helper is not None:
        marks.append(Mark("init helper executed", helper.time_ns, helper.pid))
    else:
        reasons["init helper executed"] = "init is a fork of the runtime: nothing else is executed"
    return marks, reasons


def _absent(
    marks: Sequence[Mark], dialect: Dialect, reasons: dict[str, str], lived: Lifecycle, deep: bool
) -> Iterable[Absent]:
    present = [mark.name for mark in marks]  # in the order of time
    for name in PHASES:
        if name in present or (lived.kill is None and name.startswith("kill ")):
            continue
        reason = reasons.get(name) or "the kernel sent no such event"
        around: str | None = next((other for other in present if RANK[other] > RANK[name]), None)
        if name == "payload executed" and "first instruction" in present:
            around = "first instruction"
        if name in ("cgroup joined", "namespaces entered"):
            reason = "no such event" if deep else "only tracefs shows it: see --deep"
            around = HIDDEN.get(dialect.name, {}).get(name, around)
            around = around if around in present else "ready for start"
            if name == "cgroup joined" and not dialect.uses_host_cgroups:
                reason, around = dict(dialect.lacks).get("host-cgroup", "it joins none"), None
        elif name == "first instruction":
            reason = lived.stamp_reason or reason
        elif name in ("helper forked", "init helper executed") and name in reasons and "spawn" in present:
            around = None
        yield Absent(name, reason, around)


def _steps(tree: ProcessTree, start_ns: int, mark: Mark, began: int) -> tuple[Step, ...]:
    """The phase cut at the other events within it; empty when there are none."""
    found = [event for event in tree.labelled() if start_ns < event.time_ns < mark.time_ns]
    if not found:
        return ()
    steps = []
    at = start_ns
    for event in found:
        steps.append(Step(event.label, at - began, event.time_ns - began, event.pid))
        at = event.time_ns
    return (*steps, Step(f"until {mark.name}", at - began, mark.time_ns - began, mark.pid))
