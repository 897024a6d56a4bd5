"""What differs between two behaviours, without what differs for every config: the background of two runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from harness.compat.differential.trial import Behaviour
from harness.diagnosis.rules import SYMPTOM_ONLY

Pair = tuple[str | None, str | None]
OUTCOME: Final = "outcome"
CAUSE: Final = "cause"
LEFT: Final = "left behind"
_MOUNT_PARTS: Final = frozenset({"options", "propagation", "data", "(order)"})
_ENDED: Final = "process exit status"


class Difference(Struct, frozen=True):
    """`aspect`: outcome, cause, left behind, or the kind of the facts that differ; `facts`: {fact: (of a, of b)}."""

    aspect: str
    facts: dict[str, Pair]

    @property
    def kind(self) -> str:
        """What makes it another difference at the same field: the two outcomes or causes, or the parts of a mount."""
        if self.aspect in (OUTCOME, CAUSE, LEFT):
            return " | ".join(f"{a} {b}" for a, b in self.facts.values())
        parts = {name.rpartition(" ")[2] for name in self.facts} & _MOUNT_PARTS
        return " ".join(sorted(parts)) if self.aspect == "mount" else ""

    def same(self, other: Difference) -> bool:
        """Whether the two runtimes differ in the same aspect in the same way."""
        return self.aspect == other.aspect and not self.facts.items().isdisjoint(other.facts.items())


def compare(a: Behaviour, b: Behaviour, background: Mapping[str, Pair], *, whole: bool = True) -> list[Difference]:
    """`background`: facts that differ for the sound config. `whole`: both runtimes show all facts, so a fact that only
    one has is a difference too."""
    found = []
    if a.word != b.word:
        found.append(Difference(OUTCOME, {OUTCOME: (a.word, b.word)}))
    elif a.outcome.stage is not None:
        causes = a.outcome.cause, b.outcome.cause
        if not {None, SYMPTOM_ONLY} & {*causes} and causes[0] != causes[1]:  # what has no name may be the same
            found.append(Difference(CAUSE, {CAUSE: causes}))
    else:
        found += _facts(a.facts, b.facts, background, whole)
    if a.leaks != b.leaks:
        found.append(Difference(LEFT, {LEFT: (", ".join(a.leaks) or "nothing", ", ".join(b.leaks) or "nothing")}))
    return found


def _facts(a: Mapping[str, str], b: Mapping[str, str], background: Mapping[str, Pair], whole: bool) -> list[Difference]:
    if (_ENDED in a) != (_ENDED in b):  # one program runs on: there is nothing else to compare
        names = [_ENDED]
    else:
        names = sorted(a.keys() | b.keys() if whole else a.keys() & b.keys())
    found: dict[str, dict[str, Pair]] = {}
    for name in names:
        pair = a.get(name), b.get(name)
        if pair[0] == pair[1] or background.get(name) == pair:
            continue
        if name.endswith("(order)") and name in background:  # it differs anyway, and shifts with every element
            continue
        found.setdefault(name.partition(" ")[0], {})[name] = pair
    return [Difference(aspect, facts) for aspect, facts in found.items()]


def background_of(a: Behaviour, b: Behaviour, *, whole: bool = True) -> dict[str, Pair]:
    """The facts that differ between the two for a sound config."""
    return {name: pair for each in compare(a, b, {}, whole=whole) for name, pair in each.facts.items()}
