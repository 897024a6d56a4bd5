"""Decode the kernel's trace ring buffer: the sub-buffers that tracefs hands out as per_cpu/cpuN/trace_pipe_raw.

Layout: kernel/trace/ring_buffer.c and include/linux/ring_buffer.h, little-endian; what an event holds is told by its
`format` file (Documentation/trace/events.rst, "Event formats"). Binary, because the text form cuts timestamps to
microseconds, and to read it takes the time between two starts: 25 ms for one of runsc, where the pages take 0.6 ms.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

MISSED_EVENTS = 1 << 31  # in the commit word: events were lost before this sub-buffer
MISSED_STORED = 1 << 30  # and how many is written behind its data
PADDING, TIME_EXTEND, TIME_STAMP = 29, 30, 31
DELTA_BITS = 27
STAMP_BITS = 59  # an absolute time stamp holds no more; the upper bits are those of the time before
PAGE_HEADER = struct.Struct("=QQ")
WORD = struct.Struct("=I")
WORD_PAIR = struct.Struct("=II")
EVENT_HEADER = struct.Struct("=HBBi")  # common_type, common_flags, common_preempt_count, common_pid

FIELD = re.compile(r"^\tfield:(?P<declared>[^;]+);\s*offset:(\d+);\s*size:(\d+);\s*signed:([01]);", re.MULTILINE)
INTEGERS = {(1, "0"): "B", (1, "1"): "b", (2, "0"): "H", (2, "1"): "h", (4, "0"): "I", (4, "1"): "i", (8, "0"): "Q"}
INTEGERS |= {(8, "1"): "q"}


class TraceEvent(Struct, frozen=True):
    """One event. `name` is that of its directory below events/SYSTEM; the common fields are told apart."""

    name: str
    time_ns: int  # the instance's trace_clock
    cpu: int
    thread: int  # common_pid: the task on whose behalf it was written
    fields: dict[str, Any]


class Format(Struct, frozen=True):
    """How to read one kind of event. Texts are str; what is neither an integer nor a text is bytes."""

    name: str
    number: int
    names: tuple[str, ...]
    layout: struct.Struct
    texts: frozenset[str]  # char[N]
    located: frozenset[str]  # __data_loc char[]: an offset into the event
    rest_at: int | None = None  # of a kernel stack: where its variable part begins

    def decode(self, data: bytes, start: int, end: int) -> dict[str, Any]:
        values = dict(zip(self.names, self.layout.unpack_from(data, start), strict=True))
        for name in self.texts:
            values[name] = values[name].partition(b"\0")[0].decode(errors="replace")
        for name in self.located:
            at, size = values[name] & 0xFFFF, values[name] >> 16
            text = data[start + at : min(start + at + size, end)]
            values[name] = text.partition(b"\0")[0].decode(errors="replace")
        if self.rest_at is not None:
            count = min(values["size"], (end - start - self.rest_at) // 8)
            values["caller"] = struct.unpack_from(f"={count}Q", data, start + self.rest_at)
        return values


def parse_format(text: str) -> Format:
    """An event's `format` file. Raises ValueError when it is none."""
    name = re.search(r"^name: (\S+)", text, re.MULTILINE)
    number = re.search(r"^ID: (\d+)", text, re.MULTILINE)
    if name is None or number is None:
        raise ValueError("no format of an event: it has no name or no ID")
    codes, names, texts, located = ["="], [], set(), set()
    at = 0
    rest_at = None
    for match in FIELD.finditer(text):
        declared, offset, size, signed = match.group("declared"), int(match[2]), int(match[3]), match[4]
        field = re.sub(r"\[[^]]*\]$", "", declared).split()[-1].lstrip("*")
        if field.startswith("common_"):
            continue
        if offset < at:
            raise ValueError(f"the fields of {name[1]} overlap at {field}")
        if name[1] == "kernel_stack" and field == "caller":
            rest_at = offset
            continue
        codes.append(f"{offset - at}x")
        if "__data_loc" in declared and "char[]" in declared and size == 4:
            codes.append("I")
            located.add(field)
        elif (code := INTEGERS.get((size, signed))) is not None and not declared.endswith("]"):
            codes.append(code)
        else:
            codes.append(f"{size}s")
            if re.search(r"\bchar\b.*\[\d+\]$", declared):
                texts.add(field)
        names.append(field)
        at = offset + size
    layout = struct.Struct("".join(codes))
    return Format(name[1], int(number[1]), tuple(names), layout, frozenset(texts), frozenset(located), rest_at)


class Page(Struct, frozen=True):
    """One sub-buffer: its events, and how many were lost before it (None: some, nobody knows how many)."""

    events: list[TraceEvent]
    missed: int | None


def decode_page(page: bytes, cpu: int, formats: Mapping[int, Format]) -> Page:
    """Events of kinds that are not in `formats` are left out. Raises ValueError for what cannot be such a page."""
    if len(page) < PAGE_HEADER.size:
        raise ValueError(f"a sub-buffer of {len(page)} bytes is cut off")
    time_ns, commit = PAGE_HEADER.unpack_from(page)
    at = PAGE_HEADER.size
    end = at + (commit & (MISSED_STORED - 1))
    if end > len(page):
        raise ValueError(f"a sub-buffer of {len(page)} bytes claims {end}")
    missed: int | None = 0
    if commit & MISSED_EVENTS:
        missed = int.from_bytes(page[end : end + 8], "little") if commit & MISSED_STORED else None
    events = []
    while at + 4 <= end:
        (word,) = WORD.unpack_from(page, at)
        kind, delta = word & 31, word >> 5
        time_ns += delta
        if kind == PADDING:
            if delta == 0:  # nothing follows
                break
            at += 4 + WORD.unpack_from(page, at + 4)[0]
            continue
        if kind == TIME_EXTEND:
            time_ns += WORD.unpack_from(page, at + 4)[0] << DELTA_BITS
            at += 8
            continue
        if kind == TIME_STAMP:
            stamp = (WORD.unpack_from(page, at + 4)[0] << DELTA_BITS) + delta
            time_ns = stamp | ((time_ns - delta) >> STAMP_BITS << STAMP_BITS)
            at += 8
            continue
        if kind == 0:
            length = WORD.unpack_from(page, at + 4)[0]
            start, following = at + 8, at + 4 + length
        else:
            start, following = at + 4, at + 4 + kind * 4
        if following > end or following <= start:
            raise ValueError(f"an event at byte {at} does not end within its sub-buffer")
        number, _, _, thread = EVENT_HEADER.unpack_from(page, start)
        known = formats.get(number)
        if known is not None:
            events.append(TraceEvent(known.name, time_ns, cpu, thread, known.decode(page, start, following)))
        at = following
    return Page(events, missed)
