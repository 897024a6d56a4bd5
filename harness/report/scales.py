"""Axes for ratios and for bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NICE = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.25,
    0.33,
    0.5,
    0.67,
    0.8,
    0.9,
    0.95,
    1,
    1.05,
    1.1,
    1.25,
    1.5,
    2,
    3,
    4,
    5,
    10,
    20,
    50,
    100,
)


def factor_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic x axis, so that twice and half as long are equally far from 1."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    axes.set_xscale("log")
    low, high = low / 1.06, high * 1.06
    axes.set_xlim(low, high)
    inside = [tick for tick in NICE if low <= tick <= high]
    apart = math.log(high / low) / 9
    ticks = [1.0]
    for tick in sorted(inside, key=lambda each: abs(math.log(each))):
        if all(abs(math.log(tick / other)) >= apart for other in ticks):
            ticks.append(tick)
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def bytes_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic x axis with ticks at powers of two."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(low / 1.3, high * 1.3)
    powers = list(range(math.ceil(math.log2(low / 1.3)), math.floor(math.log2(high * 1.3)) + 1))
    step = max(1, math.ceil(len(powers) / 6))
    axes.xaxis.set_major_locator(FixedLocator([2.0**power for power in powers[::step]]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(value).replace(".0 ", " ")))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
