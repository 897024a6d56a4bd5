"""A benchmark in the form of `hyperfine --export-json`, so that its scripts and what else reads that can be used.

Source: hyperfine src/benchmark/benchmark_result.rs (1.15 to 1.20): seconds; `stddev` is null for one run. Here a result
is one stage of one runtime, `parameters` names both. user and system are CPU times of all operations of a lifecycle.
"""

from __future__ import annotations

from statistics import fmean, median, stdev
from typing import Any

from harness.report.csv_samples import usage_of
from harness.report.saved import FullBench, FullSample, label

OPERATIONS = {"create_ns": ("create",), "start_ns": ("start",), "kill_ns": ("kill",), "delete_ns": ("delete",)}


def hyperfine(bench: FullBench, stages: tuple[str, ...] = ("whole_ns",)) -> dict[str, Any]:
    """Failed lifecycles have no times and are left out, as hyperfine ends at the first one."""
    return {
        "results": [
            _result(name, stage, _good(bench, name), times)
            for stage in stages
            for name in bench.runtimes
            if (times := bench.values(name, stage))
        ]
    }


def _good(bench: FullBench, runtime: str) -> list[FullSample]:
    return [sample for sample in bench.samples if sample.runtime == runtime and sample.error is None]


def _result(runtime: str, stage: str, good: list[FullSample], times_ns: list[int]) -> dict[str, Any]:
    times = [time / 1e9 for time in times_ns]
    return {
        "command": f"{runtime} {label(stage)}",
        "mean": fmean(times),
        "stddev": stdev(times) if len(times) > 1 else None,
        "median": median(times),
        "user": _cpu_s(good, "user_us", stage),
        "system": _cpu_s(good, "system_us", stage),
        "min": min(times),
        "max": max(times),
        "times": times,
        "exit_codes": [0] * len(times),
        "parameters": {"runtime": runtime, "stage": label(stage)},
    }


def _cpu_s(good: list[FullSample], field: str, stage: str) -> float:
    """CPU seconds of the operations of this stage, of all for the whole and for what is no single operation."""
    wanted = OPERATIONS.get(stage)
    sums = [
        sum(used.get(field) or 0.0 for verb, used in usage_of(sample).items() if wanted is None or verb in wanted)
        for sample in good
    ]
    return fmean(sums) / 1e6 if sums else 0.0
