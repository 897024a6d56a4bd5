"""Options that several commands share, and the reading of their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from harness.cli.output import check_output
from harness.errors import InputError
from harness.units import parse_duration_s

F = TypeVar("F", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """`250ms`, `5s`, `2m` or seconds; the value is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_duration_s(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _writable(_context: click.Context, _option: click.Parameter, path: str | None) -> str | None:
    """Before anything is done: nothing may stay behind for a result that cannot be written."""
    check_output(path)
    return path


def json_options(function: F) -> F:
    """--json and -o, --output."""
    function = click.option(
        "-o",
        "--output",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        callback=_writable,
        help="Also write the JSON to FILE (atomically).",
    )(function)
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else there.")(
        function
    )


runtime_option = click.option(
    "--runtime",
    "runtime",
    metavar="NAME[=PATH]",
    help="The runtime to drive; the first of runc, crun, youki, runsc in PATH if not given.",
)
runtimes_option = click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME[=PATH]",
    help="A runtime; may be given several times. All that are in PATH if not given.",
)
view_option = click.option(
    "--view",
    type=click.Choice(["auto", "host", "legacy", "hybrid", "unified"]),
    default="auto",
    show_default=True,
    help="Cgroup layout that the runtime sees, mounted for it alone. auto: the host's if the runtime works there.",
)
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=Duration(),
    default="30s",
    show_default=True,
    help="Deadline of each operation; a runtime that misses it is killed with its children.",
)
set_option = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="POINTER=JSON",
    help="Change config.json, e.g. --set /process/args='[\"/bin/true\"]'. May be given several times.",
)


def settings_of(assignments: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    """The values of --set. Raises InputError."""
    from harness.oci.pointer import parse_assignment

    return tuple(parse_assignment(text) for text in assignments)


def positive(flag: str, value: float, at_least: float) -> None:
    if value < at_least:
        raise InputError(f"{flag} {value:g}: must be {at_least:g} or more")
