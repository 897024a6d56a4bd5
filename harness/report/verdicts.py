"""The verdict of each kind of result in words, for a page, a pull request, a heading."""

from __future__ import annotations

from harness.report.saved import Ablation, Bench, Compared, Matrix, MemoryFloor, Sweep, Trace
from harness.units import format_bytes, format_ns

NO_DIFFERENCE = "no-detectable-difference"
# verdict of a matrix's cell: how it is shown, and what it is for the eye (a class of the page's style sheet)
CELL_WORDS = {
    "reproduced": ("reproduced", "good"),
    "passes": ("passes", "good"),
    "not-reproduced": ("tolerated", "odd"),
    "deviates": ("deviates", "odd"),
    "no-longer-deviates": ("conforms now", "odd"),
    "fails": ("fails", "bad"),
    "inconclusive": ("?", "bad"),
    "not-applicable": ("n/a", "none"),
}


def pair_verdict(compared: Compared) -> str:
    """`crun is faster (2.63x)`, or that no difference can be seen, and how large one would have been."""
    if compared.verdict == NO_DIFFERENCE:
        least = compared.minimum_detectable
        return "no detectable difference" + ("" if least is None else f" (one of {least:.1%} would have shown)")
    faster = compared.b if compared.verdict == "b-faster" else compared.a
    factor = 1 / compared.ratio if compared.verdict == "b-faster" else compared.ratio
    return f"{faster} is faster ({factor:.2f}x)"


def _whole(compared: Compared) -> str:
    if compared.verdict == NO_DIFFERENCE:
        least = compared.minimum_detectable
        seen = "" if least is None else f"; one of {least:.1%} would have shown"
        return f"No detectable difference between {compared.a} and {compared.b} over a whole lifecycle{seen}."
    faster, slower = (compared.b, compared.a) if compared.verdict == "b-faster" else (compared.a, compared.b)
    low, high = compared.ci95
    bounds = (1 / high, 1 / low) if compared.verdict == "b-faster" else (low, high)
    factor = 1 / compared.ratio if compared.verdict == "b-faster" else compared.ratio
    return (
        f"{faster} takes a container through its whole life {factor:.2f} times as fast as {slower} "
        f"(95 % interval {bounds[0]:.2f} to {bounds[1]:.2f})."
    )


def bench_verdict(bench: Bench) -> str:
    wholes = [each for each in bench.comparisons if each.stage == "whole_ns"]
    if wholes:
        return " ".join(_whole(each) for each in wholes)
    told = [
        f"{name} takes {format_ns(whole.median_ns)} for a whole lifecycle "
        f"(median of {whole.n}, 95 % interval {format_ns(whole.ci95_ns[0])} to {format_ns(whole.ci95_ns[1])})."
        for name, stages in bench.summary.items()
        if (whole := stages.get("whole_ns")) is not None
    ]
    failed = next((sample.error for sample in bench.samples if sample.error is not None), None)
    return " ".join(told) or f"No lifecycle went well{f': {failed}' if failed else ''}."


def sweep_verdict(sweep: Sweep) -> str:
    ends = [point.summary for point in (sweep.points[:1] + sweep.points[-1:])]
    told = []
    for name in ends[0] if ends else ():
        first, last = (end.get(name, {}).get("whole_ns") for end in ends)
        if first is not None and last is not None:
            told.append(f"{name} {format_ns(first.median_ns)} to {format_ns(last.median_ns)}")
    swept = " and ".join(str(each).replace("_", " ") for each in _swept(sweep))
    return f"From the first to the last point of {swept} a whole lifecycle goes from {', '.join(told)} (medians)."


def _swept(sweep: Sweep) -> list[str]:
    asked = sweep.settings.get("sweep")
    return list(asked) if isinstance(asked, dict) else list(sweep.points[0].point if sweep.points else ())


def ablation_verdict(ablation: Ablation) -> str:
    told = []
    for name, costs in ablation.costs.items():
        found = sorted((c for c in costs if c.found and c.cost_ns > 0), key=lambda cost: -cost.cost_ns)
        if found:
            dearest = ", ".join(f"{cost.part} {format_ns(cost.cost_ns)}" for cost in found[:3])
            told.append(f"The dearest parts of config.json for {name}: {dearest}.")
        else:
            told.append(f"No part's cost can be told from none for {name}.")
    return " ".join(told) or "No part's cost can be told."


def floor_verdict(floors: MemoryFloor) -> str:
    told = [
        f"{name} starts with {format_bytes(floor.floor_bytes)}"
        if floor.floor_bytes is not None
        else f"{name}: {floor.reason}"
        for name, floor in floors.floors.items()
    ]
    return f"Smallest memory limit: {'; '.join(told)}."


def trace_verdict(trace: Trace) -> str:
    from statistics import median

    told = []
    for name in dict.fromkeys(each.runtime for each in trace.traces):
        own = [each for each in trace.traces if each.runtime == name]
        longest: dict[str, list[int]] = {}
        for each in own:
            for phase in each.phases:
                longest.setdefault(phase.name, []).append(phase.duration_ns)
        if longest:
            phase_name = max(longest, key=lambda key: median(longest[key]))
            told.append(
                f"{name} takes {format_ns(median(each.whole_ns for each in own))} in the traced starts, "
                f"the longest phase is that until “{phase_name}” ({format_ns(median(longest[phase_name]))})."
            )
    return " ".join(told) or "No start was traced."


def matrix_verdict(matrix: Matrix) -> str:
    table = matrix.table
    unexpected = [cell for cell in matrix.cells if not cell.as_expected]
    refused = [cell.place for cell in matrix.cells if cell.case == "start-container" and cell.verdict == "fails"]
    told = f"{len(matrix.cells):,} cells in {len(table.places())} places"
    faults = {cell.case for cell in matrix.cells if cell.verdict == "reproduced"}
    told += f", {len(faults)} faults reproduced" if faults else ""
    told += f"; {len(unexpected)} not as expected." if unexpected else "; all as expected."
    if refused:
        told += f" No container starts on {'; '.join(f'{name} ({kernel}, {view})' for kernel, view, name in refused)}."
    return told


def verdict_of(value: object) -> str:
    """One or a few sentences."""
    if isinstance(value, Bench):
        return bench_verdict(value)
    if isinstance(value, Sweep):
        return sweep_verdict(value)
    if isinstance(value, Ablation):
        return ablation_verdict(value)
    if isinstance(value, MemoryFloor):
        return floor_verdict(value)
    if isinstance(value, Matrix):
        return matrix_verdict(value)
    return trace_verdict(value) if isinstance(value, Trace) else ""
