"""Trace starts one by one: run a lifecycle, keep what the kernel said about it, and decode all of it at the end.

Nothing is read, decoded or waited for while a start runs: events wait in the kernel's buffers. Whatever this host lacks
(process events, tracefs) is told in one line of `notes`, and the rest still works.
"""

from __future__ import annotations

import os
import threading
from typing import Literal

from msgspec import Struct, field

from harness.errors import HostError
from harness.kernel.events import RECEIVE_BUFFER_BYTES, Batch, ProcessEvent, ProcessEvents
from harness.kernel.tracefs import BUFFER_KIB, Recording, TraceInstance
from harness.oci.bundle import Template
from harness.runtime.discovery import Runtime
from harness.runtime.lifecycle import End, Failure, Lifecycle, run_lifecycle
from harness.runtime.session import Session
from harness.trace.deep import Deep, Symbols, analyze
from harness.trace.phases import Absent, Phase, divide
from harness.trace.tree import ProcessTree

EVENTS = (
    "syscalls",
    "cgroup/cgroup_mkdir",
    "cgroup/cgroup_attach_task",
    "cgroup/cgroup_rmdir",
    "sched/sched_switch",
    "sched/sched_wakeup",
    "sched/sched_wakeup_new",
    "sched/sched_process_fork",
    "sched/sched_process_exec",
    "task/task_rename",
)
Order = Literal["interleaved", "blocked"]


class Recorded(Struct, frozen=True):
    """One start as it was collected."""

    runtime: Runtime
    index: int
    lived: Lifecycle | Failure
    batch: Batch | None
    recording: Recording | None
    root: int  # pid of the process that traced
    thread: int  # and its thread


class Trace(Struct, frozen=True):
    """One start, taken apart. `lost_events` is None when nothing could be listened to."""

    runtime: Runtime
    index: int
    lived: Lifecycle
    phases: tuple[Phase, ...]
    absent: tuple[Absent, ...]
    lost: dict[str, int]  # {source: events}
    tree: ProcessTree | None
    deep: Deep | None

    @property
    def whole_ns(self) -> int:
        return self.lived.whole_ns

    @property
    def lost_events(self) -> int | None:
        return sum(self.lost.values()) if self.lost else None

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(phase.name for phase in self.phases)


class Failed(Struct, frozen=True):
    """A start that a runtime could not finish."""

    runtime: Runtime
    index: int
    stage: str
    error: str


class Tracer(Struct):
    """As a context manager: what it asks of the kernel is given back at the end.

    `name` is that of the run, which the trace instance carries too, so that `gc` finds it.
    """

    name: str
    deep: bool = False
    receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES
    buffer_kib: int = BUFFER_KIB
    notes: list[str] = field(default_factory=list)
    _events: ProcessEvents | None = None
    _instance: TraceInstance | None = None

    def __enter__(self) -> Tracer:
        try:
            self._events = ProcessEvents(self.receive_buffer_bytes)
        except HostError as error:
            self.notes.append(f"{error}; only what the harness's own clocks show")
        if self.deep:
            try:
                self._instance = TraceInstance(self.name, EVENTS, buffer_kib=self.buffer_kib, blocked_stacks=True)
            except HostError as error:
                self.notes.append(f"{error}; --deep is left out")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._events is not None:
                self._events.stop()
        finally:
            if self._instance is not None:
                self._instance.close()
                self._instance = None

    def run(
        self,
        session: Session,
        runtime: Runtime,
        template: Template,
        index: int,
        container_id: str,
        *,
        end: End,
        timeout_s: float = 30.0,
    ) -> Recorded:
        """One start; a runtime's failure is in the result, not raised."""
        instance = self._instance
        if instance is not None:
            instance.follow((threading.get_native_id(),))
            instance.on()
        try:
            lived = run_lifecycle(session, runtime, template, container_id, end=end, timeout_s=timeout_s)
        finally:
            if instance is not None:
                instance.off()
        return Recorded(
            runtime,
            index,
            lived,
            None if self._events is None else self._events.drain(),
            None if instance is None else instance.take(),
            os.getpid(),
            threading.get_native_id(),
        )

    def decode(self, recorded: list[Recorded]) -> list[Trace | Failed]:
        """All starts of this tracer, in the order in which they ran."""
        symbols = Symbols()
        return [self._decode(one, symbols) for one in recorded]

    def _decode(self, one: Recorded, symbols: Symbols) -> Trace | Failed:
        lost: dict[str, int] = {}
        events: list[ProcessEvent] = []
        if self._events is not None and one.batch is not None:
            before = self._events.lost
            events = self._events.decode(one.batch)
            lost["process_events"] = self._events.lost - before
        if isinstance(one.lived, Failure):
            return Failed(one.runtime, one.index, one.lived.stage, one.lived.error)
        lived = one.lived
        tree: ProcessTree | None = None
        if self._events is not None:
            # a pid that was another's before belongs to nobody here
            within = (event for event in events if event.time_ns >= lived.create.start_ns)
            tree = ProcessTree(within, one.root, lived.init)
        deep: Deep | None = None
        if one.recording is not None:
            kernel_events, lost["trace_buffer"] = one.recording.decode()
            deep = analyze(kernel_events, lived, one.thread, symbols)
        marks = None if deep is None else deep.marks
        why = self.notes[0] if self._events is None and self.notes else ""
        phases, absent = divide(lived, one.runtime.dialect, tree, why, marks)
        return Trace(one.runtime, one.index, lived, phases, absent, lost, tree, deep)


def plan(runtimes: list[Runtime], runs: int, warmup: int, order: Order) -> list[tuple[Runtime, int]]:
    """(runtime, number of its start; below 0: to warm up)."""
    if order == "interleaved":
        return [(runtime, index) for index in range(-warmup, runs) for runtime in runtimes]
    return [(runtime, index) for runtime in runtimes for index in range(-warmup, runs)]
