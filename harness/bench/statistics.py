"""Medians, percentiles, bootstrap intervals and verdicts. The only importer of numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Verdict = Literal["a-faster", "b-faster", "no-detectable-difference"]

RESAMPLES = 4000
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Summary:
    """One stage of one runtime; nanoseconds."""

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
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"ci95_ns": list(self.ci95_ns)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runtimes at one stage: ratio = median of b / median of a, so below 1 b is the faster one."""

    a: str
    b: str
    stage: str
    n: int
    ratio: float
    ci95: tuple[float, float]
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"ci95": list(self.ci95)}


def _interval(values: Values) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _draws(n: int, seed: int) -> npt.NDArray[np.int64]:
    """Row after row of n indexes drawn with replacement."""
    return np.random.default_rng(seed).integers(0, n, size=(RESAMPLES, n))


def _resampled_medians(values: Values, seed: int) -> Values:
    if values.size <= 2000:
        return np.asarray(np.median(values[_draws(values.size, seed)], axis=1))
    draw = np.random.default_rng(seed)  # one row at a time: RESAMPLES x n would not fit into memory
    return np.array([np.median(values[draw.integers(0, values.size, values.size)]) for _ in range(RESAMPLES)])


def summarize(values_ns: list[int], seed: int = 0) -> Summary:
    """Percentiles, and a percentile-bootstrap 95 % interval of the median. Raises ValueError for no values."""
    if not values_ns:
        raise ValueError("no values to summarize")
    values = np.asarray(values_ns, dtype=np.float64)
    median, p95, p99 = np.percentile(values, (50, 95, 99))
    return Summary(
        n=int(values.size),
        median_ns=float(median),
        p95_ns=float(p95),
        p99_ns=float(p99),
        ci95_ns=_interval(_resampled_medians(values, seed)),
        min_ns=float(values.min()),
        max_ns=float(values.max()),
        mean_ns=float(values.mean()),
        stddev_ns=float(values.std(ddof=1)) if values.size > 1 else 0.0,
    )


def _ratio(left: Values, right: Values) -> Values:
    """Median of right by median of left, along the last axis; one below 1 ns, the clock's own step, counts as 1 ns."""
    return np.asarray(np.maximum(np.median(right, axis=-1), 1.0) / np.maximum(np.median(left, axis=-1), 1.0))


def compare(a: str, b: str, stage: str, pairs: list[tuple[int, int]], seed: int = 0) -> Comparison:
    """Ratio of medians over rounds that have both, by resampling whole rounds: what slowed a round slowed both.

    The verdict is a difference only if the 95 % interval of the ratio leaves out 1. Raises ValueError for no pairs.
    """
    if not pairs:
        raise ValueError("no rounds to compare")
    left, right = np.asarray(pairs, dtype=np.float64).T
    ratio = float(_ratio(left, right))
    if left.size <= 2000:
        index = _draws(left.size, seed)
        ratios = _ratio(left[index], right[index])
    else:  # one row at a time, as above
        draw = np.random.default_rng(seed)
        rows = (draw.integers(0, left.size, left.size) for _ in range(RESAMPLES // 4))
        ratios = np.array([_ratio(left[index], right[index]) for index in rows])
    low, high = _interval(ratios)
    verdict: Verdict = "no-detectable-difference"
    if len(pairs) >= 5:  # fewer rounds cannot show anything at 95 %
        if high < 1:
            verdict = "b-faster"
        elif low > 1:
            verdict = "a-faster"
    return Comparison(a, b, stage, len(pairs), ratio, (low, high), verdict)
