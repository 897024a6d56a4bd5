"""Run the cells of a matrix: one guest for each kernel and view, as many side by side as asked; a death is a result."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from harness.compat import driver_cases
from harness.compat.cells import Cell, Matrix, fingerprint
from harness.compat.guest import Guest, Job
from harness.compat.guest_agent import CONFORMANCE, START
from harness.compat.kernels import HOST, Kernel
from harness.compat.machine import Accelerator
from harness.errors import HarnessError, InputError
from harness.faults.catalogue import Entry
from harness.oci.recipe import data_root
from harness.runtime.discovery import Runtime
from harness.version import VERSION

SYSTEMD_VIEW = "unified+systemd"  # the unified layout, and systemd is PID 1
VIEWS = ("host", "legacy", "hybrid", "unified", SYSTEMD_VIEW)
MOST_DEATHS = 4  # of the guests of one place, before the rest of its cells is given up
LOOK_MS = 1000  # how often it is asked whether a guest is overdue
STOOD_STILL_S = 10.0  # between two looks: then it is this process that was stopped, and perhaps the guests with it
# What a fault needs that only a guest with systemd is booted for; all others run there only when named.
SYSTEMD_NEEDS = ("systemd", "lsm:")

Event = Callable[[str, Guest | None], None]


class Plan(Struct, frozen=True):
    """What is asked for."""

    kernels: tuple[Kernel, ...]
    views: tuple[str, ...]
    runtimes: tuple[Runtime, ...]
    faults: tuple[Entry, ...]
    named: bool  # the faults were named one by one, so they run wherever they can
    timeout_s: float
    conformance: str | None = None  # which of its cases, as pytest's -k; "" is all, None is none
    systemd_root: Path | None = None  # for SYSTEMD_VIEW

    def jobs(self) -> list[Job]:
        """One for each kernel and view, in that order."""
        runtimes = {runtime.name: runtime.path for runtime in self.runtimes}
        cpus = {entry.slug: count for entry in self.faults if (count := cpus_needed(entry)) > 1}
        made = []
        for kernel in self.kernels:
            for view in self.views:
                if kernel.name == HOST and view == SYSTEMD_VIEW:
                    continue  # this host's own PID 1 is what it is
                cases = tuple((case, name) for case in self.cases(view) for name in runtimes)
                root = self.systemd_root if view == SYSTEMD_VIEW else None
                job = Job(kernel, view, runtimes, cases, self.timeout_s, root, self.conformance or "")
                made.append(job if kernel.name == HOST else replace(job, cpus=cpus))  # the host has what it has
        return made

    def cases(self, view: str) -> list[str]:
        faults = [entry.slug for entry in self.faults]
        if view != SYSTEMD_VIEW:
            return [START, *faults, *([] if self.conformance is None else [CONFORMANCE])]
        if not self.named:
            faults = [entry.slug for entry in self.faults if _needs_systemd(entry)]
        return [START, *driver_cases.CASES, *faults]

    def fingerprints(self) -> dict[tuple[str, str, str], str]:
        """{(kernel, runtime, case)}: changes with the catalogue's file, the runtime's binary, the kernel's image."""
        contents = {entry.slug: _catalogue_bytes(entry.slug) for entry in self.faults}
        contents[CONFORMANCE] = (self.conformance or "").encode()
        binaries = {runtime.name: fingerprint(Path(runtime.path).read_bytes()) for runtime in self.runtimes}
        found = {}
        for kernel in self.kernels:
            image = fingerprint(kernel.image.read_bytes()) if kernel.image else os.uname().version
            for name, binary in binaries.items():
                for case in {*contents, START, *driver_cases.CASES}:
                    parts = (VERSION, image, binary, case, contents.get(case, b""))
                    found[kernel.release, name, case] = fingerprint(*parts)
        return found


def _catalogue_bytes(slug: str) -> bytes:
    return (data_root() / "faults" / f"{slug}.toml").read_bytes()


