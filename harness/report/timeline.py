"""Where the time of a start goes: the phases of traced starts, side by side."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

from harness.report.figure import INK, PAPER, PARTS, PARTS_OWN, Canvas, Chart, shown, time_axis
from harness.report.saved import OneTrace, Phase, Trace
from harness.units import format_ns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# phase (harness/trace/phases.py): the operation that it belongs to; others belong to that of the phase before
BELONGS: Final = {
    "spawn": "create",
    "ready for start": "create",
    "start spawned": "start",
    "start returned": "start",
    "kill spawned": "kill",
    "kill returned": "kill",
    "reaped": "run",
    "delete spawned": "delete",
    "delete": "delete",
}
NAMES: Final = {"create": "create", "start": "start", "run": "waiting for the end", "kill": "kill", "delete": "delete"}
OWN: Final = "the harness between operations"
CHARACTER = 4.9  # points of a small letter


def usual_traces(trace: Trace) -> dict[str, OneTrace]:
    """Of each runtime the traced start that is nearest to its median."""
    found = {}
    for name in dict.fromkeys(each.runtime for each in trace.traces):
        own = [each for each in trace.traces if each.runtime == name and each.phases]
        if own:
            middle = median(each.whole_ns for each in own)
            found[name] = min(own, key=lambda each: abs(each.whole_ns - middle))
    return found


def numbered(trace: Trace) -> dict[str, int]:
    """The phases of the usual traces, numbered in the order in which they come."""
    names: dict[str, int] = {}
    for one in usual_traces(trace).values():
        for phase in one.phases:
            names.setdefault(phase.name, len(names) + 1)
    return names


def grouped(one: OneTrace, own: list[str]) -> list[tuple[Phase, str]]:
    """(phase, the operation that it belongs to or "own")."""
    found, now, previous = [], "create", ""
    for phase in one.phases:
        if phase.name == "exit" and previous in ("start returned", "first instruction"):
            now = "run"  # the container ended by itself
        now = BELONGS.get(phase.name, now)
        found.append((phase, "own" if phase.name in own else now))
        previous = phase.name
    return found


def medians(trace: Trace) -> list[tuple[int, str, dict[str, float]]]:
    """(number, phase, {runtime: median over its traced starts in ns}) in the order of the numbers."""
    found = []
    for name, number in numbered(trace).items():
        values: dict[str, list[int]] = {}
        for each in trace.traces:
            for phase in each.phases:
                if phase.name == name:
                    values.setdefault(each.runtime, []).append(phase.duration_ns)
        found.append((number, name, {runtime: median(times) for runtime, times in values.items()}))
    return found


def timeline_chart(canvas: Canvas, trace: Trace) -> Chart | None:
    traces = usual_traces(trace)
    if not traces:
        return None
    numbers = numbered(trace)
    longest = max(one.whole_ns for one in traces.values())

    def paint(figure: Figure, narrow: bool) -> float:
        from matplotlib.patches import Patch

        axes = figure.subplots()
        used: dict[str, None] = {}
        for row, (name, one) in enumerate(reversed(traces.items())):
            phases = grouped(one, trace.harness_own)
            used |= dict.fromkeys(group for _, group in phases)
            _row(axes, row, phases, longest, 320.0 if narrow else 720.0, numbers)
            axes.text(0, row + 0.44, shown(name), color=INK, fontweight="bold")
            axes.text(one.whole_ns, row + 0.44, format_ns(one.whole_ns), color=INK, ha="right")
        time_axis(axes, 0, longest)
        axes.set_xlim(0, longest * 1.005)
        axes.set_yticks([])
        axes.set_ylim(-0.5, len(traces) - 0.2)
        order = [group for group in (*PARTS, "own") if group in used]
        handles = [Patch(color=_color(group), label=NAMES.get(group, OWN)) for group in order]
        figure.legend(
            handles=handles,
            loc="outside lower left",
            ncols=2 if narrow else 6,
            frameon=False,
            fontsize=9,
            handlelength=1,
            handleheight=1,
            columnspacing=1.2,
        )
        return 70.0 + 62 * len(traces) + (40 if narrow else 0)

    told = "; ".join(
        f"{name}, {format_ns(one.whole_ns)}: "
        + ", ".join(f"{phase.name} {format_ns(phase.duration_ns)}" for phase in one.phases)
        for name, one in traces.items()
    )
    return canvas.both(
        "Phases of one start of each runtime",
        f"Timelines of the starts nearest to the median. {told}.",
        paint,
        "Each bar is the traced start nearest to that runtime's median; numbers are those of the table.",
    )


def _color(group: str) -> str:
    return PARTS.get(group, PARTS_OWN)


def _row(
    axes: Axes, row: int, phases: list[tuple[Phase, str]], longest: int, width: float, numbers: dict[str, int]
) -> None:
    for number, (phase, group) in enumerate(phases):
        axes.barh(
            row,
            phase.duration_ns,
            left=phase.start_ns,
            height=0.68,
            color=_color(group),
            edgecolor=PAPER,
            linewidth=0.8,
            alpha=1.0 if number % 2 else 0.82,
        )
        room = phase.duration_ns / longest * width
        told = f"{numbers[phase.name]} {shown(phase.name)}"
        text = told if len(told) * CHARACTER < room - 6 else str(numbers[phase.name]) if room > 13 else ""
        if text:
            middle = phase.start_ns + phase.duration_ns / 2
            axes.text(middle, row, text, ha="center", va="center", color=PAPER, fontsize=8.5, fontweight="bold")
