"""The comparison of two results of one kind: told apart by schema here, made by one module for each kind.

JSON, schema "oci-harness/compare/1" (Comparison.to_json): of (schema of the results), old, new (files), failed,
sentence, warnings[{id, message}], and what its kind adds: changes.py, matrix_changes.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from harness.errors import InputError
from harness.report.saved import Note, Saved, load

SCHEMA: Final = "oci-harness/compare/1"
Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Asked:
    """`runtimes`: as on the command line, NAME or OLD=NEW; `fail_on`: 0.05 is 5 %; no `stages`: all.

    `control`: a runtime that is the same in both, so that what it changed by is the machine's doing.
    """

    fail_on: float = 0.05
    runtimes: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    control: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One check, for JUnit and the like. `seconds` is the new result's own figure, where it is a time."""

    group: str
    name: str
    outcome: Outcome
    message: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    right: tuple[int, ...] = ()  # numbers of the columns to align right


@dataclass(frozen=True, slots=True)
class Comparison:
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


def _compare_bench(old: Saved, new: Saved, asked: Asked) -> Comparison:
    from harness.report.changes_told import compare_bench

    return compare_bench(old, new, asked)


def _compare_matrices(old: Saved, new: Saved, asked: Asked) -> Comparison:
    from harness.report.matrix_changes import compare_matrices

    return compare_matrices(old, new, asked)


# A kind that can be compared: its schema and the function for it. Its type must be in saved.KINDS.
COMPARERS: Final[dict[str, Callable[[Saved, Saved, Asked], Comparison]]] = {
    "oci-harness/bench/1": _compare_bench,
    "oci-harness/matrix/1": _compare_matrices,
}


def compare(old: str | Path, new: str | Path | None, asked: Asked) -> Comparison:
    """Two files, or (`new` is None) two runtimes of one. Raises InputError where they cannot be compared."""
    before = load(old, COMPARERS)
    after = before if new is None else load(new, COMPARERS)
    if before.schema != after.schema:
        raise InputError(f"{new}: is {after.schema}, but {old} is {before.schema}; compare results of one kind")
    return COMPARERS[before.schema](before, after, asked)
