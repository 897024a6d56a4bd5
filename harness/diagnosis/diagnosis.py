"""From a text to its causes: each record read, matched with the rules, named once, the most telling one first."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from harness.diagnosis.leftover import leftover
from harness.diagnosis.reading import Reading, read
from harness.diagnosis.records import Record, records
from harness.diagnosis.rules import SYMPTOM_ONLY, TIERS, Hit, Rule, RuleBook, Wrapper, load_rules
from harness.diagnosis.template import Match
from harness.faults.catalogue import load_causes

Confidence = Literal["high", "medium", "low"]
DISTINCT = 10_000  # failures kept apart in one report; a stream with more of them counts the rest as others

_TIMES = re.compile(r"\(x(\d+) over ")
# What differs between two reports of one failure: ids of containers and pods, process ids, descriptors.
_OWN = re.compile(r"[0-9a-f]{12,}|[0-9a-f]{8}-[0-9a-f-]{20,}|(?<=/fd/)\d+|(?<=/proc/)\d+|\[\d+\]")


class Alternative(Struct, frozen=True):
    """Another cause that the same text allows."""

    cause: str
    side: str
    rule: str


class Diagnosis(Struct, frozen=True):
    """One failure, named. `cause` is None if the text is a runtime's error that no rule knows."""

    cause: str | None
    side: str | None  # image, config, node or kernel: the likeliest
    sides: list[str]
    decisive: str  # the clause of the input that shows it, verbatim
    span: tuple[int, int]  # its offsets in the input, in characters
    tier: str
    layer: str  # the outermost layer that put its words around it
    runtime: str | None
    stage: str | None
    wrappers: list[str]  # what layers said around it, outermost first
    fields: dict[str, str]
    rule: Rule | None
    alternatives: list[Alternative]
    confidence: Confidence
    cut: bool = False  # the record was longer than what is looked at
    count: int = 1  # how often it was in the input

    @property
    def variant(self) -> str | None:
        return self.rule.variant if self.rule else None

    @property
    def named(self) -> bool:
        """Whether a cause is named; a symptom is none."""
        return self.cause is not None and self.cause != SYMPTOM_ONLY


class Report(Struct):
    """What a text holds: each distinct failure once, the most telling first."""

    failures: list[Diagnosis] = field(default_factory=list)
    others: int = 0  # failures beyond DISTINCT, not listed

    @property
    def primary(self) -> Diagnosis | None:
        return self.failures[0] if self.failures else None

    @property
    def named(self) -> bool:
        return any(each.named for each in self.failures)


def diagnose(text: str, book: RuleBook | None = None) -> Report:
    """Name the failures in a text. Never raises for any text; takes time in proportion to its length.

    `book`: other rules than those that are shipped.
    """
    return diagnose_lines(text.splitlines(keepends=True), book)


def diagnose_lines(lines: Iterable[str], book: RuleBook | None = None) -> Report:
    """As `diagnose`, for lines as they come, line ends included, in constant memory. Spans are those in the whole."""
    book = book or load_rules()
    found: dict[tuple[str, ...], Diagnosis] = {}
    report = Report()
    only: Diagnosis | None = None  # most texts hold one failure, which need not be told from others
    for record in records(lines):
        diagnosis = diagnose_record(record, book)
        if diagnosis is None:
            continue
        if only is None and not found:
            only = diagnosis
            continue
        if only is not None:
            found[_key(only)] = only
            only = None
        key = _key(diagnosis)
        before = found.get(key)
        if before is not None:
            found[key] = replace(before, count=before.count + diagnosis.count)
        elif len(found) < DISTINCT:
            found[key] = diagnosis
        else:
            report.others += diagnosis.count
    if only is not None:
        report.failures = [only]
        return report
    if any(each.tier != "word" for each in found.values()):  # then a mere word in another line is no failure
        found = {key: each for key, each in found.items() if each.tier != "word" or each.wrappers}
    report.failures = sorted(found.values(), key=lambda each: (TIERS.index(each.tier), each.cause is None))
    return report


def _key(diagnosis: Diagnosis) -> tuple[str, ...]:
    """What two reports of one failure have in common."""
    rule = diagnosis.rule.id if diagnosis.rule else ""
    return rule, diagnosis.cause or "", _OWN.sub("#", " ".join(diagnosis.decisive.split()))


