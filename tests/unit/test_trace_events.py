"""Process events: what the datagrams say, and the gaps between them."""

from __future__ import annotations

import struct

from harness.kernel.events import ProcessEvent, decode_events

FORK, EXEC, COMM, EXIT, NONE = 1, 2, 0x200, 0x80000000, 0


def datagram(what: int, number: int, cpu: int, time_ns: int, *values: int, text: bytes = b"") -> bytes:
    """struct nlmsghdr, struct cn_msg, struct proc_event of linux/cn_proc.h."""
    event = struct.pack("=IIQ", what, cpu, time_ns) + struct.pack(f"={len(values)}I", *values) + text
    event = event.ljust(40, b"\0")
    message = struct.pack("=IIIIHH", 1, 1, number, 0, len(event), 0) + event
    return struct.pack("=IHHII", 16 + len(message), 3, 0, 0, 0) + message


def test_events() -> None:
    """A thread is told from a process, a fork has its parent, a name is text, an acknowledgement is no event."""
    found, missing = decode_events(
        [
            datagram(NONE, 0, 0xFFFFFFFF, 1),
            datagram(FORK, 10, 0, 100, 7, 7, 8, 8),
            datagram(FORK, 11, 0, 110, 8, 8, 9, 8),
            datagram(EXEC, 5, 1, 120, 8, 8),
            datagram(COMM, 6, 1, 130, 8, 8, text=b"runc:[2:INIT]"),
            datagram(EXIT, 12, 0, 140, 9, 8, 0, 17, 7, 7),
        ]
    )
    assert missing == 0
    assert found == [
        ProcessEvent("fork", 8, 100, 7, None, 8),
        ProcessEvent("fork", 8, 110, 8, None, 9),
        ProcessEvent("exec", 8, 120, None, None, 8),
        ProcessEvent("comm", 8, 130, None, "runc:[2:INIT]", 8),
        ProcessEvent("exit", 8, 140, None, None, 9),
    ]


def test_hostile_names() -> None:
    """A name that is no UTF-8, a message that is cut off, a kind from the future: none of them stops the others."""
    found, missing = decode_events(
        [
            datagram(COMM, 1, 0, 1, 8, 8, text=b"\xff\xfe"),
            datagram(EXEC, 2, 0, 2, 8, 8)[:30],
            datagram(0x1000, 2, 0, 2, 8, 8),
            datagram(EXEC, 3, 0, 3, 8, 8),
        ]
    )
    assert [(event.what, event.comm) for event in found] == [("comm", r"\xff\xfe"), ("exec", None)]
    assert missing == 0


def test_gaps_in_the_numbers() -> None:
    """Each CPU counts on its own, over several batches, and from the largest number on to 0."""
    known: dict[int, int] = {}
    first = [datagram(EXEC, 0xFFFFFFFE, 0, 1, 1, 1), datagram(EXEC, 3, 1, 2, 1, 1), datagram(EXEC, 5, 1, 3, 1, 1)]
    assert decode_events(first, known)[1] == 1
    second = [datagram(EXEC, 1, 0, 4, 1, 1), datagram(EXEC, 6, 1, 5, 1, 1)]
    assert decode_events(second, known)[1] == 2
