"""A regression is told only where the interval says so, and what could not be compared is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import saved_results as saved
from click.testing import CliRunner

from harness.cli.compare import compare as command
from harness.errors import InputError
from harness.report.changes import BLOCKS, condensed
from harness.report.comparers import compare
from harness.report.comparison import Asked, Comparison
from harness.report.junit import junit
from harness.report.markdown import comparison_markdown

PLAIN = Asked()


def compared(tmp_path: Path, old: dict[str, Any], new: dict[str, Any], asked: Asked = PLAIN) -> Comparison:
    return compare(saved.write(tmp_path / "old.json", old), saved.write(tmp_path / "new.json", new), asked)


def verdicts(found: Comparison) -> set[str]:
    return {change["verdict"] for change in found.value["changes"]}


def test_equal_results(tmp_path: Path) -> None:
    """Two benchmarks of equals show no difference, and say how large one would have been seen."""
    found = compared(tmp_path, saved.bench({"runc": 1.0}, seed=1), saved.bench({"runc": 1.0}, seed=2))
    assert verdicts(found) == {"no-detectable-difference"}
    assert not found.failed
    assert "would have shown" in found.sentence
    assert all(0.01 < change["minimum_detectable"] < 0.3 for change in found.value["changes"])


@pytest.mark.parametrize(("factor", "fail_on", "failed"), [(1.4, 0.05, True), (1.4, 0.6, False), (0.7, 0.05, False)])
def test_threshold(tmp_path: Path, factor: float, fail_on: float, failed: bool) -> None:
    """A slowdown fails only beyond the threshold; a speed-up never does."""
    old, new = saved.bench({"runc": 1.0}, seed=1), saved.bench({"runc": factor}, seed=2)
    found = compared(tmp_path, old, new, Asked(fail_on))
    assert found.failed is failed
    assert verdicts(found) == ({"regression"} if failed else {"slower"} if factor > 1 else {"faster"})


def test_threshold_inside_the_interval(tmp_path: Path) -> None:
    """A slowdown of which the interval reaches below the threshold is told, but is no regression."""
    found = compared(tmp_path, saved.bench({"runc": 1.0}, seed=1), saved.bench({"runc": 1.12}, seed=2), Asked(0.10))
    assert not found.failed
    low = [change["ci95_together"][0] for change in found.value["changes"] if change["stage"] == "whole_ns"]
    assert 1 < low[0] < 1.10


def test_false_alarms(tmp_path: Path) -> None:
    """Of 40 comparisons of equals, with seven stages each and a threshold of nothing, hardly any fails."""
    pairs = ([saved.bench({"runc": 1.0}, 15, seed=2 * at + side) for side in (0, 1)] for at in range(40))
    alarms = sum(compared(tmp_path, old, new, Asked(0.0)).failed for old, new in pairs)
    assert alarms <= 4


def test_few_samples(tmp_path: Path) -> None:
    """Of three samples nothing is told, however large the difference, and CI sees a skipped case."""
    found = compared(tmp_path, saved.bench({"runc": 1.0}, runs=3), saved.bench({"runc": 3.0}, runs=3))
    assert not found.failed
    assert "few-samples" in {warning.id for warning in found.warnings}
    assert {case.outcome for case in found.cases if case.name != "failed lifecycles"} == {"skipped"}


def test_one_file(tmp_path: Path) -> None:
    """Two runtimes of one result are compared round by round: what slowed whole rounds cancels."""
    value = saved.bench({"old": 1.0, "new": 1.1}, runs=40)
    draw = random.Random(5)
    slow = [draw.choice([1, 3]) for _ in range(40)]
    for each in value["samples"]:
        each["stages"] = {stage: time * slow[each["index"]] for stage, time in each["stages"].items()}
    path = saved.write(tmp_path / "one.json", value)
    both = compare(path, None, Asked(0.0, ("old", "new"), ("whole",)))
    assert both.failed
    assert both.value["paired"]
    assert not compare(path, None, Asked(0.0, ("new=old",), ("whole",))).failed


def test_control(tmp_path: Path) -> None:
    """A control takes out what the machine did: half as fast a machine is no regression, a slower runtime still is."""
    old = saved.bench({"runc": 1.0, "crun": 0.5}, seed=1)
    for factor, failed in ((2.0, False), (3.0, True)):
        new = saved.bench({"runc": factor, "crun": 1.0}, seed=2)
        new["environment"]["runtimes"][1]["binary"] = old["environment"]["runtimes"][1]["binary"]
        without = compared(tmp_path, old, new)
        assert without.failed
        assert "machine-changed" in {warning.id for warning in without.warnings}
        assert compared(tmp_path, old, new, Asked(control="crun")).failed is failed
    with pytest.raises(InputError, match="same binary"):
        compared(tmp_path, old, new, Asked(control="runc"))


def test_failures(tmp_path: Path) -> None:
    """Many more failed lifecycles are a regression though the times of the good ones are equal; one more is not."""
    old = saved.bench({"runc": 1.0}, seed=1)
    assert not compared(tmp_path, old, saved.bench({"runc": 1.0}, seed=2, failed={"runc": 1})).failed
    found = compared(tmp_path, old, saved.bench({"runc": 1.0}, seed=2, failed={"runc": 12}))
    assert found.failed
    assert "12 of 40 lifecycles failed" in found.sentence
    assert compared(tmp_path, old, saved.bench({"runc": 1.0}, seed=2, failed={"runc": 40})).failed


def test_other_names(tmp_path: Path) -> None:
    """A runtime that is called otherwise in the new file is named OLD=NEW; without that the line says what is there."""
    old, new = saved.bench({"runc": 1.0}), saved.bench({"next": 2.0})
    assert compared(tmp_path, old, new, Asked(runtimes=("runc=next",))).failed
    with pytest.raises(InputError, match=r"has next, but .* has runc; .*--runtime OLD=NEW"):
        compared(tmp_path, old, new)
    with pytest.raises(InputError, match="--runtime runc"):
        compared(tmp_path, old, new, Asked(runtimes=("runc",)))


def test_environments(tmp_path: Path) -> None:
    """What differs beside the runtimes is warned of; the runtimes' own versions are what the comparison is about."""
    old, new = saved.bench({"runc": 1.0}), saved.bench({"runc": 1.01}, kernel={"release": "6.1.0", "machine": "x86_64"})
    new["environment"]["runtimes"][0]["version"] = "1.1"
    new["settings"]["recipe"] = "other"
    found = compared(tmp_path, old, new)
    told = next(warning.message for warning in found.warnings if warning.id == "environment-differs")
    assert "kernel 6.12.1 -> 6.1.0" in told
    assert "recipe pause -> other" in told
    assert "version" not in told
    subject = [each for each in found.value["differences"] if each["subject"]]
    assert [(each["what"], each["old"], each["new"]) for each in subject] == [("runc version", "1.0", "1.1")]


