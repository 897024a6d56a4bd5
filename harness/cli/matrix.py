"""`oci-harness matrix`: which case comes out how, on which kernel, cgroup view and runtime."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from harness.cli.kernels import cache_option
from harness.cli.options import Duration, json_options, runtimes_option, timeout_option
from harness.cli.output import console, emit, encode, note, table, write_atomically
from harness.errors import InputError

if TYPE_CHECKING:
    from rich.text import Text

    from harness.compat.cells import Cell, Matrix
    from harness.compat.guest import Guest
    from harness.compat.matrix import Event, Plan
    from harness.faults.catalogue import Entry

SAVE_EVERY_S = 2.0
COLOURS = {"good": "green", "odd": "yellow", "bad": "bold red", "none": "dim"}


@click.command()
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    required=True,
    metavar="K",
    help="host, a fetched kernel (6.1, 6.12.117), or IMAGE[:MODULES] by path. May be given several times.",
)
@click.option(
    "--view",
    "views",
    default="unified",
    show_default=True,
    metavar="V[,V...]",
    help="host, legacy, hybrid, unified, unified+systemd (systemd is PID 1; runs the cases of the cgroup drivers).",
)
@click.option(
    "--faults", multiple=True, metavar="all|none|SLUG", help="Faults or causes of the catalogue; all if not given."
)
@click.option(
    "--conformance",
    is_flag=False,
    flag_value="",
    metavar="[EXPR]",
    help="Also the conformance cases, or those whose names match, as conformance -k.",
)
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Guests side by side; as many as there are cores.")
@click.option(
    "--accel",
    type=click.Choice(["auto", "kvm", "tcg"]),
    default="auto",
    show_default=True,
    help="How guests run. auto: KVM if it works within a deadline, else emulation.",
)
@click.option("--baseline", metavar="K/V", help="Kernel and view to compare the others with; the first if not given.")
@click.option(
    "--max-time", "max_time_s", type=Duration(), help="End where it is then; --resume goes on with what is left."
)
@click.option("--resume", is_flag=True, help="Keep the cells of --output that have a verdict.")
@click.option("--full", is_flag=True, help="Show all cases, not just those that differ.")
@click.option("--junit", type=click.Path(dir_okay=False), metavar="FILE", help="Also write JUnit XML to FILE.")
@cache_option
@runtimes_option
@timeout_option
@json_options
def matrix(
    kernels: tuple[str, ...],
    views: str,
    faults: tuple[str, ...],
    conformance: str | None,
    jobs: int | None,
    accel: str,
    baseline: str | None,
    max_time_s: float | None,
    resume: bool,
    full: bool,
    junit: str | None,
    cache: Path | None,
    runtimes: tuple[str, ...],
    timeout_s: float,
    as_json: bool,
    output: str | None,
) -> int:
    """Run the fault catalogue on kernels x cgroup views x runtimes.

    Each kernel and view is a virtual machine with this host's files, which it cannot change. The result file grows as
    cells are finished; with --resume these are not run again, unless the catalogue, the runtime or the kernel changed.
    A guest that dies or hangs is the result of the case it was at. Exit status 1 when a verdict is not as expected.
    """
    from harness.compat import machine, systemd_root
    from harness.compat.cells import Matrix, load_cells, to_junit
    from harness.compat.kernels import HOST, cache_directory
    from harness.compat.matrix import SYSTEMD_VIEW, Runner
    from harness.runtime.session import require_root
    from harness.runtime.workspace import Workspace

    if resume and output is None:
        raise InputError("--resume: name the file to go on with: --output FILE")
    require_root()
    where = cache_directory(cache)
    plan = _plan(kernels, views, runtimes, faults, conformance, timeout_s, where)
    guests = any(kernel.name != HOST for kernel in plan.kernels)
    if guests:
        machine.require()
    known = load_cells(Path(output)) if resume and output is not None and Path(output).exists() else []
    result = Matrix(baseline=_baseline(baseline, plan))
    if guests and SYSTEMD_VIEW in plan.views:  # takes a minute: not before all that was asked for is known to be right
        plan = replace(plan, systemd_root=systemd_root.make(where, note))
    result.environment = {
        "kernels": [kernel.to_json() for kernel in plan.kernels],
        "views": list(plan.views),
        "runtimes": [{"name": r.name, "path": r.path, "version": r.version} for r in plan.runtimes],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
    }
    total = sum(len(job.cases) for job in plan.jobs())
    save = _saver(result, output)
    started = time.monotonic()
    try:
        with Workspace("matrix") as workspace, _progress(result, total) as on_event:
            at_once = jobs or os.cpu_count() or 1
            runner = Runner(
                result, plan, workspace.path, machine.accelerators(accel), at_once, on_event, save, max_time_s
            )
            runner.run(known)
    finally:
        result.environment["seconds"] = round(time.monotonic() - started, 1)
        if output is not None:
            write_atomically(output, encode(result.to_json()) + "\n")
    if junit is not None:
        write_atomically(junit, to_junit(result.cells.values()))
    emit(result.to_json(), as_json=as_json)
    if not as_json:
        show(result, full)
    return 0 if all(cell.as_expected for cell in result.cells.values()) else 1


def _plan(
    names: tuple[str, ...],
    views: str,
    runtimes: tuple[str, ...],
    faults: tuple[str, ...],
    conformance: str | None,
    timeout_s: float,
    cache: Path,
) -> Plan:
    """Raises InputError."""
    from harness.compat import kernels
    from harness.compat.conformance import suite
    from harness.compat.matrix import Plan, check_views
    from harness.faults.catalogue import find_faults, load_catalogue
    from harness.runtime.discovery import find_runtimes

    chosen = tuple(kernels.find(name, cache) for name in dict.fromkeys(names))
    releases = [kernel.release for kernel in chosen]
    for kernel in chosen:
        if releases.count(kernel.release) > 1:
            raise InputError(f"--kernel {kernel.name}: {kernel.release} is given twice")
    shown = check_views([view for view in views.split(",") if view])
    slugs = tuple(slug for text in faults for slug in text.split(",") if slug)
    named = bool(slugs) and "all" not in slugs
    if conformance is not None:
        try:
            suite.cases(conformance)  # refused here, and not by each guest
        except InputError as error:
            raise InputError(f"--conformance: {error}") from None
    if "none" in slugs:
        if len(slugs) > 1:
            raise InputError("--faults none: no other can be named with it")
        entries: tuple[Entry, ...] = ()
    else:
        entries = tuple(find_faults(slugs) if named else load_catalogue().values())
    return Plan(chosen, shown, tuple(find_runtimes(runtimes)), entries, named, timeout_s, conformance)


def _baseline(text: str | None, plan: Plan) -> tuple[str, str]:
    """(release, view). Raises InputError."""
    if text is None:
        return plan.kernels[0].release, plan.views[0]
    name, _, view = text.rpartition("/")
    for kernel in plan.kernels:
        if name in (kernel.name, kernel.release) and view in plan.views:
            return kernel.release, view
    choices = ", ".join(f"{kernel.name}/{view}" for kernel in plan.kernels for view in plan.views)
    raise InputError(f"--baseline {text}: write KERNEL/VIEW of this matrix: {choices}")


def _saver(result: Matrix, output: str | None) -> Callable[[], None]:
    """Writes what there is so far, now and then."""
    saved = [0.0]

    def save() -> None:
        if output is not None and time.monotonic() - saved[0] > SAVE_EVERY_S:
            write_atomically(output, encode(result.to_json()) + "\n")
            saved[0] = time.monotonic()

    return save


@contextlib.contextmanager
def _progress(result: Matrix, total: int) -> Iterator[Event]:
    """One bar for the whole matrix on a terminal; elsewhere a line for each guest's start and end."""
    shown = console(stderr=True)

    def done() -> int:
        return sum(":" not in cell.case for cell in result.cells.values())  # those of the suite are one together

    def line(text: str, guest: Guest | None) -> None:
        if text != "cell" and guest is not None:
            how = (
                f" after {time.monotonic() - guest.started:.0f} s"
                if text != "starts"
                else f" ({guest.accelerator or 'here'})"
            )
            note(f"{guest.where}: {text}{how}; {done()}/{total} cells")

    if not shown.is_terminal:
        yield line
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=shown, transient=True) as bar:
        task = bar.add_task("", total=total)

        def tick(text: str, guest: Guest | None) -> None:
            if text not in ("cell", "starts", "ends"):
                bar.console.print(f"{guest.where if guest else ''}: {text}", markup=False)
            at = f"{guest.where}: {guest.current[0]} on {guest.current[1]}" if guest and guest.current else ""
            bar.update(task, completed=done(), description=at)

        yield tick


