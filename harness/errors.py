"""Every exception that this package raises on purpose, in one tree.

    HarnessError                    never raised itself; exit_status is the process's
    ├── InputError           2      bad usage or input: names the file, JSON pointer or flag, and what to do
    │   └── BundleError      2      a bundle has problems; carries all of them
    ├── HostError            3      this host cannot do it: not root, no runtime, no kernel feature
    │   └── RuntimeUnusable  3      the named runtime is missing, not executable or no OCI runtime
    └── OperationError       4      one call of a runtime went wrong; carries the whole operation
        ├── OperationFailed  4      it exited with a status other than 0, or by a signal
        ├── OperationTimeout 4      it had to be killed at its deadline
        └── OperationGarbage 4      it exited with 0 but its output cannot be understood

System calls raise plain OSError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from harness.process.operation import Operation


class HarnessError(Exception):
    """Root of the tree. `str()` is one line, fit for a terminal."""

    exit_status = 4


class InputError(HarnessError):
    """What the user gave cannot be used."""

    exit_status = 2


class Problem(NamedTuple):
    """One thing wrong with a bundle: `pointer` is an RFC 6901 JSON pointer into config.json ("" is the whole)."""

    pointer: str
    message: str

    def __str__(self) -> str:
        return f"{self.pointer or '/'}: {self.message}"


class BundleError(InputError):
    """A bundle that cannot be used; `problems` has all that is wrong with it."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        first = str(problems[0]) if problems else "no reason given"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{path}: {first}{more}")


class HostError(HarnessError):
    """This host lacks something that is needed; the text says what."""

    exit_status = 3


class RuntimeUnusable(HostError):
    """The named runtime cannot be used at all."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"runtime {name}: {reason}")


class OperationError(HarnessError):
    """One call of a runtime went wrong."""

    def __init__(self, operation: Operation, message: str) -> None:
        self.operation = operation
        super().__init__(message)


class OperationFailed(OperationError):
    """The runtime said no."""


class OperationTimeout(OperationError):
    """The runtime did not end by its deadline, so it was killed with its children."""


class OperationGarbage(OperationError):
    """The runtime ended well, but what it printed is not what the verb promises."""
