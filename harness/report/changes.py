"""How the times of runtimes changed from one benchmark to another, or from one runtime to another of the same one.

A regression is a change whose interval lies wholly above the threshold. Several stages are judged at once, so the
intervals are widened to hold together: all of them cover the truth in 95 of 100 comparisons (Bonferroni). Two files are
compared as two independent series; two runtimes of one file round by round, which cancels what slowed a whole round.

JSON: fail_on, paired, changes[], failures[], memory[], differences[] (Change, Failures, Memory, environment.Differing).
"""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist, median
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import Struct
from msgspec.structs import asdict, replace

from harness.errors import InputError
from harness.report.comparison import Asked
from harness.report.environment import Differing, differing, same_binary
from harness.report.saved import Bench, Sample, Saved, stages_named

if TYPE_CHECKING:
    from harness.bench.figures import Comparison as Figures

Verdict = Literal["regression", "slower", "faster", "no-detectable-difference"]
Pair = tuple[str, str]  # name in old, name in new
BLOCKS: Final = 400  # a longer series is cut into so many blocks; what is judged are their centres
TRIM: Final = 0.2  # as in harness/bench/statistics.py
UNIT: Final = 1_000_000_000  # a ratio of 1 as a whole number
SURE: Final = 0.01  # chance of that many more failures when nothing changed
Z: Final = NormalDist().inv_cdf


class Change(Struct, frozen=True):
    """One stage. The ratio is new by old, above 1 is slower."""

    old: str
    new: str
    stage: str
    n: tuple[int, int]
    median_ns: tuple[float, float]
    ratio: float
    ci95: tuple[float, float]  # of this stage alone
    ci95_together: tuple[float, float]  # of all stages that were judged
    p_value: float
    verdict: Verdict
    # smallest difference (0.03 is 3 %) that would have been seen in 80 of 100 such comparisons; None: too few samples
    minimum_detectable: float | None
    smallest_failing: float | None  # smallest slowdown that would have been a regression in as many

    @property
    def name(self) -> str:
        return called(self.old, self.new)

    def to_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


class Failures(Struct, frozen=True):
    """Lifecycles that failed, of all."""

    old: str
    new: str
    failed: tuple[int, int]
    total: tuple[int, int]
    p_value: float  # of so many more by chance, Fisher's exact test
    first: str | None

    @property
    def worse(self) -> bool:
        return self.failed[1] > 0 and self.p_value < SURE

    def to_json(self) -> dict[str, Any]:
        both = {"failed": list(self.failed), "total": list(self.total)}
        return asdict(self) | both | {"verdict": "regression" if self.worse else "no-detectable-difference"}


class Changes(Struct, frozen=True):
    """All that two results tell."""

    fail_on: float
    paired: bool
    pairs: list[Pair]
    stages: list[Change]
    failures: list[Failures]
    memory: list[dict[str, Any]]
    differences: list[Differing]

    @property
    def failed(self) -> bool:
        return any(each.verdict == "regression" for each in self.stages) or any(each.worse for each in self.failures)

    def to_json(self) -> dict[str, Any]:
        return {
            "fail_on": self.fail_on,
            "paired": self.paired,
            "changes": [each.to_json() for each in self.stages],
            "failures": [each.to_json() for each in self.failures],
            "memory": self.memory,
            "differences": [each.to_json() for each in self.differences],
        }


def find_changes(old: Saved, new: Saved, asked: Asked) -> Changes:
    """`old` is `new`: two runtimes of one result. Raises InputError for runtimes or stages that are not in both."""
    before, after = old.value, new.value
    assert isinstance(before, Bench)
    assert isinstance(after, Bench)
    one = old is new
    pairs = _pairs(old, new, asked.runtimes)
    if asked.control is not None:
        _check_control(old, new, asked.control)
        pairs = [pair for pair in pairs if pair != (asked.control, asked.control)]
    wanted = stages_named(asked.stages)
    found = [
        figures
        for pair in pairs
        for stage in wanted
        if (figures := _measure(before, after, pair, stage, one, asked.control)) is not None
    ]
    failures = [_failures(before, after, a, b) for a, b in pairs]
    if not found and not any(each.worse for each in failures):
        names = ", ".join(called(a, b) for a, b in pairs)
        raise InputError(
            f"{old.path} and {new.path}: nothing to compare: {names} has no time of {_list(wanted)} in both"
        )
    return Changes(
        asked.fail_on,
        one,
        pairs,
        [_judge(figures, len(found), asked.fail_on, *sides) for figures, sides in found],
        failures,
        _memory(before, after, pairs),
        differing(before, after, pairs),
    )


