"""Samples far from the others, kept in every figure, and what was recorded to be different while each was taken."""

from __future__ import annotations

import math
from statistics import median
from typing import Final

from harness.bench.figures import Difference, Outlier
from harness.bench.lifecycle import STAGES, Sample

FEWEST: Final = 10  # samples of a runtime, to tell what is usual
FAR: Final = 5.0  # robust standard deviations of the logarithm of whole_ns
TIMES_USUAL: Final = 1.2  # where hardly anything varies, less is no outlier
UNUSUAL: Final = 4.0  # robust standard deviations of what is recorded beside it
SMALLEST_SPREAD: Final = 0.05  # of the usual value: a counter that is nearly always the same
MOST: Final = 5  # differences told of one outlier


def find_outliers(samples: list[Sample]) -> list[Outlier]:
    """Those of one runtime that were slow, in the order in which they ran."""
    from harness.bench.statistics import unusual

    good = [sample for sample in samples if sample.error is None and sample.stages.get("whole_ns")]
    if len(good) < FEWEST:
        return []
    times = [sample.stages["whole_ns"] or 0 for sample in good]
    usual = median(times)
    distances = unusual([math.log(time) for time in times])
    return [
        Outlier(sample.turn.runtime, sample.turn.order, time, time / usual, _differences(sample, good))
        for sample, time, distance in zip(good, times, distances, strict=True)
        if distance > FAR and time > usual * TIMES_USUAL
    ]


def _recorded(sample: Sample, what: str) -> int | None:
    return sample.stages.get(what) if what in STAGES else sample.disturbance.get(what)


def _differences(sample: Sample, good: list[Sample]) -> tuple[Difference, ...]:
    names = [*(stage for stage in STAGES if stage != "whole_ns"), *sample.disturbance]
    found = []
    for what in names:
        value = _recorded(sample, what)
        values = [other for each in good if (other := _recorded(each, what)) is not None]
        if value is None or len(values) < FEWEST:
            continue
        usual = median(values)
        spread = 1.4826 * median(abs(other - usual) for other in values)
        score = (value - usual) / max(spread, SMALLEST_SPREAD * usual, 1.0)
        if score > UNUSUAL:
            found.append((score, Difference(what, value, usual)))
    return tuple(difference for _, difference in sorted(found, key=lambda each: -each[0])[:MOST])
