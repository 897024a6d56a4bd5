"""Charts of the experiments beside the plain benchmark: ablation, sweep, memory floor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from harness.report.figure import INK, MUTED, NARROW, PAPER, Canvas, Chart, dash, series, shown, time_axis
from harness.report.saved import Ablation, Cost, MemoryFloor, Sweep, SweepPoint
from harness.report.scales import bytes_axis
from harness.units import format_bytes, format_ns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PARTS: Final = 40
STAGE: Final = "whole_ns"


def ablation_charts(canvas: Canvas, ablation: Ablation) -> list[Chart]:
    """One for each runtime, on one scale, dearest part first."""
    every = [bound for costs in ablation.costs.values() for cost in costs for bound in (*cost.ci95_ns, cost.cost_ns)]
    if not every:
        return []
    low, high = min(0.0, *every), max(0.0, *every)
    charts = []
    for number, (name, costs) in enumerate(ablation.costs.items()):
        rows = sorted(costs, key=lambda cost: -cost.cost_ns)[:MOST_PARTS]
        told = "; ".join(
            f"{cost.part} {format_ns(cost.cost_ns)} ({format_ns(cost.ci95_ns[0])} to {format_ns(cost.ci95_ns[1])})"
            for cost in rows
        )
        svg = canvas.draw(NARROW, 42 + 17.5 * len(rows), _ablation(rows, low, high, series(number)))
        charts.append(Chart(name, f"What each part of config.json costs {name}, with 95 % intervals: {told}.", svg))
    return charts


def _ablation(rows: list[Cost], low: float, high: float, color: str) -> Any:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=MUTED, linewidth=1.2)
        for row, cost in enumerate(reversed(rows)):
            own = color if cost.found else MUTED
            axes.plot([0, cost.cost_ns], [row] * 2, color=own, linewidth=7, alpha=0.35, solid_capstyle="butt")
            axes.plot(cost.ci95_ns, [row] * 2, color=own, linewidth=1.6)
            axes.plot(
                [cost.cost_ns], [row], "o", color=own, markersize=5, markerfacecolor=own if own == color else PAPER
            )
        axes.set_yticks(range(len(rows)), [shown(cost.part, 24) for cost in reversed(rows)])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        time_axis(axes, 0, high)
        axes.set_xlim(low - (high - low) * 0.03, high + (high - low) * 0.03)

    return paint


def sweep_charts(canvas: Canvas, sweep: Sweep) -> list[Chart]:
    """The longest dimension along x, a chart for each combination of the others, one scale for all."""
    asked = sweep.settings.get("sweep")
    swept: dict[str, list[Any]] = asked if isinstance(asked, dict) else {}
    swept = {name: values for name, values in swept.items() if isinstance(values, list) and values}
    if not swept:
        return []
    along = max(swept, key=lambda name: len(swept[name]))
    others = [name for name in swept if name != along]
    groups: dict[tuple[Any, ...], list[SweepPoint]] = {}
    for point in sweep.points:
        groups.setdefault(tuple(point.point.get(name) for name in others), []).append(point)
    highest = max((s[STAGE].ci95_ns[1] for p in sweep.points for s in p.summary.values() if STAGE in s), default=0.0)
    if not highest:
        return []
    charts = []
    for key, points in groups.items():
        title = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in zip(others, key, strict=True))
        told = "; ".join(
            f"{along.replace('_', ' ')} {point.point.get(along)}: "
            + ", ".join(f"{name} {format_ns(s[STAGE].median_ns)}" for name, s in point.summary.items() if STAGE in s)
            for point in points
        )
        svg = canvas.draw(NARROW, 220, _sweep(points, along, highest))
        name = f"Whole lifecycle by {along.replace('_', ' ')}" + (f", {title}" if title else "")
        charts.append(Chart(name, f"Medians of the whole lifecycle: {told}.", svg))
    return charts


def _sweep(points: list[SweepPoint], along: str, highest: float) -> Any:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        names = list(dict.fromkeys(name for point in points for name in point.summary))
        ends: list[tuple[float, float, str, str]] = []
        for number, name in enumerate(names):
            found = [(at, p.summary[name][STAGE]) for at, p in enumerate(points) if STAGE in p.summary.get(name, {})]
            x = [at + (number - (len(names) - 1) / 2) * 0.08 for at, _ in found]
            color = series(number)
            axes.plot(
                x, [s.median_ns for _, s in found], color=color, linewidth=1.8, linestyle=dash(number), marker="o"
            )
            for at, (_, summary) in zip(x, found, strict=True):
                axes.plot([at] * 2, summary.ci95_ns, color=color, linewidth=3, alpha=0.45, solid_capstyle="butt")
            if found:
                ends.append((found[-1][1].median_ns, x[-1], name, color))
        for level, (_, at, name, color) in zip(apart([end[0] for end in ends], highest * 0.075), ends, strict=True):
            axes.annotate(
                shown(name, 12),
                (at, level),
                xytext=(9, 0),
                textcoords="offset points",
                color=color,
                fontweight="bold",
                va="center",
                annotation_clip=False,
            )
        axes.set_xticks(range(len(points)), [str(point.point.get(along)) for point in points])
        axes.set_xlim(-0.4, len(points) - 1 + 0.25 * len(points))
        axes.set_xlabel(along.replace("_", " "))
        axes.set_ylim(0, highest * 1.05)
        _times_up(axes, highest)

    return paint


def apart(levels: list[float], least: float) -> list[float]:
    """The levels, moved up where two would be nearer than `least`, so that labels there can be read."""
    found = list(levels)
    below = None
    for at in sorted(range(len(levels)), key=lambda place: levels[place]):
        if below is not None and found[at] < below + least:
            found[at] = below + least
        below = found[at]
    return found


def _times_up(axes: Axes, high: float) -> None:
    from matplotlib.ticker import FuncFormatter

    scale, unit = next((each for each in ((1e9, "s"), (1e6, "ms"), (1e3, "us")) if high >= 1.5 * each[0]), (1.0, "ns"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale:g} {unit}"))
    axes.grid(axis="y")
    axes.grid(visible=False, axis="x")


def floor_chart(canvas: Canvas, floors: MemoryFloor) -> Chart | None:
    """All limits that were tried, a row a runtime: filled where all attempts started, hollow where some failed."""
    rows = {name: floor for name, floor in floors.floors.items() if floor.attempts}
    if not rows:
        return None
    limits = [attempt.limit_bytes for floor in rows.values() for attempt in floor.attempts]
    low, high = max(1, min(limits)), max(limits)

    def paint(figure: Figure, narrow: bool) -> float:
        axes = figure.subplots()
        for row, (name, floor) in enumerate(reversed(rows.items())):
            color = series(list(floors.floors).index(name))
            if floor.floor_bytes is not None:
                axes.plot([floor.floor_bytes, high * 1.3], [row] * 2, color=color, linewidth=9, alpha=0.25)
                axes.plot([floor.floor_bytes] * 2, [row - 0.22, row + 0.22], color=color, linewidth=2.5)
                axes.text(floor.floor_bytes, row + 0.33, format_bytes(floor.floor_bytes), color=INK, ha="center")
            for attempt in floor.attempts:
                whole = attempt.started == attempt.tries > 0
                face = color if whole else PAPER
                mark = "o" if attempt.started else "x"
                axes.plot(
                    [attempt.limit_bytes],
                    [row],
                    mark,
                    color=color if attempt.started else MUTED,
                    markersize=6.5,
                    markerfacecolor=face,
                    markeredgewidth=1.6,
                )
        axes.set_yticks(range(len(rows)), [shown(name, 14) for name in reversed(rows)])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(-0.6, len(rows) - 0.2)
        bytes_axis(axes, low, high)
        axes.set_xlabel("memory limit of the container")
        return 66.0 + 46 * len(rows)

    told = "; ".join(
        f"{name}: " + ", ".join(f"{a.started} of {a.tries} with {format_bytes(a.limit_bytes)}" for a in floor.attempts)
        for name, floor in rows.items()
    )
    return canvas.both(
        "Memory limits that were tried",
        f"How many attempts started. {told}.",
        paint,
        "Filled: every attempt started; hollow: some did; cross: none did. The line is the floor.",
    )
