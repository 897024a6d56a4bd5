"""What a text that no rule knows still tells: only layers' words, a bare errno, a text cut short, or a new clause."""

from __future__ import annotations

import re

from msgspec import Struct

from harness.diagnosis import errnos
from harness.diagnosis.reading import Reading
from harness.diagnosis.rules import SYMPTOM_ONLY, Rule, RuleBook, Wrapper
from harness.diagnosis.template import Match

_ERRNO = re.compile(errnos.pattern().encode())
_WORD = re.compile(r"[^\s\"'`:;.,()\[\]{}<>\\-]+")
_AROUND = " :;,.\"'`"


class Leftover(Struct, frozen=True):
    """The clause to show. `cause`: symptom-only, or None where the clause is one that no rule knows."""

    match: Match
    cause: str | None
    rule: Rule | None = None  # the one whose clause was cut short


def leftover(reading: Reading, wrapped: list[tuple[Wrapper, Match]], book: RuleBook) -> Leftover | None:
    """None if there is no word of a layer, and more than an errno: the text need not be of a container's failure."""
    if not wrapped:
        bare = _bare_errno(reading, 0, len(reading.text))
        return None if bare is None else Leftover(bare, SYMPTOM_ONLY)
    before = [match for wrapper, match in wrapped if not wrapper.after]
    innermost = max(before, key=lambda each: each.end, default=wrapped[0][1])
    rest = _between(reading, wrapped, innermost.end if before else 0)
    if not rest:
        return Leftover(innermost, SYMPTOM_ONLY)
    start, end = rest[0]
    text = reading.text[start:end]
    words = text.strip(_AROUND)
    bare = _bare_errno(reading, start, end)
    if bare is not None:
        return Leftover(bare, SYMPTOM_ONLY)
    begin = start + text.index(words) if words else start
    clause = Match(begin, begin + max(1, len(words)), {})
    cut, rule = book.cut_short(words)
    if rule is not None:
        return Leftover(clause, rule.cause, rule)
    return Leftover(innermost, SYMPTOM_ONLY) if cut else Leftover(clause, None)


def _bare_errno(reading: Reading, start: int, end: int) -> Match | None:
    """The words of an errno, if there are no others."""
    found = _ERRNO.search(reading.hay, start, end)
    if found is None or _WORD.search(reading.text[start : found.start()] + " " + reading.text[found.end() : end]):
        return None
    return Match(found.start(), found.end(), {"errno": errnos.name_of(found[0].decode()) or ""})


def _between(reading: Reading, wrapped: list[tuple[Wrapper, Match]], after: int) -> list[tuple[int, int]]:
    """The parts of the text behind `after` that have words in them and stand in no wrapper."""
    parts = []
    last = 0
    for _, match in wrapped:
        if match.start > last:
            parts.append((last, match.start))
        last = max(last, match.end)
    parts.append((last, len(reading.text)))
    return [(start, end) for start, end in parts if end > after and _WORD.search(reading.text[start:end])]
