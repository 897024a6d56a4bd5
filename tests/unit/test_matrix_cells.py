"""The cells of a matrix, their file, and what is told of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.cli.matrix import show
from harness.compat.cells import Cell, Matrix, fingerprint, load_cells, to_junit
from harness.errors import InputError


def cell(case: str, verdict: str, kernel: str = "6.1", view: str = "unified", expected: bool = True) -> Cell:
    return Cell(kernel, view, "runc", case, verdict, expected, "f", text=f"text of {case}", reason=None)


def matrix(*cells: Cell, baseline: tuple[str, str] | None = ("6.1", "unified")) -> Matrix:
    made = Matrix(baseline=baseline)
    for each in cells:
        made.add(each)
    return made


def test_a_cell_differs_when_the_same_case_on_the_same_runtime_has_another_verdict_at_the_baseline() -> None:
    made = matrix(cell("a", "reproduced"), cell("a", "not-applicable", "6.12"), cell("b", "reproduced", "6.12"))
    differing = {(c["kernel"], c["case"]) for c in made.to_json()["cells"] if c["differs"]}
    assert differing == {("6.12", "a")}


def test_a_second_verdict_of_a_cell_takes_the_place_of_the_first() -> None:
    made = matrix(cell("a", "inconclusive", expected=False), cell("a", "reproduced"))
    assert made.counts()["6.1", "unified", "runc"] == {"reproduced": 1, "unexpected": 0}


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    made = matrix(cell("a", "reproduced"), cell("b", "inconclusive", expected=False))
    (tmp_path / "m.json").write_text(json.dumps(made.to_json()))
    assert load_cells(tmp_path / "m.json") == list(made.cells.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("[]", "no result of matrix"),
        ('{"schema": "oci-harness/bench/1"}', "no result of matrix"),
        ('{"schema": "oci-harness/matrix/1", "cells": [{"kernel": 1}]}', r"cells\[0\]|\$\[0\]"),
        ('{"schema": "oci-harness/matrix/1"}', "array"),
    ],
)
def test_a_file_that_is_no_result_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(InputError, match=said) as raised:
        load_cells(tmp_path / "m.json")
    assert str(tmp_path / "m.json") in str(raised.value)


def test_a_file_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.json: No such file"):
        load_cells(tmp_path / "no.json")


def test_junit_has_a_suite_a_place_and_counts_failures_and_skips() -> None:
    bad = Cell("6.1", "unified", "runc", "c", "inconclusive", False, "f", reason="bad \x1b[31m<&", console="tail\0")
    root = ElementTree.fromstring(
        to_junit([cell("a", "reproduced"), cell("b", "not-applicable"), bad, cell("a", "fails", "6.12")])
    )
    suites = {suite.get("name"): suite for suite in root.findall("testsuite")}
    assert set(suites) == {"6.1 unified runc", "6.12 unified runc"}
    first = suites["6.1 unified runc"]
    assert (first.get("tests"), first.get("failures"), first.get("skipped")) == ("3", "1", "1")
    failure = first.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "bad \N{REPLACEMENT CHARACTER}[31m<&"


def test_a_fingerprint_tells_where_one_part_ends_and_the_next_begins() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint("ab", b"c") == fingerprint(b"ab", "c")


def test_a_case_with_brackets_in_its_name_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """A parameter of a conformance case looks like markup of the table's, which ended the command."""
    name = "conformance:limit-v1[/cpu/burst]"
    show(matrix(cell(name, "deviates"), cell(name, "fails", "6.12", expected=False)), full=False)
    told = capsys.readouterr().out
    assert re.search(rf"^ ?{re.escape(name)} +deviates +fails\*!", told, re.MULTILINE), told
    assert f"not as expected: {name} (6.12, unified, runc): fails: text of {name}" in told
