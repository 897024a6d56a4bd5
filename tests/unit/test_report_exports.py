"""The exports hold what the samples hold, in the forms that other tools read."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import saved_results as saved
from click.testing import CliRunner

from harness.cli.report import report as command
from harness.errors import InputError


def export(tmp_path: Path, value: dict[str, Any], *options: str) -> str:
    path = saved.write(tmp_path / "r.json", value)
    done = CliRunner().invoke(command, [str(path), *options], standalone_mode=False, catch_exceptions=False)
    assert done.return_value == 0
    return str(done.stdout)


VALUE = saved.bench({"runc": 1.0, "=cr,un\n": 0.5}, runs=6, failed={"runc": 1})
VALUE = json.loads(json.dumps(VALUE).replace("\\n", ""))


def test_csv(tmp_path: Path) -> None:
    """Every sample is a row with all its times; what is absent is empty, and a failed one has its error."""
    rows = list(csv.DictReader(io.StringIO(export(tmp_path, VALUE, "--format", "csv"))))
    assert len(rows) == len(VALUE["samples"])
    for row, sample in zip(rows, VALUE["samples"], strict=True):
        assert row["runtime"] == sample["runtime"]
        assert row["error"] == sample.get("error", "")
        for stage, time in sample["stages"].items():
            assert row[stage] == str(time)
        assert row["create.user_us"] == "1000"
        assert row["create.maxrss_kib"] == ""
        assert row["forks"] == "3"


def test_hyperfine(tmp_path: Path) -> None:
    """The JSON has hyperfine's fields, in seconds, with one result a runtime and stage."""
    found = json.loads(export(tmp_path, VALUE, "--format", "hyperfine", "--stage", "create", "--stage", "whole"))
    assert len(found["results"]) == 4
    first = found["results"][0]
    good = [s["stages"]["create_ns"] / 1e9 for s in VALUE["samples"] if s["runtime"] == "runc" and "error" not in s]
    assert first["times"] == good
    assert first["exit_codes"] == [0] * len(good)
    assert first["min"] <= first["median"] <= first["max"]
    assert first["user"] == pytest.approx(0.001)
    assert found["results"][2]["user"] == pytest.approx(0.002)
    assert first["parameters"] == {"runtime": "runc", "stage": "create"}


def test_hyperfine_itself(tmp_path: Path) -> None:
    """The fields are those that the hyperfine on this host writes."""
    hyperfine = shutil.which("hyperfine")
    if hyperfine is None:
        pytest.skip("needs hyperfine")
    theirs = tmp_path / "theirs.json"
    argv = [hyperfine, "-N", "--runs", "2", "--export-json", str(theirs), "true"]
    subprocess.run(argv, check=True, capture_output=True)
    ours = json.loads(export(tmp_path, VALUE, "--format", "hyperfine"))["results"][0]
    expected = json.loads(theirs.read_text())["results"][0]
    assert set(expected) - {"memory_usage_byte"} <= set(ours)
    assert set(ours) - set(expected) == {"parameters"}
    assert {key: type(value) for key, value in expected.items()}.items() <= {
        key: type(value) for key, value in ours.items()
    }.items()


def test_openmetrics(tmp_path: Path) -> None:
    """Prometheus's own parser reads the text, hostile names and all, and finds the medians."""
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    text = export(tmp_path, saved.bench({saved.HOSTILE: 1.0, 'b"\\': 0.5}), "--format", "openmetrics")
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    medians = {
        sample.labels["runtime"]: sample.value
        for sample in families["oci_harness_stage_seconds"].samples
        if sample.labels.get("quantile") == "0.5" and sample.labels["stage"] == "whole"
    }
    assert set(medians) == {saved.HOSTILE, 'b"\\'}
    assert all(0.001 < value < 1 for value in medians.values())
    assert families["oci_harness_bench"].type == "info"


def test_markdown(tmp_path: Path) -> None:
    """The Markdown begins with the verdict and has a row for each runtime and stage."""
    text = export(tmp_path, saved.bench({"runc": 1.0, "crun": 0.5}), "--format", "markdown")
    assert text.startswith("**crun takes a container through its whole life 1.67 times as fast as runc")
    assert sum(line.startswith("| create |") for line in text.splitlines()) == 2


def test_refused(tmp_path: Path) -> None:
    """A trace has no samples to export, two results are no one result, and a page is nothing for hyperfine's option."""
    trace = saved.write(tmp_path / "t.json", saved.trace("runc"))
    for arguments in (
        [str(trace), "--format", "csv"],
        [str(trace), str(trace), "--format", "csv"],
        [str(trace), "--stage", "whole"],
    ):
        with pytest.raises(InputError):
            CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
