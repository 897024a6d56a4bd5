"""Which runtime runs when: the whole order of a benchmark, fixed by a seed before it starts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

Order = Literal["interleaved", "blocked"]


class Turn(Struct, frozen=True):
    """One lifecycle to come: the round it belongs to, its place in the whole, and whose it is."""

    runtime: str
    index: int  # round, from 0; samples of one round are compared with each other
    order: int  # place in the sequence, from 0
    warmup: bool = False


def balanced_orders(names: list[str], draw: random.Random) -> Iterator[list[str]]:
    """Orders of rounds without end: random, and in each set each name stands in each place equally often.

    Within the rounds of a set each name also follows each other one equally often. What a neighbour leaves behind for
    the next one hits all alike that way. A set has as many rounds as there are names, or twice as many where the
    number is odd. Source: Williams, Experimental designs balanced for the estimation of residual effects (1949).
    """
    count = len(names)
    zigzag = [place // 2 if place % 2 == 0 else count - (place + 1) // 2 for place in range(count)]
    while True:
        relabelled = draw.sample(names, count)
        rounds = [[relabelled[(step + shift) % count] for step in zigzag] for shift in range(count)]
        if count % 2:
            rounds += [list(reversed(each)) for each in rounds]
        draw.shuffle(rounds)
        yield from rounds


def make_plan(runtimes: list[str], runs: int, warmup: int, seed: int, order: Order = "interleaved") -> list[Turn]:
    """Warm-up rounds, then `runs` lifecycles a runtime.

    interleaved: each round has every runtime once, in a random order (balanced_orders), so that a slow minute of the
    machine hits all of them. blocked: all of one, then all of the next, the runtimes in an order drawn once.
    """
    draw = random.Random(seed)
    orders = balanced_orders(runtimes, draw)
    head = [(name, index) for index in range(warmup) for name in draw.sample(runtimes, len(runtimes))]
    if order == "interleaved":
        body = [(name, index) for index in range(runs) for name in next(orders)]
    else:
        body = [(name, index) for name in draw.sample(runtimes, len(runtimes)) for index in range(runs)]
    turns = [Turn(name, index, place, warmup=True) for place, (name, index) in enumerate(head)]
    return turns + [Turn(name, index, len(head) + place) for place, (name, index) in enumerate(body)]