def show(result: Matrix, full: bool) -> None:
    """Counts, what is not the same everywhere, and what is not as expected, on stdout."""
    from harness.report.verdicts import CELL_WORDS

    found = result.counts()
    present = [word for word in (*CELL_WORDS, "unexpected") if any(counter[word] for counter in found.values())]
    columns = [CELL_WORDS.get(word, (word, ""))[0] for word in present]
    rows = [(*place, *(str(counter[word] or "-") for word in present)) for place, counter in found.items()]
    table(None, ("kernel", "view", "runtime", *columns), rows, right=range(3, 3 + len(columns)))
    _show_cases(result, full)
    if left := result.environment.get("not_run"):
        click.echo(f"{left} cells were not run: --max-time is over; --resume goes on")
    retried = [cell for cell in result.cells.values() if cell.first_try is not None and cell.as_expected]
    for cell in retried:
        click.echo(f"at the second try: {cell.case} ({', '.join(cell.place)}); at the first: {cell.first_try}")
    for cell in result.cells.values():
        if not cell.as_expected:
            where = f"{cell.kernel}, {cell.view}, {cell.runtime}"
            click.echo(f"not as expected: {cell.case} ({where}): {cell.verdict}: {cell.reason or cell.text}")


def _show_cases(result: Matrix, full: bool) -> None:
    """A row a case, a column a place; `*` differs from the baseline, `!` is not as expected."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from harness.compat.cells import unlike_baseline

    places = result.places()
    cases = list(dict.fromkeys(cell.case for cell in result.cells.values()))
    wanted = cases if full else unlike_baseline(result)
    if not wanted:
        click.echo(f"{len(cases)} cases, the same everywhere")
        return
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("case")
    for kernel, view, runtime in places:
        made.add_column(f"{kernel}\n{view}\n{runtime}", no_wrap=True)
    for case in wanted:
        # Text: a conformance case has its parameters in brackets, which are no markup
        made.add_row(Text(case), *(_cell(result, result.cells.get((*place, case))) for place in places))
    shown = console()
    if not shown.is_terminal:
        shown.width = max(shown.width, 60 + 20 * len(places))
    shown.print(made)
    if result.baseline is not None:
        hidden = "" if full else f"; {len(cases) - len(wanted)} cases the same everywhere (--full shows them)"
        click.echo(f"* differs from {' '.join(result.baseline)}; ! not as expected{hidden}")


def _cell(result: Matrix, cell: Cell | None) -> Text:
    from rich.text import Text

    from harness.report.verdicts import CELL_WORDS

    if cell is None:
        return Text("")
    word, tone = CELL_WORDS.get(cell.verdict, (cell.verdict, "none"))
    mark = ("*" if result.differs(cell) else "") + ("" if cell.as_expected else "!")
    return Text(word + mark, style=COLOURS[tone])
