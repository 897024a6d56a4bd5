"""`oci-harness bench`: the command and its options; the experiments beside the plain benchmark are in bench_modes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import (
    Duration,
    json_options,
    positive,
    runtimes_option,
    set_option,
    settings_of,
    timeout_option,
    view_option,
)
from harness.cli.output import check_output, console, emit, note
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.bench.result import Result
    from harness.runtime.discovery import Runtime
    from harness.runtime.session import Session

RUNS = 20
MOST_RUNS = 20_000  # with a rule that ends it before
# What each experiment takes, beside --runtime, --view, --timeout, --json, --output; all else belongs to others.
MODES = {
    "sweeps": ("--sweep", {"recipe", "assignments", "runs", "warmup", "seed", "parallel", "pause_ms", "cold"}),
    "ablate": ("--ablate", {"runs", "warmup", "seed", "max_time_s", "pause_ms"}),
    "memory_floor": ("--memory-floor", {"max_time_s"}),
    "claim": ("--claim", {"seed"}),
}
COMMON = {"runtimes", "view", "timeout_s", "as_json", "output"}


class Percentage(click.ParamType[float]):
    """`2%`; the value is 0.02."""

    name = "percentage"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            found = float(str(value).removesuffix("%")) / 100
        except ValueError:
            found = -1.0
        if not 0 < found < 1 or not str(value).endswith("%"):
            self.fail(f"{value!r} is no percentage between 0 and 100; write 2%", param, ctx)
        return found


def _mode(context: click.Context) -> str | None:
    """The experiment that was asked for. Raises InputError for two, and for options that it does not take."""
    given = {
        name
        for name in context.params
        if context.get_parameter_source(name) not in (click.core.ParameterSource.DEFAULT, None)
        and context.params[name] is not None
        and context.params[name] is not False
        and context.params[name] != ()
    }
    wanted = [name for name in MODES if name in given]
    if len(wanted) > 1:
        raise InputError(f"{MODES[wanted[0]][0]} and {MODES[wanted[1]][0]} are two experiments; run one at a time")
    if not wanted:
        return None
    flag, taken = MODES[wanted[0]]
    for name in sorted(given - taken - COMMON - {wanted[0]}):
        option = next(each for each in context.command.params if each.name == name)
        raise InputError(f"{max(option.opts, key=len)} cannot be used with {flag}")
    return wanted[0]


@click.command()
@runtimes_option
@click.option("--recipe", default="pause", show_default=True, help="What to run; see `oci-harness bundle recipes`.")
@set_option
@click.option("--runs", default=None, type=int, help=f"Measured lifecycles of each runtime; {RUNS} if not given.")
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
@click.option("--cold", is_flag=True, help="Drop the host's page cache before each lifecycle.")
@click.option("--null", is_flag=True, help="Each runtime against itself as well: the machine's own noise floor.")
@click.option(
    "--until-ci",
    type=Percentage(),
    metavar="PERCENT",
    help="End when each ratio's 95 % interval (of the whole lifecycle) reaches no further than this to either side. "
    "Only its width is looked at, never the verdict, so it covers the truth as often as without.",
)
@click.option("--max-time", "max_time_s", type=Duration(), help="End with the round in which this time is over.")
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="WHAT=V,V,...",
    help="Measure at several points, in random order: parallel=1,2,4 live=0,100,500 pause-ms=0,10 cache=warm,cold. "
    "May be given several times: all combinations.",
)
@click.option("--ablate", is_flag=True, help="What each part of a Kubernetes-like config.json costs each runtime.")
@click.option("--memory-floor", is_flag=True, help="The smallest memory limit with which each runtime starts.")
@click.option("--claim", metavar="NAME", help="Repeat a published measurement: crun-readme, youki-readme.")
@view_option
@timeout_option
@json_options
@click.pass_context
def bench(
    context: click.Context,
    runtimes: tuple[str, ...],
    recipe: str,
    assignments: tuple[str, ...],
    runs: int | None,
    warmup: int,
    seed: int | None,
    order: str,
    parallel: int,
    pause_ms: float,
    end: str,
    cold: bool,
    null: bool,
    until_ci: float | None,
    max_time_s: float | None,
    sweeps: tuple[str, ...],
    ablate: bool,
    memory_floor: bool,
    claim: str | None,
    view: str,
    timeout_s: float,
    as_json: bool,
    output: str | None,
) -> int:
    """Measure whole lifecycles of one or more runtimes, interleaved and in random, balanced order.

    A table of medians with bootstrap 95 % intervals, the ratio of each pair of runtimes, and a verdict, which may be
    that there is no detectable difference, with the smallest one that this run could have seen. Each verdict stands for
    itself: of many between equals one in twenty is chance, so look at `whole` first. Raw samples are in the JSON,
    outliers too, with what was different while they were taken. Ctrl-C keeps the samples so far.
    """
    import secrets

    from harness.runtime.discovery import find_runtimes

    for flag, value, least in (
        ("--runs", RUNS if runs is None else runs, 1),
        ("--warmup", warmup, 0),
        ("--parallel", parallel, 1),
        ("--pause-ms", pause_ms, 0),
    ):
        positive(flag, value, least)
    mode = _mode(context)
    check_output(output)
    if mode == "claim" and not runtimes:
        from harness.cli.bench_modes import published

        runtimes = published(str(claim))
    asked = Asked(find_runtimes(runtimes), view, timeout_s, as_json, output)
    drawn = secrets.randbits(32) if seed is None else seed
    if mode is None:
        rule = until_ci is not None or max_time_s is not None
        return _plain(
            asked,
            recipe=recipe,
            settings=settings_of(assignments),
            runs=runs or (MOST_RUNS if rule else RUNS),
            warmup=warmup,
            seed=drawn,
            order=order,
            parallel=parallel,
            pause_ms=pause_ms,
            end=None if end == "auto" else end,
            cold=cold,
            null=null,
            until_ci=until_ci,
            max_time_s=max_time_s,
        )
    from harness.cli import bench_modes

    if mode == "sweeps":
        from harness.bench.sweep import Point

        base = Point(parallel, 0, pause_ms, "cold" if cold else "warm")
        options = {"recipe": recipe, "settings": settings_of(assignments), "warmup": warmup, "seed": drawn}
        return bench_modes.sweep(asked, sweeps, base, runs or RUNS, options)
    if mode == "ablate":
        own = {
            "rounds": runs,
            "max_time_s": max_time_s,
            "pause_ms": pause_ms if "pause_ms" in _given(context) else None,
        }
        return bench_modes.ablate(asked, drawn, warmup, {key: value for key, value in own.items() if value is not None})
    if mode == "memory_floor":
        return bench_modes.memory_floor(asked, max_time_s)
    return bench_modes.claim(asked, str(claim), drawn)


def _given(context: click.Context) -> set[str]:
    default = click.core.ParameterSource.DEFAULT
    return {name for name in context.params if context.get_parameter_source(name) != default}


class Asked:
    """What all experiments share."""

    def __init__(self, runtimes: list[Runtime], view: str, timeout_s: float, as_json: bool, output: str | None):
        self.runtimes = runtimes
        self.view = view
        self.timeout_s = timeout_s
        self.as_json = as_json
        self.output = output

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        from harness.runtime.session import Session

        with Session(self.view, self.runtimes, kind="bench", timeout_s=self.timeout_s) as session:
            if session.choice.explanation:
                note(session.choice.explanation)
            yield session

    def emit(self, value: dict[str, Any]) -> bool:
        """Write the JSON where it was asked for; whether tables are wanted."""
        emit(value, as_json=self.as_json, output=self.output)
        return not self.as_json

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Callable[[object], None]]:
        """A progress bar on stderr, if that is a terminal; without a total, a count."""
        shown = console(stderr=True)
        if self.as_json or not shown.is_terminal:
            yield lambda _: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # refreshed between lifecycles only: a painting thread would take CPU time from what is measured
        with Progress(*columns, console=shown, transient=True, auto_refresh=False) as bar:
            task = bar.add_task(what, total=total)

            def tick(_: object) -> None:
                bar.update(task, advance=1)
                bar.refresh()

            yield tick


def _plain(asked: Asked, **options: Any) -> int:
    from harness.bench.run import run_bench
    from harness.cli.bench_tables import print_result

    arms = len(asked.runtimes) * (2 if options["null"] else 1)
    total = None if options["runs"] == MOST_RUNS else (options["runs"] + options["warmup"]) * arms
    with asked.session() as session, asked.progress("lifecycles", total) as tick:
        result = run_bench(session, asked.runtimes, timeout_s=asked.timeout_s, on_sample=tick, **options)
    if asked.emit(result.to_json()):
        print_result(result)
    return _status(result)


def _status(result: Result) -> int:
    broken = [name for name in result.runtimes if (own := result.of(name)) and all(sample.error for sample in own)]
    if broken:
        first = next(sample.error for sample in result.samples if sample.turn.runtime == broken[0])
        click.echo(f"oci-harness: no lifecycle of {', '.join(broken)} went well: {first}", err=True)
        return 4
    return 130 if result.interrupted else 0
