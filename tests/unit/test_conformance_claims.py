"""The conformance suite without a runtime: its quotations, deviations, needs and reports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.cgroup.hierarchy import Hierarchy, Layout
from harness.compat.conformance import reports, suite
from harness.compat.conformance.claims import SPEC_VERSION, Claim, sentence_digest
from harness.compat.conformance.deviations import Deviation, load_deviations, version_is
from harness.compat.conformance.needs import KINDS, unmet
from harness.compat.conformance.verdicts import Outcome, Report, Verdict
from harness.errors import InputError
from harness.runtime.dialects import CRUN, RUNC, RUNSC
from harness.runtime.discovery import Runtime

SENTENCES = Path(__file__).parents[1] / "data/spec-sentences.txt"


@pytest.fixture(scope="module")
def cases() -> dict[str, Claim]:
    """All cases with their claims, as pytest collects them in a process of its own; nothing is run."""
    argv = [sys.executable, "-m", "harness", "conformance", "--list", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["cases"]
    return {
        row.pop("case"): Claim(**row | {"fields": tuple(row["fields"]), "needs": tuple(row["needs"])}) for row in rows
    }


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Digests of what scripts/check-spec-sentences has found in the specification."""
    first, *lines = SENTENCES.read_text().splitlines()
    assert first.startswith(f"# {SPEC_VERSION}: ")
    return set(lines)


def test_sentences_are_the_specs(cases: dict[str, Claim], known: set[str]) -> None:
    """Every case quotes a sentence that the section which it names has, word for word."""
    assert len(cases) > 300
    assert [name for name, claim in cases.items() if sentence_digest(claim.section, claim.sentence) not in known] == []


def test_the_check_of_sentences(known: set[str]) -> None:
    """A sentence that is not there, or in another section, is not found."""
    sentence = "This operation MUST create a new container."
    assert sentence_digest("runtime.md#runtimeCreate", sentence) in known
    assert sentence_digest("runtime.md#runtimeStart", sentence) not in known
    assert sentence_digest("runtime.md#runtimeCreate", sentence.replace(" new", "")) not in known


def test_every_case_can_fail(cases: dict[str, Claim]) -> None:
    """Every case names what a runtime must ignore to fail it, and needs that are known."""
    assert [name for name, claim in cases.items() if not claim.fields] == []
    assert [name for name, claim in cases.items() for need in claim.needs if need.partition(":")[0] not in KINDS] == []


def test_deviations_are_of_cases(cases: dict[str, Claim], known: set[str]) -> None:
    """Every deviation is of cases that exist, with a reason and a sentence that the spec has; none is there twice."""
    seen = set()
    for deviation in load_deviations():
        assert set(deviation.cases) <= set(cases), set(deviation.cases) - set(cases)
        assert deviation.reason
        assert sentence_digest("", deviation.sentence) in known, deviation.sentence
        for case in deviation.cases:
            where = (deviation.runtime, case, deviation.needs)
            assert where not in seen, f"{case} on {deviation.runtime} is there twice"
            seen.add(where)


@pytest.mark.parametrize(
    ("version", "conditions", "holds"),
    [
        ("1.1.5+ds1", ">=1.1, <1.2", True),
        ("1.1.0", ">=1.1, <1.2", True),
        ("1.2.0-rc.1", ">=1.1, <1.2", False),
        ("1.10.0", "<1.2", False),
        ("1.2", "==1.2.0", True),
        ("1.2.1", "==1.2.0", False),
        ("1.2.1", ">1.2", True),
        ("1.2", "<=1.2.0", True),
        ("", "", True),
        ("", ">=1", False),
        ("9", "", True),
    ],
)
def test_version_is(version: str, conditions: str, holds: bool) -> None:
    """Versions are compared by their numbers."""
    assert version_is(version, conditions) is holds


@pytest.mark.parametrize("conditions", ["1.2", "~1", ">= one", ">=1.2;<2"])
def test_version_conditions_that_are_none(conditions: str) -> None:
    """What is no condition is refused, not ignored."""
    with pytest.raises(ValueError, match="condition"):
        version_is("1.2", conditions)


@pytest.mark.parametrize(
    "text",
    [
        "[[deviation]]\nruntime = 'runc'",
        "[[deviation]]\nruntime='a'\nversions='x'\ncases=[]\nreason='r'\nsentence='s'",
        "[[deviation]]\nruntime='a'\nversions=''\ncases=[]\nreason='r'\nsentence='s'\nmore=1",
        "[[deviation]]\nruntime='a'\nversions=''\ncases=[]\nreason='r'\nsentence='s'\nneeds=['cgroup-v3:']",
        "[[",
    ],
)
def test_deviations_that_are_broken(tmp_path: Path, text: str) -> None:
    """A file that is not what it should be is one line that names it."""
    file = tmp_path / "deviations.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=re.escape(str(file))):
        load_deviations(file)


def runtime(name: str = "crun") -> Runtime:
    return Runtime(name, f"/bin/{name}", {"runc": RUNC, "crun": CRUN, "runsc": RUNSC}[name], "1.8.1", "", frozenset())


def test_deviation_holds_for_its_runtime() -> None:
    """A deviation is of a family of runtimes, whatever the user calls it, and of its versions."""
    deviation = Deviation("crun", ">=1.8, <1.9", ("a",), "r", "s")
    layout = Layout("legacy", (Hierarchy(1, ("pids",), None, "/nowhere"),))
    assert deviation.holds_for(Runtime("mine", "/x", CRUN, "1.8.5", "", frozenset()), layout)
    assert not deviation.holds_for(Runtime("mine", "/x", CRUN, "1.9", "", frozenset()), layout)
    assert not deviation.holds_for(Runtime("crun", "/x", RUNC, "1.8.5", "", frozenset()), layout)


