"""When a benchmark may end before its last planned round, without spoiling what its intervals promise.

The rule looks at the width of the intervals only, never at where they lie or at a verdict: stopping as soon as a
difference shows would find one sooner or later between equal things. A width tells nothing about the side on which
the estimate errs, so the interval still covers the truth as often as it says, given enough rounds to judge the width
by: FIRST_LOOK of them. Stopping by the clock takes no look at the times at all. scripts/check-statistics measures the
coverage under this rule. Source: Chow and Robbins, fixed-width sequential confidence intervals (1965).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from msgspec import Struct, field

from harness.bench.lifecycle import Sample
from harness.bench.pairing import rounds_of

FIRST_LOOK = 40  # rounds
NEXT_LOOK = 1.25  # times as many
STAGE = "whole_ns"


class StopRule(Struct):
    """`until_ci`: half width of the ratio's 95 % interval by the ratio (of each median with one runtime): 0.02."""

    names: list[str]
    until_ci: float | None = None
    max_time_s: float | None = None
    started: float = field(default_factory=time.monotonic)
    reason: str | None = None
    _next: int = FIRST_LOOK

    def ends(self, samples: Sequence[Sample], rounds: int) -> bool:
        """Asked before each round, with the number of rounds done; `reason` says why it ends."""
        if self.max_time_s is not None and time.monotonic() - self.started >= self.max_time_s:
            self.reason = "max-time"
        elif self.until_ci is not None and rounds >= self._next:
            self._next = int(rounds * NEXT_LOOK)
            if widest(self.names, samples) <= self.until_ci:
                self.reason = "until-ci"
        return self.reason is not None


def widest(names: list[str], samples: Sequence[Sample]) -> float:
    """The widest relative half width over all pairs of runtimes; infinite while one cannot be compared."""
    from harness.bench.statistics import compare, summarize

    found = [0.0]
    if len(names) == 1:
        values = [value for sample in samples if (value := sample.value(STAGE)) is not None and not sample.error]
        if len(values) < FIRST_LOOK // 2:
            return float("inf")
        summary = summarize(values)
        return (summary.ci95_ns[1] - summary.ci95_ns[0]) / 2 / summary.median_ns
    for a, b in itertools.combinations(names, 2):
        pairs, a_first = rounds_of(samples, a, b, STAGE)
        if len(pairs) < FIRST_LOOK // 2:
            return float("inf")
        compared = compare(a, b, STAGE, pairs, a_first=a_first)
        found.append((compared.ci95[1] - compared.ci95[0]) / 2 / compared.ratio)
    return max(found)
