"""One thing that is or may be wrong with a config.json."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from harness.errors import Problem

Severity = Literal["error", "warning"]


class Finding(Struct, frozen=True):
    """`error`: against the spec, or refused by kernel or runtimes; `warning`: it may run, perhaps not as meant."""

    pointer: str  # RFC 6901, into config.json; "" is the whole
    message: str  # what is there, and what to do
    severity: Severity

    def __str__(self) -> str:
        return f"{self.severity}: {self.problem}"

    @property
    def problem(self) -> Problem:
        """The same without severity, for BundleError."""
        return Problem(self.pointer, self.message)


def error(pointer: str, message: str) -> Finding:
    """A Finding of severity error."""
    return Finding(pointer, message, "error")


def warning(pointer: str, message: str) -> Finding:
    """A Finding of severity warning."""
    return Finding(pointer, message, "warning")
