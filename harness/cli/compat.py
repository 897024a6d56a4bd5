"""`oci-harness compat`: which kernel a runtime needs at least, found by taking system calls away from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli.options import json_options, runtimes_option, timeout_option, view_option
from harness.cli.output import emit, note, table

if TYPE_CHECKING:
    from harness.compat.deny import Estimate


@click.command()
@click.option(
    "--deny",
    metavar="CALL[,CALL...]",
    help="System calls to take away, one at a time. All that are younger than Linux 3.10 if not given.",
)
@click.option(
    "--errno",
    "error",
    type=click.Choice(["ENOSYS", "EPERM"]),
    default="ENOSYS",
    show_default=True,
    help="What a call says that was taken away: ENOSYS as on an older kernel, EPERM as under an older seccomp profile.",
)
@runtimes_option
@view_option
@timeout_option
@json_options
def compat(
    deny: str | None,
    error: str,
    runtimes: tuple[str, ...],
    view: str,
    timeout_s: float,
    as_json: bool,
    output: str | None,
) -> int:
    """Estimate the oldest kernel that a runtime works on, without booting one.

    Each system call that is younger than Linux 3.10 is fatal, tolerated or unused: whether the runtime makes it is
    learned by watching a whole lifecycle, then each is made to fail in a lifecycle of its own. At the end all that are
    younger than the estimate are taken away at once. What flags of older calls need is not seen: it is a lower bound.
    """
    from harness.compat.deny import SCHEMA, chosen_calls, estimate
    from harness.runtime.discovery import find_runtimes
    from harness.runtime.session import Session

    calls = chosen_calls(deny)
    found = find_runtimes(runtimes)
    with Session(view, found, kind="compat", timeout_s=timeout_s) as session:
        if not as_json and session.choice.explanation:
            note(session.choice.explanation)
        estimates = [estimate(session, runtime, calls, error) for runtime in found]
        choice = session.choice.to_json()
    value = {"schema": SCHEMA, "view": choice, "estimates": [each.to_json() for each in estimates]}
    emit(value, as_json=as_json, output=output)
    if not as_json:
        _show(estimates, named=deny is not None)
    return 0


def _show(estimates: list[Estimate], named: bool) -> None:
    shown = [
        index
        for index in range(len(estimates[0].outcomes))
        if named or any(each.outcomes[index].use != "unused" for each in estimates)
    ]
    rows = []
    for index in shown:
        call = estimates[0].outcomes[index].call
        cells = []
        for each in estimates:
            outcome = each.outcomes[index]
            where = f" at {outcome.stage}: {outcome.text}" if outcome.use == "fatal" else ""
            cells.append(f"{outcome.use}{where[:70]}")
        rows.append((call.name, call.since, *cells))
    table(None, ("call", "since", *(each.runtime.name for each in estimates)), rows)
    for each in estimates:
        proven = {True: "works without all younger calls", False: "not confirmed", None: "of the calls named"}
        why = f"for {', '.join(each.decided_by)}" if each.decided_by else "no younger call is needed"
        told = f"{why}; {proven[each.confirmed]}; recipe {each.recipe}, {each.seconds:.1f} s"
        click.echo(f"{each.runtime.name} {each.runtime.version}: Linux {each.minimum} or later ({told})")
