"""Charts of a benchmark's samples: distributions, their course in time, and the ratios of runtimes."""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING, Final

from harness.report.figure import INK, LINE, MUTED, NARROW, PAPER, Canvas, Chart, dash, dots, series, shown, time_axis
from harness.report.saved import STAGES, Bench, Compared, label
from harness.report.verdicts import NO_DIFFERENCE, pair_verdict
from harness.units import format_ns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_DOTS: Final = 600  # of one runtime in one chart
SLOWEST: Final = 25  # always among them
CURVE: Final = 300  # points of a cumulative curve
BINS: Final = 40


def quantile(ordered: list[int], share: float) -> float:
    """Linear between the two nearest, as numpy does."""
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def thinned(ordered: list[int], most: int = MOST_DOTS) -> list[int]:
    """At most so many of the values: evenly by rank, and the slowest."""
    if len(ordered) <= most:
        return ordered
    body, top = ordered[:-SLOWEST], ordered[-SLOWEST:]
    count = most - SLOWEST
    return [body[round(at * (len(body) - 1) / (count - 1))] for at in range(count)] + top


def thinning_note(bench: Bench) -> str:
    largest = max((len(bench.of(name)) for name in bench.runtimes), default=0)
    if largest <= MOST_DOTS:
        return "Every dot is one lifecycle; all are drawn."
    return (
        f"Of each runtime's {largest:,} lifecycles {MOST_DOTS} are drawn as dots: the {SLOWEST} slowest, and the "
        "others evenly by rank. Curves, boxes and all figures use every sample."
    )


def _spread(ordered: list[int]) -> list[float]:
    """For each value its place across the strip, -0.5 to 0.5: wide where there are many of them."""
    low, high = ordered[0], ordered[-1]
    if low == high:
        places = [0] * len(ordered)
    else:
        scale = math.log(max(high, 1) / max(low, 1)) or 1.0
        places = [min(BINS - 1, int(BINS * math.log(max(v, 1) / max(low, 1)) / scale)) for v in ordered]
    counts = [0] * BINS
    for place in places:
        counts[place] += 1
    most = max(counts)
    return [(_van_der_corput(number) - 0.5) * counts[place] / most for number, place in enumerate(places, 1)]


def _van_der_corput(number: int) -> float:
    """Evenly filling, without clumps (base 2)."""
    found, step = 0.0, 0.5
    while number:
        found += step * (number & 1)
        number >>= 1
        step /= 2
    return found


def stage_chart(canvas: Canvas, bench: Bench, stage: str) -> Chart | None:
    """The cumulative curve above, then for each runtime all samples, the box of the middle half, and the median."""
    times = {name: sorted(found) for name in bench.runtimes if (found := bench.values(name, stage))}
    if not times:
        return None
    low, high = min(found[0] for found in times.values()), max(found[-1] for found in times.values())
    rows = len(times)

    def paint(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[96, 44 * rows])
        for number, name in enumerate(bench.runtimes):
            if name in times:
                _curve(above, times[name], number)
        above.set_ylim(-0.02, 1.04)
        above.set_yticks([0, 0.5, 0.95], ["0", "50 %", "95 %"])
        above.grid(axis="y")
        above.tick_params(labelbottom=False)
        above.spines["bottom"].set_visible(False)
        for row, (name, found) in enumerate(times.items()):
            _strip(below, found, rows - 1 - row, bench.runtimes.index(name), name)
        below.set_ylim(-0.55, rows - 0.28)
        below.set_yticks([])
        time_axis(below, low, high)

    told = "; ".join(
        f"{name}: {len(v)} samples, median {format_ns(quantile(v, 0.5))}, middle half {format_ns(quantile(v, 0.25))} "
        f"to {format_ns(quantile(v, 0.75))}, 95 % below {format_ns(quantile(v, 0.95))}, slowest {format_ns(v[-1])}"
        for name, v in times.items()
    )
    return Chart(
        label(stage).capitalize(),
        f"Distribution of {label(stage)}. {told}.",
        canvas.draw(NARROW, 140 + 46 * rows, paint),
    )


