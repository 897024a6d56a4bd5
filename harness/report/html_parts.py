"""What a page is made of: tables, and charts under a heading."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field

from harness.report.figure import Chart


class Mark(Struct, frozen=True):
    """A coloured cell; `tone` is a class of the style sheet, `told` what is shown when it is pointed at."""

    text: str
    tone: str
    told: str = ""


class Grid(Struct, frozen=True):
    """A table; numbers of the columns to align right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Mark]]
    right: Sequence[int] = ()


class Part(Struct):
    """Some charts under a heading, and the same as a table. `folded`: the table is shown on demand."""

    title: str
    about: str = ""
    charts: list[Chart] = field(default_factory=list)
    grid: Grid | None = None
    folded: bool = False
    panels: bool = False  # charts beside each other
