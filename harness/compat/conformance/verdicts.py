"""How the cases came out: a verdict for each case and runtime, and the report of them all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field

from harness.runtime.discovery import Runtime

if TYPE_CHECKING:
    from harness.compat.conformance.claims import Claim

SCHEMA = "oci-harness/conformance/1"
Outcome = Literal["passes", "fails", "deviates", "no-longer-deviates", "skipped"]
UNEXPECTED: frozenset[Outcome] = frozenset({"fails", "no-longer-deviates"})


class Verdict(Struct, frozen=True):
    """How one case came out on one runtime. `deviates`: it fails, as deviations.toml says."""

    case: str
    runtime: str
    claim: Claim
    outcome: Outcome
    reason: str = ""  # one line; of all but `passes`
    text: str = ""  # of what failed: where, and what was compared
    seconds: float = 0.0
    documents: tuple[dict[str, Any], ...] = ()  # each config.json that was used; not in the JSON

    @property
    def as_expected(self) -> bool:
        return self.outcome not in UNEXPECTED

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "runtime": self.runtime,
            "section": self.claim.section,
            "sentence": self.claim.sentence,
            "fields": list(self.claim.fields),
            "outcome": self.outcome,
            "as_expected": self.as_expected,
            "reason": self.reason,
            "text": self.text,
            "seconds": round(self.seconds, 4),
        }


class Report(Struct):
    """All verdicts of one run, in the order in which they came."""

    spec: str  # release of the runtime-spec
    runtimes: list[Runtime]
    view: dict[str, Any]  # see ViewChoice.to_json
    verdicts: list[Verdict] = field(default_factory=list)
    seconds: float = 0.0

    def counts(self) -> dict[str, dict[Outcome, int]]:
        """{runtime: {outcome: how many}}, without what there is none of."""
        found: dict[str, dict[Outcome, int]] = {runtime.name: {} for runtime in self.runtimes}
        for verdict in self.verdicts:
            of = found[verdict.runtime]
            of[verdict.outcome] = of.get(verdict.outcome, 0) + 1
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "spec": self.spec,
            "kernel": os.uname().release,
            "view": self.view,
            "runtimes": [runtime.to_json() for runtime in self.runtimes],
            "summary": self.counts(),
            "seconds": round(self.seconds, 3),
            "cases": [verdict.to_json() for verdict in self.verdicts],
        }
