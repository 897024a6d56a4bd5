"""Medians, bootstrap intervals, permutation tests, robust regression, verdicts. The only importer of numpy.

The ratio of two runtimes rests on the logarithms of the ratios within each round, for what slows a round slows both.
A single start varies by a third and has a long tail, so their centre is a 20 % trimmed mean. Who runs first in a round
matters too (a neighbour's clean-up goes on while the next one starts), so the rounds in which a ran first and those in
which b did are brought to their common centre before the spread is judged. The order of a round is drawn by lot, which
turns drift and autocorrelation of the machine into a difference of random sign: rounds may be resampled as if they
were independent. scripts/check-statistics measures how often the intervals cover the truth.

Source: Wilcox, Introduction to Robust Estimation and Hypothesis Testing (trimmed means); Hesterberg, What Teachers
Should Know About the Bootstrap (widening for small samples).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from harness.bench.figures import Comparison, Summary, Verdict

RESAMPLES = 2000
MANY = 2000  # values; from here on the limits of the bootstrap and of the permutation test are computed, not drawn
AT_ONCE = 2_000_000  # numbers held in memory at a time
TRIM = 0.2
FEWEST = 6  # rounds; with fewer even the same winner in each has a chance of more than 5 %
FEWEST_OF_AN_ORDER = 4  # rounds in which a given side ran first, to tell what running first is worth
Z = NormalDist().inv_cdf
POWER = 1 + Z(0.80) / Z(0.975)  # detectable difference by half width of the 95 % interval
MAD_TO_SIGMA = 1.4826  # of a normal distribution
Values = npt.NDArray[np.float64]


def _percentiles(values: Values) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _resampled(values: Values, statistic: str, seed: int) -> Values:
    """RESAMPLES values of the median or the trimmed mean of samples drawn with replacement.

    Of many values none is drawn: the median of a resample is an order statistic whose rank is a beta variate (David and
    Nagaraja, Order Statistics, 2.1), and a trimmed mean is normal with the winsorized standard error (Wilcox, 3.3.2).
    """
    draw = np.random.default_rng(seed)
    size = values.size
    if size >= MANY and statistic == "median":
        rank = draw.beta((size + 1) / 2, (size + 1) / 2, size=RESAMPLES)
        return np.asarray(np.sort(values)[np.minimum((rank * size).astype(np.int64), size - 1)])
    if size >= MANY:
        return np.asarray(_trimmed(values) + _standard_error(values) * draw.standard_normal(RESAMPLES))
    rows = max(1, min(RESAMPLES, AT_ONCE // size))
    of = _trimmed if statistic == "trimmed" else lambda many: np.asarray(np.median(many, axis=-1))
    found = []
    for start in range(0, RESAMPLES, rows):
        count = min(rows, RESAMPLES - start)
        found.append(of(values[draw.integers(0, size, size=(count, size))]))
    return np.concatenate(found)


def _trimmed(values: Values) -> Values:
    """Mean of the middle 60 % along the last axis."""
    cut = int(TRIM * values.shape[-1])
    ordered = np.sort(values, axis=-1)
    return np.asarray(ordered[..., cut : values.shape[-1] - cut].mean(axis=-1))


def _standard_error(values: Values) -> float:
    """Of the trimmed mean: the standard deviation with the tails pulled in to the cuts, over 1 - 2 TRIM and root n."""
    cut = int(TRIM * values.size)
    ordered = np.sort(values)
    ordered[:cut], ordered[values.size - cut :] = ordered[cut], ordered[values.size - cut - 1]
    return float(ordered.std(ddof=1)) / ((1 - 2 * TRIM) * math.sqrt(values.size))


def _two_sided(z: float) -> float:
    """A normal test's p-value, never smaller than that of as many permutations."""
    return max(math.erfc(abs(z) / math.sqrt(2)), 1 / (1 + RESAMPLES))


def _t_quantile(degrees: float) -> float:
    """The 97.5 % point of Student's t (Abramowitz and Stegun 26.7.5); good to 1 % from 4 degrees of freedom on."""
    z, v = Z(0.975), max(degrees, 3.0)
    terms = (
        (z**3 + z) / 4 / v,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96 / v**2,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / v**3,
    )
    return z + sum(terms)


def _widening(n: int, fitted: int) -> float:
    """By how much a percentile interval of `n` values with `fitted` estimated centres is too narrow."""
    left = max(n - fitted, 2)
    return _t_quantile(left) / Z(0.975) * math.sqrt(n / left)


