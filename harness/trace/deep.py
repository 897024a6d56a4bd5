"""What tracefs tells of one start: system calls, time on and off the CPU, mounts, moves between cgroups."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, field

from harness.cgroup.hierarchy import parse_proc_cgroup
from harness.kernel.ringbuffer import TraceEvent
from harness.runtime.lifecycle import Lifecycle
from harness.trace.phases import Mark

State = Literal["running", "runnable", "blocked"]

UNINTERRUPTIBLE = 2  # include/linux/sched.h, TASK_UNINTERRUPTIBLE
NEW_NAMESPACES = 0x7E020080  # include/uapi/linux/sched.h, the CLONE_NEW* bits
MOUNT_CALLS = frozenset(
    {"mount", "umount", "umount2", "move_mount", "fsmount", "open_tree", "mount_setattr", "pivot_root"}
)
NAMESPACE_CALLS = frozenset({"unshare", "setns", "clone"})
# Where the kernel's tracepoints have other names than the system calls of the manual.
MANUAL_NAMES = {"newfstatat": "newfstatat", "newstat": "stat", "newfstat": "fstat", "newlstat": "lstat"}
MANUAL_NAMES |= {"newuname": "uname", "sendfile64": "sendfile", "umount": "umount2"}
# The head of a stack is the scheduler and the tracing itself, its tail the entry into the kernel.
HEADS = ("trace_", "__traceiter_", "__schedule", "schedule", "io_schedule", "__wait_for_common", "wait_for_completion")
TAILS = ("entry_", "do_syscall", "x64_sys_call", "invoke_syscall", "el0", "ret_from_fork", "kthread", "asm_exc")
STACK_DEPTH = 6


class Call(Struct):
    """One system call. Times are CLOCK_MONOTONIC nanoseconds; end_ns is None when it had not returned."""

    name: str
    thread: int
    start_ns: int
    arguments: dict[str, Any]
    end_ns: int | None = None
    result: int | None = None
    blocked_ns: int = 0


class Span(Struct):
    """A stretch of a thread's time in one state. Of a blocked one: in which call, and how deep in the kernel."""

    thread: int
    state: State
    start_ns: int
    end_ns: int
    call: str | None = None
    uninterruptible: bool = False
    stack: tuple[str, ...] = ()  # kernel functions, innermost first; only of an uninterruptible one


class CgroupChange(Struct, frozen=True):
    """A cgroup made or removed, or a task moved into one; start and end are those of the system call that did it."""

    what: Literal["mkdir", "rmdir", "attach"]
    hierarchy: str  # v1: its controllers; "unified" for v2
    path: str
    time_ns: int
    thread: int
    call: Call | None
    task: int | None = None  # the one that was moved


class Symbols:
    """Names of kernel addresses, from /proc/kallsyms. Where that hides the addresses every name is None."""

    @cached_property
    def _table(self) -> tuple[list[int], list[str]]:
        found = []
        with open("/proc/kallsyms", encoding="ascii", errors="replace") as file:
            for line in file:
                address, kind, name = line.split(maxsplit=3)[:3]
                if kind in "tTwW":
                    found.append((int(address, 16), name))
        found.sort()
        return [address for address, _ in found], [name for _, name in found]

    def name(self, address: int) -> str | None:
        try:
            addresses, names = self._table
        except OSError:
            return None
        at = bisect.bisect_right(addresses, address) - 1
        return names[at] if at >= 0 and addresses[-1] > 0 else None

    def reason(self, stack: Iterable[int]) -> tuple[str, ...]:
        """The functions of a sleeping task that say what it waits for, innermost first."""
        names = [name.partition(".")[0] for address in stack if (name := self.name(address)) is not None]
        while names and names[0].startswith(HEADS):
            names.pop(0)
        while names and names[-1].startswith(TAILS):
            names.pop()
        return tuple(names[:STACK_DEPTH])


