"""What is said of a comparison of benchmarks: verdicts in words, warnings, table, checks."""

from __future__ import annotations

from typing import Final, Literal

from harness.report.changes import Change, Changes, Failures, called, find_changes
from harness.report.comparison import Asked, Case, Comparison, Table
from harness.report.environment import same_binary
from harness.report.saved import Note, Saved, label
from harness.units import format_ns

MOST_NAMED: Final = 4


def compare_bench(old: Saved, new: Saved, asked: Asked) -> Comparison:
    """Raises InputError for runtimes or stages that are not in both."""
    found = find_changes(old, new, asked)
    cases = [case(each, asked.fail_on) for each in found.stages] + [failure_case(each) for each in found.failures]
    return Comparison(
        old.schema,
        old.path,
        new.path,
        found.failed,
        sentence(found.stages, [each for each in found.failures if each.worse], asked.fail_on),
        table(found.stages, asked.fail_on),
        cases,
        warnings(old, new, found),
        found.to_json(),
    )


def warnings(old: Saved, new: Saved, changes: Changes) -> list[Note]:
    before, after = old.value, new.value
    found = []
    apart = [str(each) for each in changes.differences if not each.subject]
    if apart:
        found.append(Note("environment-differs", f"not the runtimes alone differ: {'; '.join(apart)}"))
    same = [(a, b) for a, b in changes.pairs if same_binary(before, a, after, b)]
    if same and old is not new:
        moved = {c.name for c in changes.stages if (c.old, c.new) in same and c.verdict != "no-detectable-difference"}
        names = ", ".join(called(a, b) for a, b in same)
        if moved:
            text = f"{', '.join(sorted(moved))}: the same binary in both, yet its times differ: the machine changed"
            found.append(Note("machine-changed", f"{text}; --control takes out what it did to the others"))
        elif len(same) == len(changes.pairs):
            found.append(Note("same-binary", f"{names}: the same binary in both"))
    if not any(c.minimum_detectable is not None for c in changes.stages):
        found.append(Note("few-samples", "too few samples on a side: nothing can be told, not even a large difference"))
    else:
        found += _blind(changes.stages, changes.fail_on)
    if old is new:
        return found + before.caveats
    for saved, mine, others in ((old, before, after), (new, after, before)):
        known = {each.id for each in others.caveats}
        found += [Note(each.id, f"{saved.name} alone: {each.message}") for each in mine.caveats if each.id not in known]
    return found


def _blind(changes: list[Change], fail_on: float) -> list[Note]:
    """Stages in which a regression twice the threshold may well have been missed."""
    missed = [
        (c.smallest_failing, f"{c.name} {label(c.stage)} {c.smallest_failing:.0%}")
        for c in changes
        if c.smallest_failing is not None and c.smallest_failing > 2 * fail_on and c.verdict != "regression"
    ]
    if not missed:
        return []
    told = ", ".join(text for _, text in sorted(missed, reverse=True)[:MOST_NAMED])
    text = f"in {len(missed)} of {len(changes)} rows only a slowdown larger than {2 * fail_on:.0%} is sure to be found"
    text += f" (largest: {told}); take more samples"
    return [Note("insensitive", text)]


def describe(change: Change, fail_on: float) -> str:
    """`regression: 12.3 % slower, 8.1 to 16.5 %`; or that none can be seen, and how large one would have been."""
    low, high = (bound - 1 for bound in change.ci95_together)
    if change.verdict == "no-detectable-difference":
        if change.minimum_detectable is None:
            return "too few samples"
        return f"no detectable difference ({change.minimum_detectable:.1%} would have shown)"
    if change.verdict == "faster":
        return f"faster by {1 - change.ratio:.1%} ({-high:.1%} to {-low:.1%})"
    text = f"slower by {change.ratio - 1:.1%} ({low:.1%} to {high:.1%})"
    return f"REGRESSION: {text}" if change.verdict == "regression" else f"{text}, not surely more than {fail_on:.0%}"


def sentence(changes: list[Change], broken: list[Failures], fail_on: float) -> str:
    if broken:
        each = broken[0]
        told = f"{each.failed[1]} of {each.total[1]} lifecycles failed, before {each.failed[0]} of {each.total[0]}"
        return f"Regression: {called(each.old, each.new)}: {told}: {each.first}"
    worse = [c for c in changes if c.verdict == "regression"]
    if worse:
        return f"Regression of more than {fail_on:.0%}: {_listed(worse)}."
    moved = [c for c in changes if c.verdict != "no-detectable-difference"]
    if moved:
        return f"No regression of more than {fail_on:.0%}; {_listed(moved)}."
    whole = next((c for c in changes if c.stage == "whole_ns"), changes[0])
    least = whole.minimum_detectable
    seen = "too few samples to see any" if least is None else f"one of {least:.1%} would have shown"
    return f"No detectable difference ({label(whole.stage)}: {seen})."


def _listed(changes: list[Change]) -> str:
    """The whole lifecycles first."""
    ordered = sorted(changes, key=lambda c: c.stage != "whole_ns")
    told = [
        f"{c.name} {label(c.stage)} {abs(c.ratio - 1):.1%} {'slower' if c.ratio > 1 else 'faster'}" for c in ordered
    ]
    more = f" and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
    return ", ".join(told[:MOST_NAMED]) + more


def table(changes: list[Change], fail_on: float) -> Table:
    how = "95 % interval" + (f", all {len(changes)} together" if len(changes) > 1 else "")
    rows: list[tuple[str, ...]] = [
        (
            c.name,
            label(c.stage),
            f"{c.n[0]}, {c.n[1]}",
            format_ns(c.median_ns[0]),
            format_ns(c.median_ns[1]),
            f"{c.ratio:.3f}",
            f"{c.ci95_together[0]:.3f} .. {c.ci95_together[1]:.3f}",
            describe(c, fail_on),
        )
        for c in changes
    ]
    return Table(("runtime", "stage", "n", "old", "new", "new / old", how, "verdict"), rows, right=(2, 3, 4, 5, 6))


def case(change: Change, fail_on: float) -> Case:
    bad = change.verdict == "regression"
    outcome: Literal["failed", "skipped", "passed"] = (
        "failed" if bad else "skipped" if change.minimum_detectable is None else "passed"
    )
    return Case(change.name, label(change.stage), outcome, describe(change, fail_on), change.median_ns[1] / 1e9)


def failure_case(each: Failures) -> Case:
    told = f"{each.failed[1]} of {each.total[1]} lifecycles failed, before {each.failed[0]} of {each.total[0]}"
    return Case(
        called(each.old, each.new),
        "failed lifecycles",
        "failed" if each.worse else "passed",
        told + (f": {each.first}" if each.first else ""),
    )