def _pairs(old: Saved, new: Saved, asked: tuple[str, ...]) -> list[Pair]:
    before, after = old.value, new.value
    assert isinstance(before, Bench)
    assert isinstance(after, Bench)
    if old is new:
        return [_pair_of_one(old, before, asked)]
    if not asked:
        found = [(name, name) for name in before.runtimes if name in after.runtimes]
        if not found:
            raise InputError(
                f"{new.path}: has {_list(after.runtimes)}, but {old.path} has {_list(before.runtimes)}; "
                "name what to compare: --runtime OLD=NEW"
            )
        return found
    found = [(text, text) if "=" not in text else _split(text) for text in asked]
    for a, b in found:
        for name, saved, runtimes in ((a, old, before.runtimes), (b, new, after.runtimes)):
            _known(name, saved, runtimes)
    return list(dict.fromkeys(found))


def _pair_of_one(saved: Saved, bench: Bench, asked: tuple[str, ...]) -> Pair:
    names = [name for text in asked for name in (_split(text) if "=" in text else (text,))] or bench.runtimes
    for name in names:
        _known(name, saved, bench.runtimes)
    if len(names) != 2 or names[0] == names[1]:
        raise InputError(
            f"{saved.path}: has {_list(bench.runtimes)}; to compare within one file name two of them, the old one "
            "first: --runtime OLD --runtime NEW"
        )
    return names[0], names[1]


def _check_control(old: Saved, new: Saved, control: str) -> None:
    for saved in (old, new):
        assert isinstance(saved.value, Bench)
        _known(control, saved, saved.value.runtimes, "--control")
    if old is new:
        raise InputError(f"--control {control}: is for two files; two runtimes of one are compared round by round")
    if not same_binary(old.value, control, new.value, control):
        raise InputError(f"--control {control}: is not known to be the same binary in {old.path} and {new.path}")


def _split(text: str) -> Pair:
    a, _, b = text.partition("=")
    return a, b


def _known(name: str, saved: Saved, runtimes: list[str], flag: str = "--runtime") -> None:
    if name not in runtimes:
        raise InputError(f"{flag} {name}: {saved.path} has only {_list(runtimes)}")


def _list(names: list[str]) -> str:
    return ", ".join(names) or "no runtime at all"


def called(a: str, b: str) -> str:
    """As the ratio is: new by old."""
    return a if a == b else f"{b} / {a}"


def _measure(
    before: Bench, after: Bench, pair: Pair, stage: str, one: bool, control: str | None
) -> tuple[Figures, tuple[int, int, float, float]] | None:
    """The figures of one stage, and n and median of either side; None where a side has no such time."""
    from harness.bench.statistics import compare, compare_independent

    a, b = pair
    left, right = before.values(a, stage), after.values(b, stage)
    if not left or not right:
        return None
    sides = len(left), len(right), median(left), median(right)
    if not one:
        if control is not None:
            left = _by_control(_rounds(before.of(control), before.of(a), stage)[0])
            right = _by_control(_rounds(after.of(control), after.of(b), stage)[0])
            if not left or not right:
                return None
        return compare_independent(a, b, stage, condensed(left), condensed(right)), sides
    rounds, a_first = _rounds(before.of(a), before.of(b), stage)
    if not rounds:
        return None
    if len(rounds) <= BLOCKS:
        return compare(a, b, stage, rounds, a_first=a_first), sides
    return compare(a, b, stage, [(UNIT, ratio) for ratio in condensed(_by_control(rounds))]), sides


def _by_control(rounds: list[tuple[int, int]]) -> list[int]:
    """A runtime's time by that of another one in the same round: what slowed both cancels. In UNITs."""
    return [round(UNIT * max(mine, 1) / max(other, 1)) for other, mine in rounds]


