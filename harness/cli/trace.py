"""`oci-harness trace`: where the milliseconds of a container's start go."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import (
    json_options,
    positive,
    runtimes_option,
    set_option,
    settings_of,
    timeout_option,
    view_option,
)
from harness.cli.output import check_output, console, emit, note, table
from harness.units import format_ns

if TYPE_CHECKING:
    from harness.trace.collect import Recorded, Trace
    from harness.trace.result import Result

TOP = 10  # system calls shown


@click.command()
@runtimes_option
@click.option("--runs", default=10, show_default=True, help="Traced starts of each runtime.")
@click.option("--warmup", default=2, show_default=True, help="Starts of each runtime before the first that counts.")
@click.option("--deep", is_flag=True, help="System calls, time on and off the CPU, cgroups, mounts: from tracefs.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "perfetto"]),
    default="table",
    show_default=True,
    help="perfetto: the median start of each runtime as Trace Event JSON for ui.perfetto.dev, on stdout or in -o FILE.",
)
@click.option("--recipe", default="pause", show_default=True, help="What to run; see `oci-harness bundle recipes`.")
@set_option
@click.option("--order", type=click.Choice(["interleaved", "blocked"]), default="interleaved", show_default=True)
@click.option("--pause-ms", default=0.0, show_default=True, help="Pause after each start.")
@view_option
@timeout_option
@json_options
def trace(
    runtimes: tuple[str, ...],
    runs: int,
    warmup: int,
    deep: bool,
    form: str,
    recipe: str,
    assignments: tuple[str, ...],
    order: str,
    pause_ms: float,
    view: str,
    timeout_s: float,
    as_json: bool,
    output: str | None,
) -> int:
    """Take container starts apart into phases, and show where the time goes.

    The phases are the same for all runtimes, each ended by an event of the kernel or a clock of the harness, and add up
    to the whole: from the clone of `create` to the end of `delete`. What a runtime or this host does not show is named,
    with the phase that has its time.
    """
    from harness.runtime.discovery import find_runtimes
    from harness.runtime.session import Session
    from harness.trace.export import trace_events
    from harness.trace.run import run_trace

    positive("--runs", runs, 1)
    positive("--warmup", warmup, 0)
    positive("--pause-ms", pause_ms, 0)
    check_output(output)
    settings = settings_of(assignments)
    found = find_runtimes(runtimes)
    perfetto = form == "perfetto"
    quiet = as_json or (perfetto and output is None)
    with Session(view, found, kind="trace", timeout_s=timeout_s) as session:
        if session.choice.explanation:
            note(session.choice.explanation)
        with _progress((runs + warmup) * len(found), quiet) as tick:
            result = run_trace(
                session,
                found,
                runs=runs,
                warmup=warmup,
                deep=deep,
                recipe=recipe,
                settings=settings,
                order="blocked" if order == "blocked" else "interleaved",
                pause_s=pause_ms / 1000,
                timeout_s=timeout_s,
                wait=time.sleep,
                on_start=tick,
            )
    for line in result.notes:
        note(line)
    medians = [one for runtime in found if (one := result.median_trace(runtime.name)) is not None]
    value: dict[str, Any] = trace_events(medians) if perfetto else result.to_json()
    emit(value, as_json=quiet, output=output)
    if not quiet:
        print_result(result, medians)
    broken = [runtime.name for runtime in found if not result.of(runtime.name)]
    failed = [one for one in result.failed if one.runtime.name in broken]
    if failed:
        click.echo(f"oci-harness: no start of {', '.join(broken)} went well: {failed[0].error}", err=True)
        return 4
    return 130 if result.interrupted else 0


@contextlib.contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[Recorded], None]]:
    """A bar on stderr, if that is a terminal; painted between starts only."""
    shown = console(stderr=True)
    if quiet or not shown.is_terminal:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=shown, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("starts", total=total)

        def tick(_: Recorded) -> None:
            bar.update(task, advance=1)
            bar.refresh()

        yield tick


def print_result(result: Result, medians: list[Trace]) -> None:
    """The table of all runtimes, then for each: its timeline, what is absent, what was lost."""
    from harness.trace.timeline import draw

    _phases(result, medians)
    for one in medians:
        for line in draw(one):
            click.echo(line)
        _absent(one)
        if one.deep is not None:
            _deep(one)
        click.echo()
    for runtime in result.runtimes:
        own = result.of(runtime.name)
        if not own:
            continue
        other = len(own) - len(result.usual(runtime.name))
        if other:
            click.echo(
                f"{runtime.name}: in {other} of {len(own)} starts the events came in another order; a phase's median "
                "is of the starts in which it begins with the usual one"
            )
        for source in sorted({source for trace in own for source in trace.lost}):
            lost = sum(trace.lost.get(source, 0) for trace in own)
            click.echo(f"{runtime.name}: {lost} events of {source} lost" + (" - figures may be wrong" if lost else ""))
    for failed in result.failed:
        click.echo(f"{failed.runtime.name}: start {failed.index} failed: {failed.error}")


def _phases(result: Result, medians: list[Trace]) -> None:
    from harness.trace.phases import HARNESS_OWN, PHASES

    columns = ["phase"]
    for one in medians:
        columns += [f"{one.runtime.name} median", "share"]
    summaries = [{phase.name: phase for phase in result.summary(one.runtime.name)} for one in medians]
    absents = [{absent.name: absent for absent in one.absent} for one in medians]
    rows = []
    for name in PHASES:
        row = [f"{name} (harness)" if name in HARNESS_OWN else name]
        for phases, absent in zip(summaries, absents, strict=True):
            if name in phases:
                row += [format_ns(phases[name].median_ns), f"{phases[name].share:.1%}"]
            else:
                within = absent[name].within if name in absent else None
                row += [f"in {within}" if within else "-", ""]
        if any(cell not in ("-", "") for cell in row[1:]):
            rows.append(tuple(row))
    whole = ["whole"]
    for one in medians:
        whole += [format_ns(result.whole_median_ns(one.runtime.name)), ""]
    rows.append(tuple(whole))
    table(None, columns, rows, right=range(1, len(columns)))


def _absent(one: Trace) -> None:
    groups: dict[tuple[str, str | None], list[str]] = {}
    for absent in one.absent:
        groups.setdefault((absent.reason, absent.within), []).append(absent.name)
    for (reason, within), names in groups.items():
        where = f"; that time is in {within}" if within else ""
        click.echo(f"  no {', '.join(names)}: {reason}{where}")


def _deep(one: Trace) -> None:
    from harness.trace.result import deep_json, mount_flags

    assert one.deep is not None
    value = deep_json(one.deep, one)
    began = one.lived.create.start_ns
    table(
        f"{one.runtime.name}: system calls by wall time, all threads together",
        ("call", "calls", "errors", "wall", "of it asleep", "longest"),
        [
            (
                row["name"],
                str(row["calls"]),
                str(row["errors"]),
                format_ns(row["wall_ns"]),
                format_ns(row["blocked_ns"]),
                format_ns(row["longest_ns"]),
            )
            for row in value["calls"][:TOP]
        ],
        right=(1, 2, 3, 4, 5),
    )
    table(
        f"{one.runtime.name}: what the kernel itself waited for (uninterruptible sleep)",
        ("in call", "times", "total", "longest", "kernel functions, innermost first"),
        [
            (
                row["call"] or "(none)",
                str(row["count"]),
                format_ns(row["total_ns"]),
                format_ns(row["longest_ns"]),
                " < ".join(row["reason"]) or "(the kernel hides its symbols)",
            )
            for row in value["waits"][:TOP]
        ],
        right=(1, 2, 3),
    )
    table(
        f"{one.runtime.name}: phases, time of all threads",
        ("phase", "on CPU", "ready, no CPU", "uninterruptible"),
        [
            (p["name"], format_ns(p["running_ns"]), format_ns(p["runnable_ns"]), format_ns(p["uninterruptible_ns"]))
            for p in value["phases"]
        ],
        right=(1, 2, 3),
    )
    table(
        f"{one.runtime.name}: cgroups",
        ("at", "what", "hierarchy", "path", "task", "call", "took"),
        [
            (
                format_ns(row["time_ns"]),
                row["what"],
                row["hierarchy"],
                row["path"],
                str(row["task"] or ""),
                row["call"] or "",
                format_ns(row["call_ns"]),
            )
            for row in value["cgroups"]
        ],
        right=(0, 6),
    )
    table(
        f"{one.runtime.name}: mounts",
        ("at", "call", "flags", "thread", "result", "took"),
        [
            (
                format_ns(call.start_ns - began),
                call.name,
                ",".join(mount_flags(call)),
                str(call.thread),
                str(call.result),
                format_ns(None if call.end_ns is None else call.end_ns - call.start_ns),
            )
            for call in one.deep.mounts
        ],
        right=(0, 3, 4, 5),
    )
    if value["names"]:
        click.echo(f"  {value['names']}")
