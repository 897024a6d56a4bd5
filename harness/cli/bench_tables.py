"""What `oci-harness bench` prints for people: one function for each kind of result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from harness.cli.output import table
from harness.units import format_bytes, format_ns

if TYPE_CHECKING:
    from harness.bench.ablation import Ablation
    from harness.bench.claims import ClaimReport
    from harness.bench.figures import Comparison, Outlier
    from harness.bench.memory_floor import MemoryFloors
    from harness.bench.result import Result
    from harness.bench.sweep import SweepResult

STAGE_NAMES = {
    "create_ns": "create",
    "start_ns": "start",
    "first_instruction_ns": "first instruction",
    "kill_ns": "kill",
    "exit_ns": "exit",
    "delete_ns": "delete",
    "whole_ns": "whole",
}
MOST_OUTLIERS = 5


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.3f} .. {bounds[1]:.3f}"


def _times(bounds: tuple[float, float]) -> str:
    return f"{format_ns(bounds[0])} .. {format_ns(bounds[1])}"


def _caveats(caveats: Iterable[dict[str, str]]) -> None:
    for caveat in caveats:
        click.echo(f"caveat {caveat['id']}: {caveat['message']}")


def describe_verdict(comparison: Comparison) -> str:
    """`crun is faster (2.63x)`, or that no difference can be seen, and how large one would have been."""
    if comparison.verdict == "no-detectable-difference":
        least = comparison.minimum_detectable
        return "no detectable difference" + ("" if least is None else f" (one of {least:.1%} would have shown)")
    faster = comparison.b if comparison.verdict == "b-faster" else comparison.a
    factor = 1 / comparison.ratio if comparison.verdict == "b-faster" else comparison.ratio
    return f"{faster} is faster ({factor:.2f}x)"


def print_result(result: Result) -> None:
    """The table of a benchmark, its comparisons, and its doubts."""
    rows = []
    for stage, label in STAGE_NAMES.items():
        for name in result.runtimes:
            summary = result.summary[name].get(stage)
            if summary is not None:
                rows.append(
                    (
                        label,
                        name,
                        str(summary.n),
                        format_ns(summary.median_ns),
                        _times(summary.ci95_ns),
                        format_ns(summary.p95_ns),
                        format_ns(summary.p99_ns),
                    )
                )
    table(None, ("stage", "runtime", "n", "median", "95 % interval", "p95", "p99"), rows, right=(2, 3, 4, 5, 6))
    _compared(None, result.comparisons)
    for name, found in result.null.items():
        _compared(f"{name} against itself", found)
    for name, facts in result.footprint.items():
        peak = facts.get("peak_memory_bytes")
        click.echo(
            f"{name}: peak memory {format_bytes(peak) if peak else facts.get('reason')} ({facts.get('method') or '-'})"
        )
    for outlier in sorted(result.outliers, key=lambda each: -each.times_usual)[:MOST_OUTLIERS]:
        click.echo(describe_outlier(outlier))
    _caveats(result.to_json()["caveats"])


def describe_outlier(outlier: Outlier) -> str:
    """`outlier: runc, lifecycle 17 took 91.20 ms, 2.6 times as long as usual: create 70.11 ms (usually 20.55 ms)`"""
    told = "; ".join(
        f"{STAGE_NAMES.get(each.what, each.what.removesuffix('_ns').removesuffix('_us').replace('_', ' '))} "
        f"{_amount(each.what, each.value)} (usually {_amount(each.what, each.usual)})"
        for each in outlier.different
    )
    head = f"outlier: {outlier.runtime}, lifecycle {outlier.order} took {format_ns(outlier.whole_ns)}"
    return (
        f"{head}, {outlier.times_usual:.1f} times as long as usual: {told or 'nothing else that is recorded differed'}"
    )


def _amount(what: str, value: float) -> str:
    if what.endswith("_ns"):
        return format_ns(value)
    return format_ns(value * 1000) if what.endswith("_us") else f"{value:.0f}"


def _compared(title: str | None, comparisons: list[Comparison]) -> None:
    if not comparisons:
        return
    rows = [
        (STAGE_NAMES[c.stage], f"{c.b} / {c.a}", f"{c.ratio:.3f}", _interval(c.ci95), describe_verdict(c))
        for c in comparisons
    ]
    table(title, ("stage", "compared", "ratio", "95 % interval", "verdict"), rows, right=(2, 3))


def print_sweep(result: SweepResult) -> None:
    """A row a point and runtime, then a row a point and pair."""
    swept = list(result.settings["sweep"])
    labels = [
        " ".join(f"{name.replace('_', '-')}={_plain(getattr(point, name))}" for name in swept)
        for point, _ in result.points
    ]
    rows, pairs = [], []
    for label, (_, at), against in zip(labels, result.points, result.against_first, strict=True):
        for name in result.runtimes:
            whole = at.summary[name].get("whole_ns")
            create = at.summary[name].get("create_ns")
            if whole is not None and create is not None:
                slower = against.get(name)
                rows.append(
                    (
                        label,
                        name,
                        str(whole.n),
                        format_ns(create.median_ns),
                        format_ns(whole.median_ns),
                        _times(whole.ci95_ns),
                        "-" if slower is None else f"{slower.ratio:.2f} ({slower.ci95[0]:.2f} .. {slower.ci95[1]:.2f})",
                    )
                )
        pairs += [
            (label, STAGE_NAMES[c.stage], f"{c.b} / {c.a}", f"{c.ratio:.3f}", _interval(c.ci95), describe_verdict(c))
            for c in at.comparisons
            if c.stage in ("create_ns", "whole_ns")
        ]
    heads = ("point", "runtime", "n", "create", "whole", "95 % interval", f"against {labels[0]}")
    table(None, heads, rows, right=(2, 3, 4, 5, 6))
    if pairs:
        table(None, ("point", "stage", "compared", "ratio", "95 % interval", "verdict"), pairs, right=(3, 4))
    if result.kept_by is not None:
        click.echo(f"live containers were kept by {result.kept_by}")
    _caveats(result.caveats)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def print_ablation(result: Ablation) -> None:
    """The parts of each runtime, dearest first, then the dearest in words.

    What can be told from none is judged for all parts together: of 26 single intervals one misses the truth by chance.
    """
    for name, fit in result.fits.items():
        rows = [
            (
                cost.part,
                format_ns(cost.cost_ns),
                _times(cost.ci95_ns),
                *(format_ns(cost.stages.get(stage)) for stage in ("create_ns", "start_ns", "delete_ns")),
                "" if cost.found else "cannot be told from none",
            )
            for cost in fit.costs
        ]
        title = f"{name}: create, start and delete of a bare container: {format_ns(fit.bare_ns)}; what each part adds"
        table(title, ("part", "cost", "95 % interval", "create", "start", "delete", ""), rows, right=(1, 2, 3, 4, 5))
    for name, fit in result.fits.items():
        told = ", ".join(
            f"{cost.part} ({format_ns(cost.cost_ns)}{'' if cost.found else ', cannot be told from none'})"
            for cost in fit.dearest
        )
        click.echo(f"{name}: the dearest parts are {told}")
        if fit.full_ns is not None:
            sums = f"bare and all parts add up to {format_ns(fit.predicted_full_ns)}, measured {format_ns(fit.full_ns)}"
            left = f"a network namespace costs the next container {format_ns(fit.network_left_to_next_ns)}"
            click.echo(f"{name}: {sums}; {left}")
    _caveats(result.caveats)


def print_floors(result: MemoryFloors) -> None:
    """The floor of each runtime, then what it says just below."""
    rows = []
    for floor in result.floors:
        at = next((each for each in floor.attempts if each.limit_bytes == floor.floor_bytes), None)
        peak = floor.peak.get("peak_memory_bytes")
        rows.append(
            (
                floor.runtime,
                format_bytes(floor.floor_bytes),
                "-" if at is None else f"{at.started} of {at.tries}",
                format_bytes(floor.edge.limit_bytes) if floor.edge else "-",
                f"{floor.edge.started} of {floor.edge.tries}" if floor.edge else "-",
                format_bytes(peak),
            )
        )
    heads = ("runtime", "smallest limit", "started", "largest that failed", "started", "runtime's own peak")
    table(None, heads, rows, right=(1, 2, 3, 4, 5))
    for floor in result.floors:
        if floor.reason:
            click.echo(f"{floor.runtime}: {floor.reason}")
        edge = floor.to_json()["edge"]
        if edge is not None:
            click.echo(f"{floor.runtime} with {format_bytes(edge['limit_bytes'])}, at {edge['stage']}: {edge['text']}")
            click.echo(f"  cause: {edge['cause'] or 'not known'}")
    _caveats(result.caveats)


def _figure(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "-"
    if "seconds" in figures:
        return f"{figures['seconds']:.2f} s"
    spread = f" +- {figures['sd_ms']:.1f}" if "sd_ms" in figures else ""
    return f"{figures['mean_ms']:.1f}{spread} ms"


def print_claim(report: ClaimReport) -> None:
    """Theirs and ours side by side, ratios, limits, and what differs."""
    claim = report.claim
    click.echo(f"{claim.title}\n{claim.source} ({claim.seen})")
    rows = []
    for result in report.results:
        theirs, ours = result["theirs"] or {}, result["ours"] or {}
        operations = ours.get("operations_ms", {})
        rows.append(
            (
                result["runtime"],
                theirs.get("version", "not told") if theirs else "-",
                _figure(result["theirs"]),
                ours.get("version", "-"),
                _figure(result["ours"]),
                ", ".join(f"{name} {value:.1f}" for name, value in operations.items()) or result.get("reason", ""),
            )
        )
    heads = ("runtime", "their version", "theirs", "our version", "ours", "ours by operation, ms")
    table(None, heads, rows, right=(2, 4))
    if report.ratios:
        ratios = [
            (
                f"{r['b']} / {r['a']}",
                "-" if r["theirs"] is None else f"{r['theirs']:.3f}",
                f"{r['ours']:.3f}",
                _interval((r["ci95"][0], r["ci95"][1])),
            )
            for r in report.ratios
        ]
        table(None, ("ratio", "theirs", "ours", "95 % interval"), ratios, right=(1, 2, 3))
    for limit in report.limits:
        theirs = "starts" if limit["theirs_starts"] else "fails"
        tries = f"{limit['started']} of {limit['tries']} started"
        click.echo(f"{limit['runtime']} with {format_bytes(limit['memory_bytes'])}: theirs {theirs}; ours: {tries}")
    click.echo("what differs:")
    for line in report.differences:
        click.echo(f"  {line}")
    _caveats(report.to_json()["caveats"])
