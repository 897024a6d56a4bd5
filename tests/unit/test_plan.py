"""The order of a benchmark."""

from __future__ import annotations

from collections import Counter
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bench.plan import Order, Turn, make_plan

NAMES = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)
RUNS, WARMUP, SEED = st.integers(0, 12), st.integers(0, 4), st.integers(0, 2**64)
ORDER = st.sampled_from(["interleaved", "blocked"])


@given(NAMES, RUNS, WARMUP, SEED, ORDER)
def test_counts(names: list[str], runs: int, warmup: int, seed: int, order: Order) -> None:
    """Every runtime gets just as many warm-ups and runs as were asked for, with the rounds 0, 1, 2, ..."""
    plan = make_plan(names, runs, warmup, seed, order)
    wanted = Counter((name, index, True) for name in names for index in range(warmup))
    wanted += Counter((name, index, False) for name in names for index in range(runs))
    assert Counter((turn.runtime, turn.index, turn.warmup) for turn in plan) == wanted


@given(NAMES, RUNS, WARMUP, SEED, ORDER)
def test_places(names: list[str], runs: int, warmup: int, seed: int, order: Order) -> None:
    """`order` counts the whole sequence from 0, and all warm-ups come first."""
    plan = make_plan(names, runs, warmup, seed, order)
    assert [turn.order for turn in plan] == list(range(len(plan)))
    assert [turn.warmup for turn in plan] == sorted((turn.warmup for turn in plan), reverse=True)


@given(NAMES, RUNS, WARMUP, SEED)
def test_interleaved(names: list[str], runs: int, warmup: int, seed: int) -> None:
    """Round after round, each with every runtime once."""
    for part in (True, False):
        turns = [turn for turn in make_plan(names, runs, warmup, seed) if turn.warmup is part]
        rounds = [(index, [turn.runtime for turn in group]) for index, group in groupby(turns, lambda turn: turn.index)]
        assert [index for index, _ in rounds] == list(range(warmup if part else runs))
        assert all(sorted(runtimes) == sorted(names) for _, runtimes in rounds)


@given(NAMES, RUNS, WARMUP, SEED)
def test_blocked(names: list[str], runs: int, warmup: int, seed: int) -> None:
    """All rounds of one runtime in a row, then all of the next."""
    turns = [turn for turn in make_plan(names, runs, warmup, seed, "blocked") if not turn.warmup]
    blocks = [(name, [turn.index for turn in group]) for name, group in groupby(turns, lambda turn: turn.runtime)]
    assert sorted(name for name, _ in blocks) == (sorted(names) if runs else [])
    assert all(indexes == list(range(runs)) for _, indexes in blocks)


@given(NAMES, RUNS, WARMUP, SEED, ORDER)
def test_seed_fixes_the_plan(names: list[str], runs: int, warmup: int, seed: int, order: Order) -> None:
    """The same seed gives the same plan."""
    assert make_plan(names, runs, warmup, seed, order) == make_plan(names, runs, warmup, seed, order)


@pytest.mark.parametrize("order", ["interleaved", "blocked"])
def test_order_is_drawn(order: Order) -> None:
    """Other seeds give other plans, and each runtime comes first about as often as any."""
    firsts = Counter(make_plan(["a", "b"], 1, 0, seed, order)[0].runtime for seed in range(400))
    assert 150 < firsts["a"] < 250
    rounds = make_plan(["a", "b", "c"], 300, 0, 7)
    assert all(60 < count < 140 for count in Counter(turn.runtime for turn in rounds[::3]).values())


@pytest.mark.parametrize("names", ["ab", "abc", "abcd", "abcde"])
def test_balanced(names: str) -> None:
    """In each set of rounds each runtime is in each place, and right after each other one in a round, equally often."""
    size = len(names) * (1 + len(names) % 2)
    plan = make_plan(list(names), 3 * size, 0, 5)
    for start in range(0, len(plan), size * len(names)):
        part = [turn.runtime for turn in plan[start : start + size * len(names)]]
        rounds = [part[at : at + len(names)] for at in range(0, len(part), len(names))]
        places = Counter((place, name) for each in rounds for place, name in enumerate(each))
        followers = Counter(pair for each in rounds for pair in pairwise(each))
        assert set(places.values()) == {size // len(names)}
        assert len(followers) == len(names) * (len(names) - 1)
        assert len(set(followers.values())) == 1


def test_names_are_left_alone() -> None:
    """The list of names that was given is not changed."""
    names = ["b", "a"]
    make_plan(names, 5, 1, 0)
    assert names == ["b", "a"]
    assert make_plan(["x"], 1, 1, 0) == [Turn("x", 0, 0, warmup=True), Turn("x", 0, 1)]
