"""The rules of diagnosis, and the wrappers that layers put around a text: data beside the catalogue."""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from harness.diagnosis.index import Index
from harness.diagnosis.template import Match, Template
from harness.errors import InputError
from harness.faults.catalogue import convert, load_causes
from harness.faults.schema import Side, Stage
from harness.oci.recipe import data_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.diagnosis.reading import Reading

Layer = Literal[
    "runtime",
    "shim",
    "containerd",
    "docker",
    "podman",
    "crio",
    "conmon",
    "kubelet",
    "kata",
    "hook",
    "buildkit",
    "nerdctl",
    "cni",
    "systemd",
    "kernel",
]
SYMPTOM_ONLY = "symptom-only"
TELLING = 24  # characters of a clause that was cut, by which it is still known
MOST_WRAPPERS = 200  # in one record; a text with more of them is no error message
# A match of an earlier tier makes those of later ones mere echoes. "word": a text that no other rule knows, which
# uses a word of one field only.
TIERS = ("cause", "generic", "symptom", "word")


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One clause of an error text, and what it means."""

    id: str
    says: list[str]  # templates; any of them
    cause: str
    because: str  # the fact that it rests on: source file and function, man page, kernel file
    variant: str | None = None
    also: list[str] = []  # further causes that the same text allows, likeliest first
    sides: list[Side] = []  # likeliest first; those of the cause where there are none
    tier: Literal["cause", "generic", "symptom", "word"] = "cause"
    layer: Layer = "runtime"  # who wrote the clause
    runtimes: list[str] = []
    versions: str | None = None
    stage: Stage | None = None
    unless: list[str] = []
    with_: list[str] = msgspec.field(default=[], name="with")
    happened: str | None = None  # a sentence with {fields} of the text
    check: list[str] = []  # commands for the node, with {fields}
    collect: list[str] = []  # symptom-only: where the cause may be found
    fix: str | None = None
    mistaken: str | None = None
    faults: list[str] = []


class Wrapper(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a layer puts before or after the text of the one below."""

    id: str
    says: list[str]
    layer: Layer
    because: str
    runtime: str | None = None
    stage: Stage | None = None
    after: bool = False  # it stands behind what it wraps: a class word, a hint
    hide: bool = False  # words of its own that look like a cause and are none: no rule sees them


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rule: list[Rule] = []
    wrapper: list[Wrapper] = []


class Hit(Struct, frozen=True):
    """A rule that holds for a reading, and where."""

    rule: Rule
    match: Match
    literal: int  # characters that had to be there: those of its template and of what it must stand with
    open_end: bool

    @property
    def order(self) -> tuple[int, int, int]:
        """Best first: the tier, then how specific the template is, then how far to the right."""
        return TIERS.index(self.rule.tier), -self.literal, -self.match.end

    @property
    def named(self) -> bool:
        """Whether the rule knows the clause, not only a word of it."""
        return self.rule.tier != "word"


