"""The runtime's own verbs on a container that is there: start state kill delete exec ps list pause resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from harness.cli.operations import document, snapshot
from harness.cli.options import json_options, timeout_option
from harness.cli.output import emit, note, table
from harness.units import format_ns

if TYPE_CHECKING:
    from harness.process.operation import Operation
    from harness.runtime.kept import Kept


def _kept(container: str, timeout_s: float) -> Kept:
    from harness.runtime.kept import Kept

    return Kept(container, timeout_s)


def _plain(
    verb: str, container: str, timeout_s: float, as_json: bool, output: str | None, call: Callable[[Kept], Operation]
) -> None:
    """A verb that says nothing when it goes well, but how long it took."""
    from harness.runtime.failures import check

    with _kept(container, timeout_s) as kept:
        operation = check(call(kept))
        value = document(
            verb, container, operation, snapshot=snapshot(kept.session, kept.record.pid) if as_json else None
        )
    emit(value, as_json=as_json, output=output)
    if not as_json:
        click.echo(f"{container}: {verb} took {format_ns(operation.duration_ns)}", err=True)


def _verb(name: str, text: str) -> Callable[[Callable[[Kept], Operation]], click.Command]:
    """A command for a verb that takes nothing but the container."""

    def decorate(call: Callable[[Kept], Operation]) -> click.Command:
        @click.command(name, help=text)
        @click.argument("container")
        @timeout_option
        @json_options
        def command(container: str, timeout_s: float, as_json: bool, output: str | None) -> None:
            _plain(name, container, timeout_s, as_json, output, call)

        return command

    return decorate


@_verb("start", "Run the process of a created CONTAINER.")
def start(kept: Kept) -> Operation:
    return kept.client.start(kept.record.id)


@_verb("pause", "Freeze all processes of CONTAINER.")
def pause(kept: Kept) -> Operation:
    return kept.client.pause(kept.record.id)


@_verb("resume", "Thaw all processes of CONTAINER.")
def resume(kept: Kept) -> Operation:
    return kept.client.resume(kept.record.id)


@click.command()
@click.argument("container")
@click.argument("signal", default="SIGTERM")
@click.option("-a", "--all", "everyone", is_flag=True, help="Signal all processes of the container, not just init.")
@timeout_option
@json_options
def kill(container: str, signal: str, everyone: bool, timeout_s: float, as_json: bool, output: str | None) -> None:
    """Send SIGNAL (SIGTERM if not given; a name or a number) to init of CONTAINER."""
    from harness.runtime.options import KillOptions

    _plain(
        "kill",
        container,
        timeout_s,
        as_json,
        output,
        lambda kept: kept.client.kill(kept.record.id, KillOptions(signal, everyone)),
    )


@click.command()
@click.argument("container")
@timeout_option
@json_options
def state(container: str, timeout_s: float, as_json: bool, output: str | None) -> None:
    """Show what the runtime knows of CONTAINER."""
    with _kept(container, timeout_s) as kept:
        found = kept.client.state(container)
        value = {
            "schema": "oci-harness/state/1",
            "container": container,
            "runtime": kept.record.runtime_name,
            "view": kept.record.view,
            "state": found.document,
            "snapshot": snapshot(kept.session, found.pid) if as_json else None,
        }
    emit(value, as_json=as_json, output=output)
    if not as_json:
        click.echo(json.dumps(found.document, indent=2))


@click.command()
@click.argument("container")
@click.option("-f", "--force", is_flag=True, help="Kill it first if it runs.")
@timeout_option
@json_options
def delete(container: str, force: bool, timeout_s: float, as_json: bool, output: str | None) -> None:
    """Delete a stopped CONTAINER and all that belongs to it."""
    from harness.errors import HostError, OperationError
    from harness.runtime.failures import check
    from harness.runtime.options import DeleteOptions

    with _kept(container, timeout_s) as kept:
        operation = kept.client.delete(container, DeleteOptions(force))
        try:
            check(operation)
        except OperationError:
            if not force:
                raise
            note(f"{container}: the runtime's own delete failed, so all that carries its name is removed")
        value = document("delete", container, operation)
        failed = kept.session.close()
    emit(value, as_json=as_json, output=output)
    if failed:
        raise HostError("; ".join(failed))
    if not as_json:
        click.echo(f"{container}: delete took {format_ns(operation.duration_ns)}", err=True)


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("container")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--cwd", help="Working directory inside the container.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE")
@click.option("-u", "--user", metavar="UID[:GID]")
@click.option("-d", "--detach", is_flag=True)
@timeout_option
@json_options
def exec_(
    container: str,
    command: tuple[str, ...],
    cwd: str | None,
    env: tuple[str, ...],
    user: str | None,
    detach: bool,
    timeout_s: float,
    as_json: bool,
    output: str | None,
) -> int:
    """Run COMMAND in a running CONTAINER. The exit status is the command's own; 4 when the runtime failed."""
    from harness.process.command import Stdio
    from harness.runtime.failures import check
    from harness.runtime.options import ExecOptions

    options = ExecOptions(
        command=command,
        cwd=cwd,
        env=env,
        user=user,
        detach=detach,
        stdio=Stdio() if as_json else Stdio(0, 1, 2),
    )
    with _kept(container, timeout_s) as kept:
        operation = kept.client.exec(container, options)
        if operation.timed_out or any(record.level in ("error", "fatal") for record in operation.log):
            check(operation)
    emit(document("exec", container, operation, exit_status=operation.exit_status), as_json=as_json, output=output)
    return operation.exit_status if operation.exit_status >= 0 else 128 - operation.exit_status


@click.command()
@click.argument("container")
@timeout_option
@json_options
def ps(container: str, timeout_s: float, as_json: bool, output: str | None) -> None:
    """List the processes in CONTAINER, by their pids on the host."""
    from harness.kernel.procfs import command_line
    from harness.runtime.failures import check

    with _kept(container, timeout_s) as kept:
        operation = check(kept.client.ps(container))
        try:
            pids = [int(pid) for pid in json.loads(operation.stdout or b"[]") or []]
        except (ValueError, TypeError):
            from harness.errors import OperationGarbage

            raise OperationGarbage(operation, f"{kept.runtime.name} ps printed no list of pids") from None
    value = document("ps", container, operation, processes=[{"pid": pid, "command": command_line(pid)} for pid in pids])
    emit(value, as_json=as_json, output=output)
    if not as_json:
        table(None, ("pid", "command"), [(str(p["pid"]), p["command"]) for p in value["processes"]], right=(0,))


@click.command("list")
@json_options
def list_(as_json: bool, output: str | None) -> None:
    """List the containers made with create or run --detach, with what their runtimes say of them."""
    from harness.errors import HarnessError
    from harness.runtime.kept import Kept, records
    from harness.runtime.session import require_root

    require_root()
    found: list[dict[str, Any]] = []
    for record in records():
        try:
            with Kept(record.id) as kept:
                seen = kept.client.state(record.id)
                status, pid = str(seen.status), seen.pid
        except HarnessError as error:
            status, pid = f"unknown: {error}", None
        found.append(
            {
                "id": record.id,
                "runtime": record.runtime_name,
                "status": status,
                "pid": pid,
                "view": record.view,
                "bundle": record.bundle,
            }
        )
    emit({"schema": "oci-harness/list/1", "containers": found}, as_json=as_json, output=output)
    if not as_json:
        rows = [(c["id"], c["runtime"], c["status"], str(c["pid"] or "-"), c["view"], c["bundle"]) for c in found]
        table(None, ("container", "runtime", "status", "pid", "view", "bundle"), rows)