def test_other_kinds(tmp_path: Path) -> None:
    """A trace cannot be compared with a benchmark, and says so."""
    old = saved.write(tmp_path / "old.json", saved.bench({"runc": 1.0}))
    with pytest.raises(InputError, match="oci-harness/trace/1"):
        compare(old, saved.write(tmp_path / "trace.json", saved.trace("runc")), Asked())


def matrices(tmp_path: Path, old: dict[str, Any], new: dict[str, Any], *runtimes: str) -> Comparison:
    paths = [saved.write(tmp_path / f"{name}.json", value) for name, value in (("old", old), ("new", new))]
    return compare(*paths, Asked(runtimes=runtimes))


@pytest.mark.parametrize(
    ("before", "after", "broke"),
    [
        ("passes", "fails", True),
        ("deviates", "fails", True),
        ("reproduced", "inconclusive", True),
        ("reproduced", "not-applicable", False),
        ("not-reproduced", "reproduced", False),
        ("fails", "passes", False),
    ],
)
def test_matrices(tmp_path: Path, before: str, after: str, broke: bool) -> None:
    """What worked and works no more fails; any other change is told."""
    found = matrices(tmp_path, saved.matrix("runc", x=before), saved.matrix("runc", x=after))
    assert found.failed is broke
    assert [change["case"] for change in found.value["changes"]] == ["x"]
    assert found.table.rows[0][4] == ("BROKE" if broke else "changed")
    assert sum(case.outcome == "failed" for case in found.cases) == broke


def test_matrices_that_are_the_same(tmp_path: Path) -> None:
    """Nothing changed, and how many cells that was."""
    found = matrices(tmp_path, saved.matrix("runc"), saved.matrix("runc"))
    assert (found.failed, found.sentence) == (False, "6 cells, all with the same verdict.")


