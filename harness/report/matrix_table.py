"""A matrix on a page: its cells coloured by verdict, what differs from the baseline marked, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from harness.compat.cells import Cell, unlike_baseline
from harness.compat.cells import Matrix as CellTable
from harness.report.html_parts import Grid, Mark, Part
from harness.report.saved import Matrix
from harness.report.verdicts import CELL_WORDS

COUNTED: Final = (*CELL_WORDS, "unexpected")


def matrix_parts(matrix: Matrix) -> list[Part]:
    table = matrix.table
    parts = [Part("By place", grid=_counts(table))]
    unexpected = [cell for cell in table.cells.values() if not cell.as_expected]
    if unexpected:
        rows = [(*cell.place, cell.case, cell.verdict, cell.reason or cell.text) for cell in unexpected]
        about = "What the catalogue, or the list of known deviations, does not say."
        parts.append(
            Part("Not as expected", about, grid=Grid(("kernel", "view", "runtime", "case", "is", "why"), rows))
        )
    differing = unlike_baseline(table)
    kernel, view = table.baseline or ("", "")
    if table.baseline is not None and len(table.places()) > len({place[2] for place in table.places()}):
        about = f"Rows in which a place has another verdict than {kernel} {view} has (marked *)."
        parts.append(Part("What differs", about, grid=_cases(table, differing)))
    same = len({cell.case for cell in table.cells.values()}) - len(differing)
    about = f"With those {same} that are the same everywhere."
    everything = list(dict.fromkeys(cell.case for cell in table.cells.values()))
    parts.append(Part("All cases", about, grid=_cases(table, everything), folded=True))
    return parts


def _counts(table: CellTable) -> Grid:
    found = table.counts()
    present = [word for word in COUNTED if any(counter[word] for counter in found.values())]
    columns = ("kernel", "view", "runtime", *(CELL_WORDS.get(word, (word, ""))[0] for word in present))
    rows = [(*place, *(str(counter[word] or "-") for word in present)) for place, counter in found.items()]
    return Grid(columns, rows, range(3, 3 + len(present)))


def _cases(table: CellTable, cases: Iterable[str]) -> Grid:
    places = table.places()
    rows = [
        (Mark(case, "case"), *(_mark(table, table.cells.get((*place, case))) for place in places)) for case in cases
    ]
    return Grid(("case", *("\n".join(place) for place in places)), rows)


def _mark(table: CellTable, cell: Cell | None) -> Mark | str:
    if cell is None:
        return ""
    word, tone = CELL_WORDS.get(cell.verdict, (cell.verdict, "none"))
    text = word + ("*" if table.differs(cell) else "") + ("" if cell.as_expected else " !")
    return Mark(text, tone, cell.reason or cell.text)
