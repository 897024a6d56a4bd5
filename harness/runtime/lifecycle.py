"""One whole lifecycle of a container: create, start, first instruction, kill, exit, delete.

No interpreter work lies between the two clocks of an operation: both are read in the shim.
"""

from __future__ import annotations

import os
from typing import Literal

from msgspec import Struct

from harness.errors import OperationError
from harness.kernel import shim
from harness.oci.bundle import Template
from harness.process.children import NANOSECONDS
from harness.process.command import Place, Stdio
from harness.process.operation import Operation
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.failures import check
from harness.runtime.session import Session

End = Literal["kill", "exit"]


class Lifecycle(Struct, frozen=True):
    """What happened, in CLOCK_MONOTONIC nanoseconds."""

    create: Operation
    start: Operation
    kill: Operation | None  # None: the container ended by itself
    delete: Operation
    init: int  # pid of the container's first process, as the runtime wrote it down
    # of the payload's first instruction; None, and the reason, where the container has no clock that can be compared
    stamp_ns: int | None
    stamp_reason: str | None
    resumed_ns: int  # when the harness went on after `start`: the stamp was read
    ended: shim.Exit  # of init
    rootfs: str  # how the root file system was provided

    @property
    def operations(self) -> tuple[Operation, ...]:
        return tuple(op for op in (self.create, self.start, self.kill, self.delete) if op is not None)

    @property
    def whole_ns(self) -> int:
        """From the clone of create to the end of delete's wait."""
        return self.delete.end_ns - self.create.start_ns


class Failure(Struct, frozen=True):
    """A lifecycle that a runtime could not finish: the verb it failed at, and what was wrong in one line."""

    stage: str
    error: str


def ends_by(template: Template) -> End:
    """kill where the container's process would stay for ever (payload pause), exit where it ends by itself."""
    args = template.config.get("/process/args", [])
    return "kill" if args[:1] == ["/payload"] and args[1:2] in (["pause"], ["memory"]) else "exit"


def stamps(template: Template) -> bool:
    """Whether the container's process is the payload, which hands out the time of its first instruction."""
    return bool(template.config.get("/process/args", [])[:1] == ["/payload"])


def run_lifecycle(
    session: Session,
    runtime: Runtime,
    template: Template,
    container_id: str,
    *,
    end: End,
    timeout_s: float = 30.0,
    place: Place | None = None,
) -> Lifecycle | Failure:
    """One lifecycle, cleaned up whatever happens. A runtime's failure is returned, not raised."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        container = session.container(runtime, template, container_id, stdio=Stdio(stdout=writer), place=place)
        try:
            try:
                create = check(container.create())
            finally:
                os.close(writer)
                writer = -1
            return _from_created(container, create, reader, end=end, stamped=stamps(template), timeout_s=timeout_s)
        except (OperationError, TimeoutError) as error:
            return Failure(container.operations[-1].verb if container.operations else "create", str(error))
        finally:
            container.clean_up()
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def _from_created(
    container: Container, create: Operation, reader: int, *, end: End, stamped: bool, timeout_s: float
) -> Lifecycle:
    start = check(container.start())
    resumed_ns = start.end_ns
    stamp: int | None = None
    reason: str | None = "the container's process is not the payload"
    if stamped:
        stamp, reason = _read_stamp(container, reader, timeout_s)
        resumed_ns = shim.monotonic_ns()
    kill: Operation | None = None
    if end == "kill":
        kill = check(container.kill())
    ended = container.wait(timeout_s)
    delete = check(container.delete())
    assert container.init is not None  # or `wait` would have raised
    return Lifecycle(
        create=create,
        start=start,
        kill=kill,
        delete=delete,
        init=container.init.pid,
        stamp_ns=stamp,
        stamp_reason=reason,
        resumed_ns=resumed_ns,
        ended=ended,
        rootfs=container.bundle.provided.how if container.bundle.provided else "",
    )


def _read_stamp(container: Container, reader: int, timeout_s: float) -> tuple[int | None, str | None]:
    """The payload's CLOCK_MONOTONIC line. A pipe at its end means that the payload never ran."""
    if not shim.poll(reader, shim.POLLIN, int(timeout_s * NANOSECONDS)):
        raise TimeoutError(f"no stamp from the payload within {timeout_s:.0f} s")
    text = os.read(reader, 64)
    if not container.client.runtime.dialect.shares_host_clock:
        return None, dict(container.client.runtime.dialect.lacks).get("host-clock", "not the host's clock")
    if not text.strip().isdigit():
        return None, "the payload ended without a stamp"
    return int(text), None
