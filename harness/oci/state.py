"""What `RUNTIME state ID` prints. Source: runtime-spec runtime.md, State; `paused` is runc's and crun's own."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from harness.oci.document import decode, describe
from harness.oci.shape import shape_problems

Status = Literal["creating", "created", "running", "stopped", "paused"]

_MAX_BYTES = 1024 * 1024  # a state has an id, a path and annotations
_MAX_PID = 2**22  # proc_sys_kernel(5), pid_max
_ALIVE = ("created", "running", "paused")


class _Printed(msgspec.Struct, frozen=True, rename="camel"):
    """The fields as they are printed."""

    oci_version: str
    id: str
    status: str
    bundle: str
    pid: int | None = None
    annotations: dict[str, str] | None = None


class State(msgspec.Struct, frozen=True):
    """One container's state."""

    oci_version: str
    id: str
    status: Status
    pid: int | None  # in the runtime's pid namespace; None when there is no process
    bundle: str  # absolute path
    annotations: dict[str, str]
    document: dict[str, Any]  # all that was printed, unknown fields too


def parse_state(data: bytes) -> State:
    """Output of `state` -> State. Raises ValueError with one line that says what is wrong with it."""
    if len(data) > _MAX_BYTES:
        raise ValueError(f"{len(data)} bytes, more than {_MAX_BYTES}, are no state")
    try:
        document = decode(data)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    problems = shape_problems(document, _Printed)
    if problems:
        raise ValueError("; ".join(str(problem) for problem in problems[:3]))
    printed = msgspec.convert(document, _Printed)
    status = next((each for each in _statuses() if each == printed.status), None)
    if status is None:
        raise ValueError(f"/status: {describe(printed.status)} is not one of {', '.join(_statuses())}")
    if not printed.id:
        raise ValueError("/id: it is empty")
    pid = printed.pid or None
    if pid is not None and status in _ALIVE and not 0 < pid <= _MAX_PID:
        raise ValueError(f"/pid: {describe(pid)} is no process id")
    if pid is None and status in _ALIVE:
        raise ValueError(f"/pid: there is none, but the status is {status}")
    return State(
        oci_version=printed.oci_version,
        id=printed.id,
        status=status,
        # runc and crun print 0, runsc -1; a runtime that prints the old pid names a process that may be another by now.
        pid=None if status == "stopped" else pid,
        bundle=printed.bundle,
        annotations=printed.annotations or {},
        document=document,
    )


def _statuses() -> tuple[Status, ...]:
    return get_args(Status)
