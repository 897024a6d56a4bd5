"""`oci-harness bench`: the command and its table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

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
from harness.units import format_bytes, format_ns

if TYPE_CHECKING:
    from harness.bench.lifecycle import Sample
    from harness.bench.result import Result
    from harness.bench.statistics import Comparison


@click.command()
@runtimes_option
@click.option("--recipe", default="pause", show_default=True, help="What to run; see `oci-harness bundle recipes`.")
@set_option
@click.option("--runs", default=20, show_default=True, help="Measured lifecycles of each runtime.")
@click.option(
    "--warmup", default=2, show_default=True, help="Lifecycles of each runtime before the first measured one."
)
@click.option("--seed", default=None, type=int, help="Fixes the order of the runs; drawn and recorded if not given.")
@click.option("--order", type=click.Choice(["interleaved", "blocked"]), default="interleaved", show_default=True)
@click.option("--parallel", default=1, show_default=True, help="Lifecycles at the same time.")
@click.option("--pause-ms", default=0.0, show_default=True, help="Pause after each lifecycle.")
@click.option(
    "--end",
    type=click.Choice(["auto", "kill", "exit"]),
    default="auto",
    show_default=True,
    help="How a container ends: killed through the runtime, or by itself. auto: kill if its process would stay.",
)
@view_option
@timeout_option
@json_options
def bench(
    runtimes: tuple[str, ...],
    recipe: str,
    assignments: tuple[str, ...],
    runs: int,
    warmup: int,
    seed: int | None,
    order: str,
    parallel: int,
    pause_ms: float,
    end: str,
    view: str,
    timeout_s: float,
    as_json: bool,
    output: str | None,
) -> int:
    """Measure whole lifecycles of one or more runtimes, interleaved and in random order.

    A table of medians with bootstrap 95 % intervals, the ratio of each pair of runtimes, and a verdict, which may be
    that there is no detectable difference. Raw samples are in the JSON. Ctrl-C keeps the samples so far.
    """
    import secrets

    from harness.bench.run import run_bench
    from harness.runtime.discovery import find_runtimes
    from harness.runtime.session import Session

    positive("--runs", runs, 1)
    positive("--warmup", warmup, 0)
    positive("--parallel", parallel, 1)
    positive("--pause-ms", pause_ms, 0)
    check_output(output)
    settings = settings_of(assignments)
    found = find_runtimes(runtimes)
    with Session(view, found, kind="bench", timeout_s=timeout_s) as session:
        if session.choice.explanation:
            note(session.choice.explanation)
        with _progress((runs + warmup) * len(found), as_json) as tick:
            result = run_bench(
                session,
                found,
                recipe=recipe,
                settings=settings,
                runs=runs,
                warmup=warmup,
                seed=secrets.randbits(32) if seed is None else seed,
                order="blocked" if order == "blocked" else "interleaved",
                parallel=parallel,
                pause_ms=pause_ms,
                end=None if end == "auto" else ("kill" if end == "kill" else "exit"),
                timeout_s=timeout_s,
                on_sample=tick,
            )
    emit(result.to_json(), as_json=as_json, output=output)
    if not as_json:
        print_result(result)
    broken = [name for name in result.runtimes if (own := result.of(name)) and all(sample.error for sample in own)]
    if broken:
        first = next(sample.error for sample in result.samples if sample.turn.runtime == broken[0])
        click.echo(f"oci-harness: no lifecycle of {', '.join(broken)} went well: {first}", err=True)
        return 4
    return 130 if result.interrupted else 0


@contextlib.contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[Sample], None]]:
    """A progress bar on stderr, if that is a terminal."""
    shown = console(stderr=True)
    if quiet or not shown.is_terminal:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # refreshed between lifecycles only: a painting thread would take CPU time from what is measured
    with Progress(*columns, console=shown, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("lifecycles", total=total)

        def tick(_: Sample) -> None:
            bar.update(task, advance=1)
            bar.refresh()

        yield tick


STAGE_NAMES = {
    "create_ns": "create",
    "start_ns": "start",
    "first_instruction_ns": "first instruction",
    "kill_ns": "kill",
    "exit_ns": "exit",
    "delete_ns": "delete",
    "whole_ns": "whole",
}


def print_result(result: Result) -> None:
    """The table of a benchmark, its comparisons, and its doubts."""
    rows = []
    for stage, label in STAGE_NAMES.items():
        for name in result.runtimes:
            summary = result.summary[name].get(stage)
            if summary is not None:
                low, high = summary.ci95_ns
                rows.append(
                    (
                        label,
                        name,
                        str(summary.n),
                        format_ns(summary.median_ns),
                        f"{format_ns(low)} .. {format_ns(high)}",
                        format_ns(summary.p95_ns),
                        format_ns(summary.p99_ns),
                    )
                )
    table(None, ("stage", "runtime", "n", "median", "95 % interval", "p95", "p99"), rows, right=(2, 3, 4, 5, 6))
    if result.comparisons:
        table(
            None,
            ("stage", "compared", "ratio", "95 % interval", "verdict"),
            [
                (
                    STAGE_NAMES[c.stage],
                    f"{c.b} / {c.a}",
                    f"{c.ratio:.3f}",
                    f"{c.ci95[0]:.3f} .. {c.ci95[1]:.3f}",
                    describe_verdict(c),
                )
                for c in result.comparisons
            ],
            right=(2, 3),
        )
    for name, facts in result.footprint.items():
        peak = facts.get("peak_memory_bytes")
        click.echo(
            f"{name}: peak memory {format_bytes(peak) if peak else facts.get('reason')} ({facts.get('method') or '-'})"
        )
    for caveat in result.to_json()["caveats"]:
        click.echo(f"caveat {caveat['id']}: {caveat['message']}")


def describe_verdict(comparison: Comparison) -> str:
    """`crun is faster (2.63x)`, or that no difference can be seen."""
    if comparison.verdict == "no-detectable-difference":
        return "no detectable difference"
    faster = comparison.b if comparison.verdict == "b-faster" else comparison.a
    factor = 1 / comparison.ratio if comparison.verdict == "b-faster" else comparison.ratio
    return f"{faster} is faster ({factor:.2f}x)"
