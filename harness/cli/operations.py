"""What the commands say of one operation, in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import InputError

if TYPE_CHECKING:
    from harness.process.operation import Operation
    from harness.runtime.session import Session


def document(verb: str, container_id: str | None, operation: Operation, **more: Any) -> dict[str, Any]:
    """The result of a verb: what it was called on, whatever the verb adds, and the whole operation."""
    return {"schema": f"oci-harness/{verb}/1", "container": container_id, **more, "operation": operation.to_json()}


def snapshot(session: Session, pid: int | None) -> dict[str, Any] | None:
    """cgroup and namespace state of init right after an operation; None when there is no init."""
    from harness.runtime.inspection import inspect_process

    if pid is None:
        return None
    try:
        return session.namespace.call(lambda: inspect_process(pid, session.layout, network=False))
    except (InputError, OSError):
        return None