def test_deviation_holds_where_it_shows() -> None:
    """What a runtime does otherwise on one cgroup version is no deviation on the other."""
    deviation = Deviation("crun", "", ("a",), "r", "s", needs=("cgroup-v1:pids",))
    assert deviation.holds_for(runtime(), Layout("legacy", (Hierarchy(1, ("pids",), None, "/nowhere"),)))
    assert not deviation.holds_for(runtime(), Layout("unified", (Hierarchy(2, ("pids",), None, "/nowhere"),)))


def test_needs(tmp_path: Path) -> None:
    """What is not there is told as a reason; what is there is none."""
    (tmp_path / "child").mkdir()
    (tmp_path / "child/memory.max").touch()
    unified = Layout("unified", (Hierarchy(2, ("memory",), None, str(tmp_path)),))
    legacy = Layout("legacy", (Hierarchy(1, ("memory",), None, str(tmp_path)),))
    hybrid = Layout("hybrid", (Hierarchy(2, ("hugetlb",), None, str(tmp_path)),))
    assert unmet(("cgroup-v2:memory/memory.max",), runtime(), unified) is None
    assert "memory.nope" in str(unmet(("cgroup-v2:memory/memory.nope",), runtime(), unified))
    assert unmet(("cgroup-v2:memory",), runtime(), legacy) == (
        "needs the memory controller on cgroup v2; here it is on v1"
    )
    assert "hybrid" in str(unmet(("cgroup-v2:hugetlb",), runtime(), hybrid))
    assert unmet(("cgroup-v1:memory",), runtime(), legacy) is None
    assert "not mounted" in str(unmet(("cgroup-v1:cpu",), runtime(), legacy))
    assert "runsc" in str(unmet(("cgroup-v1:memory",), runtime("runsc"), legacy))
    assert unmet(("host-process:", "namespace:pid"), runtime(), legacy) is None
    assert "runsc" in str(unmet(("host-process:",), runtime("runsc"), legacy))
    assert unmet((f"absent:{tmp_path}/nothing",), runtime(), legacy) is None
    assert str(tmp_path) in str(unmet((f"absent:{tmp_path}",), runtime(), legacy))
    with pytest.raises(KeyError):
        unmet(("unheard-of:x",), runtime(), legacy)


def verdict(case: str, outcome: Outcome, reason: str = "", text: str = "") -> Verdict:
    return Verdict(case, "crun", Claim("runtime.md#runtimeStart", "It MUST."), outcome, reason, text, 0.25)


REPORT = Report(
    SPEC_VERSION,
    [runtime()],
    {},
    [
        verdict("good", "passes"),
        verdict("bad", "fails", "1 < 2 & \x1b", "where\nassert"),
        verdict("known", "deviates", "it #is\nknown"),
        verdict("gone", "no-longer-deviates", "it was so"),
        verdict("elsewhere", "skipped", "needs v2"),
    ],
)


def test_junit() -> None:
    """Failures and what no longer deviates are failures; skips and known deviations are skipped, with their reason."""
    suite_ = ElementTree.fromstring(reports.junit(REPORT))[0]
    assert {name: suite_.get(name) for name in ("tests", "failures", "skipped")} == {
        "tests": "5",
        "failures": "2",
        "skipped": "2",
    }
    cases = {case.get("name"): case for case in suite_}
    assert len(cases["good"]) == 0
    failure = cases["bad"].find("failure")
    assert failure is not None
    assert failure.get("message") == "1 < 2 & \ufffd"
    assert "It MUST." in str(failure.text)
    known = cases["known"].find("skipped")
    assert known is not None
    assert str(known.get("message")).startswith("deviates: it #is")


def test_tap() -> None:
    """One line a case, numbered; a known deviation is a TODO, a skip a SKIP, and a failure has a block with details."""
    lines = reports.tap(REPORT).splitlines()
    assert lines[:2] == ["TAP version 14", "1..5"]
    points = [line for line in lines if re.match("(not )?ok ", line)]
    assert points == [
        r"ok 1 - crun runtime.md\#runtimeStart good",
        r"not ok 2 - crun runtime.md\#runtimeStart bad",
        r"not ok 3 - crun runtime.md\#runtimeStart known # TODO it #is known",
        r"not ok 4 - crun runtime.md\#runtimeStart gone",
        r"ok 5 - crun runtime.md\#runtimeStart elsewhere # SKIP needs v2",
    ]
    assert lines[lines.index(points[1]) + 1] == "  ---"
    assert '  sentence: "It MUST."' in lines


def test_report_json() -> None:
    """The summary counts each outcome; a case carries its section, sentence and reason."""
    value = REPORT.to_json()
    assert value["schema"] == "oci-harness/conformance/1"
    assert value["summary"] == {"crun": {"passes": 1, "fails": 1, "deviates": 1, "no-longer-deviates": 1, "skipped": 1}}
    assert value["cases"][1]["as_expected"] is False
    assert value["cases"][2]["as_expected"] is True
    assert value["cases"][1]["section"] == "runtime.md#runtimeStart"


def test_foreign_plugins_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the suite runs pytest loads nobody else's plugins and options, and the environment is given back."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "--nonsense")
    monkeypatch.delenv("PYTEST_PLUGINS", raising=False)
    with suite._no_foreign_plugins():
        assert os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] == "1"
        assert os.environ["PYTEST_ADDOPTS"] == ""
    assert os.environ["PYTEST_ADDOPTS"] == "--nonsense"
    assert "PYTEST_PLUGINS" not in os.environ
