"""The comparison of two results of one kind, whatever the kind: what is asked, and what every kind gives.

JSON, schema "oci-harness/compare/1" (Comparison.to_json): of (schema of the results), old, new (files), failed,
sentence, warnings[{id, message}], and what its kind adds: changes.py, matrix_changes.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct, field

from harness.report.saved import Note

SCHEMA: Final = "oci-harness/compare/1"
Outcome = Literal["passed", "failed", "skipped"]


class Asked(Struct, frozen=True):
    """`runtimes`: as on the command line, NAME or OLD=NEW; `fail_on`: 0.05 is 5 %; no `stages`: all.

    `control`: a runtime that is the same in both, so that what it changed by is the machine's doing.
    """

    fail_on: float = 0.05
    runtimes: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    control: str | None = None


class Case(Struct, frozen=True):
    """One check, for JUnit and the like. `seconds` is the new result's own figure, where it is a time."""

    group: str
    name: str
    outcome: Outcome
    message: str
    seconds: float = 0.0


class Table(Struct, frozen=True):
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    right: tuple[int, ...] = ()  # numbers of the columns to align right


class Comparison(Struct, frozen=True):
    """What every kind gives, whatever was compared."""

    of: str
    old: Path
    new: Path
    failed: bool  # there is a regression: exit status 1
    sentence: str
    table: Table
    cases: list[Case]
    warnings: list[Note] = field(default_factory=list)
    value: dict[str, Any] = field(default_factory=dict)  # what the kind adds to the JSON

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "of": self.of,
            "old": str(self.old),
            "new": str(self.new),
            "failed": self.failed,
            "sentence": self.sentence,
            "warnings": [{"id": each.id, "message": each.message} for each in self.warnings],
            **self.value,
        }
