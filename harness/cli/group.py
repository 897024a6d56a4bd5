"""The click group: lazy commands, and the one place where exceptions become messages and exit statuses."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import NoReturn

import click

from harness.errors import HarnessError
from harness.version import VERSION

INTERRUPTED = 130


class LazyGroup(click.Group):
    """Imports a command's module when that command is called; the overview needs none of them."""

    def __init__(self, table: Mapping[str, tuple[str, str, str]]) -> None:
        super().__init__(
            name="oci-harness",
            help="Drive OCI runtimes directly: build bundles, run lifecycles, measure them. No containerd in the loop.",
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
            params=[
                click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_print_version),
                click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
            ],
            callback=lambda debug: None,
            epilog="Exit status: 0 done, 1 the answer is no, 2 bad input, 3 not on this host, 4 a runtime failed.",
        )
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        module, attribute, _ = self.table[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"harness.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in sorted(self.table.items())])


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"oci-harness {VERSION}")
        ctx.exit()


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM ends a command the way Ctrl-C does: it cleans up first."""
    raise KeyboardInterrupt


def run(args: list[str], table: Mapping[str, tuple[str, str, str]]) -> int:
    """Run one command and return the exit status of the contract."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminated)
    debug = "--debug" in args[:1]
    try:
        result = LazyGroup(table).main(args, prog_name="oci-harness", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("oci-harness: interrupted", err=True)
        return INTERRUPTED
    except HarnessError as error:
        if debug:
            raise
        click.echo(f"oci-harness: {_one_line(str(error))}", err=True)
        return error.exit_status
    except BrokenPipeError:
        sys.stderr.close()
        return INTERRUPTED
    except OSError as error:
        if debug:
            raise
        name = f"{error.filename}: " if error.filename else ""
        click.echo(f"oci-harness: {name}{error.strerror or error}", err=True)
        return 3
    except Exception as error:
        if debug:
            raise
        where = f"{type(error).__name__}: {_one_line(str(error))}"
        click.echo(f"oci-harness: a bug in oci-harness: {where}; `oci-harness --debug ...` shows where", err=True)
        return 4
    return result if isinstance(result, int) else 0


def _one_line(text: str) -> str:
    return " ".join(text.split())