def diagnose_record(record: Record, book: RuleBook) -> Diagnosis | None:
    """Name the failure of one record; None if the record speaks of none."""
    reading = read(record.text)
    hits, wrapped = book.matches(reading)
    if (not hits or hits[0].rule.tier != "cause") and "\n" in record.text.strip():
        rejoined = read(record.text, rejoin=True)
        better, around = book.matches(rejoined)
        if better and (not hits or better[0].order < hits[0].order):
            reading, hits, wrapped = rejoined, better, around
    if hits and hits[0].named:
        return _by_rule(record, reading, wrapped, hits, _closed(hits[0], wrapped))
    rest = leftover(reading, wrapped, book)
    if rest is not None and rest.rule is not None:
        return _by_rule(record, reading, wrapped, [Hit(rest.rule, rest.match, 0, open_end=False)], rest.match)
    if hits and (rest is None or rest.cause is None):
        return _by_rule(record, reading, wrapped, hits, _clause(reading, hits[0].match) if rest is None else rest.match)
    if rest is None:
        return None
    plain: dict[str, Any] = {"sides": [], "rule": None, "tier": "symptom", "alternatives": [], "confidence": "low"}
    return _diagnosis(record, reading, wrapped, rest.match, cause=rest.cause, **plain)


def _by_rule(
    record: Record, reading: Reading, wrapped: list[tuple[Wrapper, Match]], hits: list[Hit], match: Match
) -> Diagnosis:
    rule = hits[0].rule
    return _diagnosis(
        record,
        reading,
        wrapped,
        match,
        cause=rule.cause,
        sides=list(rule.sides or load_causes()[rule.cause].sides),
        rule=rule,
        tier=rule.tier,
        alternatives=_alternatives(hits),
        confidence=_confidence(hits),
    )


def _clause(reading: Reading, match: Match) -> Match:
    """The clause that a word stands in: from the colon before it to the end."""
    start = reading.text.rfind(": ", 0, match.start) + 2
    start = start if start > 1 else 0
    return Match(start, len(reading.text.rstrip()), {})


def _closed(hit: Hit, wrapped: list[tuple[Wrapper, Match]]) -> Match:
    """A match that takes all there is ends where a layer's closing words begin."""
    match = hit.match
    stops = [each.start for wrapper, each in wrapped if wrapper.after and match.start < each.start < match.end]
    if not hit.open_end or not stops:
        return match
    *_, last = match.fields
    length = len(match.fields[last]) - (match.end - min(stops))
    fields = match.fields | {last: match.fields[last][: max(0, length)].rstrip(" :\"'`")}
    return replace(match, end=min(stops), fields=fields)


def _confidence(hits: list[Hit]) -> Confidence:
    best = hits[0].rule
    if best.tier in ("symptom", "word"):
        return "low"
    rivals = [hit for hit in hits[1:] if hit.rule.tier == best.tier == "cause" and hit.rule.cause != best.cause]
    return "medium" if best.tier == "generic" or best.also or rivals else "high"


def _alternatives(hits: list[Hit]) -> list[Alternative]:
    causes = load_causes()
    best = hits[0].rule
    ranked = [(slug, best.id) for slug in best.also]
    ranked += [(hit.rule.cause, hit.rule.id) for hit in hits[1:] if hit.rule.tier == best.tier]
    seen = {best.cause}
    alternatives = []
    for slug, rule in ranked:
        if slug not in seen:
            seen.add(slug)
            alternatives.append(Alternative(slug, next(iter(causes[slug].sides), ""), rule))
    return alternatives


def _outermost(wrapped: list[tuple[Wrapper, Match]]) -> list[tuple[Wrapper, Match]]:
    """Without those that lie within another."""
    kept: list[tuple[Wrapper, Match]] = []
    for wrapper, match in wrapped:
        if not kept or match.start >= kept[-1][1].end:
            kept.append((wrapper, match))
    return kept


def _diagnosis(
    record: Record, reading: Reading, wrapped: list[tuple[Wrapper, Match]], match: Match, **what: Any
) -> Diagnosis:
    start, end = reading.origin(match.start, match.end)
    wrapped = _outermost(wrapped)
    around = [(wrapper, each) for wrapper, each in wrapped if each.end <= match.start or each.start >= match.end]
    before = [wrapper for wrapper, each in around if each.start < match.start]
    rule: Rule | None = what["rule"]
    layers = [wrapper.layer for wrapper in before] + ([rule.layer] if rule else [])
    runtimes = rule.runtimes if rule else []
    named = [wrapper.runtime for wrapper, _ in wrapped if wrapper.runtime]
    runtime = next(
        (each for each in reversed(named) if not runtimes or each in runtimes),
        runtimes[0] if len(runtimes) == 1 else None,
    )
    stages = [wrapper.stage for wrapper in before if wrapper.stage]
    times = _TIMES.search(record.text) if "(x" in record.text else None
    return Diagnosis(
        side=what["sides"][0] if what["sides"] else None,
        decisive=record.text[start:end],
        span=(record.start + start, record.start + end),
        layer=layers[0] if layers else "runtime",
        runtime=runtime,
        stage=(rule.stage if rule else None) or (stages[-1] if stages else None),
        wrappers=[reading.text[each.start : each.end] for _, each in around],
        fields=match.fields,
        cut=record.cut,
        count=int(times[1]) if times else 1,
        **what,
    )
