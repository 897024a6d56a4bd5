"""`oci-harness compare`: is a runtime slower than it was?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import json_options
from harness.cli.output import emit, table, write_atomically
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.report.comparison import Comparison

FORMATS = ("table", "json", "markdown", "junit")


class Threshold(click.ParamType[float]):
    """`5%`; the value is 0.05."""

    name = "percentage"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value)
        try:
            found = float(text.removesuffix("%")) / 100
        except ValueError:
            found = -1.0
        if not 0 <= found <= 100 or not text.endswith("%"):
            self.fail(f"{text!r} is no percentage; write 5%", param, ctx)
        return found


@click.command()
@click.argument("old", type=click.Path())
@click.argument("new", type=click.Path(), required=False)
@click.option(
    "--fail-on",
    type=Threshold(),
    default="5%",
    show_default=True,
    metavar="PERCENT",
    help="A slowdown is a regression if its whole 95 % interval lies above this.",
)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME[=NAME]",
    help="What to compare; all that both have if not given. OLD=NEW where it is called otherwise in NEW, "
    "or to compare two runtimes of one file. May be given several times.",
)
@click.option(
    "--control",
    metavar="NAME",
    help="A runtime that is the same binary in both files: the others are compared by their ratio to it, round by "
    "round, so that what the machine changed by cancels.",
)
@click.option("--stage", "stages", multiple=True, metavar="STAGE", help="Judge these stages only; all if not given.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="What goes to stdout, or to -o FILE: markdown for a pull request, junit for a CI system.",
)
@json_options
def compare(
    old: str,
    new: str | None,
    fail_on: float,
    runtimes: tuple[str, ...],
    control: str | None,
    stages: tuple[str, ...],
    form: str,
    as_json: bool,
    output: str | None,
) -> int:
    """Compare two results, OLD and NEW, or two runtimes of one: --runtime OLD --runtime NEW.

    Exit status 1 only if the interval of a slowdown lies wholly above --fail-on, or if many more lifecycles fail than
    before. Where no difference can be seen it says how large one would have had to be. Intervals of several stages are
    widened to hold together; with --stage there are fewer, and they are narrower. Two files hold what the machine did
    in between as well: to gate a patch measure both builds in one `bench` and compare within that file, or name a
    --control.

    With -o FILE the chosen format goes to FILE (JSON for a table), and the table to stdout.
    """
    from harness.report.comparers import compare as compare_files
    from harness.report.comparison import Asked

    if as_json and form not in ("table", "json"):
        raise InputError(f"--json cannot be used with --format {form}")
    found = compare_files(old, new, Asked(fail_on, runtimes, stages, control))
    if form in ("markdown", "junit"):
        text = _exported(found, form)
        if output is None:
            click.echo(text, nl=False)
        else:
            write_atomically(output, text)
            _print(found)
    else:
        as_json = as_json or (form == "json" and output is None)
        emit(found.to_json(), as_json=as_json, output=output)
        if not as_json:
            _print(found)
    return 1 if found.failed else 0


def _exported(found: Comparison, form: str) -> str:
    if form == "junit":
        from harness.report.junit import junit

        return junit(found)
    from harness.report.markdown import comparison_markdown

    return comparison_markdown(found)


def _print(found: Comparison) -> None:
    table(None, found.table.columns, found.table.rows, found.table.right)
    click.echo(_printable(found.sentence))
    for each in found.warnings:
        click.echo(_printable(f"warning {each.id}: {each.message}"), err=True)


def _printable(text: str) -> str:
    """A file may hold what a terminal would obey."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)
