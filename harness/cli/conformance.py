"""`oci-harness conformance`: what the OCI runtime-spec asks of a runtime, case by case."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click
from msgspec.structs import asdict

from harness.cli.options import json_options, timeout_option, view_option
from harness.cli.output import check_output, console, emit, note, table, write_atomically

if TYPE_CHECKING:
    from harness.compat.conformance.claims import Claim
    from harness.compat.conformance.verdicts import Outcome, Report, Verdict

DEFAULT_RUNTIMES = ("runc", "crun")
OUTCOMES: tuple[Outcome, ...] = ("passes", "deviates", "skipped", "fails", "no-longer-deviates")


@click.command()
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME[=PATH]",
    help="A runtime; may be given several times. runc and crun if not given.",
)
@click.option("-k", "expression", default="", metavar="EXPR", help="Only cases whose names match, as pytest's -k.")
@click.option("--list", "listed", is_flag=True, help="List the cases, each with its sentence; nothing is run.")
@click.option("--junit", type=click.Path(dir_okay=False), metavar="FILE", help="Also write JUnit XML to FILE.")
@click.option("--tap", type=click.Path(dir_okay=False), metavar="FILE", help="Also write TAP version 14 to FILE.")
@click.option("--full", is_flag=True, help="Show every case, not just those that do not pass.")
@view_option
@timeout_option
@json_options
def conformance(
    runtimes: tuple[str, ...],
    expression: str,
    listed: bool,
    junit: str | None,
    tap: str | None,
    full: bool,
    view: str,
    timeout_s: float,
    as_json: bool,
    output: str | None,
) -> int:
    """Check runtimes against the runtime-spec, one case for each of its sentences.

    A case that fails as it is known of this version of the runtime "deviates", with the reason. Exit status 1 when a
    case fails, or passes that is known to deviate. The cases need pytest: pip install 'oci-harness[conformance]'.
    """
    from harness.compat.conformance import reports, suite
    from harness.runtime.discovery import find_runtimes
    from harness.runtime.session import Session

    if listed:
        _list(suite.cases(expression), as_json, output)
        return 0
    suite.require_pytest()
    for path in (junit, tap):
        check_output(path)
    found = find_runtimes(runtimes or DEFAULT_RUNTIMES)
    with Session(view, found, kind="conformance", timeout_s=timeout_s) as session, _progress(as_json) as tick:
        if session.choice.explanation:
            note(session.choice.explanation)
        report = suite.run(session, found, expression=expression, on_verdict=tick)
    for path, text in ((junit, reports.junit), (tap, reports.tap)):
        if path is not None:
            write_atomically(path, text(report))
    emit(report.to_json(), as_json=as_json, output=output)
    if not as_json:
        _show(report, full)
    return 0 if all(verdict.as_expected for verdict in report.verdicts) else 1


def _list(cases: dict[str, Claim], as_json: bool, output: str | None) -> None:
    from rich.markup import escape

    value = {
        "schema": "oci-harness/conformance-cases/1",
        "cases": [{"case": name, **asdict(claim)} for name, claim in cases.items()],
    }
    emit(value, as_json=as_json, output=output)
    if not as_json:
        rows = [(escape(name), claim.section, escape(claim.sentence)) for name, claim in cases.items()]
        table(None, ("case", "section", "sentence"), rows)


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Verdict, int], None]]:
    """A bar on stderr, if that is a terminal."""
    shown = console(stderr=True)
    if quiet or not shown.is_terminal:
        yield lambda _verdict, _total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=shown, transient=True) as bar:
        task = bar.add_task("")

        def tick(verdict: Verdict, total: int) -> None:
            bar.update(task, advance=1, total=total, description=f"{verdict.case} on {verdict.runtime}")

        yield tick


def _show(report: Report, full: bool) -> None:
    from rich.markup import escape  # a case's name has its parameters in brackets

    shown = [verdict for verdict in report.verdicts if full or verdict.outcome not in ("passes", "skipped")]
    if shown:
        told = [(v.runtime, v.claim.section, escape(v.case), v.outcome, escape(v.reason)) for v in shown]
        table(None, ("runtime", "section", "case", "outcome", "reason"), told)
    skipped: dict[str, dict[str, int]] = {}
    for verdict in report.verdicts:
        if verdict.outcome == "skipped":
            names = skipped.setdefault(verdict.reason, {})
            names[verdict.runtime] = names.get(verdict.runtime, 0) + 1
    if skipped and not full:
        rows = [(", ".join(f"{number} on {name}" for name, number in of.items()), why) for why, of in skipped.items()]
        table(None, ("skipped", "because"), rows)
    counts = report.counts()
    totals = [
        (name, str(sum(of.values())), *(str(of.get(outcome, 0)) for outcome in OUTCOMES)) for name, of in counts.items()
    ]
    table(None, ("runtime", "cases", *OUTCOMES), totals, right=range(1, 2 + len(OUTCOMES)))
    for verdict in report.verdicts:
        if not verdict.as_expected:
            click.echo(f"{verdict.outcome}: {verdict.case} on {verdict.runtime}: {verdict.reason}")
            click.echo(f"  {verdict.claim.section}: {verdict.claim.sentence}")
