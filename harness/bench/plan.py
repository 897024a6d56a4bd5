"""Which runtime runs when: the whole order of a benchmark, fixed by a seed before it starts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Order = Literal["interleaved", "blocked"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One lifecycle to come: the round it belongs to, its place in the whole, and whose it is."""

    runtime: str
    index: int  # round, from 0; samples of one round are compared with each other
    order: int  # place in the sequence, from 0
    warmup: bool = False


def make_plan(runtimes: list[str], runs: int, warmup: int, seed: int, order: Order = "interleaved") -> list[Turn]:
    """Warm-up rounds, then `runs` lifecycles a runtime.

    interleaved: each round has every runtime once, in an order drawn for that round, so that a slow minute of the
    machine hits all of them. blocked: all of one, then all of the next, the runtimes in an order drawn once.
    """
    draw = random.Random(seed)

    def shuffled() -> list[str]:
        return draw.sample(runtimes, len(runtimes))

    head = [(name, index) for index in range(warmup) for name in shuffled()]
    if order == "interleaved":
        body = [(name, index) for index in range(runs) for name in shuffled()]
    else:
        body = [(name, index) for name in shuffled() for index in range(runs)]
    turns = [Turn(name, index, place, warmup=True) for place, (name, index) in enumerate(head)]
    return turns + [Turn(name, index, len(head) + place) for place, (name, index) in enumerate(body)]
