"""Two files compared: told apart by schema here, by one module for each kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.report.comparison import Asked, Comparison
from harness.report.saved import Saved, load


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
