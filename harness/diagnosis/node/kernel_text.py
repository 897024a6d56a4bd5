"""The kernel's messages, from the ring or from whatever file of a copied tree has them, each once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from msgspec import Struct

from harness.diagnosis.node.tree import Tree
from harness.kernel.kmsg import parse_record

KMSG = "/dev/kmsg"
AUDIT = "/var/log/audit/audit.log"  # where an audit daemon runs, SELinux, AppArmor and seccomp lines go only there
COPIES = (
    "/var/log/dmesg",
    "/var/log/dmesg.?",
    "/var/log/kern.log*",
    "/var/log/messages*",
    "/var/log/syslog*",
    "/var/log/audit/audit.log*",
    "/sos_commands/kernel/dmesg*",
    "/sos_commands/logs/journalctl*",
    "/dmesg*",
    "/kern*.log",
    "/journal*",
)
PACKED = (".gz", ".xz", ".bz2", ".zst", ".journal")
# in front of the message: syslog's or the journal's head, then priority, then the time since boot or that of dmesg -T
_HEAD = re.compile(
    r"(?:.*? kernel: |.*? (?=audit\[\d+\]: )|<\d+>|\w+ *:\w+ *: ?)?(?P<stamp>\[[^\]]*\d+[.:]\d+[^\]]*\] ?)?"
)
_LOOSE = re.compile(r" kernel: |\baudit\[\d+\]: |^type=|^\[|^<\d+>|^\w+ *:\w+ *: ?\[")


class Message(Struct, frozen=True):
    """One message of the kernel (or its audit part), without what logs put before it."""

    text: str
    when: str  # that head: a time, in whatever form the source has it
    where: str  # FILE:LINE, or `dmesg`


def parse_line(line: str) -> tuple[str, str] | None:
    """(head, message) of a line of dmesg, syslog, the journal or audit.log; None: it is not the kernel's."""
    if not _LOOSE.search(line):
        return None
    match = _HEAD.match(line)
    cut = match.end() if match else 0
    return line[:cut].strip(), line[cut:]


def messages(tree: Tree, wanted: re.Pattern[str]) -> Iterator[Message]:
    """All messages in which `wanted` is found, each distinct text once. What cannot be read is noted."""
    seen: set[str] = set()
    for message in _all(tree, wanted):
        if message.text not in seen:
            seen.add(message.text)
            yield message


def _all(tree: Tree, wanted: re.Pattern[str]) -> Iterator[Message]:
    if tree.live:
        yield from _ring(tree, wanted)
        yield from _file(tree, AUDIT, wanted)
        return
    paths = sorted({path for pattern in COPIES for path in tree.glob(pattern) if not tree.is_directory(path)})
    for path in paths:
        if path.endswith(PACKED):
            tree.miss(path, "packed; unpack it beside")
        else:
            yield from _file(tree, path, wanted)
    if not paths:
        tree.miss("kernel log", "no dmesg, kern.log, messages, syslog, journal or audit.log in this tree")


def _file(tree: Tree, path: str, wanted: re.Pattern[str]) -> Iterator[Message]:
    for number, line in tree.lines(path):
        if wanted.search(line) and (parsed := parse_line(line)) is not None:
            yield Message(parsed[1], parsed[0], f"{path}:{number}")


def _ring(tree: Tree, wanted: re.Pattern[str]) -> Iterator[Message]:
    try:
        fd = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        tree.miss(KMSG, f"{error.strerror} (kernel.dmesg_restrict needs CAP_SYSLOG)")
        return
    try:
        while True:
            try:
                record = parse_record(os.read(fd, 8192).decode(errors="replace"))
            except BlockingIOError:
                return
            except BrokenPipeError:  # the ring has overtaken us: the next read goes on with the oldest that is left
                continue
            except OSError as error:
                tree.miss(KMSG, error.strerror or str(error))
                return
            if record is not None and wanted.search(record.text):
                yield Message(record.text, f"[{record.time_us / 1e6:.6f}]", "dmesg")
    finally:
        os.close(fd)
