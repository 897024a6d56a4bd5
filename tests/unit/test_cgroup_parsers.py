"""Parsers of cgroup files: good, bad and missing texts of each format."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cgroup import parsers
from harness.cgroup.parsers import MAX, ParseError, PressureLine

Parser = Callable[[bytes, str], Any]

GOOD: list[tuple[Parser, bytes, Any]] = [
    (parsers.parse_value, b"123\n", 123),
    (parsers.parse_value, b"-1\n", -1),
    (parsers.parse_value, b"18446744073709551615", 2**64 - 1),
    (parsers.parse_bool, b"0\n", False),
    (parsers.parse_bool, b"1\n", True),
    (parsers.parse_limit, b"4194304\n", 4194304),
    (parsers.parse_limit, b"max\n", MAX),
    (parsers.parse_limit, b"-1\n", MAX),
    (parsers.parse_limit, b"9223372036854771712\n", MAX),  # pages of 4 KiB
    (parsers.parse_limit, b"9223372036854710272\n", MAX),  # pages of 64 KiB
    (parsers.parse_limit, b"9223372036854000000\n", 9223372036854000000),
    (parsers.parse_limit, b"0\n", 0),
    (parsers.parse_cpu_max, b"max 100000\n", (MAX, 100000)),
    (parsers.parse_cpu_max, b"50000 100000\n", (50000, 100000)),
    (parsers.parse_flat, b"populated 1\nfrozen 0\n", {"populated": 1, "frozen": 0}),
    (parsers.parse_flat, b"", {}),
    (
        parsers.parse_nested,
        b"8:0 rbytes=1 wbytes=2\n8:16 rbps=max wiops=5\n",
        {"8:0": {"rbytes": 1, "wbytes": 2}, "8:16": {"rbps": MAX, "wiops": 5}},
    ),
    (
        parsers.parse_nested,
        b"anon N0=4096 N1=0\nfile N0=1 N1=2\n",
        {"anon": {"N0": 4096, "N1": 0}, "file": {"N0": 1, "N1": 2}},
    ),
    (parsers.parse_nested, b"254:7 254:6 254:0 rbytes=6\n", {"254:7": {}, "254:6": {}, "254:0": {"rbytes": 6}}),
    (parsers.parse_nested, b"8:0 \n", {"8:0": {}}),
    (parsers.parse_nested, b"", {}),
    (
        parsers.parse_numa_v1,
        b"total=5 N0=3 N1=2\nfile=0 N0=0 N1=0\n",
        {"total": {"total": 5, "N0": 3, "N1": 2}, "file": {"total": 0, "N0": 0, "N1": 0}},
    ),
    (parsers.parse_weight, b"100\n", 100),
    (parsers.parse_weight, b"default 200\n8:0 300\n", 200),
    (
        parsers.parse_pressure,
        b"some avg10=0.12 avg60=1.00 avg300=99.99 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        {"some": PressureLine(0.12, 1.0, 99.99, 7), "full": PressureLine(0.0, 0.0, 0.0, 0)},
    ),
    (
        parsers.parse_pressure,
        b"full avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
        {"full": PressureLine(0.0, 0.0, 0.0, 1)},
    ),
    (
        parsers.parse_blkio,
        b"8:0 Read 123\n8:0 Write 4\nTotal 127\n",
        {"8:0": {"Read": 123, "Write": 4}, "": {"Total": 127}},
    ),
    (parsers.parse_device_values, b"8:0 1048576\n", {"8:0": 1048576}),
    (parsers.parse_device_values, b"", {}),
    (parsers.parse_pids, b"12\n7\n0\n", [12, 7, 0]),
    (parsers.parse_pids, b"", []),
    (parsers.parse_cpu_list, b"0-3,5\n", (0, 1, 2, 3, 5)),
    (parsers.parse_cpu_list, b"\n", ()),
    (parsers.parse_cpu_list, b"", ()),
    (parsers.parse_words, b"cpuset cpu io\n", ("cpuset", "cpu", "io")),
    (parsers.parse_words, b"\n", ()),
    (parsers.parse_freezer_state, b"FREEZING\n", "FREEZING"),
]

BAD: list[tuple[Parser, bytes, int]] = [
    (parsers.parse_value, b"", 0),
    (parsers.parse_value, b"\n", 1),
    (parsers.parse_value, b"12 13\n", 1),
    (parsers.parse_value, b"1\n2\n", 2),
    (parsers.parse_value, b"1_000\n", 1),
    (parsers.parse_value, b"+5\n", 1),
    (parsers.parse_value, b"9" * 5000, 1),
    (parsers.parse_bool, b"2\n", 1),
    (parsers.parse_limit, b"Max\n", 1),
    (parsers.parse_cpu_max, b"max\n", 1),
    (parsers.parse_cpu_max, b"max max\n", 1),
    (parsers.parse_flat, b"populated 1\n\nfrozen 0\n", 2),
    (parsers.parse_flat, b"populated\n", 1),
    (parsers.parse_flat, b"a 1\na 2\n", 2),
    (parsers.parse_flat, b"a 1\nb x\n", 2),
    (parsers.parse_flat, b"\xff 1\n", 1),
    (parsers.parse_nested, b"8:0 rbytes\n", 1),
    (parsers.parse_nested, b"8:0 a=1 a=2\n", 1),
    (parsers.parse_nested, b"8:0 a=1\n8:0 a=2\n", 2),
    (parsers.parse_nested, b"rbytes=1\n", 1),
    (parsers.parse_numa_v1, b"total 5\n", 1),
    (parsers.parse_numa_v1, b"total=5 N0=3\ntotal=5 N0=3\n", 2),
    (parsers.parse_weight, b"", 1),
    (parsers.parse_weight, b"default 1\ndefault 2\n", 2),
    (parsers.parse_pressure, b"some avg10=0.00\n", 1),
    (parsers.parse_pressure, b"half avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", 1),
    (parsers.parse_pressure, b"some avg10=nan avg60=0.00 avg300=0.00 total=0\n", 1),
    (parsers.parse_blkio, b"8:0 Read\n", 1),
    (parsers.parse_blkio, b"8:0 Read 1\n8:0 Read 2\n", 2),
    (parsers.parse_device_values, b"sda 1\n", 1),
    (parsers.parse_pids, b"1\nx\n", 2),
    (parsers.parse_pids, b"1\n-2\n", 2),
    (parsers.parse_cpu_list, b"3-1\n", 1),
    (parsers.parse_cpu_list, b"0-99999999999\n", 1),
    (parsers.parse_cpu_list, b"1,1\n", 1),
    (parsers.parse_words, b"cpu  io\n", 1),
    (parsers.parse_freezer_state, b"MELTED\n", 1),
    (parsers.parse_freezer_state, b"", 0),
]

PARSERS = sorted({parser for parser, _, _ in [*GOOD, *BAD]}, key=repr)


def _name(value: object) -> str | None:
    return getattr(value, "__name__", None) if callable(value) else None


@pytest.mark.parametrize(("parser", "data", "value"), GOOD, ids=_name)
def test_good_text(parser: Parser, data: bytes, value: object) -> None:
    """A text of the kernel's format gives its value."""
    result = parser(data, "file")
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(("parser", "data", "line"), BAD, ids=_name)
def test_bad_text(parser: Parser, data: bytes, line: int) -> None:
    """A text of another format is refused, with the path and the number of the line."""
    with pytest.raises(ParseError) as caught:
        parser(data, "some/file")
    assert (caught.value.path, caught.value.line) == ("some/file", line)
    assert str(caught.value).startswith(f"some/file:{line}: ")


