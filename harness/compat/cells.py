"""The cells of a matrix: one case on one runtime in one cgroup view of one kernel, and the file that they grow in."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from harness.errors import InputError

SCHEMA = "oci-harness/matrix/1"


class Cell(msgspec.Struct, frozen=True, omit_defaults=True):
    """One cell. Verdicts are those of reproduce, and `passes` or `fails` for cases that are no faults."""

    kernel: str  # uname -r
    view: str
    runtime: str
    case: str
    verdict: str
    as_expected: bool
    fingerprint: str  # of all that the verdict depends on and that may change under the same names
    runtime_version: str = ""
    reason: str | None = None
    cause: str | None = None
    side: str | None = None
    stage: str | None = None
    text: str = ""
    clause: str | None = None
    expected: str | None = None
    counterfactual: str | None = None
    leaks: list[str] = []
    first_try: str | None = None  # the reason, when the first try was not as expected and this is the second
    seconds: float | None = None
    accelerator: str | None = None  # kvm, tcg; None: on the host itself
    console: str | None = None  # the console's last lines, of a guest that died in this case
    operations: list[Any] = []  # of verdicts that are not as expected
    evidence: dict[str, Any] = {}

    @property
    def place(self) -> tuple[str, str, str]:
        return self.kernel, self.view, self.runtime

    @property
    def key(self) -> tuple[str, str, str, str]:
        return *self.place, self.case


def fingerprint(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:16]


class Matrix(Struct):
    """All cells so far, and what is known of the guests they are from."""

    cells: dict[tuple[str, str, str, str], Cell] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    guests: list[dict[str, Any]] = field(default_factory=list)
    baseline: tuple[str, str] | None = None  # kernel and view that the others are compared with

    def add(self, cell: Cell) -> None:
        self.cells[cell.key] = cell

    def places(self) -> list[tuple[str, str, str]]:
        """(kernel, view, runtime), in the order in which they were asked for."""
        return list(dict.fromkeys(cell.place for cell in self.cells.values()))

    def counts(self) -> dict[tuple[str, str, str], Counter[str]]:
        """Verdicts by place; `unexpected` counts those that are not as expected."""
        found: dict[tuple[str, str, str], Counter[str]] = {}
        for cell in self.cells.values():
            counter = found.setdefault(cell.place, Counter())
            counter[cell.verdict] += 1
            counter["unexpected"] += not cell.as_expected
        return found

    def at_baseline(self, cell: Cell) -> Cell | None:
        """The same case on the same runtime at the baseline; None for the baseline itself, or where it was not run."""
        if self.baseline is None or (cell.kernel, cell.view) == self.baseline:
            return None
        return self.cells.get((*self.baseline, cell.runtime, cell.case))

    def differs(self, cell: Cell) -> bool:
        """Whether the verdict is another than at the baseline."""
        other = self.at_baseline(cell)
        return other is not None and other.verdict != cell.verdict

    def to_json(self) -> dict[str, Any]:
        cells = [msgspec.to_builtins(cell) | {"differs": self.differs(cell)} for cell in self.cells.values()]
        summary = [
            {"kernel": kernel, "view": view, "runtime": runtime, **counter}
            for (kernel, view, runtime), counter in self.counts().items()
        ]
        baseline = None if self.baseline is None else {"kernel": self.baseline[0], "view": self.baseline[1]}
        return {
            "schema": SCHEMA,
            "environment": self.environment,
            "baseline": baseline,
            "summary": summary,
            "guests": self.guests,
            "cells": cells,
        }


def unlike_baseline(table: Matrix) -> list[str]:
    """The cases that come out in one place otherwise than at the baseline, or not as expected anywhere."""
    wanted = (cell.case for cell in table.cells.values() if table.differs(cell) or not cell.as_expected)
    return list(dict.fromkeys(wanted))


def load_cells(path: Path) -> list[Cell]:
    """The cells of a result file. Raises InputError for a file that is none."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: no JSON: {error}; move it away, or leave out --resume") from None
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise InputError(f"{path}: no result of matrix ({SCHEMA}); move it away, or leave out --resume")
    try:
        return msgspec.convert(value.get("cells"), list[Cell])
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}; move it away, or leave out --resume") from None


def to_junit(cells: Iterable[Cell]) -> str:
    """The JUnit XML that CI systems read: a suite for each kernel, view and runtime."""
    from xml.etree import ElementTree as Xml

    root = Xml.Element("testsuites", name="oci-harness matrix")
    suites: dict[tuple[str, str, str], Xml.Element] = {}
    for cell in cells:
        name = f"{cell.kernel} {cell.view} {cell.runtime}"
        if cell.place not in suites:
            suites[cell.place] = Xml.SubElement(root, "testsuite", name=name)
        case = Xml.SubElement(suites[cell.place], "testcase", classname=name, name=cell.case)
        case.set("time", f"{cell.seconds or 0:.3f}")
        told = _printable(cell.reason or cell.text)
        if cell.verdict == "not-applicable":
            Xml.SubElement(case, "skipped", message=told)
        elif not cell.as_expected:
            failure = Xml.SubElement(case, "failure", type=cell.verdict, message=told)
            failure.text = _printable("\n".join(part for part in (cell.text, cell.console) if part))
    for suite in suites.values():
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
        suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """Without the control characters that XML 1.0 forbids."""
    return "".join(char if char in "\t\n" or char >= " " else "\N{REPLACEMENT CHARACTER}" for char in text)
