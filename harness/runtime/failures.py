"""Turn an operation that did not do what it should into an exception that says so in one line."""

from __future__ import annotations

from harness.errors import OperationFailed, OperationTimeout
from harness.process.operation import Operation


def describe(operation: Operation) -> str:
    """One line: the verb, how it ended, and the runtime's own last word."""
    name = f"{operation.argv[0].rsplit('/', 1)[-1]} {operation.verb}"
    if operation.timed_out:
        return f"{name} did not end within its deadline and was killed with its {len(operation.killed) - 1} children"
    how = f"signal {-operation.exit_status}" if operation.exit_status < 0 else f"exit status {operation.exit_status}"
    said = " ".join(operation.message.split())
    return f"{name} failed ({how}): {said}" if said else f"{name} failed ({how}) without a word"


def check(operation: Operation) -> Operation:
    """The operation itself if it went well. Raises OperationFailed or OperationTimeout."""
    if operation.timed_out:
        raise OperationTimeout(operation, describe(operation))
    if operation.exit_status != 0:
        raise OperationFailed(operation, describe(operation))
    return operation