def _curve(axes: Axes, ordered: list[int], number: int) -> None:
    points = min(CURVE, len(ordered))
    x = [float(ordered[round(at * (len(ordered) - 1) / max(points - 1, 1))]) for at in range(points)]
    y = [bisect.bisect_right(ordered, value) / len(ordered) for value in x]
    axes.step([x[0], *x], [0.0, *y], where="post", color=series(number), linewidth=1.6, linestyle=dash(number))


def _strip(axes: Axes, ordered: list[int], row: int, number: int, name: str) -> None:
    drawn = thinned(ordered)
    offsets = _spread(drawn)
    dots(axes, [float(v) for v in drawn], [row - 0.12 + 0.52 * each for each in offsets], series(number))
    quarter, middle, three = (quantile(ordered, share) for share in (0.25, 0.5, 0.75))
    axes.plot([quarter, three], [row - 0.12] * 2, color=INK, linewidth=5.5, alpha=0.30, solid_capstyle="butt")
    axes.plot([middle] * 2, [row - 0.32, row + 0.08], color=INK, linewidth=2)
    transform = axes.get_yaxis_transform()
    axes.text(0.0, row + 0.27, shown(name), transform=transform, color=series(number), fontweight="bold")
    axes.text(1.0, row + 0.27, format_ns(middle), transform=transform, color=INK, ha="right")


