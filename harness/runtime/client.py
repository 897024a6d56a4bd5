"""Call a runtime's verbs: one client value holds the binary, its root and its global options."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from harness.errors import HostError, OperationGarbage
from harness.process.command import HERE, Place, Stdio, read_limited, run, runtime_environment
from harness.process.operation import Operation
from harness.runtime.discovery import Runtime
from harness.runtime.failures import check
from harness.runtime.options import (
    EVENTS,
    FEATURES,
    LIST,
    PAUSE,
    PS,
    RESUME,
    START,
    STATE,
    CreateOptions,
    DeleteOptions,
    ExecOptions,
    KillOptions,
    Options,
    UpdateOptions,
    tail,
)

if TYPE_CHECKING:
    from harness.oci.features import Features
    from harness.oci.state import State


class Client(Struct, frozen=True):
    """`root` holds the runtime's state; each operation leaves its log in `log_dir`, which must exist.

    The verbs return the Operation, however it ended; `runtime.failures.check` raises for a bad end.
    """

    runtime: Runtime
    root: str
    log_dir: str
    place: Place = HERE
    systemd_cgroup: bool = False
    debug: bool = False
    timeout_s: float | None = 30.0
    extra: tuple[str, ...] = ()  # further global options
    prefix: tuple[str, ...] = ()  # a command to call the runtime through; its first word is an absolute path
    env: tuple[str, ...] = field(default_factory=runtime_environment)
    _serial: itertools.count[int] = field(default_factory=itertools.count)

    def argv(self, options: Options, container_id: str | None, log_path: str) -> list[str]:
        """The whole command line of an operation, fit to be pasted into a shell."""
        runtime = self.runtime
        argv = [*self.prefix, runtime.path, "--root", self.root, "--log", log_path, "--log-format", "json"]
        argv += runtime.dialect.global_args
        if self.debug:
            argv.append("--debug")
        if self.systemd_cgroup:
            if runtime.dialect.systemd_cgroup_arg is None:
                raise HostError(f"{runtime.name} has no option for the systemd cgroup driver")
            argv.append(runtime.dialect.systemd_cgroup_arg)
        return [
            *argv,
            *self.extra,
            options.verb,
            *options.args(runtime.dialect),
            *tail(options, container_id),
        ]

    def call(
        self,
        options: Options,
        container_id: str | None = None,
        *,
        stdio: Stdio = Stdio(),
        extra_fds: Sequence[int] = (),
        timeout_s: float | None = -1.0,
    ) -> Operation:
        """Run one verb. timeout_s: -1 the client's own deadline, None no deadline.

        Raises HostError where this runtime lacks the verb, OSError when it cannot be started.
        """
        if options.verb not in self.runtime.verbs:
            raise HostError(f"{self.runtime.name} {self.runtime.version} has no {options.verb} command")
        log_path = f"{self.log_dir}/{options.verb}-{next(self._serial)}.log"
        return run(
            options.verb,
            self.argv(options, container_id, log_path),
            stdio=stdio,
            extra_fds=extra_fds,
            place=self.place,
            env=self.env,
            log_path=log_path,
            timeout_s=self.timeout_s if timeout_s == -1.0 else timeout_s,
        )

    def create(self, container_id: str, options: CreateOptions) -> Operation:
        return self.call(options, container_id, stdio=options.stdio, extra_fds=options.preserve_fds)

    def run(self, container_id: str, options: CreateOptions, timeout_s: float | None = None) -> Operation:
        """`run`, attached unless options.detach; lasts as long as the container, so it has no deadline by default."""
        return self.call(
            options, container_id, stdio=options.stdio, extra_fds=options.preserve_fds, timeout_s=timeout_s
        )

    def start(self, container_id: str) -> Operation:
        return self.call(START, container_id)

    def kill(self, container_id: str, options: KillOptions = KillOptions()) -> Operation:
        return self.call(options, container_id)

    def delete(self, container_id: str, options: DeleteOptions = DeleteOptions()) -> Operation:
        return self.call(options, container_id)

    def exec(self, container_id: str, options: ExecOptions, timeout_s: float | None = None) -> Operation:
        """Output that the caller does not take goes through files: a command may open its own /dev/stdout again."""
        names = [f"{self.log_dir}/exec-{next(self._serial)}.{end}" for end in ("out", "err")]
        given = (options.stdio.stdout, options.stdio.stderr)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        files = [os.open(name, flags, 0o600) if fd is None else -1 for name, fd in zip(names, given, strict=True)]
        out, err = (mine if fd is None else fd for mine, fd in zip(files, given, strict=True))
        try:
            stdio = Stdio(options.stdio.stdin, out, err)
            done = self.call(options, container_id, stdio=stdio, extra_fds=options.preserve_fds, timeout_s=timeout_s)
        finally:
            for fd in files:
                if fd >= 0:
                    os.close(fd)
        texts = [read_limited(name) if fd >= 0 else (b"", False) for name, fd in zip(names, files, strict=True)]
        truncated = done.truncated or any(cut for _, cut in texts)
        return replace(done, stdout=texts[0][0], stderr=texts[1][0], truncated=truncated)

    def pause(self, container_id: str) -> Operation:
        return self.call(PAUSE, container_id)

    def resume(self, container_id: str) -> Operation:
        return self.call(RESUME, container_id)

    def ps(self, container_id: str) -> Operation:
        return self.call(PS, container_id)

    def list(self) -> Operation:
        return self.call(LIST)

    def events(self, container_id: str) -> Operation:
        return self.call(EVENTS, container_id)

    def update(self, container_id: str, resources_file: str) -> Operation:
        return self.call(UpdateOptions(resources_file), container_id)

    def state(self, container_id: str) -> State:
        """Raises OperationFailed (no such container, ...) and OperationGarbage (what it printed is no state)."""
        from harness.oci.state import parse_state

        operation = check(self.call(STATE, container_id))
        try:
            return parse_state(operation.stdout)
        except ValueError as error:
            raise OperationGarbage(operation, f"{self.runtime.name} state printed no state: {error}") from None

    def features(self) -> Features:
        """Raises HostError where the runtime has no such command."""
        from harness.oci.features import parse_features

        operation = check(self.call(FEATURES))
        try:
            return parse_features(operation.stdout)
        except ValueError as error:
            raise OperationGarbage(operation, f"{self.runtime.name} features: {error}") from None
