"""Results as `bench` and `trace` would have written them, with times that a test can choose."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

STAGES = {"create_ns": 12e6, "start_ns": 4e6, "kill_ns": 3e6, "exit_ns": 9e4, "delete_ns": 4e6}
HOSTILE = (
    '</script><script>document.title="pwned"</script>'
    '<img src=http://page.invalid/x onerror=document.title="pwned"> $\\frac'
)


def sample(draw: random.Random, runtime: str, index: int, order: int, factor: float) -> dict[str, Any]:
    stages = {name: int(mean * factor * draw.lognormvariate(0, 0.1)) for name, mean in STAGES.items()}
    stages["whole_ns"] = sum(stages.values())
    used = {"user_us": 1000, "system_us": 500, "maxrss_kib": None}
    return {
        "runtime": runtime,
        "index": index,
        "order": order,
        "stages": stages,
        "first_instruction_ns": stages["create_ns"] + 1_000_000,
        "harness_ns": 40_000,
        "exit_status": -9,
        "usage": {"create": used, "delete": used},
        "disturbance": {"forks": 3, "steal_ns": 0},
    }


def bench(
    factors: dict[str, float], runs: int = 40, seed: int = 0, failed: dict[str, int] | None = None, **environment: Any
) -> dict[str, Any]:
    """`factors`: how much slower than usual each runtime is; `failed`: lifecycles of a runtime that failed."""
    draw = random.Random(seed)
    samples = []
    for index in range(runs):
        for name in draw.sample(list(factors), len(factors)):
            one = sample(draw, name, index, len(samples), factors[name])
            if index < (failed or {}).get(name, 0):
                one |= {"stages": {}, "first_instruction_ns": None, "error": "no such luck", "failed_stage": "create"}
            samples.append(one)
    good = {name: [s for s in samples if s["runtime"] == name and "error" not in s] for name in factors}
    return {
        "schema": "oci-harness/bench/1",
        "settings": {"recipe": "pause", "runs": runs, "order": "interleaved", "parallel": 1},
        "environment": {
            "kernel": {"release": "6.12.1", "machine": "x86_64"},
            "cpu": {"model": "test", "usable": 2, "governor": "performance"},
            "cgroup": {"view": "host", "mode": "unified", "steps": []},
            "runtimes": [
                {"name": name, "path": f"/usr/bin/{name}", "version": "1.0", "binary": {"sha256": f"{name}-{factor}"}}
                for name, factor in factors.items()
            ],
            **environment,
        },
        "caveats": [{"id": "virtual-machine", "message": "a virtual machine"}],
        "samples": samples,
        "summary": {
            name: {stage: summary([s["stages"][stage] for s in own]) for stage in STAGES | {"whole_ns": 0}}
            if own
            else {}
            for name, own in good.items()
        },
        "comparisons": [
            {"a": a, "b": b, "stage": "whole_ns", "ratio": 0.6, "ci95": [0.5, 0.7], "verdict": "b-faster", "n": runs}
            for a, b in zip(factors, list(factors)[1:], strict=False)
        ],
        "footprint": {name: {"peak_memory_bytes": 1 << 20, "method": "memory.peak"} for name in factors},
    }


def summary(values: list[int]) -> dict[str, Any]:
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2]
    ends = {"p95_ns": ordered[-1], "p99_ns": ordered[-1], "ci95_ns": [middle * 0.95, middle * 1.05]}
    return {"n": len(ordered), "median_ns": middle, **ends}


def trace(*runtimes: str) -> dict[str, Any]:
    names = (
        "spawn",
        "ready for start",
        "start called",
        "first instruction",
        "start returned",
        "delete called",
        "delete",
    )
    phases = [
        {"name": name, "start_ns": at * 2_000_000, "end_ns": (at + 1) * 2_000_000} for at, name in enumerate(names)
    ]
    traces = [{"runtime": name, "whole_ns": 14_000_000, "phases": phases} for name in runtimes]
    own = ["start called", "delete called"]
    return {"schema": "oci-harness/trace/1", "environment": {}, "harness_own": own, "traces": traces}


def sweep(*runtimes: str) -> dict[str, Any]:
    points = [
        {
            "point": {"parallel": parallel, "live": live},
            "summary": {name: {"whole_ns": summary([parallel * 10**7] * 9)} for name in runtimes},
        }
        for live in (0, 10)
        for parallel in (1, 2, 4)
    ]
    swept = {"parallel": [1, 2, 4], "live": [0, 10]}
    return {"schema": "oci-harness/bench-sweep/1", "settings": {"sweep": swept}, "environment": {}, "points": points}


def ablation(*runtimes: str) -> dict[str, Any]:
    costs = [
        {"part": "seccomp", "cost_ns": 3e6, "ci95_ns": [2e6, 4e6]},
        {"part": "namespace:uts", "cost_ns": -1e5, "ci95_ns": [-6e5, 4e5]},
    ]
    fit = {"bare_ns": 1e7, "full_ns": 1.3e7, "predicted_full_ns": 1.29e7}
    parts = [{"name": "seccomp", "about": "a filter", "needs": []}]
    by = {"costs": dict.fromkeys(runtimes, costs), "fit": dict.fromkeys(runtimes, fit)}
    return {"schema": "oci-harness/ablation/1", "environment": {}, "parts": parts, **by}


def floors(*runtimes: str) -> dict[str, Any]:
    attempts = [
        {"limit_bytes": 1 << 18, "tries": 1, "started": 0},
        {"limit_bytes": 1 << 20, "tries": 5, "started": 3},
        {"limit_bytes": 1 << 21, "tries": 10, "started": 10},
    ]
    edge = {"limit_bytes": 1 << 20, "stage": "create", "text": "too low", "cause": "oom-during-init"}
    floor = {"floor_bytes": 1 << 21, "attempts": attempts, "edge": edge, "peak": {"peak_memory_bytes": 1 << 20}}
    return {"schema": "oci-harness/memory-floor/1", "environment": {}, "floors": dict.fromkeys(runtimes, floor)}


def cell(case: str, verdict: str, view: str, runtime: str, kernel: str, **more: Any) -> dict[str, Any]:
    named = {"kernel": kernel, "view": view, "runtime": runtime, "case": case}
    return {**named, "verdict": verdict, "as_expected": True, "fingerprint": "f", **more}


def matrix(*runtimes: str, kernel: str = "6.1.0-56-amd64", **verdicts: str) -> dict[str, Any]:
    """`verdicts`: of cases in the legacy view, where they are others than in the unified one."""
    usual = {"start-container": "passes", "exec-not-found": "reproduced", "memory-swap": "not-applicable"}
    legacy = usual | {name.replace("_", "-"): verdict for name, verdict in verdicts.items()}
    cells = [
        cell(case, verdict, view, runtime, kernel, reason="why so", as_expected=verdict != "inconclusive")
        for view, of in (("unified", usual), ("legacy", legacy))
        for runtime in runtimes
        for case, verdict in of.items()
    ]
    return {
        "schema": "oci-harness/matrix/1",
        "environment": {"kernels": [{"name": "6.1", "release": kernel}], "views": ["unified", "legacy"]},
        "baseline": {"kernel": kernel, "view": "unified"},
        "guests": [{"kernel": kernel, "view": "unified", "accelerator": "tcg", "boot_s": 4.0, "seconds": 60.0}],
        "cells": cells,
    }


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path
