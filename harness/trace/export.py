"""Trace Event JSON, as ui.perfetto.dev and chrome://tracing open it.

Source: "Trace Event Format", and "External trace formats" in Perfetto's documentation. Slices of one track must nest,
so what a process executed, its threads' system calls, and their times on and off the CPU are tracks of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from harness.trace.collect import Trace
from harness.trace.deep import Deep
from harness.trace.result import mount_flags

STATES = 100_000_000  # added to a thread's id: the track of its states; above any pid (PID_MAX_LIMIT is 2^22)
IMAGES = 2 * STATES  # added to a process's id: the track of what it executed
APART = 1_000_000_000  # added to a pid that another trace has too


def trace_events(traces: Iterable[Trace]) -> dict[str, Any]:
    """One document for several starts, each beginning at 0 so that they can be compared. Times are microseconds."""
    events: list[dict[str, Any]] = []
    used: set[int] = set()
    shown = []
    for number, trace in enumerate(traces, 1):
        exporter = _Exporter(trace, number, used)
        events += exporter.events()
        used |= exporter.pids
        shown.append({"runtime": trace.runtime.name, "index": trace.index, "lost_events": trace.lost_events})
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {"schema": "oci-harness/trace/1", "starts": shown},
    }


class _Exporter:
    def __init__(self, trace: Trace, number: int, used: set[int]) -> None:
        self.trace = trace
        self.began = trace.lived.create.start_ns
        self.end = trace.lived.delete.end_ns
        self.own = number  # pid of the tracks that belong to no process; pid 1 is the host's init, never ours
        self.used = used
        self.pids: set[int] = set()
        self.owner: dict[int, int] = {}
        for process in trace.tree.processes.values() if trace.tree is not None else ():
            self.owner |= dict.fromkeys((process.pid, *process.threads), process.pid)

    def _pid(self, pid: int) -> int:
        self.pids.add(pid)
        return pid + APART * self.own if pid in self.used else pid

    def _slice(
        self, name: str, category: str, start: int, end: int, pid: int, tid: int, args: dict[str, Any]
    ) -> dict[str, Any]:
        start, end = max(start, self.began), max(start, end)
        return {
            "ph": "X",
            "name": name,
            "cat": category,
            "ts": (start - self.began) / 1000,
            "dur": (end - start) / 1000,
            "pid": pid,
            "tid": tid,
            "args": args,
        }

    def _instant(self, name: str, category: str, time: int, thread: int, args: dict[str, Any]) -> dict[str, Any]:
        pid = self._pid(self.owner.get(thread, thread))
        ts = (time - self.began) / 1000
        return {"ph": "i", "s": "t", "name": name, "cat": category, "ts": ts, "pid": pid, "tid": thread, "args": args}

    @staticmethod
    def _name(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
        return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}

    def events(self) -> Iterator[dict[str, Any]]:
        yield from self._overview()
        yield from self._processes()
        if self.trace.deep is not None:
            yield from self._deep(self.trace.deep)

    def _overview(self) -> Iterator[dict[str, Any]]:
        trace = self.trace
        yield self._name("process_name", self.own, 0, f"{trace.runtime.name}: phases of start {trace.index}")
        yield {"ph": "M", "name": "process_sort_index", "pid": self.own, "tid": 0, "args": {"sort_index": -1}}
        for tid, name in ((1, "phases"), (2, "steps"), (3, "operations")):
            yield self._name("thread_name", self.own, tid, name)
        for phase in trace.phases:
            start, end = phase.start_ns + self.began, phase.end_ns + self.began
            yield self._slice(phase.name, "phase", start, end, self.own, 1, {"includes": list(phase.includes)})
            for step in phase.steps:
                start, end = step.start_ns + self.began, step.end_ns + self.began
                yield self._slice(step.name, "step", start, end, self.own, 2, {"pid": step.pid})
        for op in trace.lived.operations:
            yield self._slice(op.verb, "operation", op.start_ns, op.end_ns, self.own, 3, {"command": op.command})

    def _processes(self) -> Iterator[dict[str, Any]]:
        if self.trace.tree is None:
            return
        names = {} if self.trace.deep is None else self.trace.deep.names
        for process in self.trace.tree.processes.values():
            pid = self._pid(process.pid)
            label = f"{self.trace.runtime.name} {process.role}"
            yield self._name("process_name", pid, process.pid, label)
            yield self._name("thread_name", pid, process.pid, names.get(process.pid, process.role))
            yield self._name("thread_name", pid, process.pid + IMAGES, "executed")
            for thread in process.threads:
                yield self._name("thread_name", pid, thread, names.get(thread, f"thread {thread}"))
            gone = process.gone_ns or self.end
            cuts = [process.born_ns, *process.execs, gone]
            for number, (start, end) in enumerate(pairwise(cuts)):
                what = "forked" if number == 0 else f"executed {number}"
                yield self._slice(f"{process.role} {what}", "process", start, end, pid, process.pid + IMAGES, {})

    def _deep(self, deep: Deep) -> Iterator[dict[str, Any]]:
        seen = {call.thread for call in deep.calls} | {span.thread for span in deep.spans}
        for thread in sorted(seen - set(self.owner)):
            pid = self._pid(thread)  # no process events: each thread stands for itself
            for what in ("process_name", "thread_name"):
                yield self._name(what, pid, thread, deep.names.get(thread, f"thread {thread}"))
        for call in deep.calls:
            pid = self._pid(self.owner.get(call.thread, call.thread))
            end = call.end_ns if call.end_ns is not None else call.start_ns
            # texts, for a number of 64 bits is none in JSON
            args = {key: value if isinstance(value, str) else hex(value) for key, value in call.arguments.items()}
            args["result"] = "did not return" if call.result is None else str(call.result)
            yield self._slice(call.name, "syscall", call.start_ns, end, pid, call.thread, args)
        for thread in sorted({span.thread for span in deep.spans}):
            pid = self._pid(self.owner.get(thread, thread))
            yield self._name("thread_name", pid, thread + STATES, f"{deep.names.get(thread, thread)}: on and off CPU")
        for span in deep.spans:
            pid = self._pid(self.owner.get(span.thread, span.thread))
            name = f"blocked in {span.call}" if span.state == "blocked" and span.call else span.state
            stack = {"stack": list(span.stack)} if span.stack else {}
            yield self._slice(name, span.state, span.start_ns, span.end_ns, pid, span.thread + STATES, stack)
        for one in deep.cgroups:
            where = {"hierarchy": one.hierarchy, "path": one.path, "task": one.task}
            yield self._instant(f"cgroup {one.what}", "cgroup", one.time_ns, one.thread, where)
        for call in deep.mounts:
            texts = {key: value for key, value in call.arguments.items() if isinstance(value, str)}
            facts = {"flags": mount_flags(call), "result": call.result, **texts}
            yield self._instant(call.name, "mount", call.start_ns, call.thread, facts)
        for time, thread, file in deep.executed:
            yield self._instant("exec", "exec", time, thread, {"file": file})
