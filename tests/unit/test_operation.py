"""Operations and the runtimes' JSON log."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.process.operation import LogRecord, Operation, Usage, parse_log

USAGE = Usage(1, 2, None, 3, 4, 5, 6)


def operation(**more: Any) -> Operation:
    fields: dict[str, Any] = {"verb": "create", "argv": ("runc",), "start_ns": 5, "end_ns": 12, "exit_status": 1}
    return Operation(**(fields | {"usage": USAGE} | more))


def record(msg: str, level: str | None = "error") -> LogRecord:
    return LogRecord(level, msg)


def test_log_of_runc_and_crun() -> None:
    """Records of both runtimes are taken whole; blank lines are none."""
    text = (
        b'{"level":"warning","msg":"w","time":"2026-11-20T10:00:00Z"}\n\n'
        b'{"msg":"exec: \\"x\\": not found","level":"error","time":"t"}\n   \n'
        b'{ "msg": "no level" }\n'
    )
    assert parse_log(text) == (
        LogRecord("warning", "w", "2026-11-20T10:00:00Z"),
        LogRecord("error", 'exec: "x": not found', "t"),
        LogRecord(None, "no level", None),
    )
    assert parse_log(b"") == ()


@pytest.mark.parametrize(
    "line",
    [
        "plain text",
        '{"level":"error","msg":"half',
        "[1, 2]",
        "null",
        "17",
        '{"level":"error"}',
        '{"msg":7,"level":"error"}',
        "\ufffd",
        "[" * 100_000,
        "9" * 10_000,
    ],
)
def test_broken_lines_are_kept(line: str) -> None:
    """A line that is no record is kept as text between its neighbours."""
    text = f'{{"msg":"one","level":"error"}}\n{line}\n{{"msg":"two","level":"error"}}'.encode()
    assert parse_log(text) == (record("one"), LogRecord(None, line), record("two"))


def test_odd_types() -> None:
    """level and time that are no strings are absent; the message counts."""
    assert parse_log(b'{"msg":"m","level":3,"time":{}}') == (LogRecord(None, "m", None),)
    assert parse_log(b"\xff\xfe bytes") == (LogRecord(None, "\ufffd\ufffd bytes"),)


@given(st.lists(st.tuples(st.sampled_from(["error", "info"]), st.text()), max_size=5), st.booleans())
def test_log_round_trip(entries: list[tuple[str, str]], ascii_only: bool) -> None:
    """Whatever a message holds, separators of Unicode included, one record is one line."""
    lines = [json.dumps({"level": level, "msg": msg}, ensure_ascii=ascii_only) for level, msg in entries]
    text = "\n".join(lines).encode(errors="surrogatepass")
    if "\\ud" in text.decode(errors="replace"):
        return
    assert [(r.level, r.msg) for r in parse_log(text)] == entries


@given(st.binary(max_size=300))
def test_log_never_raises(text: bytes) -> None:
    """Any bytes are records or text."""
    assert all(isinstance(each.msg, str) for each in parse_log(text))


def test_line_separators_inside_a_message() -> None:
    """U+2028 and the like inside a message, which crun does not escape, do not break the line."""
    msg = "a\u2028b\x85c\u2029d"
    assert parse_log(json.dumps({"level": "error", "msg": msg}, ensure_ascii=False).encode()) == (record(msg),)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ""),
        ({"log": (record("first"), record("last"), record("just a warning", "warning"))}, "last"),
        ({"log": (record("fatal one", "fatal"),), "stderr": b"other"}, "fatal one"),
        ({"log": (record("half line", None),)}, "half line"),
        ({"log": (record("w", "warning"), record("i", "info")), "stderr": b"a\n b \n"}, "b"),
        ({"stderr": b"one\ntwo\n\n", "stdout": b"out"}, "two"),
        ({"stderr": b" \n", "stdout": b"out one\nout two"}, "out two"),
        ({"stderr": b"\xff"}, "\ufffd"),
        ({"log": (record("  padded \n"),)}, "padded"),
    ],
)
def test_message(more: dict[str, Any], expected: str) -> None:
    """The last word: the last error of the log, else the last line of stderr, else of stdout."""
    assert operation(**more).message == expected


def test_message_is_bounded() -> None:
    """A line of stderr without end is cut."""
    assert len(operation(stderr=b"x" * 1_000_000).message) == 4096


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=6))
def test_command_round_trip(argv: list[str]) -> None:
    """A shell reads the command line back as the argv."""
    assert tuple(shlex.split(operation(argv=tuple(argv)).command)) == tuple(argv)


def test_json() -> None:
    """The JSON form has every fact, in plain JSON types."""
    found = operation(stdout=b"\xffo", stderr=b"e", log=(LogRecord("error", "m", "t"),), timed_out=True).to_json()
    assert json.loads(json.dumps(found)) == {
        "verb": "create",
        "argv": ["runc"],
        "start_ns": 5,
        "end_ns": 12,
        "duration_ns": 7,
        "exit_status": 1,
        "timed_out": True,
        "truncated": False,
        "usage": {"user_us": 1, "system_us": 2, "maxrss_kib": None, "minflt": 3, "majflt": 4, "nvcsw": 5, "nivcsw": 6},
        "stdout": "\ufffdo",
        "stderr": "e",
        "log": [{"level": "error", "msg": "m", "time": "t"}],
    }
