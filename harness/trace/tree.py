"""The processes of one start, put together from process events: who forked whom, what was executed, when each ended."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from msgspec import Struct, field

from harness.kernel.events import ProcessEvent


class Labelled(Struct, frozen=True):
    """An event with its meaning in words, such as `init helper executed again`."""

    time_ns: int
    pid: int
    label: str


class Process(Struct):
    """One process of the tree. Times are CLOCK_MONOTONIC nanoseconds."""

    pid: int
    parent: int
    role: str
    born_ns: int
    execs: list[int] = field(default_factory=list)
    comms: list[tuple[int, str]] = field(default_factory=list)  # names that it gave itself
    threads: dict[int, int] = field(default_factory=dict)  # {tid: born}, without the leader
    gone_ns: int | None = None  # when its last task ended


class ProcessTree:
    """All that `root` (the harness) started, and what they started, and so on. `init` is the container's process."""

    def __init__(self, events: Iterable[ProcessEvent], root: int, init: int) -> None:
        self.root = root
        self.init = init
        self.processes: dict[int, Process] = {}
        self._events: list[ProcessEvent] = []
        self._sessions: dict[int, int] = {}
        helpers = 0
        for event in sorted(events, key=lambda event: event.time_ns):
            new = event.what == "fork" and event.thread == event.pid
            if new and (event.parent == root or event.parent in self.processes):
                assert event.parent is not None
                role = "init" if event.pid == init else "runtime"
                if event.parent != root and event.pid != init:
                    helpers += 1
                    role = f"helper {helpers}"
                self.processes[event.pid] = Process(event.pid, event.parent, role, event.time_ns)
            elif event.pid not in self.processes:
                continue
            self._note(event, self.processes[event.pid])
            self._events.append(event)

    def _note(self, event: ProcessEvent, process: Process) -> None:
        if event.what == "exec":
            process.execs.append(event.time_ns)
        elif event.what == "fork" and event.thread != event.pid and event.thread is not None:
            process.threads[event.thread] = event.time_ns
        elif event.what == "comm" and event.comm and event.thread == event.pid:
            process.comms.append((event.time_ns, event.comm))
        elif event.what == "sid":
            self._sessions.setdefault(event.pid, event.time_ns)
        elif event.what == "exit":
            process.gone_ns = event.time_ns

    def spawned(self, start_ns: int, end_ns: int) -> int | None:
        """The pid of what the root cloned in that time: a runtime."""
        found = (p for p in self.processes.values() if p.parent == self.root and start_ns <= p.born_ns <= end_ns)
        return next((process.pid for process in found if process.execs), None)

    def execs(self, pid: int, start_ns: int, end_ns: int) -> list[int]:
        process = self.processes.get(pid)
        return [] if process is None else [time for time in process.execs if start_ns <= time <= end_ns]

    def forks(self, start_ns: int, end_ns: int) -> list[ProcessEvent]:
        """New processes, but for those that the root cloned."""
        return [
            event
            for event in self._events
            if event.what == "fork"
            and event.thread == event.pid
            and start_ns <= event.time_ns <= end_ns
            and event.parent != self.root
        ]

    def first_exec(self, start_ns: int, end_ns: int, but: set[int]) -> ProcessEvent | None:
        """The first exec of a process that is none of `but`."""
        return next(
            (e for e in self._events if e.what == "exec" and start_ns <= e.time_ns <= end_ns and e.pid not in but),
            None,
        )

    def born(self, pid: int) -> int | None:
        return self.processes[pid].born_ns if pid in self.processes else None

    def session(self, pid: int) -> int | None:
        """When the process first called setsid(2)."""
        return self._sessions.get(pid)

    def gone(self, pid: int, reaped_ns: int) -> int | None:
        """When the process's last task ended; no later than the wait for it returned."""
        process = self.processes.get(pid)
        return None if process is None or process.gone_ns is None else min(process.gone_ns, reaped_ns)

    @cached_property
    def _labels(self) -> tuple[Labelled, ...]:
        found = []
        for process in self.processes.values():
            role = process.role
            if process.parent != self.root:
                found.append(Labelled(process.born_ns, process.pid, f"{role} forked"))
            for index, time_ns in enumerate(process.execs):
                found.append(Labelled(time_ns, process.pid, f"{role} executed{' again' if index else ''}"))
            for time_ns, comm in process.comms:
                shown = comm if comm.isprintable() else repr(comm)  # anything may be in it
                found.append(Labelled(time_ns, process.pid, f"{role} calls itself {shown}"))
            if process.threads:
                found.append(Labelled(min(process.threads.values()), process.pid, f"{role}: first thread"))
            if process.gone_ns is not None:
                found.append(Labelled(process.gone_ns, process.pid, f"{role} ended"))
        return tuple(sorted(found, key=lambda one: one.time_ns))

    def labelled(self) -> tuple[Labelled, ...]:
        """What happened, in words, in the order of time; of threads only the first of each process."""
        return self._labels
