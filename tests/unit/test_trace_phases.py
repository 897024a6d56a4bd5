"""Phases of a start: contiguous, whole, and honest about what is not there. The events are those of a real crun."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from harness.kernel import shim
from harness.kernel.events import ProcessEvent
from harness.process.operation import Operation, Usage
from harness.runtime.dialects import CRUN, GENERIC, RUNC, RUNSC
from harness.runtime.lifecycle import Lifecycle
from harness.trace.phases import PHASES, Mark, divide
from harness.trace.tree import ProcessTree

ROOT, INIT = 10, 21
NO_USAGE = Usage(0, 0, None, 0, 0, 0, 0)


def operation(verb: str, start_ns: int, end_ns: int) -> Operation:
    return Operation(verb, ("/usr/bin/crun", verb), start_ns, end_ns, 0, NO_USAGE)


def lived(**changes: Any) -> Lifecycle:
    values: dict[str, Any] = {
        "create": operation("create", 1000, 6000),
        "start": operation("start", 6200, 9000),
        "kill": operation("kill", 9100, 11000),
        "delete": operation("delete", 11200, 14000),
        "init": INIT,
        "stamp_ns": 8800,
        "stamp_reason": None,
        "resumed_ns": 9050,
        "ended": shim.Exit(11100, -9, 0, 0, 0, 0, 0, 0, 0),
        "rootfs": "overlay",
    }
    return Lifecycle(**(values | changes))


def fork(parent: int, pid: int, time_ns: int, thread: int | None = None) -> ProcessEvent:
    return ProcessEvent("fork", pid, time_ns, parent, None, thread or pid)


def event(what: str, pid: int, time_ns: int, comm: str | None = None) -> ProcessEvent:
    return ProcessEvent(what, pid, time_ns, None, comm, pid)


EVENTS = [
    fork(ROOT, 20, 1010),
    event("exec", 20, 1100),
    event("exec", 20, 2000),
    fork(20, INIT, 3000),
    event("sid", INIT, 5000),
    event("exit", 20, 5990),
    fork(ROOT, 30, 6210),
    event("exec", 30, 6300),
    event("exec", INIT, 8780),
    event("exit", 30, 8990),
    fork(ROOT, 40, 9110),
    event("exec", 40, 9200),
    event("exit", INIT, 11150),  # stamped after the waiter was woken
    fork(ROOT, 50, 11210),
    event("exec", 50, 11300),
]


def tree(events: list[ProcessEvent] = EVENTS) -> ProcessTree:
    return ProcessTree(events, ROOT, INIT)


def test_phases_of_crun() -> None:
    """Each phase ends at its event: the second exec ends the runtime's loading, setsid the making of init."""
    phases, absent = divide(lived(), CRUN, tree())
    assert [(phase.name, phase.end_ns) for phase in phases] == [
        ("spawn", 100),
        ("runtime loaded", 1000),
        ("init forked", 2000),
        ("session led", 4000),
        ("ready for start", 5000),
        ("start called", 5200),
        ("start spawned", 5300),
        ("payload executed", 7780),
        ("first instruction", 7800),
        ("start returned", 8000),
        ("kill called", 8100),
        ("kill spawned", 8200),
        ("kill returned", 10000),
        ("exit", 10100),
        ("reaped", 10100),
        ("delete called", 10200),
        ("delete spawned", 10300),
        ("delete", 13000),
    ]
    assert [one.name for one in absent] == [
        "helper forked",
        "init helper executed",
        "cgroup joined",
        "namespaces entered",
    ]
    assert next(p for p in phases if p.name == "session led").includes == ("cgroup joined", "namespaces entered")


@pytest.mark.parametrize("dialect", [RUNC, CRUN, RUNSC, GENERIC], ids=lambda one: one.name)
@pytest.mark.parametrize("events", [EVENTS, [], EVENTS[5:], EVENTS[::2]], ids=["all", "none", "late", "half"])
def test_whole(dialect: Any, events: list[ProcessEvent]) -> None:
    """Whatever is missing, the phases follow each other without a gap and end at the end of delete."""
    phases, absent = divide(lived(), dialect, tree(events))
    assert phases[0].start_ns == 0
    assert all(one.end_ns == two.start_ns for one, two in pairwise(phases))
    assert all(phase.duration_ns >= 0 for phase in phases)
    assert phases[-1].end_ns == lived().whole_ns
    names = {phase.name for phase in phases}
    assert names | {one.name for one in absent} == set(PHASES)
    assert not names & {one.name for one in absent}
    assert all(one.within is None or one.within in names for one in absent)
    assert all(one.reason for one in absent)


def test_without_process_events() -> None:
    """The harness's own clocks alone give phases; what only events show is absent with the reason, and placed."""
    phases, absent = divide(lived(), RUNC, None, "no process events here")
    assert "spawn" not in {phase.name for phase in phases}
    by_name = {one.name: one for one in absent}
    assert by_name["spawn"].reason == "no process events here"
    assert by_name["spawn"].within == "ready for start"
    assert by_name["payload executed"].within == "first instruction"
    assert sum(phase.duration_ns for phase in phases) == lived().whole_ns


def test_deep_marks() -> None:
    """What tracefs shows becomes a phase of its own, where it was."""
    marks = [Mark("namespaces entered", 3100), Mark("cgroup joined", 4500)]
    phases, absent = divide(lived(), CRUN, tree(), deep_marks=marks)
    names = [phase.name for phase in phases]
    assert names[2:6] == ["init forked", "namespaces entered", "cgroup joined", "session led"]
    assert "cgroup joined" not in {one.name for one in absent}


def test_end_by_itself() -> None:
    """A container that was not killed has no phases of a kill, neither present nor absent."""
    phases, absent = divide(lived(kill=None), CRUN, tree([one for one in EVENTS if one.pid != 40]))
    names = [phase.name for phase in phases] + [one.name for one in absent]
    assert not [name for name in names if name.startswith("kill")]


def test_steps() -> None:
    """Other events within a phase cut it into steps that add up to it."""
    helper = [fork(20, 25, 3100), event("comm", 25, 3500, "runc:[0:PARENT]")]
    phases, _ = divide(lived(), RUNC, tree(sorted([*EVENTS, *helper], key=lambda one: one.time_ns)))
    phase = next(one for one in phases if one.name == "session led")
    assert [(step.name, step.end_ns) for step in phase.steps] == [
        ("helper 1 forked", 2100),
        ("helper 1 calls itself runc:[0:PARENT]", 2500),
        ("until session led", 4000),
    ]
    assert sum(step.end_ns - step.start_ns for step in phase.steps) == phase.duration_ns


def test_others_processes() -> None:
    """Processes that the harness did not start, and its own threads, are no part of the tree."""
    others = [fork(99, 98, 3200), event("exec", 98, 3300), fork(1, ROOT, 3400, thread=11)]
    assert set(tree(EVENTS + others).processes) == {20, INIT, 30, 40, 50}
