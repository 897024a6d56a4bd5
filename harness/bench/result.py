"""The outcome of a benchmark: raw samples first, then what follows from them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.bench.caveats import find_caveats
from harness.bench.lifecycle import STAGES, Sample

if TYPE_CHECKING:
    from harness.bench.statistics import Comparison, Summary

SCHEMA = "oci-harness/bench/1"
ALL_STAGES = ("create_ns", "start_ns", "first_instruction_ns", *STAGES[2:])


@dataclass
class Result:
    """`settings`: what was asked for (runs, warmup, seed, order, parallel, pause_ms, recipe, end)."""

    settings: dict[str, Any]
    environment: dict[str, Any]
    runtimes: list[str]  # names, in the order given
    samples: list[Sample] = field(default_factory=list)
    footprint: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False

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

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every pair of runtimes at every stage that both have."""
        from harness.bench.statistics import compare

        found = []
        for a, b in itertools.combinations(self.runtimes, 2):
            rounds_a = {sample.turn.index: sample for sample in self.of(a) if sample.error is None}
            rounds_b = {sample.turn.index: sample for sample in self.of(b) if sample.error is None}
            for stage in ALL_STAGES:
                pairs = [
                    (left, right)
                    for index, sample in rounds_a.items()
                    if index in rounds_b
                    and (left := sample.value(stage)) is not None
                    and (right := rounds_b[index].value(stage)) is not None
                ]
                if pairs:
                    found.append(compare(a, b, stage, pairs))
        return found

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
            "interrupted": self.interrupted,
        }
