"""The exception tree: exit statuses and one-line texts."""

from __future__ import annotations

import inspect
import re

import pytest

from harness import errors
from harness.errors import (
    BundleError,
    HarnessError,
    HostError,
    InputError,
    OperationError,
    OperationFailed,
    OperationGarbage,
    OperationTimeout,
    Problem,
    RuntimeUnusable,
)
from harness.process.operation import Operation, Usage

OPERATION = Operation("create", ("/bin/runc", "create"), 1, 2, 1, Usage(0, 0, None, 0, 0, 0, 0))

# class: (parent, exit status of the contract)
TREE: dict[type[HarnessError], tuple[type[Exception], int]] = {
    HarnessError: (Exception, 4),
    InputError: (HarnessError, 2),
    BundleError: (InputError, 2),
    HostError: (HarnessError, 3),
    RuntimeUnusable: (HostError, 3),
    OperationError: (HarnessError, 4),
    OperationFailed: (OperationError, 4),
    OperationTimeout: (OperationError, 4),
    OperationGarbage: (OperationError, 4),
}


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_place_and_status(kind: type[HarnessError]) -> None:
    """Each class has the parent and the exit status of the contract."""
    parent, status = TREE[kind]
    assert (kind.__base__, kind.exit_status) == (parent, status)
    assert kind.__doc__


def test_tree_is_whole() -> None:
    """Every exception of the module is in the table above and in the tree that the module's docstring draws."""
    found = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HarnessError)}
    assert found == set(TREE)
    drawn = dict(re.findall(r"── (\w+) +(\d) ", errors.__doc__ or ""))
    assert drawn == {kind.__name__: str(status) for kind, (_, status) in TREE.items() if kind is not HarnessError}


@pytest.mark.parametrize(
    ("problems", "expected"),
    [
        ([], "/b: no reason given"),
        ([Problem("/root", "missing")], "/b: /root: missing"),
        ([Problem("", "no object"), Problem("/x", "y")], "/b: /: no object (and 1 more)"),
        ([Problem("/a", "b")] * 3, "/b: /a: b (and 2 more)"),
    ],
)
def test_bundle_error(problems: list[Problem], expected: str) -> None:
    """A bundle's error names the first problem, counts the others and carries all."""
    error = BundleError("/b", problems)
    assert str(error) == expected
    assert (error.path, error.problems) == ("/b", problems)


def test_runtime_unusable() -> None:
    """The name and the reason are there for JSON, and one line for people."""
    error = RuntimeUnusable("runc", "not found")
    assert (error.name, error.reason, str(error)) == ("runc", "not found", "runtime runc: not found")


@pytest.mark.parametrize("kind", [OperationError, OperationFailed, OperationTimeout, OperationGarbage])
def test_operation_errors_carry_the_operation(kind: type[OperationError]) -> None:
    """What went wrong with a call comes with the whole call."""
    error = kind(OPERATION, "runc create: exit status 1")
    assert error.operation is OPERATION
    assert str(error) == "runc create: exit status 1"
    assert "\n" not in str(error)
