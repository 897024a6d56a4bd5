"""The outcome of a benchmark: raw samples first, then what follows from them. Its figures are in figures.py.

JSON, schema "oci-harness/bench/1" (Result.to_json); ratios are b / a:
    settings, environment         what was asked for; circumstances that move the figures
    caveats[{id, message}]        reasons to doubt the figures
    samples[{runtime, index, order, stages{}, disturbance{}, usage{}, ...}]    index: the round; order: place in time
    summary{RUNTIME{STAGE{}}}     figures.Summary
    comparisons[]                 figures.Comparison of every pair of runtimes at every stage
    null{RUNTIME[]}               with --null: figures.Comparison of a runtime with itself, the machine's noise floor
    carry_over[]                  figures.CarryOver: what a neighbour leaves behind for the next one
    outliers[]                    figures.Outlier, kept in all figures, with what was different then
    footprint{RUNTIME{}}          peak memory
    ended                         planned, until-ci, max-time, gave-up or interrupted
"""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field

from harness.bench.caveats import find_caveats
from harness.bench.figures import CarryOver
from harness.bench.lifecycle import STAGES, Sample
from harness.bench.outliers import find_outliers
from harness.bench.pairing import by_predecessor, rounds_of

if TYPE_CHECKING:
    from harness.bench.figures import Comparison, Outlier, Summary

SCHEMA = "oci-harness/bench/1"
ALL_STAGES = ("create_ns", "start_ns", "first_instruction_ns", *STAGES[2:])
AGAIN = "~again"  # the second of two arms with the same binary
CARRY_OVER_STAGES = ("create_ns", "whole_ns")
FEWEST_NEIGHBOURS = 5  # samples after a given neighbour, to say what it leaves behind
Ended = Literal["planned", "until-ci", "max-time", "gave-up", "interrupted"]


class Result(Struct, dict=True):
    """`settings`: what was asked for (runs, warmup, seed, order, parallel, pause_ms, recipe, end, null, cold, ...)."""

    settings: dict[str, Any]
    environment: dict[str, Any]
    runtimes: list[str]  # names, in the order given
    samples: list[Sample] = field(default_factory=list)
    footprint: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    ended: Ended = "planned"

    def of(self, runtime: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.turn.runtime == runtime]

    def values(self, runtime: str, stage: str) -> list[int]:
        found = (sample.value(stage) for sample in self.of(runtime) if sample.error is None)
        return [value for value in found if value is not None]

    @cached_property
    def summary(self) -> dict[str, dict[str, Summary]]:
        """{runtime: {stage: Summary}}; a stage without a value is left out."""
        from harness.bench.statistics import summarize

        return {
            name: {stage: summarize(values) for stage in ALL_STAGES if (values := self.values(name, stage))}
            for name in self.runtimes
        }

    def _compared(self, a: str, b: str) -> list[Comparison]:
        from harness.bench.statistics import compare

        found = []
        for stage in ALL_STAGES:
            pairs, a_first = rounds_of(self.samples, a, b, stage)
            if pairs:
                found.append(compare(a, b, stage, pairs, a_first=a_first))
        return found

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every pair of runtimes at every stage that both have."""
        return [each for a, b in itertools.combinations(self.runtimes, 2) for each in self._compared(a, b)]

    @cached_property
    def null(self) -> dict[str, list[Comparison]]:
        """Each runtime against itself, where that was asked for."""
        return {name: found for name in self.runtimes if (found := self._compared(name, name + AGAIN))}

    @cached_property
    def carry_over(self) -> list[CarryOver]:
        """What each runtime costs after each other one; nothing can be said where lifecycles overlap."""
        from harness.bench.statistics import compare_independent

        if self.settings.get("parallel", 1) != 1:
            return []
        found = []
        for name, stage in itertools.product(self.runtimes, CARRY_OVER_STAGES):
            after = by_predecessor(self.samples, name, stage)
            itself = after.pop(name, []) + after.pop(name + AGAIN, [])
            for other, times in after.items():
                if min(len(times), len(itself)) >= FEWEST_NEIGHBOURS and not other.endswith(AGAIN):
                    compared = compare_independent(name, name, stage, itself, times)
                    found.append(CarryOver(name, other, stage, len(times), len(itself), compared.ratio, compared.ci95))
        return found

    @cached_property
    def outliers(self) -> list[Outlier]:
        return [each for name in self.runtimes for each in find_outliers(self.of(name))]

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "settings": self.settings,
            "environment": self.environment,
            "caveats": find_caveats(self),
            "samples": [sample.to_json() for sample in self.samples],
            "footprint": self.footprint,
            "summary": {
                name: {stage: summary.to_json() for stage, summary in stages.items()}
                for name, stages in self.summary.items()
            },
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "null": {name: [each.to_json() for each in found] for name, found in self.null.items()},
            "carry_over": [each.to_json() for each in self.carry_over],
            "outliers": [each.to_json() for each in self.outliers],
            "interrupted": self.interrupted,
            "ended": self.ended,
        }
