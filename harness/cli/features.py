"""`oci-harness features`: what runtimes declare, accept and really do, feature by feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli.options import json_options, runtimes_option, timeout_option, view_option
from harness.cli.output import emit, note, table

if TYPE_CHECKING:
    from harness.compat.features import Checked, Row

MARKS = {True: "yes", False: "no", None: "-"}


@click.command()
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="Only this group; may be given several times.")
@click.option("--diff", is_flag=True, help="Only what is not the same for all runtimes.")
@runtimes_option
@view_option
@timeout_option
@json_options
def features(
    groups: tuple[str, ...],
    diff: bool,
    runtimes: tuple[str, ...],
    view: str,
    timeout_s: float,
    as_json: bool,
    output: str | None,
) -> int:
    """Check every feature of the runtime-spec three ways.

    Declared: `RUNTIME features` says so. Configured: a container whose config.json asks for it is created. Exercised:
    the kernel's files of its init, or a command inside, show it. A dash: the runtime has no word for it, this host
    lacks what it needs, or nothing would show it. Many features share a container; what fails there is tried alone.
    """
    from harness.compat.features import SCHEMA, check_features, chosen_features, differences
    from harness.runtime.discovery import find_runtimes
    from harness.runtime.session import Session

    wanted = chosen_features(groups)
    found = find_runtimes(runtimes)
    with Session(view, found, kind="features", timeout_s=timeout_s) as session:
        if not as_json and session.choice.explanation:
            note(session.choice.explanation)
        checked = [check_features(session, runtime, wanted) for runtime in found]
        choice = session.choice.to_json()
    apart = differences(checked)
    value = {
        "schema": SCHEMA,
        "view": choice,
        "runtimes": [each.to_json() for each in checked],
        "differences": [
            {"group": rows[0].feature.group, "name": rows[0].feature.name}
            | {each.runtime.name: row.to_json() for each, row in zip(checked, rows, strict=True)}
            for rows in apart
        ],
    }
    emit(value, as_json=as_json, output=output)
    if not as_json:
        together = list(zip(*(each.rows for each in checked), strict=True))
        _show(checked, apart if diff else together)
    return 0


def _show(checked: list[Checked], together: list[tuple[Row, ...]]) -> None:
    columns = ["group", "feature"]
    for each in checked:
        columns += [f"{each.runtime.name}\ndeclared", "\nconfigured", "\nexercised"]
    lines = []
    for rows in together:
        cells = [MARKS[cell] for row in rows for cell in row.columns]
        why = dict.fromkeys(
            f"{each.runtime.name}: {row.text}"
            for each, row in zip(checked, rows, strict=True)
            if row.text and row.exercised is not True
        )
        lines.append((rows[0].feature.group, rows[0].feature.name, *cells, "; ".join(why)[:110]))
    table(None, (*columns, ""), lines)
    for each in checked:
        works = sum(row.exercised is True for row in each.rows)
        refused = sum(row.configured is False for row in each.rows)
        silent = sum(row.configured is True and row.exercised is False for row in each.rows)
        odd = [row.feature.name for row in each.rows if row.contradiction]
        click.echo(
            f"{each.runtime.name} {each.runtime.version}: {len(each.rows)} features, {works} exercised, "
            f"{refused} refused, {silent} accepted without effect; {each.containers} containers, {each.seconds:.1f} s"
        )
        if odd:
            click.echo(f"  declared and exercised disagree: {', '.join(odd)}")
