"""`oci-harness inspect`: cgroup and namespace state of a container or a process."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.options import json_options
from harness.cli.output import emit, table
from harness.errors import InputError


@click.command()
@click.argument("container", required=False)
@click.option("--pid", type=int, help="Any process, instead of a container.")
@json_options
def inspect(container: str | None, pid: int | None, as_json: bool, output: str | None) -> None:
    """Show namespaces (which are shared with the host), cgroups and their figures, and network interfaces.

    CONTAINER is the id of a container made with create or run --detach.
    """
    from harness.runtime.inspection import inspect_process

    if (container is None) == (pid is None):
        raise InputError("name either a CONTAINER or --pid PID")
    if container is not None:
        from harness.runtime.kept import Kept

        with Kept(container) as kept:
            pid = kept.client.state(container).pid
            layout = kept.session.layout
            if pid is None:
                raise InputError(f"container {container} has stopped, so there is no process to inspect")
            found = kept.session.namespace.call(inspect_process, pid, layout)
    else:
        assert pid is not None
        found = inspect_process(pid)
    value = {"schema": "oci-harness/inspect/1", "container": container, **found}
    emit(value, as_json=as_json, output=output)
    if not as_json:
        _print(value)


def _print(value: dict[str, Any]) -> None:
    click.echo(f"process {value['pid']} ({value['comm']}), state {value['state']}")
    if "reason" in value["namespaces"]:
        click.echo(f"namespaces: {value['namespaces'].pop('reason')}")
    rows = [
        (kind, str(found["inode"]), "yes" if found["shared_with_host"] else "no")
        for kind, found in value["namespaces"].items()
        if found is not None
    ]
    table(None, ("namespace", "inode", "shared with the host"), rows)
    cgroup = value["cgroup"]
    table(None, ("controller", "cgroup"), sorted(cgroup["paths"].items()))
    rows = [
        (section, name, str(figure))
        for section, figures in cgroup["statistics"].items()
        if isinstance(figures, dict) and section != "absent"
        for name, figure in figures.items()
        if isinstance(figure, int | float | str | bool)
    ]
    table(None, ("section", "figure", "value"), rows, right=(2,))
    network = value["network"]
    if isinstance(network, list):
        table(
            None,
            ("interface", "state", "addresses"),
            [(link["name"], link["state"] or "-", ", ".join(link["addresses"])) for link in network],
        )
    elif network:
        click.echo(f"network interfaces: {network['reason']}")
