"""The kernel's trace ring buffer: formats and sub-buffers, whole, torn, and with gaps."""

from __future__ import annotations

import struct

import pytest

from harness.kernel.ringbuffer import MISSED_EVENTS, MISSED_STORED, Format, decode_page, parse_format

SWITCH = """name: sched_switch
ID: 372
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;
\tfield:long prev_state;\toffset:32;\tsize:8;\tsigned:1;

print fmt: "prev_comm=%s", REC->prev_comm
"""
MKDIR = """name: cgroup_mkdir
ID: 544
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:int root;\toffset:8;\tsize:4;\tsigned:1;
\tfield:u64 id;\toffset:16;\tsize:8;\tsigned:0;
\tfield:__data_loc char[] path;\toffset:24;\tsize:4;\tsigned:0;
"""
STACK = """name: kernel_stack
ID: 4
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:int size;\toffset:8;\tsize:4;\tsigned:1;
\tfield:unsigned long caller[8];\toffset:16;\tsize:64;\tsigned:0;
"""
FORMATS: dict[int, Format] = {one.number: one for one in map(parse_format, (SWITCH, MKDIR, STACK))}


def header(kind: int, delta: int) -> bytes:
    return struct.pack("=I", kind | delta << 5)


def switch(pid: int, delta: int, state: int = 0) -> bytes:
    data = struct.pack("=HBBi16si4xq", 372, 0, 0, pid, b"runc:[2:INIT]", pid, state)
    assert len(data) % 4 == 0
    return header(len(data) // 4, delta) + data


def mkdir(pid: int, delta: int, path: bytes) -> bytes:
    text = path + b"\0"
    data = struct.pack("=HBBii4xQI", 544, 0, 0, pid, 7, 99, 28 | len(text) << 16) + text
    data += b"\0" * (-len(data) % 4)
    return header(0, delta) + struct.pack("=I", len(data) + 4) + data  # the long form, for events above 112 bytes


def page(body: bytes, *, time_ns: int = 1000, flags: int = 0, behind: bytes = b"", size: int = 4096) -> bytes:
    return (struct.pack("=QQ", time_ns, len(body) | flags) + body + behind).ljust(size, b"\0")


def test_formats() -> None:
    """Fields keep their places, also behind holes; texts, texts elsewhere and kernel stacks are told apart."""
    kept = FORMATS[372]
    assert kept.names == ("prev_comm", "prev_pid", "prev_state")
    assert kept.texts == {"prev_comm"}
    assert FORMATS[544].located == {"path"}
    assert FORMATS[4].rest_at == 16


@pytest.mark.parametrize("text", ["", "name: x\n", "ID: 3\n", "cannot open: no such file"])
def test_no_format(text: str) -> None:
    """A text without name or ID is no format."""
    with pytest.raises(ValueError, match="no format of an event"):
        parse_format(text)


def test_events_of_a_page() -> None:
    """Short and long events, their times as sums of the differences, texts without what follows them."""
    found = decode_page(page(switch(41, 5, state=2) + mkdir(42, 7, b"/oci-harness-x/c0")), 1, FORMATS)
    assert [(event.name, event.time_ns, event.cpu, event.thread) for event in found.events] == [
        ("sched_switch", 1005, 1, 41),
        ("cgroup_mkdir", 1012, 1, 42),
    ]
    assert found.events[0].fields == {"prev_comm": "runc:[2:INIT]", "prev_pid": 41, "prev_state": 2}
    assert found.events[1].fields["path"] == "/oci-harness-x/c0"
    assert found.missed == 0


def test_long_times() -> None:
    """A difference that needs more than 27 bits and an absolute time stamp both move the clock."""
    far = (3 << 27) + 9
    extend = header(30, far & ((1 << 27) - 1)) + struct.pack("=I", far >> 27)
    stamp = header(31, 77) + struct.pack("=I", 5)
    found = decode_page(page(extend + switch(1, 1) + stamp + switch(2, 3)), 0, FORMATS)
    assert [event.time_ns for event in found.events] == [1000 + far + 1, (5 << 27) + 77 + 3]


def test_padding() -> None:
    """A discarded event is stepped over; padding without a length ends the sub-buffer."""
    discarded = header(29, 4) + struct.pack("=I", 8) + b"\xff" * 4
    found = decode_page(page(discarded + switch(1, 1) + header(29, 0) + switch(2, 1)), 0, FORMATS)
    assert [(event.thread, event.time_ns) for event in found.events] == [(1, 1005)]


def test_kernel_stack() -> None:
    """A stack has as many callers as it says, also when the format declares fewer."""
    callers = tuple(range(100, 111))
    data = struct.pack("=HBBii4x11Q", 4, 0, 0, 3, 11, *callers)
    found = decode_page(page(header(len(data) // 4, 0) + data), 0, FORMATS)
    assert found.events[0].fields["caller"] == callers


@pytest.mark.parametrize(
    ("flags", "behind", "missed"),
    [(0, b"", 0), (MISSED_EVENTS, b"", None), (MISSED_EVENTS | MISSED_STORED, struct.pack("=Q", 321), 321)],
)
def test_gaps(flags: int, behind: bytes, missed: int | None) -> None:
    """Events lost before a sub-buffer are known: how many, or that nobody counted them."""
    assert decode_page(page(switch(1, 1), flags=flags, behind=behind), 0, FORMATS).missed == missed


def test_unknown_kinds_are_left_out() -> None:
    """An event whose format was not asked for does not disturb the others' times."""
    found = decode_page(page(switch(1, 5) + switch(2, 5)), 0, {544: FORMATS[544]})
    assert found.events == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 15, struct.pack("=QQ", 1, 500), page(header(28, 1) + b"\0" * 8), page(header(0, 1) + b"\0" * 4)],
    ids=["empty", "half a header", "longer than it is", "event over the end", "event of no length"],
)
def test_no_page(data: bytes) -> None:
    """What cannot be a sub-buffer is refused, not guessed at."""
    with pytest.raises(ValueError, match=r"sub-buffer"):
        decode_page(data, 0, FORMATS)
