"""`oci-harness create` and `run`: make a container from a bundle or a recipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct
from msgspec.structs import replace

from harness.cli.operations import document, snapshot
from harness.cli.options import json_options, runtime_option, set_option, settings_of, timeout_option, view_option
from harness.cli.output import emit, note
from harness.errors import BundleError, InputError
from harness.units import format_ns

if TYPE_CHECKING:
    from harness.oci.bundle import Bundle, Template
    from harness.process.command import Stdio
    from harness.runtime.container import Container
    from harness.runtime.discovery import Runtime
    from harness.runtime.options import CreateOptions
    from harness.runtime.session import Session


class Order(Struct, frozen=True):
    """What a container is to be made of, and how: the options that create and run share."""

    bundle: Path | None
    recipe: str | None
    validate: bool
    assignments: tuple[str, ...]
    runtime: str | None
    view: str
    timeout_s: float

    def check(self) -> None:
        """Everything that can be wrong before a container is made. Raises InputError, BundleError."""
        if self.recipe is not None and self.bundle is not None:
            raise InputError("--bundle and --recipe exclude each other")
        if self.recipe is None and self.assignments:
            raise InputError("--set changes a recipe; a bundle's own config.json is used as it is")
        settings_of(self.assignments)
        if self.recipe is None:
            self.load_bundle()

    def load_bundle(self) -> Bundle:
        """Raises BundleError with all problems of the bundle."""
        from harness.oci.bundle import Bundle
        from harness.oci.validate import validate

        path = (self.bundle or Path()).absolute()
        bundle = Bundle.load(path)
        problems = [found.problem for found in validate(path) if found.severity == "error"] if self.validate else []
        if problems:
            raise BundleError(str(path / "config.json"), problems)
        return bundle

    def find_runtime(self) -> Runtime:
        from harness.runtime.discovery import find_runtime, find_runtimes

        return find_runtime(self.runtime) if self.runtime else find_runtimes(())[0]

    def open_session(self, container_id: str, runtime: Runtime) -> Session:
        """A session that carries the container's id. Raises InputError when that is taken."""
        from harness.runtime.kept import new_workspace
        from harness.runtime.session import Session

        session = Session(self.view, [runtime], workspace=new_workspace(container_id), timeout_s=self.timeout_s)
        if session.choice.explanation:
            note(session.choice.explanation)
        return session

    def source(self, session: Session) -> Bundle | Template:
        if self.recipe is not None:
            return session.template(self.recipe, settings_of(self.assignments))
        return self.load_bundle()


def _order_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option("--recipe", help="A built-in recipe instead of a bundle; its rootfs is an overlay.")(
        function
    )
    function = click.option(
        "--validate/--no-validate", default=True, help="Refuse a bundle with errors, or let the runtime judge it."
    )(function)
    function = click.option(
        "-b", "--bundle", type=click.Path(path_type=Path), help="The bundle; the current directory if not given."
    )(function)
    return set_option(runtime_option(view_option(timeout_option(json_options(function)))))


def _shared_stdio(as_json: bool) -> Stdio | None:
    """A container shares our streams, as with the runtimes; under --json its output goes to files instead."""
    from harness.process.command import Stdio

    return None if as_json else Stdio(0, 1, 2)


@click.command()
@click.argument("container")
@click.option("--pid-file", type=click.Path(), help="Also write init's pid there.")
@click.option("--console-socket", type=click.Path(), help="A unix socket to send the terminal's master to.")
@click.option("--preserve-fds", default=0, help="Hand on so many of our descriptors, from 3 upwards.")
@_order_options
def create(
    container: str,
    pid_file: str | None,
    console_socket: str | None,
    preserve_fds: int,
    as_json: bool,
    output: str | None,
    **order: Any,
) -> None:
    """Create CONTAINER; it waits for `start`.

    It outlives this command: go on with start, state, exec, kill, delete.
    """
    from harness.runtime.options import CreateOptions

    fds = tuple(range(3, 3 + preserve_fds))
    options = CreateOptions("", pid_file, console_socket=console_socket, preserve_fds=fds)
    value = _make_kept("create", container, Order(**order), as_json, options)
    emit(value, as_json=as_json, output=output)
    if not as_json:
        took = format_ns(value["operation"]["duration_ns"])
        click.echo(f"{container}: created in {took}, pid {value['pid']}", err=True)