class Deep(Struct):
    """All that was seen of the start's own threads; the tracing thread's own calls are left out."""

    calls: list[Call] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    cgroups: list[CgroupChange] = field(default_factory=list)
    executed: list[tuple[int, int, str]] = field(default_factory=list)  # (when, thread, file)
    names: dict[int, str] = field(default_factory=dict)  # {thread: command name}
    marks: list[Mark] = field(default_factory=list)

    @property
    def mounts(self) -> list[Call]:
        return [call for call in self.calls if call.name in MOUNT_CALLS]

    def time_in(self, start_ns: int, end_ns: int) -> dict[str, int]:
        """Nanoseconds of all threads together within that time, by state."""
        total = {"running_ns": 0, "runnable_ns": 0, "uninterruptible_ns": 0}
        for span in self.spans:
            key = "uninterruptible_ns" if span.uninterruptible else f"{span.state}_ns"
            if key in total:
                total[key] += max(0, min(span.end_ns, end_ns) - max(span.start_ns, start_ns))
        return total

    def call_totals(self) -> list[dict[str, Any]]:
        """Per system call, the longest wall time of all threads together first; unfinished ones do not count."""
        totals: dict[str, dict[str, Any]] = {}
        for call in self.calls:
            if call.end_ns is None or call.result is None:
                continue
            wall_ns = call.end_ns - call.start_ns
            row = totals.setdefault(
                call.name, {"name": call.name, "calls": 0, "errors": 0, "wall_ns": 0, "blocked_ns": 0, "longest_ns": 0}
            )
            row["calls"] += 1
            row["errors"] += -4096 < call.result < 0
            row["wall_ns"] += wall_ns
            row["blocked_ns"] += call.blocked_ns
            row["longest_ns"] = max(row["longest_ns"], wall_ns)
        return sorted(totals.values(), key=lambda row: -row["wall_ns"])

    def waits(self) -> list[dict[str, Any]]:
        """Uninterruptible sleeps by system call and kernel functions, longest first: what the kernel itself waited for.

        `reason` is empty where the kernel hides its symbols.
        """
        totals: dict[tuple[str | None, tuple[str, ...]], list[int]] = {}
        for span in self.spans:
            if span.uninterruptible:
                totals.setdefault((span.call, span.stack), []).append(span.end_ns - span.start_ns)
        rows = [
            {"call": call, "reason": list(stack), "count": len(times), "total_ns": sum(times), "longest_ns": max(times)}
            for (call, stack), times in totals.items()
        ]
        return sorted(rows, key=lambda row: -int(str(row["total_ns"])))


