"""One page of one or more results: self-contained, readable without network, scripts, colours or a mouse.

A script is in it only where a result is too large for a link to hold it, to hand out the embedded file; the page's
Content-Security-Policy allows that very script, and no request at all.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Final

from msgspec import Struct

from harness.report import distribution, experiments, timeline
from harness.report.figure import Canvas
from harness.report.html_parts import Grid, Part
from harness.report.matrix_table import matrix_parts
from harness.report.saved import (
    STAGES,
    Ablation,
    Bench,
    Circumstances,
    Guest,
    Matrix,
    MemoryFloor,
    Note,
    Saved,
    Sweep,
    Trace,
    fact,
    label,
    runtime_fact,
    runtimes_of,
)
from harness.report.verdicts import pair_verdict, verdict_of
from harness.units import format_bytes, format_ns
from harness.version import VERSION

MOST_LINK: Final = 1_500_000  # bytes of base64; browsers cut links off at 2 MiB
PACKING: Final = 4  # zlib level: a tenth of the size in a second for 100 MB
ORDER: Final = ("whole_ns", *(stage for stage in STAGES if stage != "whole_ns"))
TITLES: Final = {
    Bench: "Benchmark",
    Sweep: "Sweep",
    Ablation: "What each part of config.json costs",
    MemoryFloor: "Memory floor",
    Trace: "Where the time of a start goes",
    Matrix: "Matrix",
}


class Embedded(Struct, frozen=True):
    """The file itself, gzipped, as base64."""

    name: str
    bytes: int  # as JSON
    packed: str

    @property
    def link(self) -> str | None:
        return f"data:application/gzip;base64,{self.packed}" if len(self.packed) <= MOST_LINK else None


class Section(Struct):
    """One result."""

    title: str
    file: str
    verdict: str
    cards: list[tuple[str, str, str]]  # what, figure, detail
    parts: list[Part]
    caveats: list[Note]
    environment: Grid
    embedded: Embedded


def render(results: Sequence[Saved]) -> str:
    """The whole page. The first result's verdict is the headline."""
    import jinja2

    canvas = Canvas()
    sections = [_section(canvas, saved) for saved in results]
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    needed = any(section.embedded.link is None for section in sections)
    script = _text(templates, "report.js") if needed else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return templates.get_template("report.html.j2").render(
        sections=sections,
        title=_headline(results),
        style=_text(templates, "report.css"),
        script=script,
        script_source=f"'sha256-{digest}'" if script else "'none'",
        format_bytes=format_bytes,
        version=VERSION,
    )


def _text(templates: Any, name: str) -> str:
    source, _, _ = templates.loader.get_source(templates, name)
    return str(source)


def _headline(results: Sequence[Saved]) -> str:
    names = dict.fromkeys(name for saved in results for name in runtimes_of(saved.value))
    return " against ".join(names) if 0 < len(names) <= 4 else "container runtimes"


def _section(canvas: Canvas, saved: Saved) -> Section:
    value = saved.value
    makers: dict[type[Circumstances], Callable[[Canvas, Any], list[Part]]] = {
        Bench: _bench_parts,
        Sweep: _sweep_parts,
        Ablation: _ablation_parts,
        MemoryFloor: _floor_parts,
        Trace: _trace_parts,
        Matrix: lambda _canvas, matrix: matrix_parts(matrix),
    }
    caveats = list(value.caveats)
    if value.interrupted and not any(each.id == "interrupted" for each in caveats):
        caveats.insert(0, Note("interrupted", "it was interrupted: not all that was planned was done"))
    if isinstance(value, Trace):
        caveats += [Note("not-offered", note) for note in value.notes]
    return Section(
        TITLES[type(value)],
        saved.name,
        verdict_of(value),
        _cards(value),
        makers[type(value)](canvas, value),
        caveats,
        Grid(("", ""), _environment(value)),
        _embedded(saved),
    )


def _embedded(saved: Saved) -> Embedded:
    packer = zlib.compressobj(PACKING, zlib.DEFLATED, 31)  # 31: as a gzip file
    packed = packer.compress(saved.raw) + packer.flush()
    name = saved.name.removesuffix(".gz")
    return Embedded(f"{name}.gz", len(saved.raw), base64.b64encode(packed).decode())


def _cards(value: Circumstances) -> list[tuple[str, str, str]]:
    """The figures that a reader looks for first."""
    found = []
    if isinstance(value, Bench):
        for name, stages in value.summary.items():
            whole = stages.get("whole_ns")
            version = str(runtime_fact(value.environment, name, "version") or "")
            if whole is not None:
                interval = f"{format_ns(whole.ci95_ns[0])} to {format_ns(whole.ci95_ns[1])}, {whole.n:,} lifecycles"
                found.append((f"{name} {version}".strip(), format_ns(whole.median_ns), interval))
    if isinstance(value, MemoryFloor):
        for name, floor in value.floors.items():
            detail = floor.reason or (f"{floor.edge.cause} below" if floor.edge and floor.edge.cause else "")
            found.append((name, format_bytes(floor.floor_bytes), detail))
    return found


