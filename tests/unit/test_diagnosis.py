"""Diagnosis: real messages are named as careful people name them, and no text makes it fail."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.diagnosis import diagnose, diagnose_lines
from harness.diagnosis.explain import explain, report_to_json
from harness.diagnosis.rules import SYMPTOM_ONLY, load_rules
from harness.faults.catalogue import load_catalogue, load_causes

MESSAGES = Path(__file__).parents[1] / "data" / "messages"


def rows(name: str) -> Iterator[dict[str, Any]]:
    for line in (MESSAGES / name).read_text().splitlines():
        yield json.loads(line)


def files() -> list[str]:
    return sorted(path.name for path in MESSAGES.glob("*.jsonl"))


@pytest.mark.parametrize("name", files())
def test_real_messages_are_named_as_people_name_them(name: str) -> None:
    """Cause and clause right for 97 of 100, side for 95; each message's text is what its label quotes."""
    total = causes = clauses = sided = sides = 0
    wrong = []
    for row in rows(name):
        assert row["decisive"] in row["text"], row["id"]
        found = diagnose(row["text"]).primary
        total += 1
        right = found is not None and found.cause in row["accept"]
        place = row["text"].index(row["decisive"])
        shown = found is not None and found.span[0] < place + len(row["decisive"]) and found.span[1] > place
        causes += right
        clauses += shown
        if row["accept"][0] != SYMPTOM_ONLY:
            sided += 1
            sides += found is not None and found.side in row["side_accept"]
        if not (right and shown):
            wrong.append((row["id"], row["accept"], found and (found.cause, found.decisive)))
    assert causes >= 0.97 * total, wrong
    assert clauses >= 0.97 * total, wrong
    assert sides >= 0.95 * sided


@pytest.mark.parametrize("name", files())
def test_what_is_shown_is_a_part_of_the_text(name: str) -> None:
    for row in rows(name):
        for found in diagnose(row["text"]).failures:
            assert row["text"][slice(*found.span)] == found.decisive
            assert found.decisive


FRAGMENTS = [wrapper.says[0] for wrapper in load_rules().wrappers] + [rule.says[0] for rule in load_rules().rules[::7]]
NASTY = st.text(alphabet=st.characters(), max_size=60) | st.sampled_from(
    ["\\", '"', '\\"', "\n", "\x1b[31m", "&quot;", ": ", "exec: ", "{", "\ud800", "\x00", 'time="', 'caused "', "`"]
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(FRAGMENTS) | NASTY, max_size=12).map("".join))
def test_no_text_makes_it_raise(text: str) -> None:
    report = diagnose(text)
    for found in report.failures:
        assert text[slice(*found.span)] == found.decisive
        explain(found)
    json.dumps(report_to_json(report))


def test_parts_of_lines_give_what_whole_lines_give() -> None:
    text = "".join(row["text"] + "\n" for row in rows(files()[0]))
    stream = io.StringIO(text)
    assert diagnose_lines(iter(lambda: stream.readline(7), "")).failures == diagnose(text).failures


def test_a_failure_that_comes_again_is_counted_not_repeated() -> None:
    text = """Events:
  Warning  Failed  9s (x4 over 1m)  kubelet  Error: failed to create containerd task: exec: "/a": permission denied
  Warning  Failed  5s               kubelet  Error: failed to create containerd task: exec: "/a": permission denied
"""
    (found,) = diagnose(text).failures
    assert found.count == 5


def test_every_rule_speaks_of_what_there_is() -> None:
    """Causes, faults and fields that a rule names are there."""
    catalogue, causes = load_catalogue(), load_causes()
    for rule in load_rules().rules:
        assert {rule.cause, *rule.also} <= causes.keys(), rule.id
        assert set(rule.faults) <= catalogue.keys(), rule.id
        assert rule.because, rule.id


def run(*args: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", "diagnose", *args]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def test_what_runtimes_say_to_the_catalogue_is_named_by_its_cause() -> None:
    """The fault's own cause; where its text is another cause's as well, or only a symptom, it is an alternative."""
    own = 0
    for line in (MESSAGES.parent / "catalogue-texts.jsonl").read_text().splitlines():
        row = json.loads(line)
        report = diagnose(row["text"])
        assert report.primary is not None, row
        own += report.primary.cause == row["cause"]
        offered = {each.cause for each in report.failures} | {
            other.cause for each in report.failures for other in each.alternatives
        }
        assert row["cause"] in offered, (row, report.primary.cause)
    assert own >= 0.93 * 762


def test_the_stream_of_messages_gives_an_answer_a_line_with_its_id() -> None:
    lines = [
        {"id": "a", "text": 'exec: "/x": permission denied'},
        'exec: "nope": executable file not found in $PATH',
        {"id": 3, "message": "OCI runtime create failed: unexpected EOF"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '\nexec: "/y": is a directory\n{not json\n'
    done = run("--jsonl", text=text)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer.get("id") for answer in answers] == ["a", None, 3, None, None]
    causes = [answer["cause"] for answer in answers]
    assert causes == ["exec-permission-denied", "exec-not-found", SYMPTOM_ONLY, "exec-permission-denied", None]
    assert done.returncode == 1  # not every one could be named


@pytest.mark.parametrize(
    ("args", "text", "status", "said"),
    [
        (["-"], 'exec: "/x": permission denied', 0, "exec-permission-denied"),
        (['exec: "/x": permission denied'], "", 0, "/x"),
        ([], "OCI runtime create failed: unexpected EOF", 1, SYMPTOM_ONLY),
        (["--json"], "all is well", 1, '"cause": null'),
        ([], "all is well", 1, "No failure"),
        (["/nowhere"], "", 2, "no such file"),
        (["/"], "", 2, "directory"),
        (["x " * 9000], "", 1, "No failure"),
        (["--jsonl", "-o", "x.json"], "", 2, "--jsonl"),
    ],
)
def test_the_command_names_the_cause_and_its_status_says_whether(
    args: list[str], text: str, status: int, said: str
) -> None:
    done = run(*args, text=text)
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_hostile_text_reaches_neither_the_terminal_nor_a_shell() -> None:
    text = 'exec: "/x$(reboot);\x1b]0;title\x07": stat /x$(reboot);: permission denied'
    done = run(text)
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
    for found in diagnose('failed to write "1": write /a;reboot;/memory.max: invalid argument').failures:
        assert all("';reboot;" in each or "reboot" not in each or "'/a;reboot" in each for each in explain(found).check)


def test_bytes_that_are_no_text_are_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(b'\xff\xfe exec: "/\xe9": permission denied\n')
    done = run(str(path), "--json")
    assert json.loads(done.stdout)["cause"] == "exec-permission-denied"