class RuleBook:
    """All rules and wrappers, indexed by the literal text that each must find."""

    def __init__(self, rules: list[Rule], wrappers: list[Wrapper]) -> None:
        self.rules = rules
        self.wrappers = wrappers
        self._extra: dict[int, int] = {}
        self._conditions: dict[int, tuple[list[Template], list[Template]]] = {}
        for number, rule in enumerate(rules):
            if rule.unless or rule.with_:
                unless = [Template(each, f"{rule.id}: unless") for each in rule.unless]
                needed = [Template(each, f"{rule.id}: with") for each in rule.with_]
                self._conditions[number] = unless, needed
                self._extra[number] = sum(each.literal for each in needed)
        of_rules = [(Template(each, rule.id), number) for number, rule in enumerate(rules) for each in rule.says]
        of_wrappers = [(Template(each, wrapper.id), wrapper) for wrapper in wrappers for each in wrapper.says]
        openings = {(template.opening, number) for template, number in of_rules}
        self._openings = sorted(openings | {(template.opening, -1) for template, _ in of_wrappers})
        self._tiers = [TIERS.index(rule.tier) for rule in rules]
        self._index = Index[int | Wrapper]([*of_rules, *of_wrappers])

    def matches(self, reading: Reading) -> tuple[list[Hit], list[tuple[Wrapper, Match]]]:
        """The rules of the best tier that hold for a reading, best first, and every wrapper in it, from the left."""
        found = self._index.candidates(reading.hay)
        of_tiers: list[list[tuple[Template, int]]] = [[] for _ in TIERS]
        of_wrappers = []
        for template, purpose in found:
            if isinstance(purpose, int):
                of_tiers[self._tiers[purpose]].append((template, purpose))
            else:
                of_wrappers.append((template, purpose))
        seen = _hidden(reading, of_wrappers)
        hits: list[Hit] = []
        for candidates in of_tiers:
            if candidates and not hits:
                candidates.sort(
                    key=_most_literal
                )  # once the best of a rule's templates holds, its others are not asked
                hits = self._hits(reading, candidates, seen)
        return hits, _wrapped(reading, of_wrappers)

    def _hits(self, reading: Reading, candidates: list[tuple[Template, int]], hay: bytes) -> list[Hit]:
        """Of one rule's templates the best. `hay`: what rules may see of the reading."""
        text = reading.text
        found: dict[int, Hit] = {}
        for template, number in candidates:
            before = found.get(number)
            literal = template.literal + self._extra.get(number, 0)
            if before is not None and before.literal >= literal:
                continue
            match = template.find(text, hay)
            if match is not None and (before is not None or self._holds(number, text, reading.hay)):
                found[number] = Hit(self.rules[number], match, literal, template.open_end)
        return sorted(found.values(), key=lambda hit: hit.order)

    def cut_short(self, words: str) -> tuple[bool, Rule | None]:
        """Whether a rule or a wrapper begins with these words, so that what follows was cut off; and which rule.

        A rule only if there are many words, and all rules that begin so have one cause.
        """
        low = words.lower()
        place = bisect_left(self._openings, (low, -1))
        numbers = []
        while place < len(self._openings) and self._openings[place][0].startswith(low):
            numbers.append(self._openings[place][1])
            place += 1
        rules = [self.rules[number] for number in numbers if number >= 0]
        telling = len(low) >= TELLING and len({rule.cause for rule in rules}) == 1 and len(rules) == len(numbers)
        return bool(numbers), rules[0] if telling else None

    def _holds(self, number: int, text: str, hay: bytes) -> bool:
        unless, needed = self._conditions.get(number, ((), ()))
        return all(each.possible(hay) and each.find(text, hay) for each in needed) and not any(
            each.possible(hay) and each.find(text, hay) for each in unless
        )


def _most_literal(candidate: tuple[Template, int]) -> int:
    return -candidate[0].literal


def _hidden(reading: Reading, candidates: list[tuple[Template, Wrapper]]) -> bytes:
    """The text without what looks like a cause and is none, every other character in its place."""
    hay = reading.hay
    for template, wrapper in candidates:
        match = template.find(reading.text, hay) if wrapper.hide else None
        if match is not None:
            hay = hay[: match.start] + b" " * (match.end - match.start) + hay[match.end :]
    return hay


def _wrapped(reading: Reading, candidates: list[tuple[Template, Wrapper]]) -> list[tuple[Wrapper, Match]]:
    found: list[tuple[Wrapper, Match]] = []
    for template, wrapper in candidates:
        position = 0
        while len(found) < MOST_WRAPPERS and template.may_follow(reading.hay, position):
            match = template.find(reading.text, reading.hay, position)
            if match is None:
                break
            found.append((wrapper, match))
            position = match.end
    return sorted(found, key=lambda each: (each[1].start, -each[1].end))


def _check(rule: Rule, source: str) -> None:
    causes = load_causes()
    unknown = [slug for slug in (rule.cause, *rule.also) if slug not in causes]
    if unknown:
        raise InputError(f"{source}: rule {rule.id}: there is no cause {unknown[0]!r} in causes.toml")
    if (rule.cause == SYMPTOM_ONLY) != (rule.tier == "symptom"):
        raise InputError(f"{source}: rule {rule.id}: {SYMPTOM_ONLY} goes with tier symptom, and only with that")


def _files() -> Iterator[tuple[str, _File]]:
    folder = data_root() / "diagnosis"
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        if not file.name.endswith(".toml"):
            continue
        try:
            document: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: no rules can be read from it: {error}") from None
        yield file.name, convert(document, _File, file.name)


@cache
def load_rules() -> RuleBook:
    """Every rule and wrapper. Raises InputError: file, rule and what is wrong with it."""
    rules: dict[str, Rule] = {}
    wrappers: list[Wrapper] = []
    for source, content in _files():
        wrappers += content.wrapper
        for rule in content.rule:
            if rule.id in rules:
                raise InputError(f"{source}: rule {rule.id}: the name is taken")
            _check(rule, source)
            rules[rule.id] = rule
    return RuleBook(list(rules.values()), wrappers)
