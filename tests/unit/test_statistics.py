"""Summaries, intervals and verdicts."""

from __future__ import annotations

import json
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.bench.statistics import compare, compare_independent, marginal, summarize, unusual

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
    assert (found.p_value, found.b_faster_share) == (1.0, 0.5)
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


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_few_rounds(n: int) -> None:
    """Fewer than six rounds never show a difference, however large it looks, and none that they could have shown."""
    found = compare("a", "b", "create_ns", [(10**6, 10**8)] * n)
    assert found.verdict == ("no-detectable-difference" if n < 6 else "a-faster")
    assert found.ratio == pytest.approx(100)
    assert (found.minimum_detectable is None) == (n < 6)


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
    assert comparison["ci95"] == pytest.approx([2.0, 2.0])


def test_who_ran_first_is_taken_out() -> None:
    """A steady price of running second does not hide a difference between the two, nor widen its interval."""
    draw = random.Random(5)
    first = [index % 2 == 0 for index in range(60)]
    pairs = []
    for a_first in first:
        a, b = 1e7 * draw.lognormvariate(0, 0.03), 1.04e7 * draw.lognormvariate(0, 0.03)
        pairs.append((int(a * (1 if a_first else 1.5)), int(b * (1.5 if a_first else 1))))
    blind, told = (compare("a", "b", "s", pairs, a_first=known) for known in (None, first))
    assert blind.verdict == "no-detectable-difference"
    assert told.verdict == "a-faster"
    assert told.ratio == pytest.approx(1.04, abs=0.02)
    assert told.ci95[1] - told.ci95[0] < (blind.ci95[1] - blind.ci95[0]) / 4


def test_wild_times_do_not_matter() -> None:
    """One time in ten that is a hundred times too long moves neither the ratio nor the verdict."""
    draw = random.Random(6)
    pairs = list(zip(noisy(10**7, 100, 1), noisy(1.1e7, 100, 2), strict=True))
    wild = [(left * 100, right) if draw.random() < 0.1 else (left, right) for left, right in pairs]
    calm, found = compare("a", "b", "s", pairs), compare("a", "b", "s", wild)
    assert found.ratio == pytest.approx(calm.ratio, rel=0.02)
    assert found.verdict == calm.verdict == "a-faster"


def test_minimum_detectable() -> None:
    """A true difference as large as the smallest detectable one is found in about four of five runs of that noise."""
    least = compare("a", "b", "s", list(zip(noisy(10**7, 60, 1), noisy(10**7, 60, 2), strict=True))).minimum_detectable
    assert least is not None
    assert 0.01 < least < 0.06
    found = 0
    for seed in range(60):
        left, right = noisy(10**7, 60, seed), noisy(10**7 * (1 + least), 60, seed + 500)
        found += compare("a", "b", "s", list(zip(left, right, strict=True))).verdict == "a-faster"
    assert 38 <= found <= 57


def test_p_value_and_effect() -> None:
    """A clear difference has a small p-value and a share of wins near 1; the same thing twice neither."""
    clear = compare("a", "b", "s", list(zip(noisy(10**7, 40, 1), noisy(8 * 10**6, 40, 2), strict=True)))
    assert clear.p_value < 0.001
    assert clear.b_faster_share > 0.95
    same = compare("a", "b", "s", list(zip(noisy(10**7, 40, 3), noisy(10**7, 40, 4), strict=True)))
    assert same.p_value > 0.05
    assert 0.3 < same.b_faster_share < 0.7


def test_independent_samples() -> None:
    """Samples that no round ties together: a clear difference is found, sizes may differ, swapped sides mirror it."""
    left, right = noisy(10**7, 50, 1), noisy(1.3e7, 30, 2)
    found, mirrored = compare_independent("a", "b", "s", left, right), compare_independent("b", "a", "s", right, left)
    assert found.ratio == pytest.approx(1.3, rel=0.05)
    assert found.ci95[0] < found.ratio < found.ci95[1]
    assert (found.verdict, found.n) == ("a-faster", 30)
    assert mirrored.verdict == "a-faster".replace("a-", "b-")
    assert mirrored.ratio == pytest.approx(1 / found.ratio)
    assert found.b_faster_share == pytest.approx(1 - mirrored.b_faster_share)
    assert compare_independent("a", "b", "s", left, left).verdict == "no-detectable-difference"
    with pytest.raises(ValueError, match="no values"):
        compare_independent("a", "b", "s", left, [])


def test_independent_intervals_cover_the_truth() -> None:
    """In about 95 of 100 experiments with sides of unequal size the interval has the true ratio in it."""
    hits = 0
    for seed in range(60):
        found = compare_independent("a", "b", "s", noisy(10**7, 30, seed, 0.2), noisy(10**7, 45, seed + 900, 0.2))
        hits += found.ci95[0] <= 1 <= found.ci95[1]
    assert hits >= 52


def test_marginal_costs() -> None:
    """The regression finds what each of several parts adds, through outliers, and tells a part that adds nothing."""
    draw = random.Random(8)
    costs = [10e6, 3e6, 0.0, -1e6]
    rows, times = [], []
    for _ in range(300):
        row = [1.0, *(float(draw.random() < 0.5) for _ in costs[1:])]
        time = sum(value * cost for value, cost in zip(row, costs, strict=True)) + draw.gauss(0, 0.5e6)
        rows.append(row)
        times.append(int(time * (8 if draw.random() < 0.05 else 1)))
    found, intervals, residual = marginal(rows, times)
    for value, cost, (low, high) in zip(found, costs, intervals, strict=True):
        assert value == pytest.approx(cost, abs=0.3e6)
        assert low < value < high
    assert intervals[1][0] > 0 > intervals[3][1]
    assert intervals[2][0] < 0 < intervals[2][1]
    assert 0.4e6 < residual < 0.7e6


def test_unusual() -> None:
    """The distance of a value from the others is in their own robust spread; without one nothing is unusual."""
    assert unusual([10.0, 11.0, 9.0, 10.0, 12.0, 8.0, 100.0])[-1] > 20
    assert unusual([5.0, 5.0, 5.0, 9.0]) == [0, 0, 0, 0]


def test_many_values_are_judged_as_fewer_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The computed limits are those that resampling finds, to a tenth of the interval's width; nan and inf never."""
    draw = random.Random(7)
    left = [int(1e6 * draw.lognormvariate(0, 0.3)) for _ in range(3000)]
    right = [int(x * 1.02 * draw.lognormvariate(0, 0.1)) for x in left]
    pairs = list(zip(left, right, strict=True))
    computed = [compare("a", "b", "whole", pairs), compare_independent("a", "b", "whole", left, right)]
    summary = summarize(left)
    monkeypatch.setattr("harness.bench.statistics.MANY", 10**9)
    drawn = [compare("a", "b", "whole", pairs), compare_independent("a", "b", "whole", left, right)]
    for one, other in zip(computed, drawn, strict=True):
        width = other.ci95[1] - other.ci95[0]
        assert one.ratio == other.ratio
        assert one.verdict == other.verdict
        assert abs(one.ci95[0] - other.ci95[0]) + abs(one.ci95[1] - other.ci95[1]) < 0.2 * width
    low, high = summarize(left).ci95_ns
    assert abs(summary.ci95_ns[0] - low) + abs(summary.ci95_ns[1] - high) < 0.3 * (high - low)