def test_matrices_of_two_kernels(tmp_path: Path) -> None:
    """The only kernels of each are compared with one another, whatever they are called."""
    new = saved.matrix("runc", kernel="6.12.1-amd64", memory_swap="reproduced")
    found = matrices(tmp_path, saved.matrix("runc"), new)
    assert found.table.rows == [
        ("memory-swap", "6.1.0-56-amd64 -> 6.12.1-amd64, legacy, runc", "n/a", "reproduced", "changed", "why so")
    ]


def test_matrices_with_nothing_in_common(tmp_path: Path) -> None:
    """One line says what each has."""
    with pytest.raises(InputError, match=r"has crun, but .* has runc"):
        matrices(tmp_path, saved.matrix("runc"), saved.matrix("crun"))
    assert matrices(tmp_path, saved.matrix("runc"), saved.matrix("crun"), "runc=crun").failed is False


def test_one_matrix(tmp_path: Path) -> None:
    """Two runtimes of one."""
    path = saved.write(tmp_path / "m.json", saved.matrix("runc", "crun"))
    assert compare(path, None, Asked(runtimes=("runc", "crun"))).value["compared"] == 6
    with pytest.raises(InputError, match="--runtime OLD --runtime NEW"):
        compare(path, None, Asked())


def test_condensed() -> None:
    """A long series keeps its centre, and a drift within it keeps its spread."""
    draw = random.Random(1)
    flat = [int(1e7 * draw.lognormvariate(0, 0.3)) for _ in range(20_000)]
    drifting = [int(time * (1 + at / 20_000)) for at, time in enumerate(flat)]
    assert condensed(flat[:100]) == flat[:100]
    spreads = []
    for series in (flat, drifting):
        short = sorted(condensed(series))
        assert len(short) == BLOCKS
        assert short[BLOCKS // 2] == pytest.approx(sorted(series)[len(series) // 2], rel=0.02)
        spreads.append(short[-1] / short[0])
    assert spreads[1] > 1.3 * spreads[0]


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)


def test_command(tmp_path: Path) -> None:
    """Status 1 for a regression and 0 without; -o has the format, stdout the table."""
    old = str(saved.write(tmp_path / "old.json", saved.bench({"runc": 1.0}, seed=1)))
    new = str(saved.write(tmp_path / "new.json", saved.bench({"runc": 1.5}, seed=2)))
    done = invoke(old, new, "--format", "junit", "-o", str(tmp_path / "junit.xml"))
    assert done.return_value == 1
    assert "REGRESSION" in done.stdout
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().tag == "testsuites"
    done = invoke(old, new, "--fail-on", "80%", "--json")
    assert done.return_value == 0
    assert json.loads(done.stdout)["schema"] == "oci-harness/compare/1"
    done = invoke(old, new, "--format", "markdown")
    assert done.stdout.startswith("**Regression of more than 5%")


TOKEN = {"name", "hostname", "package", "classname"}


def test_junit(tmp_path: Path) -> None:
    """The JUnit file has the elements and attributes that Ant's schema and Jenkins' demand, in their order."""
    old = saved.bench({saved.HOSTILE: 1.0}, seed=1)
    new = saved.bench({saved.HOSTILE: 2.0}, seed=2, failed={saved.HOSTILE: 20})
    root = ElementTree.fromstring(junit(compared(tmp_path, old, new)))
    (suite,) = root
    tags = [child.tag for child in suite]
    cases = suite.findall("testcase")
    assert tags == ["properties", *["testcase"] * len(cases), "system-out", "system-err"]
    wanted = {"package", "id", "name", "timestamp", "hostname", "tests", "failures", "errors", "skipped", "time"}
    assert set(suite.attrib) == wanted
    assert int(suite.attrib["tests"]) == len(cases) == 8
    assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure")) == 8
    assert len(suite.attrib["time"].partition(".")[2]) <= 3
    assert len(suite.attrib["timestamp"]) == len("2026-01-01T00:00:00")
    for case in cases:
        assert set(case.attrib) == {"name", "classname", "time"}
        assert all(failure.attrib["type"] and failure.attrib["message"] for failure in case)
        assert all(value == " ".join(value.split()) for key, value in case.attrib.items() if key in TOKEN)


def test_markdown(tmp_path: Path) -> None:
    """A name with markup in it stays text, and cannot break the table."""
    name = "a|b <img> [x](y) @team"
    found = compared(tmp_path, saved.bench({name: 1.0}, seed=1), saved.bench({name: 1.0}, seed=2))
    rows = [line for line in comparison_markdown(found).splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert "\\<img\\>" in rows[2]
    assert "\\@team" in rows[2]
