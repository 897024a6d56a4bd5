"""What a trace run found: the starts, each runtime's medians, and all of it as JSON."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from msgspec import Struct, field

from harness.runtime.discovery import Runtime
from harness.runtime.session import ViewChoice
from harness.trace.collect import Failed, Trace
from harness.trace.deep import Call, Deep
from harness.trace.phases import HARNESS_OWN, PHASES

SCHEMA = "oci-harness/trace/1"
# include/uapi/linux/mount.h; the rest are numbers
MOUNT_FLAGS = {
    1: "ro",
    2: "nosuid",
    4: "nodev",
    8: "noexec",
    32: "remount",
    4096: "bind",
    8192: "move",
    16384: "rec",
    1 << 17: "unbindable",
    1 << 18: "private",
    1 << 19: "slave",
    1 << 20: "shared",
    1 << 21: "relatime",
    1 << 24: "strictatime",
}
UMOUNT_FLAGS = {1: "force", 2: "detach", 4: "expire", 8: "nofollow"}
USER_POINTERS = (
    "this kernel's system call events hold addresses in the caller's memory, not the texts there: no names of files or "
    "mount points (cgroup paths and executed files are from the kernel's own events)"
)


class PhaseSummary(Struct, frozen=True):
    """One phase over all starts of a runtime that have it."""

    name: str
    n: int
    median_ns: float
    share: float  # median of the phase's part of the whole, 0 to 1

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "n": self.n, "median_ns": self.median_ns, "share": self.share}


class Result(Struct):
    """`notes` has one line for each thing that this host does not offer."""

    runtimes: list[Runtime]
    choice: ViewChoice
    settings: dict[str, Any]
    starts: list[Trace | Failed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def traces(self) -> list[Trace]:
        return [one for one in self.starts if isinstance(one, Trace)]

    @property
    def failed(self) -> list[Failed]:
        return [one for one in self.starts if isinstance(one, Failed)]

    def of(self, runtime: str) -> list[Trace]:
        return [trace for trace in self.traces if trace.runtime.name == runtime]

    def usual(self, runtime: str) -> list[Trace]:
        """Those whose events came in the order that is the most common one."""
        own = self.of(runtime)
        if not own:
            return []
        order, _ = Counter(trace.order for trace in own).most_common(1)[0]
        return [trace for trace in own if trace.order == order]

    def median_trace(self, runtime: str) -> Trace | None:
        """The start that is nearest to the median, of those with the usual order."""
        own = self.usual(runtime)
        if not own:
            return None
        middle = statistics.median(trace.whole_ns for trace in own)
        return min(own, key=lambda trace: abs(trace.whole_ns - middle))

    def whole_median_ns(self, runtime: str) -> float | None:
        own = self.of(runtime)
        return statistics.median(trace.whole_ns for trace in own) if own else None

    def summary(self, runtime: str) -> list[PhaseSummary]:
        """In the order of PHASES. Each is of the starts in which it begins with the event that it mostly begins with.

        (Whether `start` returns before or after the payload's first instruction is a race on some machines.)
        """
        seen: dict[str, dict[str, list[tuple[int, float]]]] = {}
        for trace in self.of(runtime):
            before = ""
            for phase in trace.phases:
                values = seen.setdefault(phase.name, {}).setdefault(before, [])
                values.append((phase.duration_ns, phase.duration_ns / trace.whole_ns))
                before = phase.name
        found = []
        for name in PHASES:
            if name in seen:
                values = max(seen[name].values(), key=len)
                median = statistics.median(duration for duration, _ in values)
                found.append(PhaseSummary(name, len(values), median, statistics.median(share for _, share in values)))
        return found

    def to_json(self) -> dict[str, Any]:
        summaries: dict[str, Any] = {}
        for runtime in self.runtimes:
            own = self.of(runtime.name)
            summaries[runtime.name] = {
                "n": len(own),
                "failed": sum(one.runtime.name == runtime.name for one in self.failed),
                "other_order": len(own) - len(self.usual(runtime.name)),
                "whole_median_ns": self.whole_median_ns(runtime.name),
                "phases": [phase.to_json() for phase in self.summary(runtime.name)],
            }
        return {
            "schema": SCHEMA,
            "settings": self.settings,
            "environment": {"cgroup": self.choice.to_json(), "runtimes": [one.to_json() for one in self.runtimes]},
            "notes": self.notes,
            "phase_ends": PHASES,
            "harness_own": sorted(HARNESS_OWN),
            "summary": summaries,
            "traces": [trace_json(trace) for trace in self.traces],
            "failed": [
                {"runtime": one.runtime.name, "index": one.index, "stage": one.stage, "error": one.error}
                for one in self.failed
            ],
            "interrupted": self.interrupted,
        }


def trace_json(trace: Trace) -> dict[str, Any]:
    """One start; times are nanoseconds since `began_ns` (CLOCK_MONOTONIC), when `create` was cloned."""
    began = trace.lived.create.start_ns
    tree = trace.tree
    return {
        "runtime": trace.runtime.name,
        "index": trace.index,
        "began_ns": began,
        "whole_ns": trace.whole_ns,
        "lost_events": trace.lost_events,
        "lost": trace.lost,
        "phases": [phase.to_json() for phase in trace.phases],
        "absent": [one.to_json() for one in trace.absent],
        "operations": [
            {"verb": op.verb, "start_ns": op.start_ns - began, "end_ns": op.end_ns - began}
            for op in trace.lived.operations
        ],
        "processes": [
            {
                "pid": one.pid,
                "parent": one.parent,
                "role": one.role,
                "born_ns": one.born_ns - began,
                "executed_ns": [time - began for time in one.execs],
                "gone_ns": None if one.gone_ns is None else one.gone_ns - began,
                "threads": 1 + len(one.threads),
            }
            for one in (tree.processes.values() if tree is not None else ())
        ],
        "deep": None if trace.deep is None else deep_json(trace.deep, trace),
    }


def deep_json(deep: Deep, trace: Trace) -> dict[str, Any]:
    began = trace.lived.create.start_ns
    named = any(isinstance(value, str) for call in deep.calls for value in call.arguments.values())
    return {
        "names": None if named else USER_POINTERS,
        "calls": deep.call_totals(),
        "waits": deep.waits(),
        "phases": [{"name": p.name, **deep.time_in(p.start_ns + began, p.end_ns + began)} for p in trace.phases],
        "executed": [{"time_ns": time - began, "thread": thread, "file": file} for time, thread, file in deep.executed],
        "cgroups": [
            {
                "what": one.what,
                "hierarchy": one.hierarchy,
                "path": one.path,
                "time_ns": one.time_ns - began,
                "thread": one.thread,
                "task": one.task,
                "call": None if one.call is None else one.call.name,
                "call_ns": None if one.call is None or one.call.end_ns is None else one.call.end_ns - one.call.start_ns,
            }
            for one in deep.cgroups
        ],
        "mounts": [mount_json(call, began) for call in deep.mounts],
    }


def mount_json(call: Call, began: int) -> dict[str, Any]:
    return {
        "call": call.name,
        "flags": mount_flags(call),
        "texts": {key: value for key, value in call.arguments.items() if isinstance(value, str)},
        "time_ns": call.start_ns - began,
        "duration_ns": None if call.end_ns is None else call.end_ns - call.start_ns,
        "thread": call.thread,
        "result": call.result,
    }


def mount_flags(call: Call) -> list[str]:
    """The flags of mount(2) and umount2(2) by name; what has none is a hexadecimal number."""
    names = {"mount": MOUNT_FLAGS, "umount2": UMOUNT_FLAGS}.get(call.name)
    value = call.arguments.get("flags")
    if names is None or not isinstance(value, int):
        return []
    found = [name for bit, name in names.items() if value & bit]
    rest = value & ~sum(names)
    return [*found, *([hex(rest)] if rest else [])]