def course_chart(canvas: Canvas, bench: Bench, stage: str = "whole_ns") -> Chart | None:
    """All samples in the order in which they ran: drift and bursts show here."""
    found = {
        name: sorted((s.order, value) for s in bench.of(name) if s.error is None and (value := s.value(stage)))
        for name in bench.runtimes
    }
    found = {name: points for name, points in found.items() if points}
    if not found:
        return None
    values = [value for points in found.values() for _, value in points]

    def paint(figure: Figure, narrow: bool) -> float:
        axes = figure.subplots()
        for number, name in enumerate(bench.runtimes):
            if name in found:
                points = _thinned_course(found[name], MOST_DOTS // (2 if narrow else 1))
                color = series(number)
                dots(axes, [float(order) for order, _ in points], [float(v) for _, v in points], color, 3.4, 0.6)
                _running(axes, found[name], number)
                last = found[name][-1][0]
                axes.annotate(
                    shown(name, 14),
                    (last, _last_level(found[name])),
                    xytext=(5, 0),
                    textcoords="offset points",
                    color=color,
                    fontweight="bold",
                    va="center",
                    annotation_clip=False,
                )
        _vertical_time(axes, min(values), max(values))
        axes.set_xlabel("order in which they ran")
        orders = [order for points in found.values() for order, _ in points]
        axes.set_xlim(min(orders) - 1, max(orders) + (max(orders) - min(orders)) * (0.16 if narrow else 0.08) + 1)
        return 210.0

    told = "; ".join(
        f"{name} first half {format_ns(_median(points[: len(points) // 2 or 1]))}, second half "
        f"{format_ns(_median(points[len(points) // 2 :]))}"
        for name, points in found.items()
    )
    return canvas.both(
        f"{label(stage).capitalize()} lifecycles in the order in which they ran",
        f"Times in the order of the runs, with a running median. Medians: {told}.",
        paint,
    )


def _median(points: list[tuple[int, int]]) -> float:
    return quantile(sorted(value for _, value in points), 0.5)


def _thinned_course(points: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    if len(points) <= most:
        return points
    slow = sorted(points, key=lambda point: -point[1])[:SLOWEST]
    even = [points[round(at * (len(points) - 1) / (most - SLOWEST - 1))] for at in range(most - SLOWEST)]
    return sorted({*even, *slow})


def _windows(points: list[tuple[int, int]]) -> list[tuple[float, float]]:
    """(middle of the window, median) of a twelfth of the points each."""
    size = max(5, len(points) // 12)
    if len(points) < 2 * size:
        return []
    parts = [points[at : at + size] for at in range(0, len(points) - size + 1, size)]
    return [(sum(order for order, _ in part) / len(part), _median(part)) for part in parts]


def _last_level(points: list[tuple[int, int]]) -> float:
    windows = _windows(points)
    return windows[-1][1] if windows else _median(points)


def _running(axes: Axes, points: list[tuple[int, int]], number: int) -> None:
    windows = _windows(points)
    if windows:
        x, y = zip(*windows, strict=True)
        axes.plot(x, y, color=PAPER, linewidth=4.2)
        axes.plot(x, y, color=series(number), linewidth=1.9, linestyle=dash(number))


def _vertical_time(axes: Axes, low: int, high: int) -> None:
    """time_axis for y."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    if low > 0 and high / low > 8:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(low / 1.1, high * 1.1)
    else:
        axes.set_ylim(0, high * 1.06)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    scale, unit = next((each for each in ((1e9, "s"), (1e6, "ms"), (1e3, "us")) if high >= 1.5 * each[0]), (1.0, "ns"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale:g} {unit}"))
    axes.grid(axis="y")
    axes.grid(visible=False, axis="x")


def ratio_charts(canvas: Canvas, compared: list[Compared], runtimes: list[str]) -> list[Chart]:
    """One for each pair: its ratio with interval at every stage, a line at 1."""
    pairs = list(dict.fromkeys((each.a, each.b) for each in compared))
    charts = []
    for a, b in pairs:
        own = [each for stage in STAGES for each in compared if (each.a, each.b, each.stage) == (a, b, stage)]
        charts.append(_ratio_chart(canvas, a, b, own, runtimes))
    return charts


def _ratio_chart(canvas: Canvas, a: str, b: str, own: list[Compared], runtimes: list[str]) -> Chart:
    from harness.report.scales import factor_axis

    def paint(figure: Figure, narrow: bool) -> float:
        axes = figure.subplots()
        low = min([1.0, *(each.ci95[0] for each in own)])
        high = max([1.0, *(each.ci95[1] for each in own)])
        factor_axis(axes, max(low, 1e-6), max(high, 1e-6))
        axes.axvline(1, color=MUTED, linewidth=1.2)
        for row, each in enumerate(reversed(own)):
            faster = each.b if each.verdict == "b-faster" else each.a
            known = each.verdict != NO_DIFFERENCE and faster in runtimes
            color = series(runtimes.index(faster)) if known else MUTED
            axes.plot(each.ci95, [row] * 2, color=color, linewidth=2.4, solid_capstyle="butt")
            axes.plot([each.ratio], [row], "o", color=color, markersize=6.5, markerfacecolor=color if known else PAPER)
            if not narrow:
                told = f"{each.ratio:.3f}   {pair_verdict(each)}"
                axes.text(1.02, row, shown(told, 70), transform=axes.get_yaxis_transform(), va="center")
        axes.set_yticks(range(len(own)), [label(each.stage) for each in reversed(own)])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(-0.6, len(own) - 0.4)
        axes.set_xlabel(f"time of {shown(b, 20)} by that of {shown(a, 20)}")
        axes.axhspan(-0.5, 0.5, color=LINE, alpha=0.25, linewidth=0)
        return 62.0 + 24 * len(own)

    told = "; ".join(
        f"{label(each.stage)} {each.ratio:.3f} ({each.ci95[0]:.3f} to {each.ci95[1]:.3f}), {pair_verdict(each)}"
        for each in own
    )
    about = f"Times of {b} by those of {a}, with 95 % intervals"
    return canvas.both(f"{b} against {a}", f"{about}. {told}.", paint)
