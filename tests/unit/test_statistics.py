"""Summaries, intervals and verdicts."""

from __future__ import annotations

import json
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.bench.statistics import compare, summarize

TIMES = st.integers(1, 10**12)
SLOW = settings(max_examples=25, deadline=None)


def noisy(median: float, n: int, seed: int, spread: float = 0.05) -> list[int]:
    draw = random.Random(seed)
    return [int(median * draw.lognormvariate(0, spread)) for _ in range(n)]


@SLOW
@given(st.lists(TIMES, min_size=1, max_size=80), st.integers(0, 5))
def test_summary_is_in_order(values: list[int], seed: int) -> None:
    """min <= median <= p95 <= p99 <= max, the median is the median, and its interval contains it."""
    found = summarize(values, seed)
    assert found.n == len(values)
    assert found.median_ns == pytest.approx(statistics.median(values))
    assert found.min_ns == min(values) <= found.median_ns <= found.p95_ns <= found.p99_ns <= max(values) == found.max_ns
    low, high = found.ci95_ns
    assert found.min_ns <= low <= found.median_ns <= high <= found.max_ns
    assert found.mean_ns == pytest.approx(statistics.fmean(values))
    assert found.stddev_ns == pytest.approx(statistics.stdev(values) if len(values) > 1 else 0.0, abs=1e-3)


def test_known_values() -> None:
    """Percentiles of 1 to 100 are the ones of the textbook (linear between the neighbours)."""
    found = summarize(list(range(1, 101)))
    assert (found.median_ns, found.p95_ns, found.p99_ns) == pytest.approx((50.5, 95.05, 99.01))


def test_one_value() -> None:
    """One value is its own summary, without a spread."""
    found = summarize([7])
    assert (found.n, found.median_ns, found.p99_ns, found.ci95_ns, found.stddev_ns) == (1, 7, 7, (7, 7), 0)


def test_nothing() -> None:
    """No values and no rounds are errors, not zeros."""
    with pytest.raises(ValueError, match="no values"):
        summarize([])
    with pytest.raises(ValueError, match="no rounds"):
        compare("a", "b", "create_ns", [])


def test_more_samples_narrow_the_interval() -> None:
    """The interval shrinks with more samples, also beyond the size that is resampled at once."""
    widths = []
    for n in (10, 100, 2500):
        low, high = summarize(noisy(10**7, n, 1)).ci95_ns
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]


def test_interval_covers_the_truth() -> None:
    """In about 95 of 100 experiments the interval has the true median in it."""
    hits = 0
    for seed in range(60):
        low, high = summarize(noisy(10**7, 40, seed)).ci95_ns
        hits += low <= 10**7 <= high
    assert hits >= 51


@SLOW
@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=60))
def test_identical(values: list[int]) -> None:
    """The same times twice are a ratio of 1 and no difference, zeros included."""
    found = compare("a", "b", "exit_ns", [(value, value) for value in values])
    assert (found.ratio, found.ci95, found.verdict) == (1.0, (1.0, 1.0), "no-detectable-difference")
    assert (found.a, found.b, found.stage, found.n) == ("a", "b", "exit_ns", len(values))


@SLOW
@given(st.lists(st.tuples(st.integers(0, 10**10), st.integers(0, 10**10)), min_size=1, max_size=30))
def test_any_pairs(pairs: list[tuple[int, int]]) -> None:
    """Whatever the times are, zeros too, the figures are numbers that JSON has."""
    found = compare("a", "b", "exit_ns", pairs)
    low, high = found.ci95
    assert 0 <= low <= high < float("inf")
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["ci95"] == [low, high]


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_clear_difference(factor: float, seed: int) -> None:
    """A clear difference is told with its direction, the ratio is b to a, and swapped sides give the mirror image."""
    left, right = noisy(10**7, 40, seed), noisy(10**7 * factor, 40, seed + 100)
    found = compare("a", "b", "create_ns", list(zip(left, right, strict=True)))
    assert found.ratio == pytest.approx(factor, rel=0.1)
    assert found.verdict == ("b-faster" if factor < 1 else "a-faster")
    low, high = found.ci95
    assert low <= factor <= high
    assert not low <= 1 <= high
    mirrored = compare("b", "a", "create_ns", list(zip(right, left, strict=True)))
    assert mirrored.verdict == ("a-faster" if factor < 1 else "b-faster")
    assert mirrored.ratio == pytest.approx(1 / found.ratio)


def test_no_difference_is_seldom_seen() -> None:
    """Two runs of the same thing are told apart in few of many experiments."""
    false_alarms = 0
    for seed in range(60):
        pairs = list(zip(noisy(10**7, 30, seed), noisy(10**7, 30, seed + 1000), strict=True))
        false_alarms += compare("a", "b", "create_ns", pairs).verdict != "no-detectable-difference"
    assert false_alarms <= 7


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_few_rounds(n: int) -> None:
    """Fewer than five rounds never show a difference, however large it looks."""
    found = compare("a", "b", "create_ns", [(10**6, 10**8)] * n)
    assert found.verdict == ("no-detectable-difference" if n < 5 else "a-faster")
    assert found.ratio == 100


def test_slow_rounds_hit_both() -> None:
    """What slows whole rounds, both sides alike, does not hide a small steady difference."""
    draw = random.Random(3)
    weather = [draw.choice([1, 5, 20]) for _ in range(60)]
    pairs = [(10**6 * w, int(1.1 * 10**6 * w)) for w in weather]
    found = compare("a", "b", "create_ns", pairs)
    assert found.verdict == "a-faster"
    assert found.ratio == pytest.approx(1.1)


@SLOW
@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)), min_size=5, max_size=30),
    st.sampled_from([2, 7, 1000]),
)
def test_scale_does_not_matter(pairs: list[tuple[int, int]], factor: int) -> None:
    """Times in another unit give the same ratio, interval and verdict; a summary scales along."""
    one = compare("a", "b", "s", pairs)
    other = compare("a", "b", "s", [(left * factor, right * factor) for left, right in pairs])
    assert other.ratio == pytest.approx(one.ratio)
    assert other.ci95 == pytest.approx(one.ci95)
    if not any(abs(bound - 1) < 1e-9 for bound in one.ci95):
        assert other.verdict == one.verdict
    values = [left for left, _ in pairs]
    small, large = summarize(values), summarize([value * factor for value in values])
    assert large.ci95_ns == pytest.approx(tuple(bound * factor for bound in small.ci95_ns))


def test_seed() -> None:
    """The same seed gives the same figures, another one nearly the same."""
    values = noisy(10**7, 50, 1)
    assert summarize(values, 4) == summarize(values, 4)
    assert summarize(values, 5).ci95_ns == pytest.approx(summarize(values, 4).ci95_ns, rel=0.02)


def test_json() -> None:
    """The JSON forms have the contract's fields, in plain types."""
    summary = json.loads(json.dumps(summarize([1, 2, 3]).to_json(), allow_nan=False))
    assert {"n", "median_ns", "p95_ns", "p99_ns", "ci95_ns"} <= set(summary)
    assert isinstance(summary["ci95_ns"], list)
    comparison = json.loads(json.dumps(compare("a", "b", "create_ns", [(1, 2)] * 6).to_json(), allow_nan=False))
    assert {"a", "b", "stage", "ratio", "ci95", "verdict"} <= set(comparison)
    assert comparison["ci95"] == [2.0, 2.0]
