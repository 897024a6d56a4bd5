"""Saved results are read as they are written, and anything else gets one clear line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import saved_results as saved

from harness.errors import InputError
from harness.report.saved import Bench, load


def test_good(tmp_path: Path) -> None:
    """A benchmark is read with its samples in the order in which they ran; what is new in it does no harm."""
    value = saved.bench({"runc": 1.0, "crun": 0.5}, runs=5) | {"something-new": {"deep": [1]}}
    value["samples"].reverse()
    found = load(saved.write(tmp_path / "r.json", value)).value
    assert isinstance(found, Bench)
    assert found.runtimes == ["runc", "crun"]
    ran = sorted((s for s in value["samples"] if s["runtime"] == "crun"), key=lambda s: int(s["order"]))
    assert found.values("crun", "create_ns") == [s["stages"]["create_ns"] for s in ran]
    assert found.values("crun", "first_instruction_ns") == [s["first_instruction_ns"] for s in ran]


def test_packed(tmp_path: Path) -> None:
    """A gzipped file is read as what it holds."""
    path = tmp_path / "r.json.gz"
    path.write_bytes(gzip.compress(json.dumps(saved.bench({"runc": 1.0})).encode()))
    assert load(path).schema == "oci-harness/bench/1"


WHOLE = json.dumps(saved.bench({"runc": 1.0}, runs=2)).encode()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "it is empty"),
        (WHOLE[: len(WHOLE) // 2], "cut off"),
        (WHOLE + b"}", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a result"),
        (b"{}", 'there is no "schema"'),
        (b'{"schema": 3}', "not a result"),
        (b'{"schema": "other/thing/1"}', "cannot be used here"),
        (b'{"schema": "oci-harness/bench/99"}', "another version"),
        (b'{"schema": "oci-harness/bench/1"}', "missing required field `samples`"),
        (WHOLE.replace(b'"harness_ns": 40000', b'"harness_ns": -1'), "not a result"),
        (WHOLE.replace(b'"runtime": "runc"', b'"runtime": "crun"'), "/summary: runtime 'crun'"),
        (WHOLE.replace(b"runc", b"ru\\u001bnc"), "cannot be printed"),
        (b'{"x": ' * 100_000, "nests too deep"),
        (gzip.compress(WHOLE)[:200], "cut off or damaged"),
        (b"\x1f\x8b\x08" + bytes(100), "cut off or damaged"),
    ],
)
def test_bad(tmp_path: Path, data: bytes, told: str) -> None:
    """What is cut off, foreign or no result at all is refused in one line that names the file."""
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        load(path)
    assert str(path) in str(error.value)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_missing(tmp_path: Path) -> None:
    """A file that is not there, and a directory, are named."""
    for path in (tmp_path / "nope.json", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            load(path)