def test_every_parser_has_good_and_bad_texts() -> None:
    """No parser of this module is left without examples of both kinds."""
    public = {name for name in vars(parsers) if name.startswith("parse_")}
    assert public == {_name(parser) for parser, _, _ in GOOD} == {_name(parser) for parser, _, _ in BAD}


@pytest.mark.parametrize("parser", PARSERS, ids=_name)
@given(
    data=st.binary(max_size=200)
    | st.text(alphabet="max0123456789-,: \n=kRTotalsomefullavg10.", max_size=120).map(str.encode)
)
def test_arbitrary_bytes(parser: Parser, data: bytes) -> None:
    """Whatever the bytes are, the only exception is ParseError."""
    with suppress(ParseError):
        parser(data, "file")


KEYS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz_().", min_size=1, max_size=12)
NUMBERS = st.integers(0, 2**64 - 1)
DEVICES = st.tuples(st.integers(0, 511), st.integers(0, 2**20 - 1)).map(lambda pair: f"{pair[0]}:{pair[1]}")


@given(st.dictionaries(KEYS, NUMBERS))
def test_flat_round_trip(values: dict[str, int]) -> None:
    """What is written flat keyed is read back as it was."""
    text = "".join(f"{key} {value}\n" for key, value in values.items())
    assert parsers.parse_flat(text.encode(), "file") == values


@given(st.dictionaries(DEVICES, st.dictionaries(KEYS, NUMBERS | st.just(MAX), min_size=1)))
def test_nested_round_trip(values: dict[str, dict[str, Any]]) -> None:
    """What is written nested keyed is read back as it was."""
    text = "".join(
        f"{key} {' '.join(f'{sub}={value}' for sub, value in subs.items())}\n" for key, subs in values.items()
    )
    assert parsers.parse_nested(text.encode(), "file") == values


@given(st.sets(st.integers(0, 4095)))
def test_cpu_list_round_trip(cpus: set[int]) -> None:
    """Any set of CPUs written in ranges, as the kernel does, is read back."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    text = ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
    assert parsers.parse_cpu_list(f"{text}\n".encode(), "file") == tuple(sorted(cpus))


@given(st.dictionaries(DEVICES, st.dictionaries(st.sampled_from(["Read", "Write", "Discard"]), NUMBERS, min_size=1)))
def test_blkio_round_trip(values: dict[str, dict[str, int]]) -> None:
    """v1 blkio statistics are read back, with the total beside the devices."""
    lines = [f"{device} {operation} {n}\n" for device, counts in values.items() for operation, n in counts.items()]
    text = "".join(lines) + "Total 5\n"
    assert parsers.parse_blkio(text.encode(), "file") == {**values, "": {"Total": 5}}


@pytest.mark.parametrize(("kib", "name"), [(64, "64KB"), (2048, "2MB"), (32768, "32MB"), (1048576, "1GB")])
def test_hugetlb_size(kib: int, name: str) -> None:
    """A huge page size has the kernel's name, and the name gives back its bytes."""
    assert parsers.hugetlb_size_name(kib) == name
    assert parsers.hugetlb_size_bytes(name) == kib * 1024


@pytest.mark.parametrize("name", ["", "2", "MB", "2TB", "-2MB"])
def test_bad_hugetlb_size(name: str) -> None:
    """What is no page size is refused."""
    with pytest.raises(ParseError):
        parsers.hugetlb_size_bytes(name)


def test_limit_of_huge_pages_without_limit() -> None:
    """hugetlb rounds "no limit" of v1 down to its page, 1 GiB say, and is understood all the same."""
    no_limit = b"9223372035781033984\n"
    assert parsers.parse_limit(no_limit, "file", granule_bytes=2**30) == MAX
    assert parsers.parse_limit(no_limit, "file") == 9223372035781033984
