"""Strict JSON in and out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.oci.document import MAX_DEPTH, decode, describe, encode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, database=None)
@given(JSON)
def test_decode_undoes_encode(value: object) -> None:
    """What encode writes, decode reads back, lone surrogates and large numbers too."""
    assert decode(encode(value)) == value


def test_encode_is_stable_and_keeps_order() -> None:
    """Keys keep their order, a level is two spaces, the text ends with one newline."""
    assert encode({"b": 1, "a": ["ü"]}) == b'{\n  "b": 1,\n  "a": [\n    "\\u00fc"\n  ]\n}\n'


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b'{"a": [1, 2', "where the text ends"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "out of range"),
        (b'"\xff"', "byte 1 is not UTF-8"),
        (b"[" * 100_000, "deeper than"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "deeper than"),
        (b"9" * 5000, "digits"),
    ],
)
def test_decode_says_in_one_line_why_it_refuses(data: bytes, reason: str) -> None:
    """Bad text gives a ValueError of one line with the place or the reason."""
    with pytest.raises(ValueError, match=reason) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


def test_decode_takes_the_deepest_that_it_promises() -> None:
    """MAX_DEPTH levels are taken, so the limit is exact."""
    assert decode(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) is not None


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), {"a": object()}])
def test_encode_refuses_what_json_cannot_say(value: object) -> None:
    """A set, NaN or an object gives a ValueError, never invalid JSON."""
    with pytest.raises(ValueError, match="not a JSON value"):
        encode(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "boolean true"),
        (5, "number 5"),
        (2.5, "number 2.5"),
        ("sh", 'string "sh"'),
        ("x" * 50, 'string "' + "x" * 37 + '..."'),
        ({}, "an object"),
        ([], "an array"),
        (10**40, "a number of more than 30 digits"),
    ],
)
def test_describe_names_kind_and_value(value: object, text: str) -> None:
    """Each JSON kind is named in words, long ones cut."""
    assert describe(value) == text