def _rounds(of_a: list[Sample], of_b: list[Sample], stage: str) -> tuple[list[tuple[int, int]], list[bool]]:
    """(a's and b's time, whether a ran first) of each round in which both went well, as harness/bench/pairing.py."""
    others = {sample.index: sample for sample in of_b if sample.error is None}
    pairs, first = [], []
    for sample in sorted(of_a, key=lambda each: each.order):
        other = others.get(sample.index)
        if sample.error is not None or other is None:
            continue
        x, y = sample.value(stage), other.value(stage)
        if x is not None and y is not None:
            pairs.append((x, y))
            first.append(sample.order < other.order)
    return pairs, first


def _centre(values: list[float]) -> float:
    """20 % trimmed mean."""
    cut = int(TRIM * len(values))
    return math.fsum(sorted(values)[cut : len(values) - cut]) / (len(values) - 2 * cut)


def _blocks(logs: list[float]) -> list[float]:
    """The centres of BLOCKS blocks, moved so that their own centre is that of all the values."""
    edges = [len(logs) * block // BLOCKS for block in range(BLOCKS + 1)]
    centres = [_centre(logs[start:end]) for start, end in itertools.pairwise(edges)]
    moved = _centre(logs) - _centre(centres)
    return [centre + moved for centre in centres]


def condensed(times: list[int]) -> list[int]:
    """A long series as the centres of its blocks, in time: nothing is lost for the interval of the centre, and what
    drifts within it widens that interval, as it must (the method of batch means). A short series as it is."""
    if len(times) <= BLOCKS:
        return times
    logs = [math.log(max(time, 1)) for time in times]
    return [round(math.exp(centre)) for centre in _blocks(logs)]


def _judge(found: Figures, judged: int, fail_on: float, n_old: int, n_new: int, old_ns: float, new_ns: float) -> Change:
    wider = Z(1 - 0.025 / judged) / Z(0.975)
    middle, low, high = math.log(found.ratio), math.log(found.ci95[0]), math.log(found.ci95[1])
    together = math.exp(middle - (middle - low) * wider), math.exp(middle + (high - middle) * wider)
    least = None
    if found.minimum_detectable is not None:  # None: fewer samples than can tell anything
        sigma = (high - low) / 2 / Z(0.975)
        least = math.expm1(sigma * (Z(1 - 0.025 / judged) + Z(0.80)))
    change = Change(
        found.a,
        found.b,
        found.stage,
        (n_old, n_new),
        (old_ns, new_ns),
        found.ratio,
        found.ci95,
        together,
        found.p_value,
        "no-detectable-difference",
        least,
        None if least is None else (1 + fail_on) * (1 + least) - 1,
    )
    if found.verdict == "no-detectable-difference" or together[0] <= 1 <= together[1]:
        return change
    slower: Verdict = "regression" if together[0] > 1 + fail_on else "slower"
    return replace(change, verdict=slower if together[0] > 1 else "faster")


def _failures(before: Bench, after: Bench, a: str, b: str) -> Failures:
    old, new = before.of(a), after.of(b)
    failed = sum(s.error is not None for s in old), sum(s.error is not None for s in new)
    first = next((s.error for s in new if s.error is not None), None)
    chance = _more_by_chance(failed, (len(old), len(new)))
    return Failures(a, b, failed, (len(old), len(new)), chance, first)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _more_by_chance(failed: tuple[int, int], total: tuple[int, int]) -> float:
    """One-sided: how often at least failed[1] of all failures fall on the new side, if both sides are alike."""
    every = sum(failed)
    if not total[0] or not total[1]:
        return 1.0
    terms = (
        math.exp(_log_choose(total[1], k) + _log_choose(total[0], every - k) - _log_choose(sum(total), every))
        for k in range(failed[1], min(every, total[1]) + 1)
        if every - k <= total[0]
    )
    return min(1.0, math.fsum(terms))


def _memory(before: Bench, after: Bench, pairs: list[Pair]) -> list[dict[str, Any]]:
    """Peak memory, told without a verdict: it is measured in a few extra lifecycles only."""
    found = []
    for a, b in pairs:
        old, new = before.footprint.get(a), after.footprint.get(b)
        if old is not None and new is not None and old.peak_memory_bytes and new.peak_memory_bytes:
            ratio = new.peak_memory_bytes / old.peak_memory_bytes
            found.append(
                {"old": a, "new": b, "peak_bytes": [old.peak_memory_bytes, new.peak_memory_bytes], "ratio": ratio}
            )
    return found
