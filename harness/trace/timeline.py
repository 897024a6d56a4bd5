"""One start as lines of text: each phase a bar at its place in time."""

from __future__ import annotations

from harness.trace.collect import Trace
from harness.units import format_ns

BAR = 60  # columns
MANY = 2  # absent phases that are named in a label
STEP_SHARE = 0.01  # of the whole; shorter steps are left out


def draw(trace: Trace, width: int = BAR) -> list[str]:
    """The head line, then one for each phase and each longer step within it."""
    rows: list[tuple[str, int, int]] = []
    for phase in trace.phases:
        held = ", ".join(phase.includes) if len(phase.includes) <= MANY else f"{len(phase.includes)} others"
        name = f"{phase.name} (with {held})" if held else phase.name
        rows.append((name, phase.start_ns, phase.end_ns))
        rows += [
            (f"  {step.name}", step.start_ns, step.end_ns)
            for step in phase.steps
            if step.end_ns - step.start_ns >= STEP_SHARE * trace.whole_ns
        ]
    label = max(len(name) for name, _, _ in rows)
    whole = max(trace.whole_ns, 1)
    lines = [
        f"{trace.runtime.name}: start {trace.index} of {format_ns(trace.whole_ns)}, the nearest to the median; "
        f"one column is {format_ns(whole / width)}"
    ]
    for name, start_ns, end_ns in rows:
        first = min(start_ns * width // whole, width - 1)
        last = max(first + 1, -(-end_ns * width // whole))
        mark = "-" if name.startswith("  ") else "#"
        bar = " " * first + mark * (last - first)
        lines.append(f"{name:{label}}  {format_ns(start_ns):>9} {format_ns(end_ns - start_ns):>9} |{bar:{width}}|")
    return lines
