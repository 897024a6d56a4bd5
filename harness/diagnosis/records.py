"""A paste, a log or a stream cut into records: what was written at once, with the lines that continue it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from msgspec import Struct

LIMIT = 1 << 20  # characters of one record that are looked at; the rest of a longer one is passed over
HEAD = 256  # characters of a line that tell what it is

# The beginning of a line that opens a record wherever it stands: a time, a logger's level, a row of `kubectl describe`.
_OPENS = re.compile(
    r"""\s*(?:\#\s|[|>]\s)?(?:
      [A-Z][a-z]{2}\ {1,2}\d{1,2}\ \d\d:\d\d:\d\d
    | \[?\d{4}[-/]\d\d[-/]\d\d[T\ ]\d\d:\d\d
    | \[?\d\d:\d\d:\d\d
    | [IWEF]\d{4}\ \d\d:\d\d:\d\d
    | \x1b?\[?[0-9;]*m?(?:FATA|ERRO|WARN|INFO|DEBU|TRAC|PANI)(?:\x1b\[0m)?\[\d+
    | (?:Warning|Normal)\s+[A-Z]\w+\s
    | \d+[smhd]\s+\d+[smhd]\s+\d+\s
    | time="\d
    | \{"
    )""",
    re.VERBOSE,
)
# ... and one that opens a record unless the line before it leaves a clause open.
_MAY_OPEN = re.compile(
    r"""\s*(?:
      (?:docker|podman|crun|runc|runsc|ctr|nerdctl|youki|error|fatal|panic|warning|failed|exec\ failed)\b[^:"]{0,40}:\s
    | (?:container|process|rootfs|standard_init|setns_init)_linux\.go:\d
    | nsexec(?:-\d)?\[
    | (?:-\s)?(?:message|reason|state|last\ state|exit\ code|started|finished|status)\ ?:
    | level=\w+\ msg=
    | Caused\ by\ \(
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_LEFT_OPEN = re.compile(r"(?:[:,(\[=]|caused|desc =|\bto|\bat|\bon|--?)[\"'\\\s]*$")


class Record(Struct, frozen=True):
    """Some lines of the input that belong together."""

    start: int  # offset in characters
    text: str
    cut: bool  # it was longer than LIMIT


def records(lines: Iterable[str]) -> Iterator[Record]:
    """The records of a text, given as its lines, line ends included; a line may come in several parts.

    Constant memory: no more than LIMIT characters and one of the parts are held.
    """
    held: list[str] = []
    size = start = offset = 0
    before = ""
    cut = False
    for line in _heads(lines):
        if held and (not before or before.endswith("\n")) and _opens(line, before):
            yield Record(start, "".join(held), cut)
            held, size, cut = [], 0, False
        if not held:
            start = offset
        room = LIMIT - size
        held.append(line[:room])
        cut = cut or len(line) > room
        size += min(len(line), room)
        offset += len(line)
        before = line
    if held:
        yield Record(start, "".join(held), cut)


def _heads(lines: Iterable[str]) -> Iterator[str]:
    """The same text; the first part of every line is long enough to tell whether it opens a record."""
    head = ""
    inside = False  # of a line whose head has been given
    for part in lines:
        if inside:
            yield part
        else:
            head += part
            if len(head) < HEAD and not head.endswith("\n"):
                continue
            yield head
            head = ""
        inside = not part.endswith("\n")
    if head:
        yield head


def _opens(line: str, before: str) -> bool:
    if _OPENS.match(line):
        return True
    return bool(_MAY_OPEN.match(line)) and not _LEFT_OPEN.search(before[-80:])