def _widened(low: float, middle: float, high: float, factor: float) -> tuple[float, float]:
    return middle - (middle - low) * factor, middle + (high - middle) * factor


def together(interval: tuple[float, float], middle: float, judged: int) -> tuple[float, float]:
    """A 95 % interval, made as wide as it takes for `judged` of them to hold at once (Bonferroni)."""
    return _widened(interval[0], middle, interval[1], Z(1 - 0.025 / judged) / Z(0.975))


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
        ci95_ns=_percentiles(_resampled(values, "median", seed)),
        min_ns=float(values.min()),
        max_ns=float(values.max()),
        mean_ns=float(values.mean()),
        stddev_ns=float(values.std(ddof=1)) if values.size > 1 else 0.0,
    )


def _logs(values: list[int]) -> Values:
    """Natural logarithms; a time below 1 ns, the clock's own step, counts as 1 ns."""
    return np.asarray(np.log(np.maximum(np.asarray(values, dtype=np.float64), 1.0)))


def _centred(logs: Values, a_first: list[bool] | None) -> tuple[Values, int]:
    """Rounds of either order at their common centre, and how many centres were fitted for it."""
    if a_first is None:
        return logs, 1
    first = np.asarray(a_first, dtype=bool)
    if min(first.sum(), (~first).sum()) < FEWEST_OF_AN_ORDER:
        return logs, 1
    half = (_trimmed(logs[first]) - _trimmed(logs[~first])) / 2
    return np.where(first, logs - half, logs + half), 2