@click.command()
@click.argument("container")
@click.option("-t", "--tty", is_flag=True, help="Give the container a terminal and join ours with it.")
@click.option("-d", "--detach", is_flag=True, help="Leave it running; go on with state, exec, kill, delete.")
@_order_options
def run(container: str, tty: bool, detach: bool, as_json: bool, output: str | None, **options: Any) -> int:
    """Create and start CONTAINER, wait for its end and delete it.

    The exit status is the container's own (128 + N when signal N killed it); 4 when the runtime failed.
    """
    if tty and detach:
        raise InputError("--tty and --detach exclude each other")
    order = Order(**options)
    if detach:
        emit(_make_kept("run", container, order, as_json), as_json=as_json, output=output)
        return 0
    value = _run_to_end(container, order, tty, as_json)
    emit(value, as_json=as_json, output=output)
    status: int = value["exit_status"]
    return 128 - status if status < 0 else status


def _make_kept(
    verb: str, container_id: str, order: Order, as_json: bool, options: CreateOptions | None = None
) -> dict[str, Any]:
    """Create (and with verb "run" start) a container that outlives us. On failure nothing of it is left."""
    from harness.runtime.failures import check
    from harness.runtime.kept import Record, write_record
    from harness.runtime.options import CreateOptions
    from harness.runtime.session import require_root

    require_root()
    order.check()
    runtime = order.find_runtime()
    session = order.open_session(container_id, runtime)
    try:
        made = session.container(runtime, order.source(session), container_id, stdio=_shared_stdio(as_json))
        options = options or CreateOptions("")
        copy_of_pid = options.pid_file
        options = replace(
            options,
            bundle=str(made.bundle.path),
            pid_file=f"{made.directory}/pid",
            stdio=options.stdio if as_json else _shared_stdio(as_json) or options.stdio,
        )
        operation = check(made.create(options))
        pid = made.init.pid if made.init else None
        if verb == "run":
            operation = check(made.start())
        if copy_of_pid is not None:
            Path(copy_of_pid).write_text(str(pid))
        path = str(made.bundle.path)
        write_record(
            session.workspace, Record(container_id, runtime.name, runtime.path, session.choice.view, path, pid)
        )
        session.workspace.keep()
    except BaseException:
        session.close()
        raise
    value = document(
        verb,
        container_id,
        operation,
        runtime=runtime.to_json(),
        view=session.choice.to_json(),
        bundle=path,
        pid=pid,
        snapshot=snapshot(session, pid) if as_json else None,
    )
    session.detach()
    return value


def _run_to_end(container_id: str, order: Order, tty: bool, as_json: bool) -> dict[str, Any]:
    from harness.runtime.failures import check
    from harness.runtime.session import require_root

    require_root()
    order.check()
    runtime = order.find_runtime()
    with order.open_session(container_id, runtime) as session:
        stdio = None if tty else _shared_stdio(as_json)
        made = session.container(runtime, order.source(session), container_id, stdio=stdio)
        try:
            if tty:
                _start_with_terminal(made, sys.stderr.fileno() if as_json else sys.stdout.fileno())
            else:
                check(made.create())
                check(made.start())
            status = made.wait(None).status
            check(made.delete())
            return {
                "schema": "oci-harness/run/1",
                "container": container_id,
                "runtime": runtime.to_json(),
                "view": session.choice.to_json(),
                "exit_status": status,
                "stdout": made.stdout.decode(errors="replace"),
                "stderr": made.stderr.decode(errors="replace"),
                "operations": [operation.to_json() for operation in made.operations],
            }
        finally:
            made.clean_up()


def _start_with_terminal(made: Container, stdout: int) -> None:
    """create and start with a terminal of the container's own, joined with our stdin and `stdout` until it closes."""
    from harness.runtime.console import ConsoleSocket, attach, copy_size
    from harness.runtime.failures import check
    from harness.runtime.options import CreateOptions

    config = made.bundle.config
    if not config.get("/process/terminal", False):
        if made.bundle.provided is None:
            raise InputError(f"--tty: {config.source} has no terminal; set /process/terminal to true there")
        config.set("/process/terminal", True)
        config.save(made.bundle.path / "config.json")
    with ConsoleSocket(made.directory) as console:
        options = CreateOptions(str(made.bundle.path), f"{made.directory}/pid", console_socket=console.path)
        check(made.create(options))
        master = console.receive()
    try:
        copy_size(sys.stdin.fileno(), master)  # before the container's process can look
        check(made.start())
        attach(master, sys.stdin.fileno(), stdout)
    finally:
        os.close(master)
