"""Reading: what layers do to a text is undone, and every span leads back to the raw message."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.diagnosis.reading import read

INNER = 'exec: "/a b": no such file or directory'


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ('caused "x: \\"y\\""', 'caused "x: "y""'),
        ('caused "x: \\\\\\"y\\\\\\""', 'caused "x: "y""'),
        ("stderr: oh\\\\n", "stderr: oh "),
        ("a \x1b[1;31mred\x1b[0m b", "a red b"),
        ("a \\x1b[31mred\\u001b[0m b", "a red b"),
        ("&quot;a&quot; &amp;lt; b &#39;", '"a" < b \''),
        ("one\n   two\tthree", "one two three"),
        ("> b'OCI\n> runtime", "> b'OCI runtime"),
        ("\u201ca\u201d \u2018b\u2019", "\"a\" 'b'"),
        ("a\u200bb\u00a0c", "ab c"),
        ("https:\\/\\/x", "https://x"),
        ("C:\\Portable", "C:\\Portable"),
        ("\\u003cnil\\u003e", "<nil>"),
        ("cut\\", "cut"),
        ("", ""),
    ],
)
def test_what_layers_did_to_a_text_is_undone(raw: str, clean: str) -> None:
    assert read(raw).text == clean


@pytest.mark.parametrize("depth", range(6))
def test_quoting_of_any_depth_is_one_quote(depth: int) -> None:
    raw = INNER
    for _ in range(depth):
        raw = f"caused {json.dumps(raw)}"
    reading = read(raw)
    start = reading.text.index("exec:")
    end = reading.text.index("directory") + len("directory")
    begin, stop = reading.origin(start, end)
    assert raw[begin:stop].startswith("exec: ")
    assert raw[begin:stop].endswith("directory")
    assert reading.text[start:end] == INNER


@given(st.text(alphabet=st.sampled_from("ab \n\t\\\"'`n&;x1b[31m{}/:\u00e9\U0001f600\x1b\x00\ud800"), max_size=80))
def test_every_span_leads_back_to_the_raw_text_in_order(raw: str) -> None:
    reading = read(raw)
    assert len(reading.hay) == len(reading.text)
    before = 0
    for offset in range(len(reading.text)):
        start, end = reading.origin(offset, offset + 1)
        assert 0 <= start < end <= len(raw)
        assert start >= before
        before = start
    if reading.text:
        start, end = reading.origin(0, len(reading.text))
        assert 0 <= start < end <= len(raw)


def test_a_line_break_inside_a_word_is_rejoined_on_demand() -> None:
    assert read("parent proces\n    s caused", rejoin=True).text == "parent process caused"
