"""One container's lifecycle: create, start, running, kill, delete; and an end that always cleans up."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.errors import OperationError, OperationGarbage
from harness.kernel import procfs, shim
from harness.oci import pointer as json_pointer
from harness.oci.bundle import Bundle, check_container_id
from harness.process.children import (
    Child,
    adopt_in_pid_namespace,
    adopt_naming,
    expecting_child,
    kill_processes,
    orphans,
    reap_orphans,
    ticks_now,
    wait_with_others,
)
from harness.process.command import Stdio, read_limited
from harness.process.operation import Operation
from harness.runtime.client import Client
from harness.runtime.failures import check
from harness.runtime.options import CreateOptions, DeleteOptions, ExecOptions, KillOptions

if TYPE_CHECKING:
    from harness.oci.state import State


class Container:
    """As a context manager: created on entry, and on exit nothing of it is left, whatever happened in between.

    The verbs return their Operation without judging it; `operations` keeps them all in order. The harness is init's
    parent from `create` on, so `wait` gives its exit status.
    """

    def __init__(
        self,
        client: Client,
        bundle: Bundle,
        container_id: str,
        stdio: Stdio | None = None,
        release: Callable[[Container], None] | None = None,
    ) -> None:
        """`release` is called once, at the end of clean_up, to take away what the maker of this container made.

        Without `stdio` the container's output goes to files in its directory: see stdout and stderr.
        """
        self.id = check_container_id(container_id)
        self.client = client
        self.bundle = bundle
        self.operations: list[Operation] = []
        self.init: Child | None = None
        self._helpers: list[Child] = []  # processes of the runtime that live as long as the container
        self._orphans: list[Child] = []  # what an exec left in the container; init cannot end before they are reaped
        self.directory = Path(client.log_dir)
        self._pid_file = f"{client.log_dir}/pid"
        self._stdio = stdio
        self._release = release
        self._exists = False
        self._since = sys.maxsize  # in clock ticks: when create began

    @property
    def stdout(self) -> bytes:
        """What the container has written to its stdout so far; b"" when the caller gave descriptors of its own."""
        return read_limited(f"{self.directory}/stdout")[0]

    @property
    def stderr(self) -> bytes:
        return read_limited(f"{self.directory}/stderr")[0]

    def _keep(self, operation: Operation) -> Operation:
        self.operations.append(operation)
        return operation

    def _adopt(self) -> None:
        """Take hold of init: it became our child when the runtime ended. Raises ValueError for a bad pid file."""
        text, _ = read_limited(self._pid_file)
        stat = procfs.process_stat(int(text))
        if stat is None or stat.ppid != os.getpid():  # whose process it is, we must not kill it
            raise ValueError(f"process {int(text)} is not there or no child of this process")
        self.init = Child(stat.pid)
        if self.client.runtime.dialect.helpers_outlive_create:
            self._helpers = adopt_naming(f"{self.directory}/")

    def create(self, options: CreateOptions | None = None) -> Operation:
        """Raises OperationGarbage when the runtime says it went well but left no pid."""
        if options is None:
            options = CreateOptions(str(self.bundle.path), self._pid_file, stdio=self._stdio or Stdio())
        self._exists = True
        self._since = ticks_now()
        create = self._create_into_files if self._stdio is None else self._create
        with expecting_child():  # init: the runtime leaves it to us
            return self._create_and_adopt(create, options)

    def _create_and_adopt(self, create: Callable[[CreateOptions], Operation], options: CreateOptions) -> Operation:
        operation = self._keep(create(options))
        if operation.exit_status == 0:
            try:
                self._adopt()
            except (ValueError, OSError) as error:
                raise OperationGarbage(
                    operation, f"{self.client.runtime.name} create ended well but left no pid of init: {error}"
                ) from None
        elif not operation.timed_out and not self._has_state():
            self._exists = False  # it took back what it had made, so there is nothing to delete
        return operation

    def _has_state(self) -> bool:
        """Whether the runtime keeps anything under this id (runsc puts more behind it); yes if none can tell."""
        try:
            return any(entry.name.startswith(self.id) for entry in Path(self.client.root).iterdir())
        except OSError:
            return True

    def _create(self, options: CreateOptions) -> Operation:
        return self.client.create(self.id, options)

    def _create_into_files(self, options: CreateOptions) -> Operation:
        """The runtime's own words come on the stderr that it shares with the container, so they are in that file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        out = os.open(f"{self.directory}/stdout", flags, 0o600)
        err = os.open(f"{self.directory}/stderr", flags, 0o600)
        try:
            operation = self.client.create(self.id, replace(options, stdio=Stdio(None, out, err)))
        finally:
            os.close(out)
            os.close(err)
        return replace(operation, stderr=self.stderr) if operation.exit_status != 0 else operation

    def start(self) -> Operation:
        return self._keep(self.client.start(self.id))

    def kill(self, sig: str = "SIGKILL") -> Operation:
        return self._keep(self.client.kill(self.id, KillOptions(sig)))

    def pause(self) -> Operation:
        return self._keep(self.client.pause(self.id))

    def resume(self) -> Operation:
        return self._keep(self.client.resume(self.id))

    def exec(self, *command: str, timeout_s: float | None = 30.0, options: ExecOptions | None = None) -> Operation:
        """Run a command in the container and wait for its end; its output is in the operation."""
        operation = self._keep(self.client.exec(self.id, options or ExecOptions(command=command), timeout_s))
        if self.init is not None and self.init.exit is None:
            self._orphans += adopt_in_pid_namespace(self.init.pid)
        return operation

    def delete(self) -> Operation:
        """Plain `delete`; the container must have stopped."""
        operation = self._keep(self.client.delete(self.id))
        if operation.exit_status == 0:
            self._exists = False
        return operation

    def state(self) -> State:
        return self.client.state(self.id)

    def wait(self, timeout_s: float | None = 30.0) -> shim.Exit:
        """Wait for init to end. Raises TimeoutError; ChildProcessError when the container was never created."""
        if self.init is None:
            raise ChildProcessError(f"container {self.id} has no init: it was not created")
        ended = wait_with_others(self.init, self._orphans, timeout_s)
        for helper in self._helpers:  # `delete` waits until they are reaped
            helper.wait(timeout_s)
        return ended

    def clean_up(self) -> list[str]:
        """End and remove what is left of the container; returns what could not be removed, in words.

        A container that went through its whole lifecycle costs no operation here.
        """
        left: list[str] = []
        if self._exists:
            created = self.init is not None
            self._end_init()
            if not created:  # plain delete is refused, and runsc's waits 5 s for what nobody has reaped
                left += self._end_others()
            if not created or self.delete().exit_status != 0:
                self._keep(self.client.delete(self.id, DeleteOptions(force=True)))
            left += self._end_others()
            self._exists = False
        for child in (self.init, *self._helpers, *self._orphans):
            if child is not None:
                child.forget()
        reap_orphans(self.client.runtime.dialect.helper_comms)
        left += self._end_hooks()
        if self._release is not None:
            self._release(self)
            self._release = None
        return left

    def _end_others(self) -> list[str]:
        """Whatever names this container's directory, whoever its parent is by now."""
        found = procfs.processes_naming(str(self.directory), ignore=frozenset({os.getpid()}))
        return [f"process {pid} would not die" for pid in kill_processes(found)]

    def _end_hooks(self) -> list[str]:
        """A hook that outlives its runtime, which failed, is our child now: it runs on, or it is a zombie."""
        if all(operation.exit_status == 0 for operation in self.operations):
            return []
        hooks = json_pointer.select(self.bundle.config.document, "/hooks/*/*/path", str)
        names = {path.rpartition("/")[2][: procfs.COMM_LENGTH] for _, path in hooks}
        place = self.client.place.mount_ns_fd
        namespace = os.fstat(place).st_ino if names and place >= 0 else None
        stubborn = kill_processes(orphans(names, self._since, namespace)) if names else []
        return [f"process {pid} of a hook would not die" for pid in stubborn]

    def _end_init(self) -> None:
        if self.init is None:
            with contextlib.suppress(ValueError, OSError):
                self._adopt()
        if self.init is None or self.init.exit is not None:
            return
        self.init.signal(signal.SIGKILL)
        try:
            wait_with_others(self.init, self._orphans, 0.5)
        except TimeoutError:  # frozen by cgroup v1: it dies once it thaws
            with contextlib.suppress(OperationError, OSError):
                self._keep(self.client.resume(self.id))
            with contextlib.suppress(TimeoutError, OSError):
                wait_with_others(self.init, self._orphans, 5.0)
        except OSError:
            pass
        for helper in self._helpers:
            with contextlib.suppress(TimeoutError, OSError):
                helper.wait(5.0)

    def __enter__(self) -> Container:
        try:
            check(self.create())
        except BaseException:
            self.clean_up()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.clean_up()
