"""Which samples belong together: rounds of two runtimes, and who ran right before whom."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from harness.bench.lifecycle import Sample


def rounds_of(samples: Sequence[Sample], a: str, b: str, stage: str) -> tuple[list[tuple[int, int]], list[bool]]:
    """(a's and b's time, whether a ran first) of each round in which both went well and have the stage."""
    of_a, of_b = (
        {sample.turn.index: sample for sample in samples if sample.turn.runtime == name and sample.error is None}
        for name in (a, b)
    )
    pairs, a_first = [], []
    for index, sample in of_a.items():
        other = of_b.get(index)
        if other is None or (left := sample.value(stage)) is None or (right := other.value(stage)) is None:
            continue
        pairs.append((left, right))
        a_first.append(sample.turn.order < other.turn.order)
    return pairs, a_first


def by_predecessor(samples: Sequence[Sample], runtime: str, stage: str) -> dict[str, list[int]]:
    """A runtime's times by the runtime of the lifecycle right before; the very first one has none and is left out."""
    ordered = sorted(samples, key=lambda sample: sample.turn.order)
    found: dict[str, list[int]] = {}
    for before, sample in itertools.pairwise(ordered):
        adjacent = sample.turn.order == before.turn.order + 1
        if sample.turn.runtime == runtime and sample.error is None and adjacent:
            value = sample.value(stage)
            if value is not None:
                found.setdefault(before.turn.runtime, []).append(value)
    return found
