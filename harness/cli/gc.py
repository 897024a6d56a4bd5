"""`oci-harness gc`: remove what dead runs left behind."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.options import json_options
from harness.cli.output import emit


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--kept", is_flag=True, help="Remove containers made with create or run --detach as well.")
@json_options
def gc(dry_run: bool, kept: bool, as_json: bool, output: str | None) -> int:
    """Remove what dead runs left: processes, cgroups in every hierarchy, state directories.

    A run is known by its name; it is dead when the process that owns it (pid and start time) is gone. Live runs are
    never touched. Exit status 1 when something would not go.
    """
    from harness.runtime.leftovers import collect, find_leftovers
    from harness.runtime.session import require_root

    require_root()
    found = find_leftovers()
    doomed = [run for run in found if run.fate == "dead" or (kept and run.fate == "kept")]
    spared = [run for run in found if run not in doomed]
    removals = [] if dry_run else list(collect(kept))
    failed = {removal.leftover.name: list(removal.failed) for removal in removals if removal.failed}
    value: dict[str, Any] = {
        "schema": "oci-harness/gc/1",
        "dry_run": dry_run,
        "removed": [] if dry_run else [r.leftover.to_json() for r in removals if not r.failed],
        "found": [run.to_json() for run in doomed],
        "spared": [run.to_json() for run in spared],
        "failed": failed,
    }
    emit(value, as_json=as_json, output=output)
    if not as_json:
        for run in doomed:
            verb = "would remove" if dry_run else ("could not remove all of" if run.name in failed else "removed")
            click.echo(
                f"{verb} {run.name}: {len(run.processes)} processes, {len(run.cgroups)} cgroups"
                + (", a trace instance" if run.trace_instance else "")
                + (f", {run.directory}" if run.directory else "")
            )
        for lines in failed.values():
            for line in lines:
                click.echo(f"  {line}")
        for run in spared:
            why = "its owner runs" if run.fate == "live" else "made by hand; oci-harness delete it, or gc --kept"
            click.echo(f"left alone {run.name}: {why}")
        if not found:
            click.echo("nothing left behind")
    return 1 if failed else 0
