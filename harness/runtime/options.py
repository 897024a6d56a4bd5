"""One value for each verb of a runtime's command line; `args()` turns it into arguments in a dialect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from harness.errors import HostError
from harness.process.command import Stdio
from harness.runtime.dialects import Dialect


def _lacking(dialect: Dialect, feature: str, flag: str) -> HostError:
    reason = dict(dialect.lacks).get(feature, f"{dialect.name} has no such option")
    return HostError(f"{flag} cannot be used with {dialect.name}: {reason}")


class Options(Protocol):
    """What the client asks of every options value."""

    @property
    def verb(self) -> str: ...

    def args(self, dialect: Dialect) -> list[str]: ...


def _flag(value: bool, flag: str) -> list[str]:
    return [flag] if value else []


def _value(value: object, flag: str) -> list[str]:
    return [] if value is None else [flag, str(value)]


class CreateOptions(Struct, frozen=True):
    """`create`; with `detach` or without it, `run` (verb "run")."""

    bundle: str
    pid_file: str | None = None
    console_socket: str | None = None
    preserve_fds: tuple[int, ...] = ()  # descriptors of this process, handed on as 3, 4, ...
    no_pivot: bool = False
    no_new_keyring: bool = False
    detach: bool | None = None  # run only
    stdio: Stdio = Stdio()
    extra: tuple[str, ...] = ()
    verb: str = "create"

    def args(self, dialect: Dialect) -> list[str]:
        args = ["--bundle", self.bundle, *_value(self.pid_file, "--pid-file")]
        args += _value(self.console_socket, "--console-socket")
        if self.preserve_fds:
            if not dialect.preserve_fds:
                raise _lacking(dialect, "preserve-fds", "--preserve-fds")
            args += ["--preserve-fds", str(len(self.preserve_fds))]
        for wanted, flag in ((self.no_pivot, dialect.no_pivot_arg), (self.no_new_keyring, dialect.no_new_keyring_arg)):
            if wanted:
                if flag is None:
                    raise _lacking(dialect, "no-pivot", "--no-pivot or --no-new-keyring")
                args.append(flag)
        return [*args, *_flag(bool(self.detach), "--detach"), *self.extra]


class KillOptions(Struct, frozen=True):
    """`signal` comes after the container id, so the client appends it."""

    signal: str = "SIGTERM"
    all: bool = False
    verb: str = "kill"

    def args(self, dialect: Dialect) -> list[str]:
        return [dialect.kill_all_arg] if self.all and dialect.kill_all_arg is not None else []


class DeleteOptions(Struct, frozen=True):
    """`force`: for clean-up only. runc 1.3 sleeps 100 ms in it, so it is never timed as the runtime's work."""

    force: bool = False
    verb: str = "delete"

    def args(self, dialect: Dialect) -> list[str]:
        return _flag(self.force, "--force")


class ExecOptions(Struct, frozen=True):
    """`exec`: either `command` or a process.json."""

    command: tuple[str, ...] = ()
    process: str | None = None
    detach: bool = False
    tty: bool = False
    console_socket: str | None = None
    pid_file: str | None = None
    cwd: str | None = None
    env: tuple[str, ...] = ()
    user: str | None = None
    preserve_fds: tuple[int, ...] = ()
    stdio: Stdio = Stdio()
    extra: tuple[str, ...] = ()
    verb: str = "exec"

    def args(self, dialect: Dialect) -> list[str]:
        args = _flag(self.detach, "--detach") + _value(self.process, "--process")
        if self.tty:
            if dialect.exec_tty_arg is None:
                raise _lacking(dialect, "tty", "--tty")
            args.append(dialect.exec_tty_arg)
        if self.preserve_fds:
            if not dialect.preserve_fds:
                raise _lacking(dialect, "preserve-fds", "--preserve-fds")
            args += ["--preserve-fds", str(len(self.preserve_fds))]
        args += _value(self.console_socket, "--console-socket") + _value(self.pid_file, "--pid-file")
        args += _value(self.cwd, "--cwd") + _value(self.user, "--user")
        for entry in self.env:
            args += ["--env", entry]
        return [*args, *self.extra]


class UpdateOptions(Struct, frozen=True):
    """`resources_file`: a JSON file with an object of the form of linux.resources."""

    resources_file: str
    verb: str = "update"

    def args(self, dialect: Dialect) -> list[str]:
        if not dialect.update_args:
            raise _lacking(dialect, "update", "update")
        return [*dialect.update_args, self.resources_file]


class PlainOptions(Struct, frozen=True):
    """A verb that leaves nothing to choose."""

    verb: str
    fixed: tuple[str, ...] = ()

    def args(self, dialect: Dialect) -> list[str]:
        return list(self.fixed)


START = PlainOptions("start")
STATE = PlainOptions("state")
PAUSE = PlainOptions("pause")
RESUME = PlainOptions("resume")
FEATURES = PlainOptions("features")
PS = PlainOptions("ps", ("--format", "json"))
LIST = PlainOptions("list", ("--format", "json"))
EVENTS = PlainOptions("events", ("--stats",))  # one reading, then the end


def tail(options: Options, container_id: str | None) -> Sequence[str]:
    """What follows the options: the container id, and what a verb wants after it."""
    if container_id is None:
        return ()
    if isinstance(options, KillOptions):
        return (container_id, options.signal)
    if isinstance(options, ExecOptions):
        return (container_id, *options.command)
    return (container_id,)