def _times(bounds: tuple[float, float]) -> str:
    return f"{format_ns(bounds[0])} to {format_ns(bounds[1])}"


def _bench_parts(canvas: Canvas, bench: Bench) -> list[Part]:
    parts = []
    rows: list[tuple[str, ...]]
    if bench.comparisons:
        rows = [
            (
                label(c.stage),
                f"{c.b} / {c.a}",
                f"{c.ratio:.3f}",
                f"{c.ci95[0]:.3f} to {c.ci95[1]:.3f}",
                pair_verdict(c),
            )
            for stage in STAGES
            for c in bench.comparisons
            if c.stage == stage
        ]
        grid = Grid(("stage", "compared", "ratio", "95 % interval", "verdict"), rows, (2, 3))
        about = "Left of 1: the first-named is faster. Hollow and grey: no detectable difference."
        charts = distribution.ratio_charts(canvas, bench.comparisons, bench.runtimes)
        parts.append(Part("How they compare", about, charts, grid, folded=True))
    charts = [chart for stage in ORDER if (chart := distribution.stage_chart(canvas, bench, stage)) is not None]
    about = (
        "Above: the share of lifecycles that were at least as fast. Below: each runtime's samples; the bar is the "
        f"middle half, the line and the figure the median. {distribution.thinning_note(bench)}"
    )
    parts.append(Part("Distributions", about, charts, _summary(bench), panels=True, folded=True))
    course = distribution.course_chart(canvas, bench)
    if course is not None:
        about = "What drifts or comes in bursts is the machine; the lines are running medians."
        parts.append(Part("In the order of the runs", about, [course]))
    if bench.footprint:
        rows = [
            (name, format_bytes(f.peak_memory_bytes), f.reason or f.method or "-")
            for name, f in bench.footprint.items()
        ]
        parts.append(Part("Peak memory", grid=Grid(("runtime", "peak", "read from"), rows, (1,))))
    if bench.outliers:
        parts.append(_outliers(bench))
    return parts


def _summary(bench: Bench) -> Grid:
    rows = [
        (
            label(stage),
            name,
            f"{s.n:,}",
            format_ns(s.median_ns),
            _times(s.ci95_ns),
            format_ns(s.p95_ns),
            format_ns(s.p99_ns),
        )
        for stage in STAGES
        for name in bench.runtimes
        if (s := bench.summary[name].get(stage)) is not None
    ]
    return Grid(("stage", "runtime", "n", "median", "95 % interval", "p95", "p99"), rows, range(2, 7))


MOST_OUTLIERS: Final = 20


def _outliers(bench: Bench) -> Part:
    worst = sorted(bench.outliers, key=lambda each: -each.times_usual)[:MOST_OUTLIERS]
    rows = [
        (
            each.runtime,
            str(each.order),
            format_ns(each.whole_ns),
            f"{each.times_usual:.1f} x",
            "; ".join(
                f"{d.what.removesuffix('_ns').removesuffix('_us').replace('_', ' ')} {_amount(d.what, d.value)} "
                f"(usually {_amount(d.what, d.usual)})"
                for d in each.different
            )
            or "nothing else that is recorded differed",
        )
        for each in worst
    ]
    about = f"{len(bench.outliers)} samples are far from the others. All are kept in every figure."
    if len(worst) < len(bench.outliers):
        about += f" The {len(worst)} slowest:"
    grid = Grid(("runtime", "run", "whole", "of usual", "what was different then"), rows, (1, 2, 3))
    return Part("Outliers", about, grid=grid)


def _amount(what: str, value: float) -> str:
    if what.endswith("_ns"):
        return format_ns(value)
    return format_ns(value * 1000) if what.endswith("_us") else f"{value:g}"


def _sweep_parts(canvas: Canvas, sweep: Sweep) -> list[Part]:
    rows = [
        (
            ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in point.point.items()),
            name,
            f"{whole.n:,}",
            format_ns(whole.median_ns),
            _times(whole.ci95_ns),
        )
        for point in sweep.points
        for name, stages in point.summary.items()
        if (whole := stages.get("whole_ns")) is not None
    ]
    grid = Grid(("point", "runtime", "n", "median", "95 % interval"), rows, (2, 3, 4))
    about = "Medians of the whole lifecycle; the broad lines are their 95 % intervals."
    return [Part("By point", about, experiments.sweep_charts(canvas, sweep), grid, folded=True, panels=True)]


