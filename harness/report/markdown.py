"""A comparison or a benchmark as GitHub-flavoured Markdown, for a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.report.comparison import Comparison, Table
from harness.report.saved import STAGES, Bench, Note, fact, label, runtime_fact
from harness.report.verdicts import pair_verdict, verdict_of
from harness.units import format_bytes, format_ns

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~@&!])")


def escaped(text: str) -> str:
    """Plain text in a table's cell or a paragraph: no markup, no mention, no line break."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    aligned = set(right)
    lines = [columns, ["---:" if at in aligned else "---" for at in range(len(columns))]]
    head = ["| " + " | ".join(each) + " |" for each in (map(escaped, lines[0]), lines[1])]
    return "\n".join(head + ["| " + " | ".join(map(escaped, row)) + " |" for row in rows]) + "\n"


def _table(table: Table) -> str:
    return markdown_table(table.columns, table.rows, table.right)


def _notes(title: str, notes: list[Note]) -> str:
    if not notes:
        return ""
    lines = "\n".join(f"- **{escaped(each.id)}**: {escaped(each.message)}" for each in notes)
    return f"\n<details><summary>{len(notes)} {title}</summary>\n\n{lines}\n\n</details>\n"


def comparison_markdown(comparison: Comparison) -> str:
    return f"**{escaped(comparison.sentence)}**\n\n{_table(comparison.table)}{_notes('warnings', comparison.warnings)}"


def bench_markdown(bench: Bench) -> str:
    """The verdict, a table of the stages, the ratios, the caveats."""
    rows = [
        (
            label(stage),
            name,
            str(summary.n),
            format_ns(summary.median_ns),
            f"{format_ns(summary.ci95_ns[0])} .. {format_ns(summary.ci95_ns[1])}",
            format_ns(summary.p95_ns),
            format_ns(summary.p99_ns),
        )
        for stage in STAGES
        for name in bench.runtimes
        if (summary := bench.summary[name].get(stage)) is not None
    ]
    heads = ("stage", "runtime", "n", "median", "95 % interval", "p95", "p99")
    parts = [f"**{escaped(verdict_of(bench))}**\n", markdown_table(heads, rows, range(2, 7))]
    if bench.comparisons:
        ratios = [
            (label(c.stage), f"{c.b} / {c.a}", f"{c.ratio:.3f}", f"{c.ci95[0]:.3f} .. {c.ci95[1]:.3f}", pair_verdict(c))
            for c in bench.comparisons
        ]
        parts.append(markdown_table(("stage", "compared", "ratio", "95 % interval", "verdict"), ratios, (2, 3)))
    versions = ", ".join(
        f"{name} {runtime_fact(bench.environment, name, 'version') or ''}".strip() for name in bench.runtimes
    )
    facts = [
        versions,
        f"kernel {fact(bench.environment, 'kernel/release')}",
        f"{fact(bench.environment, 'cgroup/view')} view",
    ]
    peaks = [
        f"{name} peaks at {format_bytes(each.peak_memory_bytes)}"
        for name, each in bench.footprint.items()
        if each.peak_memory_bytes is not None
    ]
    parts.append(escaped("; ".join(facts + peaks)) + "\n")
    return "\n".join(parts) + _notes("caveats", bench.caveats)
