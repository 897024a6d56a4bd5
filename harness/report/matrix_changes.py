"""What broke from one matrix to another: between kernels, runtimes' versions or releases of the catalogue."""

from __future__ import annotations

from collections import Counter
from typing import Final, cast

from msgspec import Struct

from harness.compat.cells import Cell
from harness.errors import InputError
from harness.report.comparison import Asked, Case, Comparison, Outcome, Table
from harness.report.saved import Matrix, Note, Saved, runtimes_of
from harness.report.verdicts import CELL_WORDS

WORKS: Final = frozenset({"passes", "deviates", "no-longer-deviates"})


class Change(Struct, frozen=True):
    old: Cell
    new: Cell

    @property
    def broke(self) -> bool:
        """What worked works no more, or is no longer as expected."""
        works_no_more = self.old.verdict in WORKS and self.new.verdict in ("fails", "inconclusive")
        return works_no_more or (self.old.as_expected and not self.new.as_expected)

    @property
    def moved(self) -> bool:
        return self.old.verdict != self.new.verdict or self.broke

    @property
    def place(self) -> str:
        """`6.1.0-56-amd64 -> 6.12.117+deb12-amd64, unified, runc`; a name that stayed is there once."""
        pairs = zip(self.old.place, self.new.place, strict=True)
        return ", ".join(old if old == new else f"{old} -> {new}" for old, new in pairs)


def compare_matrices(old: Saved, new: Saved, asked: Asked) -> Comparison:
    """Cells of the same kernel, view, runtime and case. Kernels of one name (`6.1`) are the same, whatever its release;
    so is the only one of each file. Raises InputError where there is nothing to compare.
    """
    for flag, given in (("--stage", asked.stages), ("--control", asked.control)):
        if given:
            raise InputError(f"{flag}: is for benchmarks; {old.path} is a matrix")
    before, after = cast(Matrix, old.value), cast(Matrix, new.value)
    if old is new and not asked.runtimes:
        raise InputError(f"{old.path}: to compare within one file name two runtimes: --runtime OLD --runtime NEW")
    runtimes = _runtimes(old, new, asked)
    kernels = _kernels(before, after)
    olds = {cell.key: cell for cell in before.cells}
    pairs = []
    for cell in after.cells:
        for name in runtimes.get(cell.runtime, ()):
            found = olds.get((kernels.get(cell.kernel, cell.kernel), cell.view, name, cell.case))
            pairs += [Change(found, cell)] if found is not None else []
    if not pairs:
        raise InputError(f"{new.path}: no kernel, view, runtime and case that {old.path} has as well")
    broke = [change for change in pairs if change.broke]
    moved = sorted((change for change in pairs if change.moved), key=lambda change: not change.broke)
    return Comparison(
        old.schema,
        old.path,
        new.path,
        bool(broke),
        _sentence(pairs, moved, broke),
        Table(("case", "where", "old", "new", "", "why"), [_row(change) for change in moved]),
        [_case(change) for change in pairs],
        _warnings(old, new, len(pairs)),
        {"compared": len(pairs), "changes": [_to_json(change) for change in moved]},
    )


def _runtimes(old: Saved, new: Saved, asked: Asked) -> dict[str, list[str]]:
    """{name in the new one: its names in the old one}. Raises InputError."""
    before, after = runtimes_of(old.value), runtimes_of(new.value)
    if old is new:
        names = [name for text in asked.runtimes for name in text.split("=")]
        if len(names) != 2 or names[0] == names[1]:
            raise InputError(f"{old.path}: has {', '.join(before)}; name two: --runtime OLD --runtime NEW")
        wanted = [(names[0], names[1])]
    elif asked.runtimes:
        wanted = [(name.partition("=")[0], name.rpartition("=")[2]) for name in asked.runtimes]
    else:
        wanted = [(name, name) for name in before if name in after]
    found: dict[str, list[str]] = {}
    for a, b in wanted:
        for name, saved, there in ((a, old, before), (b, new, after)):
            if name not in there:
                raise InputError(f"--runtime {name}: {saved.path} has only {', '.join(there)}")
        found.setdefault(b, []).append(a)
    if not found:
        raise InputError(
            f"{new.path}: has {', '.join(after)}, but {old.path} has {', '.join(before)}; --runtime OLD=NEW"
        )
    return found


def _kernels(before: Matrix, after: Matrix) -> dict[str, str]:
    """{release in the new one: that in the old one}, where they are not the same."""
    old = list(dict.fromkeys(cell.kernel for cell in before.cells))
    new = list(dict.fromkeys(cell.kernel for cell in after.cells))
    if len(old) == len(new) == 1:
        return {new[0]: old[0]}
    named = {kernel.name: kernel.release for kernel in before.kernels}
    return {kernel.release: named[kernel.name] for kernel in after.kernels if kernel.name in named}


def _shown(cell: Cell) -> str:
    return CELL_WORDS.get(cell.verdict, (cell.verdict, ""))[0]


def _row(change: Change) -> tuple[str, ...]:
    mark = "BROKE" if change.broke else "changed"
    why = change.new.reason or change.new.text
    return change.new.case, change.place, _shown(change.old), _shown(change.new), mark, why


def _case(change: Change) -> Case:
    told = f"{change.old.verdict} -> {change.new.verdict}: {change.new.reason or change.new.text}"
    both = change.old.verdict == change.new.verdict == "not-applicable"
    outcome: Outcome = "failed" if change.broke else "skipped" if both else "passed"
    return Case(change.place, change.new.case, outcome, told, change.new.seconds or 0.0)


def _sentence(pairs: list[Change], moved: list[Change], broke: list[Change]) -> str:
    if broke:
        first = broke[0]
        more = f" and {len(broke) - 1} more" if len(broke) > 1 else ""
        return f"Broke: {first.new.case} ({first.place}){more}, of {len(pairs):,} cells."
    if not moved:
        return f"{len(pairs):,} cells, all with the same verdict."
    ways = Counter(f"{_shown(change.old)} -> {_shown(change.new)}" for change in moved)
    told = ", ".join(f"{count} {way}" for way, count in ways.most_common())
    return f"Nothing broke; {len(moved)} of {len(pairs):,} cells changed: {told}."


def _warnings(old: Saved, new: Saved, compared: int) -> list[Note]:
    counts = [(saved, len(cast(Matrix, saved.value).cells)) for saved in (old, new)]
    alone = [f"{total - compared:,} of {saved.name}" for saved, total in counts if total > compared]
    if old is new or not alone:
        return []
    return [Note("cells-of-one-only", f"not compared, as the other file does not have them: {', '.join(alone)}")]


def _to_json(change: Change) -> dict[str, object]:
    return {
        "case": change.new.case,
        "old": {"kernel": change.old.kernel, "view": change.old.view, "runtime": change.old.runtime}
        | {"verdict": change.old.verdict},
        "new": {"kernel": change.new.kernel, "view": change.new.view, "runtime": change.new.runtime}
        | {"verdict": change.new.verdict, "reason": change.new.reason, "text": change.new.text},
        "broke": change.broke,
    }
