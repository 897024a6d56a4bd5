"""Durations and sizes for people, and durations from people."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.units import format_bytes, format_ns, parse_duration_s


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 ns"),
        (1, "1 ns"),
        (999, "999 ns"),
        (999.6, "1.0 us"),
        (1_000, "1.0 us"),
        (999_940, "999.9 us"),
        (999_960, "1.00 ms"),
        (12_345_678, "12.35 ms"),
        (999_994_000, "999.99 ms"),
        (999_996_000, "1.00 s"),
        (1_000_000_000, "1.00 s"),
        (90_000_000_000, "90.00 s"),
        (-1_500, "-1.5 us"),
    ],
)
def test_format_ns(value: float | None, text: str) -> None:
    """Each size has its unit, and none shows a thousand of the unit below it."""
    assert format_ns(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (4_194_304, "4.0 MiB"),
        (1024**3 - 1, "1.0 GiB"),
        (1024**3, "1.0 GiB"),
        (1024**4, "1024.0 GiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_format_bytes(value: float | None, text: str) -> None:
    """Each size has its binary unit, up to GiB."""
    assert format_bytes(value) == text


NS = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}
BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


@given(st.integers(0, 10**13))
def test_format_ns_says_the_value(value: int) -> None:
    """The text is the value but for rounding, and below a thousand in any unit but seconds."""
    number, unit = format_ns(value).split()
    assert abs(float(number) * NS[unit] - value) <= max(0.005 * NS[unit], 0.06 * NS[unit] if unit == "us" else 0) + 1e-6
    assert unit == "s" or float(number) < 1000


@given(st.integers(0, 10**15))
def test_format_bytes_says_the_value(value: int) -> None:
    """The text is the value but for rounding, and below 1024 in any unit but GiB."""
    number, unit = format_bytes(value).split()
    assert abs(float(number) * BYTES[unit] - value) <= 0.051 * BYTES[unit]
    assert unit == "GiB" or float(number) < 1024


@given(st.integers(1_000, 10**13))
def test_round_trip(value: int) -> None:
    """What format_ns writes is read back as nearly the same."""
    assert parse_duration_s(format_ns(value)) * 1e9 == pytest.approx(value, rel=0.06 if value < 10**6 else 0.006)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("5s", 5.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("10us", 1e-5),
        ("3", 3.0),
        ("0", 0.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1e3ms", 1.0),
        ("0.1", 0.1),
    ],
)
def test_parse_duration(text: str, seconds: float) -> None:
    """A number with a unit, or a bare number of seconds."""
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "ms", "five", "5 days", "-1s", "-0.1", "nan", "nans", "inf", "infm", "1e999s", "5ns", "1,5s"]
)
def test_no_duration(text: str) -> None:
    """Anything else raises ValueError that quotes it and says what to write."""
    with pytest.raises(ValueError, match=r"is no duration; write 250ms, 5s or 2m$") as caught:
        parse_duration_s(text)
    assert str(caught.value).startswith(repr(text))


@given(st.text(max_size=12))
def test_parse_never_fails_otherwise(text: str) -> None:
    """Any text gives seconds from 0 up, or ValueError."""
    with contextlib.suppress(ValueError):
        assert 0 <= parse_duration_s(text) < float("inf")
