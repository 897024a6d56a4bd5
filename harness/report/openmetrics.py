"""A benchmark as OpenMetrics text (https://prometheus.io/docs/specs/om/open_metrics_spec/), for a scrape or a push."""

from __future__ import annotations

import math
from collections.abc import Iterable

from harness.report.saved import STAGES, Bench, fact, runtime_fact

PREFIX = "oci_harness"
Samples = list[tuple[str, dict[str, str], float]]  # suffix, labels, value


def openmetrics(bench: Bench) -> str:
    """Times in seconds; the quantiles are those of the result, sum and count of its good samples."""
    families = (
        _family("stage_seconds", "summary", "seconds", "Times of a stage of a container's life.", _quantiles(bench)),
        _family(
            "stage_median_ci95_seconds",
            "gauge",
            "seconds",
            "Bounds of the 95 % interval of a stage's median.",
            _bounds(bench),
        ),
        _family("lifecycles", "gauge", None, "Measured lifecycles, by how they ended.", _lifecycles(bench)),
        _family("peak_memory_bytes", "gauge", "bytes", "Peak memory of a runtime.", _memory(bench)),
        _family("ratio", "gauge", None, "Typical time of b by that of a.", _ratios(bench)),
        _family("ratio_ci95", "gauge", None, "Bounds of the 95 % interval of the ratio.", _ratio_bounds(bench)),
        _family("bench", "info", None, "Circumstances of the benchmark.", [("_info", _circumstances(bench), 1.0)]),
    )
    return "".join(families) + "# EOF\n"


def _family(name: str, kind: str, unit: str | None, help_text: str, samples: Samples) -> str:
    if not samples:
        return ""
    full = f"{PREFIX}_{name}"
    lines = [f"# TYPE {full} {kind}"]
    if unit is not None:
        lines.append(f"# UNIT {full} {unit}")
    lines.append(f"# HELP {full} {help_text}")
    for suffix, labels, value in samples:
        told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        lines.append(f"{full}{suffix}{{{told}}} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _stages(bench: Bench) -> Iterable[tuple[str, str, dict[str, str]]]:
    for runtime, stages in bench.summary.items():
        version = str(runtime_fact(bench.environment, runtime, "version") or "")
        for stage in stages:
            name = STAGES.get(stage, stage.removesuffix("_ns")).replace(" ", "_")
            yield runtime, stage, {"runtime": runtime, "version": version, "stage": name}


def _quantiles(bench: Bench) -> Samples:
    found: Samples = []
    for runtime, stage, labels in _stages(bench):
        summary, times = bench.summary[runtime][stage], bench.values(runtime, stage)
        found += [
            ("", labels | {"quantile": quantile}, value / 1e9)
            for quantile, value in (("0.5", summary.median_ns), ("0.95", summary.p95_ns), ("0.99", summary.p99_ns))
        ]
        found += [("_count", labels, len(times)), ("_sum", labels, math.fsum(times) / 1e9)]
    return found


def _bounds(bench: Bench) -> Samples:
    return [
        ("", labels | {"bound": bound}, value / 1e9)
        for runtime, stage, labels in _stages(bench)
        for bound, value in zip(("lower", "upper"), bench.summary[runtime][stage].ci95_ns, strict=True)
    ]


def _lifecycles(bench: Bench) -> Samples:
    found: Samples = []
    for name in bench.runtimes:
        own = bench.of(name)
        good = sum(sample.error is None for sample in own)
        found += [
            ("", {"runtime": name, "outcome": "good"}, good),
            ("", {"runtime": name, "outcome": "failed"}, len(own) - good),
        ]
    return found


def _memory(bench: Bench) -> Samples:
    return [
        ("", {"runtime": name}, footprint.peak_memory_bytes)
        for name, footprint in bench.footprint.items()
        if footprint.peak_memory_bytes is not None
    ]


def _pairs(bench: Bench) -> Iterable[tuple[dict[str, str], float, tuple[float, float]]]:
    for each in bench.comparisons:
        name = STAGES.get(each.stage, each.stage).replace(" ", "_")
        yield {"a": each.a, "b": each.b, "stage": name}, each.ratio, each.ci95


def _ratios(bench: Bench) -> Samples:
    return [("", labels, ratio) for labels, ratio, _ in _pairs(bench)]


def _ratio_bounds(bench: Bench) -> Samples:
    return [
        ("", labels | {"bound": bound}, value)
        for labels, _, ci95 in _pairs(bench)
        for bound, value in zip(("lower", "upper"), ci95, strict=True)
    ]


def _circumstances(bench: Bench) -> dict[str, str]:
    facts = {
        "kernel": fact(bench.environment, "kernel/release"),
        "machine": fact(bench.environment, "kernel/machine"),
        "cgroup_view": fact(bench.environment, "cgroup/view"),
        "recipe": bench.settings.get("recipe"),
        "order": bench.settings.get("order"),
        "parallel": bench.settings.get("parallel"),
        "oci_harness": fact(bench.environment, "oci_harness"),
    }
    return {name: str(value) for name, value in facts.items() if value is not None}