class _Reader:
    """Goes through the events once, in the order of time."""

    def __init__(self, deep: Deep, root: int, symbols: Symbols) -> None:
        self.deep = deep
        self.symbols = symbols
        self.followed: set[int] = set()
        self.root = root
        self.open: dict[int, Call] = {}
        self.state: dict[int, Span] = {}
        self.hierarchies = {
            line.hierarchy_id: ",".join(line.controllers) or (f"name={line.name}" if line.name else "unified")
            for line in parse_proc_cgroup(Path("/proc/self/cgroup").read_text())
        }

    def read(self, event: TraceEvent) -> None:
        name = event.name
        if name.startswith("sys_enter_"):
            self._enter(event)
        elif name.startswith("sys_exit_"):
            self._leave(event)
        elif name == "sched_switch":
            self._switch(event)
        elif name in ("sched_wakeup", "sched_wakeup_new"):
            self._wake(event)
        elif name == "sched_process_fork":
            if event.thread in self.followed or event.thread == self.root:
                self.followed.add(event.fields["child_pid"])
                self.deep.names.setdefault(event.fields["child_pid"], event.fields["child_comm"])
        elif event.thread in self.followed:
            self._other(event)

    def _other(self, event: TraceEvent) -> None:
        fields = event.fields
        if event.name == "kernel_stack":
            span = self.state.get(event.thread)
            if span is not None and span.state == "blocked" and not span.stack:
                span.stack = self.symbols.reason(fields["caller"])
        elif event.name == "sched_process_exec":
            self.deep.executed.append((event.time_ns, event.thread, fields["filename"]))
        elif event.name == "task_rename":
            self.deep.names[event.thread] = fields["newcomm"]
        elif event.name.startswith("cgroup_"):
            attach = event.name == "cgroup_attach_task"
            number = fields["dst_root" if attach else "root"]
            self.deep.cgroups.append(
                CgroupChange(
                    "attach" if attach else "mkdir" if event.name == "cgroup_mkdir" else "rmdir",
                    self.hierarchies.get(number, f"hierarchy {number}"),
                    fields["dst_path" if attach else "path"],
                    event.time_ns,
                    event.thread,
                    self.open.get(event.thread),
                    fields.get("pid"),
                )
            )

    def _enter(self, event: TraceEvent) -> None:
        if event.thread in self.followed:
            name = event.name.removeprefix("sys_enter_")
            arguments = {key: value for key, value in event.fields.items() if not key.startswith("__syscall_nr")}
            self.open[event.thread] = Call(MANUAL_NAMES.get(name, name), event.thread, event.time_ns, arguments)

    def _leave(self, event: TraceEvent) -> None:
        # the child of a clone returns from a call that its parent has entered
        call = self.open.pop(event.thread, None)
        if call is not None:
            call.end_ns, call.result = event.time_ns, event.fields["ret"]
            self.deep.calls.append(call)

    def _become(self, thread: int, state: State | None, time_ns: int) -> Span | None:
        """End the thread's span and begin another."""
        last = self.state.pop(thread, None)
        if last is not None:
            last.end_ns = time_ns
            self.deep.spans.append(last)
            call = self.open.get(thread)
            if call is not None and last.state == "blocked":
                call.blocked_ns += time_ns - max(last.start_ns, call.start_ns)
        if state is None:
            return None
        span = Span(thread, state, time_ns, time_ns)
        self.state[thread] = span
        return span

    def _switch(self, event: TraceEvent) -> None:
        off, on, how = event.fields["prev_pid"], event.fields["next_pid"], event.fields["prev_state"]
        if off in self.followed:
            asleep = how & 0x7F
            ended = how & 0x30  # EXIT_DEAD, EXIT_ZOMBIE
            span = self._become(off, None if ended else "blocked" if asleep else "runnable", event.time_ns)
            if span is not None and span.state == "blocked":
                call = self.open.get(off)
                span.call = None if call is None else call.name
                span.uninterruptible = bool(how & UNINTERRUPTIBLE)
        if on in self.followed:
            self._become(on, "running", event.time_ns)

    def _wake(self, event: TraceEvent) -> None:
        thread = event.fields["pid"]
        if thread in self.followed and (thread not in self.state or self.state[thread].state == "blocked"):
            self._become(thread, "runnable", event.time_ns)

    def finish(self, end_ns: int) -> None:
        for thread in list(self.state):
            self._become(thread, None, end_ns)
        self.deep.calls += self.open.values()
        self.deep.calls.sort(key=lambda call: call.start_ns)
        self.deep.spans.sort(key=lambda span: span.start_ns)


def analyze(events: list[TraceEvent], lived: Lifecycle, root: int, symbols: Symbols) -> Deep:
    """`root` is the thread that ran the lifecycle; all that it started is followed."""
    deep = Deep()
    reader = _Reader(deep, root, symbols)
    for event in events:
        reader.read(event)
    reader.finish(max(lived.delete.end_ns, events[-1].time_ns if events else 0))
    deep.marks = list(_marks(deep, lived))
    return deep


def _marks(deep: Deep, lived: Lifecycle) -> Iterable[Mark]:
    """The two phases that only tracefs shows; both within `create`, after the runtime was executed."""
    begin = next((time for time, _, _ in deep.executed), None)
    end = lived.create.end_ns
    if begin is None:
        return
    joined = [c for c in deep.cgroups if c.what == "attach" and begin < c.time_ns < end]
    if joined:
        yield Mark("cgroup joined", joined[-1].time_ns, joined[-1].task)
    entered = [
        call
        for call in deep.calls
        if call.name in NAMESPACE_CALLS
        and call.end_ns is not None
        and begin < call.start_ns
        and call.end_ns < end
        # setns has a descriptor first; its namespace is entered whatever the type
        and (call.name == "setns" or int(next(iter(call.arguments.values()), 0)) & NEW_NAMESPACES)
        and (call.result or 0) >= 0
    ]
    if entered:
        last = max(entered, key=lambda call: call.end_ns or 0)
        yield Mark("namespaces entered", last.end_ns or last.start_ns, last.thread)