def _needs_systemd(entry: Entry) -> bool:
    own = [need for need in entry.fault.needs if need.startswith(SYSTEMD_NEEDS)]
    return bool(own) or entry.fault.cause == "cgroup-driver-mismatch"


class Runner(Struct):
    """Keeps `jobs` guests at work until every cell has a verdict.

    `on_event` is told of each cell, and of each guest's start and end; `on_cells` after each batch of cells.
    """

    matrix: Matrix
    plan: Plan
    directory: Path
    accelerators: list[Accelerator]
    jobs: int
    on_event: Event = lambda _text, _guest: None
    on_cells: Callable[[], None] = lambda: None
    max_time_s: float | None = None  # when it is over, guests are ended where they are
    deaths: dict[tuple[str, str], int] = field(default_factory=dict)
    _serial: int = 0
    _fingerprints: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def run(self, known: Iterable[Cell] = ()) -> None:
        """`known`: cells of an earlier run; what has a verdict, and of the same things, is not run again."""
        self._fingerprints = self.plan.fingerprints()
        waiting = self._without(known)
        running: list[Guest] = []
        started = time.monotonic()
        try:
            while waiting or running:
                if self.max_time_s is not None and time.monotonic() - started > self.max_time_s:
                    left = sum(len(job.cases) for job in waiting) + sum(len(guest.left) for guest in running)
                    self.matrix.environment["not_run"] = left
                    break
                while waiting and len(running) < self.jobs:
                    job = waiting.pop(0)
                    if (guest := self._start(job)) is not None:
                        running.append(guest)
                for guest in self._look(running):
                    running.remove(guest)
                    waiting = self._afterwards(guest) + waiting
        finally:
            for guest in running:
                guest.close()

    def _without(self, known: Iterable[Cell]) -> list[Job]:
        """The jobs without the cells that are known; these go into the matrix."""
        by_key = {cell.key: cell for cell in known if cell.verdict != "inconclusive"}
        of_the_suite = [cell for cell in by_key.values() if cell.case.startswith(f"{CONFORMANCE}:")]
        waiting = []
        for job in self.plan.jobs():
            left = []
            for case, runtime in job.cases:
                cell = by_key.get((job.kernel.release, job.view, runtime, case))
                if cell is not None and cell.fingerprint == self._fingerprint(job, runtime, case):
                    self.matrix.add(cell)
                    if case == CONFORMANCE:
                        self._keep(each for each in of_the_suite if each.place == cell.place)
                else:
                    left.append((case, runtime))
            if left:
                waiting.append(replace(job, cases=tuple(left)))
        # the long ones first, so that no core is idle at the end
        return sorted(waiting, key=lambda job: -len(job.cases))

    def _keep(self, cells: Iterable[Cell]) -> None:
        for cell in cells:
            self.matrix.add(cell)

    def _fingerprint(self, job: Job, runtime: str, case: str) -> str:
        return self._fingerprints[job.kernel.release, runtime, case.partition(":")[0]]

    def _start(self, job: Job) -> Guest | None:
        """None when it could not be started: then its cells say so."""
        self._serial += 1
        accelerator = None if job.kernel.name == HOST else self.accelerators[0]
        try:
            guest = Guest(job, self.directory / f"guest-{self._serial}", accelerator)
        except (HarnessError, OSError) as error:
            for case, runtime in job.cases:
                self._add(job, case, runtime, {"verdict": "inconclusive", "reason": str(error)}, None)
            self.on_cells()
            return None
        self.on_event("starts", guest)
        return guest

    def _look(self, running: Sequence[Guest]) -> list[Guest]:
        """Wait until there is something to read, take it in; returns the guests that are over."""
        poller = select.poll()
        by_fd = {guest.channel.fileno(): guest for guest in running}
        for fd in by_fd:
            poller.register(fd, select.POLLIN)
        before = time.monotonic()
        ready = {by_fd[fd] for fd, _ in poller.poll(LOOK_MS)}
        if (gap := time.monotonic() - before) > STOOD_STILL_S:
            for guest in running:
                guest.excuse(gap)
        over = []
        for guest in running:
            try:
                ended = guest in ready and self._take(guest)
            except EOFError:
                self._died(guest, guest.told())
                ended = True
            if not ended and (why := guest.overdue()) is not None:
                self._died(guest, why)
                ended = True
            if ended:
                over.append(guest)
        return over

    def _take(self, guest: Guest) -> bool:
        """Whether it has said that it is done. Raises EOFError."""
        ended = False
        for message in guest.messages():
            kind = message.pop("kind", None)
            if kind == "cell":
                case, runtime = message.pop("case"), message.pop("runtime")
                self._add(guest.job, case, runtime, message, guest)
            elif kind == "failed":
                guest.current = guest.current or (guest.left[0] if guest.left else None)
                self._died(guest, f"the agent: {message['reason']}")
                ended = True
            elif kind == "end":
                ended = True
        self.on_cells()
        return ended

    def _died(self, guest: Guest, why: str) -> None:
        """The case that it was at has its verdict: that this is what came of it."""
        place = (guest.job.kernel.release, guest.job.view)
        if guest.boot_s is None and guest.accelerator is not None and guest.accelerator not in self.accelerators:
            return  # another guest has found out already
        if guest.boot_s is None and len(self.accelerators) > 1 and guest.accelerator == self.accelerators[0]:
            self.accelerators.pop(0)
            self.matrix.environment.setdefault("accelerators_given_up", []).append(
                {"accelerator": guest.accelerator, "reason": why}
            )
            self.on_event(f"{guest.accelerator} does not work here ({why}); now {self.accelerators[0]}", guest)
            return
        self.deaths[place] = self.deaths.get(place, 0) + 1
        self.on_event(f"died: {why}", guest)
        tail = guest.machine.console_tail()
        if guest.current is not None:
            case, runtime = guest.current
            cell = {"verdict": "inconclusive", "reason": why, "console": tail}
            self._add(guest.job, case, runtime, cell, guest)
            guest.finished.add(guest.current)
        if guest.boot_s is None or self.deaths[place] >= MOST_DEATHS:
            reason = (
                why if guest.boot_s is None else f"given up after {self.deaths[place]} deaths of guests here: {why}"
            )
            for case, runtime in guest.left:
                cell = {"verdict": "inconclusive", "reason": reason, "console": tail}
                self._add(guest.job, case, runtime, cell, guest)
                guest.finished.add((case, runtime))

    def _afterwards(self, guest: Guest) -> list[Job]:
        """A guest is over: what it has not come to goes into another one."""
        seconds = round(time.monotonic() - guest.started, 1)
        self.matrix.guests.append(
            {
                "kernel": guest.job.kernel.release,
                "view": guest.job.view,
                "accelerator": guest.accelerator,
                "boot_s": guest.boot_s,
                "seconds": seconds,
                "cells": len(guest.finished),
            }
        )
        self.on_event("ends", guest)
        guest.close()
        return [replace(guest.job, cases=guest.left)] if guest.left else []

    def _add(self, job: Job, case: str, runtime: str, fields: dict[str, Any], guest: Guest | None) -> None:
        merged: dict[str, Any] = {"as_expected": False, "verdict": "inconclusive"} | fields
        known = {name: value for name, value in merged.items() if name in Cell.__struct_fields__}
        cell = Cell(
            kernel=job.kernel.release,
            view=job.view,
            runtime=runtime,
            case=case,
            fingerprint=self._fingerprint(job, runtime, case),
            accelerator=guest.accelerator if guest else None,
            **known,
        )
        self.matrix.add(cell)
        self.on_event("cell", guest)


def cpus_needed(entry: Entry) -> int:
    """By its precondition `cpus:N`; 1 if there is none."""
    return max([int(need.partition(":")[2]) for need in entry.fault.needs if need.startswith("cpus:")], default=1)


def check_views(names: Sequence[str]) -> tuple[str, ...]:
    """Raises InputError."""
    for name in names:
        if name not in VIEWS:
            raise InputError(f"--view {name}: there are {', '.join(VIEWS)}")
    return tuple(dict.fromkeys(names))
