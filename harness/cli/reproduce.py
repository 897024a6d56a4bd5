"""`oci-harness reproduce`: the fault catalogue, each cause proven by its counterfactual."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import json_options, runtimes_option, timeout_option, view_option
from harness.cli.output import check_output, console, emit, note, table
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.faults.catalogue import Entry
    from harness.faults.verdict import Verdict


@click.command()
@click.argument("faults", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All faults of the catalogue.")
@click.option("--list", "listing", is_flag=True, help="Show the catalogue and do nothing.")
@click.option("--side", type=click.Choice(["image", "config", "node", "kernel"]), help="Only faults of this side.")
@click.option(
    "--keep", type=click.Path(path_type=Path), metavar="DIR", help="Leave the broken bundle of one fault there."
)
@click.option("--from-error", metavar="FILE|-", help="The failure that this text tells of, with its path and value.")
@runtimes_option
@view_option
@timeout_option
@json_options
def reproduce(
    faults: tuple[str, ...],
    everything: bool,
    listing: bool,
    side: str | None,
    keep: Path | None,
    from_error: str | None,
    runtimes: tuple[str, ...],
    view: str,
    timeout_s: float,
    as_json: bool,
    output: str | None,
) -> int:
    """Make task-creation failures happen on purpose, and prove why.

    FAULTS are slugs of the catalogue, or of causes (all faults of that cause). A fault counts as reproduced only if the
    broken bundle fails as the catalogue says and the same bundle with that one thing healed runs, and nothing is left
    behind. Exit status 1 when a verdict is not as the catalogue expects.

    With --from-error the fault is picked for an error text (a file, - for standard input, or the text itself), run
    with the text's own path, value and runtime where they can be put in, and compared: exit status 0 if a runtime
    fails for the same cause with the same clause.
    """
    if from_error is not None:
        if faults or everything or listing or keep is not None or side is not None:
            raise InputError("--from-error picks the fault itself; give no FAULTS, --all, --list, --side or --keep")
        from harness.cli.from_error import reproduce_error

        return reproduce_error(from_error, runtimes, view, timeout_s, as_json, output)
    from harness.faults.catalogue import find_faults, load_catalogue

    if not (faults or everything or listing):
        raise InputError("name the FAULTS to reproduce, or use --all or --from-error; --list shows them")
    entries = find_faults(faults) if faults else list(load_catalogue().values())
    if side is not None:
        entries = [entry for entry in entries if entry.fault.side == side]
    if listing:
        _list(entries, as_json, output)
        return 0
    if keep is not None and len(entries) != 1:
        raise InputError(f"--keep {keep}: name just one fault; there are {len(entries)} here")
    check_output(output)
    verdicts = _run(entries, runtimes, view, timeout_s, as_json)
    value = [verdict.to_json() for verdict in verdicts]
    emit(value, as_json=as_json, output=output)
    if not as_json:
        if len(entries) == 1:
            for verdict in verdicts:
                _explain(entries[0], verdict)
        else:
            _summarize(verdicts)
    if keep is not None:
        _keep(entries[0], keep, verdicts)
    return 0 if all(verdict.as_expected for verdict in verdicts) else 1


def _run(entries: list[Entry], names: tuple[str, ...], view: str, timeout_s: float, quiet: bool) -> list[Verdict]:
    from harness.faults.reproduce import reproduce as reproduce_all
    from harness.runtime.discovery import find_runtimes
    from harness.runtime.session import Session

    found = find_runtimes(names)
    with Session(view, found, kind="reproduce", timeout_s=timeout_s) as session:
        if session.choice.explanation:
            note(session.choice.explanation)
        with _progress(len(entries) * len(found), quiet) as tick:
            return list(reproduce_all(session, entries, found, tick))


@contextlib.contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[Verdict], None]]:
    """A bar on stderr, if that is a terminal and there is something to wait for."""
    shown = console(stderr=True)
    if quiet or total < 5 or not shown.is_terminal:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=shown, transient=True) as bar:
        task = bar.add_task("faults", total=total)

        def tick(verdict: Verdict) -> None:
            bar.update(task, advance=1, description=f"{verdict.fault} on {verdict.runtime}")

        yield tick


def _list(entries: list[Entry], as_json: bool, output: str | None) -> None:
    value = {
        "schema": "oci-harness/catalogue/1",
        "faults": [
            {
                "fault": entry.slug,
                "title": entry.fault.title,
                "cause": entry.fault.cause,
                "variant": entry.fault.variant,
                "side": entry.fault.side,
                "needs": entry.fault.needs,
                "runtimes": sorted({expect.runtime for expect in entry.fault.expect}),
            }
            for entry in entries
        ],
    }
    emit(value, as_json=as_json, output=output)
    if not as_json:
        rows = [(entry.slug, entry.fault.cause, entry.fault.side, entry.fault.title) for entry in entries]
        table(None, ("fault", "cause", "side", "what is broken"), rows)
        click.echo(f"{len(entries)} faults, {len({entry.fault.cause for entry in entries})} causes")


def _explain(entry: Entry, verdict: Verdict) -> None:
    """One fault on one runtime, on one screen."""
    from rich.text import Text

    from harness.faults.catalogue import load_causes

    out = console()
    colours = {"reproduced": "bold green", "inconclusive": "bold red", "not-reproduced": "bold yellow"}
    head = Text(f"{verdict.fault} on {verdict.runtime} {verdict.runtime_version}: ")
    head.append(verdict.verdict, colours.get(verdict.verdict, "bold"))
    out.print(head)

    def line(label: str, text: str | Text) -> None:
        row = Text(f"  {label:13}")
        out.print(row.append_text(text if isinstance(text, Text) else Text(text)), soft_wrap=True)

    cause = load_causes()[verdict.cause]
    line("broken", entry.fault.title)
    for done in verdict.broken.done if verdict.broken else ():
        line("", done)
    if verdict.reason:
        line("because", verdict.reason)
    if verdict.stage is not None:
        said = Text(verdict.text)
        if verdict.clause:
            said.highlight_words([verdict.clause], "bold underline")
        line("said", said)
        line("", f"(stage {verdict.stage}, exit status {verdict.broken.exit_status if verdict.broken else '-'})")
        if verdict.clause and verdict.clause != verdict.text:
            line("decisive", verdict.clause)
    line("cause", f"{verdict.cause} ({verdict.side}): {cause.meaning}")
    if verdict.healed is not None:
        proof = verdict.to_json()["counterfactual"]["verdict"]
        line("proof", f"healed ({verdict.healed_by}): {proof}")
    line("fix", cause.fix)
    out.print()


def _summarize(verdicts: list[Verdict]) -> None:
    rows = [
        (
            v.fault,
            v.runtime,
            v.verdict + ("" if v.as_expected else " (!)"),
            v.stage or "-",
            v.clause or v.reason or v.text,
        )
        for v in verdicts
    ]
    table(None, ("fault", "runtime", "verdict", "stage", "what was seen"), rows)
    counts: dict[str, int] = {}
    for verdict in verdicts:
        counts[verdict.verdict] = counts.get(verdict.verdict, 0) + 1
    unexpected = [verdict for verdict in verdicts if not verdict.as_expected]
    told = ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))
    click.echo(f"{len(verdicts)} verdicts: {told}; {len(unexpected)} not as the catalogue expects")
    for verdict in unexpected:
        click.echo(f"not as expected: {verdict.fault} on {verdict.runtime}: {verdict.reason or verdict.verdict}")


def _keep(entry: Entry, directory: Path, verdicts: list[Verdict]) -> None:
    """The broken bundle as a directory of its own, and the commands that show the failure without this tool."""
    from harness.faults.keep import keep_bundle

    kept = keep_bundle(entry, directory)
    click.echo(f"kept {directory}; by hand, without this tool:", err=True)
    for verdict in verdicts:
        for command in kept.commands(verdict):
            click.echo(f"  {command}", err=True)
    for step in kept.by_hand:
        click.echo(f"  first, on the node: {step}", err=True)