def _ablation_parts(canvas: Canvas, ablation: Ablation) -> list[Part]:
    meaning = {part.name: part.about for part in ablation.parts}
    rows = [
        (name, cost.part, format_ns(cost.cost_ns), _times(cost.ci95_ns), meaning.get(cost.part, ""))
        for name, costs in ablation.costs.items()
        for cost in costs
    ]
    grid = Grid(("runtime", "part", "cost", "95 % interval", "what it is"), rows, (2, 3))
    told = [
        f"{name} without any part {format_ns(fit.bare_ns)}"
        + (f", with all {format_ns(fit.full_ns)} measured" if fit.full_ns is not None else "")
        + (f" and {format_ns(fit.predicted_full_ns)} added up" if fit.predicted_full_ns is not None else "")
        for name, fit in ablation.fit.items()
    ]
    about = (
        "What each part adds to create, start and delete together, with 95 % intervals, all else being equal. Hollow "
        f"and grey: cannot be told from none, all parts judged together. {'; '.join(told)}."
    )
    return [
        Part("Cost of each part", about, experiments.ablation_charts(canvas, ablation), grid, folded=True, panels=True)
    ]


def _floor_parts(canvas: Canvas, floors: MemoryFloor) -> list[Part]:
    chart = experiments.floor_chart(canvas, floors)
    rows = [
        (
            name,
            format_bytes(floor.floor_bytes),
            format_bytes(floor.peak.peak_memory_bytes),
            floor.reason or (floor.edge.cause or "" if floor.edge else ""),
            floor.edge.text or "" if floor.edge else "",
        )
        for name, floor in floors.floors.items()
    ]
    grid = Grid(("runtime", "smallest limit", "own peak", "cause below it", "what it says there"), rows, (1, 2))
    return [Part("Limits", "", [chart] if chart is not None else [], grid)]


def _trace_parts(canvas: Canvas, trace: Trace) -> list[Part]:
    chart = timeline.timeline_chart(canvas, trace)
    names = runtimes_of(trace)
    rows = [
        (str(number), phase, *(format_ns(times.get(name)) for name in names))
        for number, phase, times in timeline.medians(trace)
    ]
    wholes = [format_ns(median(t.whole_ns for t in trace.traces if t.runtime == name)) for name in names]
    counts = ", ".join(f"{sum(t.runtime == name for t in trace.traces)} of {name}" for name in names)
    rows.append(("", "whole", *wholes))
    grid = Grid(("", "phase", *names), rows, (0, *range(2, 2 + len(names))))
    about = (
        f"A phase is named for what is reached at its end. Medians in the table are over all traced starts ({counts})."
    )
    lost = sum(each.lost_events or 0 for each in trace.traces)
    if lost:
        about += f" {lost} events were lost: figures may be wrong."
    return [Part("Phases", about, [chart] if chart is not None else [], grid)]


def _environment(value: Circumstances) -> list[tuple[str, str]]:
    facts = {
        "kernel": fact(value.environment, "kernel/release"),
        "architecture": fact(value.environment, "kernel/machine"),
        "CPU": fact(value.environment, "cpu/model"),
        "usable CPUs": fact(value.environment, "cpu/usable"),
        "virtual machine": fact(value.environment, "cpu/virtual_machine"),
        "governor": fact(value.environment, "cpu/governor"),
        "memory": _bytes_or_none(fact(value.environment, "memory_bytes")),
        "cgroup view": fact(value.environment, "cgroup/view"),
        "LSM": fact(value.environment, "lsm"),
        "load before": fact(value.environment, "load_before"),
        "oci-harness": fact(value.environment, "oci_harness"),
    }
    if isinstance(value, Matrix):
        facts["kernel"] = ", ".join(f"{kernel.name} ({kernel.release})" for kernel in value.kernels)
        facts |= {f"guest {n}": _guest(guest) for n, guest in enumerate(value.guests, 1)}
    listed = fact(value.environment, "runtimes")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict):
            digest = fact(entry, "binary/sha256")
            told = [entry.get("version"), entry.get("path"), f"sha256 {str(digest)[:16]}" if digest else None]
            facts[str(entry.get("name"))] = ", ".join(str(each) for each in told if each)
    facts |= {name.replace("_", " "): setting for name, setting in value.settings.items()}
    return [(name, _plain(each)) for name, each in facts.items()]


def _guest(guest: Guest) -> str:
    booted = "never came up" if guest.boot_s is None else f"up after {guest.boot_s:.0f} s"
    return f"{guest.kernel}, {guest.view}, {guest.accelerator or 'on this host'}: {booted}, {guest.seconds or 0:.0f} s"


def _bytes_or_none(value: Any) -> str | None:
    return format_bytes(value) if isinstance(value, int) else None


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