def _p_value(logs: Values, seed: int) -> float:
    """Share of random swaps of a and b within rounds whose signed ranks lean at least as far, the real one counted.

    That is Wilcoxon's signed-rank test by permutation: with few rounds it can still tell, where a trimmed mean cannot.
    """
    size = np.abs(logs)
    ordered = np.sort(size)
    ranks = (np.searchsorted(ordered, size, "left") + np.searchsorted(ordered, size, "right") + 1) / 2
    ranks[size < 1e-12] = 0  # equal times say nothing
    real = abs(float(np.sign(logs) @ ranks))
    if logs.size >= MANY:
        return _two_sided(real / max(math.sqrt(float(ranks @ ranks)), 1e-300))
    draw = np.random.default_rng(seed)
    rows = max(1, min(RESAMPLES, AT_ONCE // logs.size))
    as_far = 0
    for start in range(0, RESAMPLES, rows):
        signs = draw.integers(0, 2, size=(min(rows, RESAMPLES - start), logs.size)) * 2 - 1
        as_far += int((np.abs(signs @ ranks) >= real - 1e-9).sum())
    return (1 + as_far) / (1 + RESAMPLES)


def _verdict(n: int, low: float, high: float, p_value: float) -> Verdict:
    if n < FEWEST or p_value >= 0.05:
        return "no-detectable-difference"
    if high < 1:
        return "b-faster"
    return "a-faster" if low > 1 else "no-detectable-difference"


def _detectable(n: int, low: float, high: float) -> float | None:
    return math.expm1((math.log(high) - math.log(low)) / 2 * POWER) if n >= FEWEST else None


def compare(
    a: str,
    b: str,
    stage: str,
    pairs: list[tuple[int, int]],
    seed: int = 0,
    a_first: list[bool] | None = None,
) -> Comparison:
    """The ratio b / a over rounds, (a, b) times each; `a_first`: in which of them a ran before b.

    The verdict is a difference only if the 95 % interval of the ratio leaves out 1 and the permutation test agrees.
    Raises ValueError for no pairs.
    """
    if not pairs:
        raise ValueError("no rounds to compare")
    n = len(pairs)
    left, right = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    logs, fitted = _centred(_logs(right) - _logs(left), a_first)
    middle = float(_trimmed(logs))
    low, high = _widened(*_around(_resampled(logs, "trimmed", seed), middle), _widening(n, fitted))
    p_value = _p_value(logs, seed)
    wins = sum((y < x) + 0.5 * (y == x) for x, y in pairs) / n
    bounds = math.exp(low), math.exp(high)
    return Comparison(
        a, b, stage, n, math.exp(middle), bounds, _verdict(n, *bounds, p_value), p_value, wins, _detectable(n, *bounds)
    )


def _around(resampled: Values, middle: float) -> tuple[float, float, float]:
    low, high = _percentiles(resampled)
    return min(low, middle), middle, max(high, middle)


def compare_independent(a: str, b: str, stage: str, left: list[int], right: list[int], seed: int = 0) -> Comparison:
    """As `compare`, for samples that no round ties together: two results, two points of a sweep.

    A drift of the machine between the two is part of the difference. Raises ValueError when a side has no values.
    """
    if not left or not right:
        raise ValueError("no values to compare")
    x, y = _logs(left), _logs(right)
    n = min(x.size, y.size)
    middle = float(_trimmed(y) - _trimmed(x))
    low, high = _around(_resampled(y, "trimmed", seed) - _resampled(x, "trimmed", seed + 1), middle)[::2]
    low, high = _widened(low, middle, high, _widening(n, 1))
    bounds = math.exp(low), math.exp(high)
    p_value = _p_value_independent(x, y, middle, seed + 2)
    ordered = np.sort(x)
    below = np.searchsorted(ordered, y, "left").sum()
    ties = np.searchsorted(ordered, y, "right").sum() - below
    wins = 1 - float(below + ties / 2) / (x.size * y.size)
    return Comparison(
        a, b, stage, n, math.exp(middle), bounds, _verdict(n, *bounds, p_value), p_value, wins, _detectable(n, *bounds)
    )


def _p_value_independent(x: Values, y: Values, middle: float, seed: int) -> float:
    """Share of random divisions of all values whose trimmed means differ as much; of many values Yuen's test."""
    if min(x.size, y.size) >= MANY:
        return _two_sided(middle / max(math.hypot(_standard_error(x), _standard_error(y)), 1e-300))
    both = np.concatenate([x, y])
    draw = np.random.default_rng(seed)
    shuffled = (draw.permutation(both) for _ in range(RESAMPLES // 2))
    as_far = sum(abs(_trimmed(each[x.size :]) - _trimmed(each[: x.size])) >= abs(middle) - 1e-12 for each in shuffled)
    return (1 + int(as_far)) / (1 + RESAMPLES // 2)


def unusual(values: list[float]) -> list[float]:
    """How far each value is from their median, in robust standard deviations; 0 for all where most are equal."""
    array = np.asarray(values, dtype=np.float64)
    distance = array - np.median(array)
    spread = float(np.median(np.abs(distance))) * MAD_TO_SIGMA
    return [float(each) for each in distance / spread] if spread > 0 else [0.0] * array.size


HUBER = 1.345  # of a standard deviation: 95 % as good as least squares where there are no outliers (Huber 1981)
STEPS = 30


def _fit(design: Values, times: Values, start: Values | None = None, steps: int = STEPS) -> Values:
    """Huber's regression by iterated reweighting; a tiny ridge keeps a part that was always there from being loose."""
    ridge = np.eye(design.shape[1]) * 1e-6 * len(times)
    found = start if start is not None else np.linalg.solve(design.T @ design + ridge, design.T @ times)
    for _ in range(steps):
        rest = times - design @ found
        scale = max(float(np.median(np.abs(rest))) * MAD_TO_SIGMA, 1e-9)
        weights = np.minimum(1.0, HUBER * scale / np.maximum(np.abs(rest), 1e-12))
        weighted = design.T * weights
        better = np.linalg.solve(weighted @ design + ridge, weighted @ times)
        done = bool(np.max(np.abs(better - found)) < 1e-6 * max(scale, 1e-9))
        found = better
        if done:
            break
    return np.asarray(found)


def marginal(
    rows: list[list[float]], times_ns: list[int], seed: int = 0, resamples: int = 400
) -> tuple[list[float], list[tuple[float, float]], float]:
    """What each column of `rows` adds to a time, all others being equal.

    -> (a coefficient for each column, their 95 % bootstrap intervals over whole rows, robust residual spread in ns).
    """
    design, times = np.asarray(rows, dtype=np.float64), np.asarray(times_ns, dtype=np.float64)
    found = _fit(design, times)
    draw = np.random.default_rng(seed)
    n = len(times)
    resampled = []
    for _ in range(resamples):
        index = draw.integers(0, n, n)
        resampled.append(_fit(design[index], times[index], found, steps=4))
    bounds = np.percentile(np.asarray(resampled), (2.5, 97.5), axis=0)
    factor = _widening(n, design.shape[1]) if n > design.shape[1] + 2 else float("inf")
    intervals = [
        _widened(min(float(low), float(value)), float(value), max(float(high), float(value)), factor)
        for value, low, high in zip(found, *bounds, strict=True)
    ]
    residual = float(np.median(np.abs(times - design @ found))) * MAD_TO_SIGMA
    return [float(value) for value in found], intervals, residual
