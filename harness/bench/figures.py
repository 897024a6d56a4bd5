"""The figures of a benchmark as plain values: what `bench` writes to JSON, what other modules print and plot.

Needs no numpy; harness/bench/statistics.py computes them. Times are nanoseconds, ratios are b / a, so that below 1
b is the faster one.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field
from msgspec.structs import asdict

Verdict = Literal["a-faster", "b-faster", "no-detectable-difference"]


class Summary(Struct, frozen=True):
    """One stage of one runtime."""

    n: int
    median_ns: float
    p95_ns: float
    p99_ns: float
    ci95_ns: tuple[float, float]  # of the median
    min_ns: float
    max_ns: float
    mean_ns: float
    stddev_ns: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ci95_ns": list(self.ci95_ns)}


class Comparison(Struct, frozen=True):
    """Two runtimes (or one at two times) at one stage."""

    a: str
    b: str
    stage: str
    n: int  # rounds that both have; of the smaller side where samples are not paired
    ratio: float  # typical b / a: e to the 20 % trimmed mean of the rounds' log ratios
    ci95: tuple[float, float]
    verdict: Verdict
    p_value: float  # of "a and b are the same", by a permutation test
    # share of rounds in which b was faster, ties half: 0.5 is no effect, 1 is always
    b_faster_share: float
    # smallest difference (0.03 is 3 %) that this many rounds of this noise would show in 80 of 100 runs, at 95 %;
    # None: too few rounds to tell
    minimum_detectable: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ci95": list(self.ci95)}


class CarryOver(Struct, frozen=True):
    """What a runtime costs right after another one, against right after itself: `ratio` above 1 is slower."""

    runtime: str
    after: str
    stage: str
    n: int  # samples after the other one
    n_itself: int
    ratio: float
    ci95: tuple[float, float]

    @property
    def found(self) -> bool:
        return not self.ci95[0] <= 1 <= self.ci95[1]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ci95": list(self.ci95)}


class Difference(Struct, frozen=True):
    """One thing that was recorded beside an outlier and was not as usual."""

    what: str  # other_cpu_ns, major_faults, create_ns, ...
    value: float
    usual: float  # median over the runtime's samples

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Outlier(Struct, frozen=True):
    """A sample far from its runtime's others. It is kept in every figure; this says what was different then."""

    runtime: str
    order: int
    whole_ns: int
    times_usual: float
    different: tuple[Difference, ...] = ()  # the most unusual first; none: nothing that is recorded was unusual

    def to_json(self) -> dict[str, Any]:
        return {
            "runtime": self.runtime,
            "order": self.order,
            "whole_ns": self.whole_ns,
            "times_usual": self.times_usual,
            "different": [each.to_json() for each in self.different],
        }


class Cost(Struct, frozen=True):
    """What one part of config.json costs a runtime, all else being equal."""

    part: str
    cost_ns: float  # create, start and delete together
    ci95_ns: tuple[float, float]
    ci95_together_ns: tuple[float, float]  # wider: those of all parts hold the truth in 95 of 100 runs (Bonferroni)
    stages: dict[str, float] = field(default_factory=dict)  # {create_ns: ..., start_ns: ..., delete_ns: ...}
    n_with: int = 0
    n_without: int = 0

    @property
    def found(self) -> bool:
        """Whether the cost can be told from none, with as many parts as there are."""
        return not self.ci95_together_ns[0] <= 0 <= self.ci95_together_ns[1]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ci95_ns": list(self.ci95_ns), "ci95_together_ns": list(self.ci95_together_ns)}
