"""`oci-harness reproduce --from-error`: from the text that somebody pasted to a run that shows the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli.output import emit, note
from harness.cli.text_input import open_text
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.diagnosis.diagnosis import Diagnosis
    from harness.diagnosis.reproduction import Reproduction
    from harness.runtime.discovery import Runtime


def reproduce_error(
    source: str, names: tuple[str, ...], view: str, timeout_s: float, as_json: bool, output: str | None
) -> int:
    """Exit status 0 if one runtime shows the same cause with the same clause, else 1."""
    from harness.diagnosis import diagnose_lines
    from harness.diagnosis.explain import report_to_json
    from harness.diagnosis.reproduction import reproduce_text
    from harness.runtime.session import Session

    with open_text(source) as stream:
        report = diagnose_lines(stream)
    wanted = report.primary
    if wanted is None:
        raise InputError(f"--from-error {source}: no failure of a container was found in the text")
    found = _runtimes(wanted, names)
    with Session(view, found, kind="reproduce", timeout_s=timeout_s) as session:
        if session.choice.explanation:
            note(session.choice.explanation)
        runs = list(reproduce_text(session, wanted, found))
    value = {
        "schema": "oci-harness/reproduction/1",
        "diagnosis": report_to_json(report),
        "runs": [run.to_json() for run in runs],
    }
    emit(value, as_json=as_json, output=output)
    if not as_json:
        _show(wanted, runs)
    return 0 if any(run.same for run in runs) else 1


def _runtimes(wanted: Diagnosis, names: tuple[str, ...]) -> list[Runtime]:
    """Those asked for, else the one that the text is from if it is here, else all."""
    from harness.runtime.discovery import find_runtimes

    found = find_runtimes(names)
    if names or wanted.runtime is None:
        return found
    own = [runtime for runtime in found if runtime.dialect.name == wanted.runtime]
    if not own:
        note(f"the text is {wanted.runtime}'s, which is not here; trying {', '.join(each.name for each in found)}")
    return own or found


def _show(wanted: Diagnosis, runs: list[Reproduction]) -> None:
    click.echo(f"text     {wanted.cause or 'not known'}: {' '.join(wanted.decisive.split())}")
    for run in runs:
        told = run.verdict
        if told is None or run.seen is None:
            click.echo(f"{run.runtime:8} not reproduced")
        else:
            said = " ".join(run.seen.decisive.split())
            same = "same cause, same clause" if run.same else "same cause" if run.same_cause else "another cause"
            click.echo(f"{run.runtime:8} {same}: {said}")
            click.echo(f"         fault {told.fault}, healed ({told.healed_by}): it runs")
        for name, (old, new) in run.instantiated.items():
            click.echo(f"         with the text's {name}: {new} (the catalogue's: {old})")
        for difference in run.differences:
            click.echo(f"         {difference}")
