"""The experiments of `bench` beside the plain one, as far as they can be told without a runtime."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from typing import Any

import pytest

from harness.bench.ablation import STAGES, Ablated, Ablation, subsets
from harness.bench.claims import ClaimReport, find_claim, load_claims
from harness.bench.disturbance import Reading, Recorder, between
from harness.bench.lifecycle import Sample
from harness.bench.memory_floor import Attempts, Floor, death, describe_edge
from harness.bench.parts import OVERLAY, Part, closed, config_with, load_parts, whole_config
from harness.bench.plan import Turn
from harness.bench.stopping import FIRST_LOOK, StopRule
from harness.bench.sweep import Point, cut, parse_sweeps
from harness.errors import InputError
from harness.oci.document import copied
from harness.oci.spec import Config
from harness.oci.validate import rule_problems, type_problems

PARTS = load_parts()
NAMES = frozenset(part.name for part in PARTS)
WHOLE = whole_config(PARTS)
ENVIRONMENT: dict[str, Any] = {
    "kernel": {"release": "6.18"},
    "cpu": {"usable": 2, "virtual_machine": False, "governor": None},
    "memory_bytes": 1,
    "cgroup": {"steps": [], "view": "host", "mode": "unified", "refused": {}},
    "rcu_normal": "0",
    "load_before": 0.1,
}


# -- parts of config.json ----------------------------------------------------------------------------------------------


def test_the_whole_is_a_good_config() -> None:
    """The recipe with all parts in it breaks no rule of the runtime-spec, nor does it without any one of them."""
    for kept in (NAMES, frozenset[str](), *(closed(NAMES - {part.name}, PARTS) for part in PARTS)):
        document = config_with(WHOLE, kept, PARTS)
        assert type_problems(document) == []
        assert [each for each in rule_problems(Config(document)) if each.severity == "error"] == []


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_each_part_is_something(part: Part) -> None:
    """Every part but the root file system's kind changes config.json, and what needs it goes with it."""
    before = copied(WHOLE)
    without = config_with(WHOLE, NAMES - {part.name}, PARTS)
    assert (without == WHOLE) == (part.name == OVERLAY)
    assert before == WHOLE
    kept = closed(NAMES - {part.name}, PARTS)
    assert part.name not in kept
    assert all(other.name in kept or part.name in reach(other) for other in PARTS if other.name != part.name)


def reach(part: Part) -> set[str]:
    """All that a part needs, directly or not."""
    by_name = {each.name: each for each in PARTS}
    return set(part.needs) | {name for need in part.needs for name in reach(by_name[need])}


def test_a_drop_takes_one_entry() -> None:
    """POINTER[key=value] takes just the entry that has the value, and nothing where there is none."""
    document = {"a": [{"k": "x"}, {"k": "y"}, "text"], "b": 1}
    part = Part("p", "", ["/a[k=x]", "/a[k=z]", "/no/such[k=x]", "/b", "/c"])
    assert config_with(document, frozenset(), [part]) == {"a": [{"k": "y"}, "text"]}
    assert config_with(document, frozenset({"p"}), [part]) == document


def test_subsets_respect_needs() -> None:
    """Each round keeps only parts whose needs are kept; each part is there and not there in many rounds."""
    found = subsets(PARTS, 400, random.Random(1))
    assert all(kept == closed(kept, PARTS) for kept in found)
    assert sum(kept == NAMES for kept in found) == 50
    counts = Counter(name for kept in found for name in kept)
    assert all(80 < counts[name] < 360 for name in NAMES)


def ablation(costs: dict[str, float], rounds: int, noise: float) -> Ablation:
    """Made-up samples whose parts cost just that, in ms."""
    draw = random.Random(4)
    samples = []
    for index, kept in enumerate(subsets(PARTS, rounds, draw)):
        create = 1e6 * (10 + sum(costs.get(name, 0.0) for name in kept) + draw.gauss(0, noise))
        stages = {"create_ns": int(create), "start_ns": 3_000_000, "delete_ns": 2_000_000}
        samples.append(Ablated("x", index, index, kept, stages))
    return Ablation({}, ENVIRONMENT, ["x"], PARTS, samples)


def test_ablation_names_the_dearest() -> None:
    """The dearest parts are named in order, with intervals that have the truth in them, and the parts add up."""
    truth = {"seccomp": 4.0, "namespace:network": 2.0, "masked-paths": 1.0}
    found = ablation(truth, 300, 1.0)
    fit = found.fits["x"]
    assert [cost.part for cost in fit.costs[:3]] == list(truth)
    assert all(cost.found for cost in fit.costs[:3])
    assert [cost.part for cost in fit.dearest] == list(truth)
    inside = [cost.ci95_ns[0] <= truth.get(cost.part, 0.0) * 1e6 <= cost.ci95_ns[1] for cost in fit.costs]
    assert sum(inside) >= len(PARTS) - 4
    assert not any(cost.found for cost in fit.costs[3:])
    assert fit.bare_ns == pytest.approx(15e6, rel=0.05)
    assert fit.predicted_full_ns == pytest.approx(fit.full_ns, rel=0.05)
    assert fit.costs[0].stages["create_ns"] == pytest.approx(4e6, rel=0.2)
    assert fit.costs[0].stages["start_ns"] == pytest.approx(0, abs=1e5)
    as_json = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (as_json["schema"], as_json["caveats"]) == ("oci-harness/ablation/1", [])
    assert set(as_json["costs"]["x"][0]["stages"]) == set(STAGES)


def test_ablation_without_enough() -> None:
    """Too few good containers give no costs, but say so, with the first failure."""
    found = ablation({}, 40, 0.1)
    found.samples[3] = Ablated("x", 3, 3, NAMES, error="runc create failed: no")
    assert found.fits == {}
    caveats = {each["id"]: each["message"] for each in found.to_json()["caveats"]}
    assert "fewer than 60" in caveats["few-samples"]
    assert "1 of 40 containers failed" in caveats["failed-samples"]
    assert "runc create failed: no" in caveats["failed-samples"]


# -- sweeps ------------------------------------------------------------------------------------------------------------


def test_sweeps() -> None:
    """Several dimensions give all combinations; what is not swept stays as it was asked for."""
    values, points = parse_sweeps(("parallel=1,2", "pause-ms=0,2.5", "live=3"), Point(cache="cold"))
    assert values == {"parallel": [1, 2], "pause_ms": [0, 2.5], "live": [3]}
    assert len(points) == 4
    assert points[-1] == Point(2, 3, 2.5, "cold")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "parallel",
            "parallel=",
            "parallel=0",
            "parallel=1,x",
            "parallel=1,1",
            "parallel=1.5",
            "live=-1",
            "live=1,,2",
        ),
        *("pause-ms=inf", "pause-ms=nan", "cache=hot", "colour=1", "=1", ""),
    ],
)
def test_bad_sweeps(text: str) -> None:
    """What cannot be swept is refused in one line that repeats it."""
    with pytest.raises(InputError) as error:
        parse_sweeps((text,), Point())
    assert f"--sweep {text}" in str(error.value)
    assert "\n" not in str(error.value)


def test_too_many_points() -> None:
    """A dimension that is there twice, and more points than anybody meant, are refused."""
    with pytest.raises(InputError, match="there twice"):
        parse_sweeps(("live=1", "live=2"), Point())
    with pytest.raises(InputError, match="65 points are more than 64"):
        parse_sweeps(("live=" + ",".join(map(str, range(65))),), Point())


@pytest.mark.parametrize(("runs", "live"), [(1, False), (3, False), (10, False), (20, True)])
def test_a_sweep_is_cut_into_blocks(runs: int, live: bool) -> None:
    """Every point has all its rounds once; each set of blocks has every point, and not always in the same order."""
    points = [Point(parallel=p, live=p * 10 if live else 0) for p in range(1, 5)]
    blocks = list(cut(points, runs, random.Random(3)))
    for index in range(4):
        assert [at for place, rounds in blocks if place == index for at in rounds] == list(range(runs))
    sets = [[place for place, _ in blocks[at : at + 4]] for at in range(0, len(blocks), 4)]
    assert all(sorted(each) == [0, 1, 2, 3] for each in sets)
    assert len(sets) == min(runs, 2 if live else 4)
    assert len({tuple(each) for each in sets}) > 1 or len(sets) == 1


# -- stopping ----------------------------------------------------------------------------------------------------------


def samples(rounds: int, spread: float, ratio: float = 1.0) -> list[Sample]:
    draw = random.Random(2)
    return [
        Sample(
            Turn(name, index, 2 * index + at),
            {"whole_ns": int(1e7 * (ratio if name == "b" else 1) * draw.lognormvariate(0, spread))},
        )
        for index in range(rounds)
        for at, name in enumerate(draw.sample("ab", 2))
    ]


def test_the_width_ends_it_and_nothing_else() -> None:
    """It ends at a narrow interval, be there a difference or none, and goes on at a wide one, however clear."""
    for ratio in (1.0, 2.0):
        narrow, wide = StopRule(["a", "b"], until_ci=0.05), StopRule(["a", "b"], until_ci=0.05)
        assert narrow.ends(samples(FIRST_LOOK, 0.02, ratio), FIRST_LOOK)
        assert narrow.reason == "until-ci"
        assert not wide.ends(samples(FIRST_LOOK, 0.5, ratio), FIRST_LOOK)
        assert wide.reason is None


def test_it_looks_seldom() -> None:
    """Before the first look nothing ends it, and looks get rarer: their number grows with the logarithm only."""
    rule = StopRule(["a", "b"], until_ci=0.001)
    assert not rule.ends(samples(FIRST_LOOK - 1, 0.0), FIRST_LOOK - 1)
    looks = 0
    for rounds in range(FIRST_LOOK, 1000):
        before = rule._next
        rule.ends(samples(30, 0.3), rounds)
        looks += rule._next != before
    assert 5 < looks < 20


def test_the_clock_ends_it() -> None:
    """The time that was given ends it without a look at the samples; one runtime alone is judged by its median."""
    rule = StopRule(["a"], max_time_s=10.0, started=time.monotonic() - 11)
    assert rule.ends([], 1)
    assert rule.reason == "max-time"
    assert StopRule(["a"], until_ci=0.05).ends(samples(60, 0.01), 60)
    assert not StopRule(["a"], until_ci=0.05).ends([], 60)


# -- what else the machine did -----------------------------------------------------------------------------------------


def test_the_recorder_reads_this_kernel() -> None:
    """Counters never run backwards, and this process's own busy work is told apart from that of others."""
    with Recorder() as recorder:
        before = recorder.read()
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        after = recorder.read()
    found = between(before, after, ())
    assert {"steal_ns", "context_switches", "forks", "preempted", "minor_faults", "major_faults"} <= set(found)
    assert all(value >= 0 for value in found.values())
    assert after.own_cpu_ns - before.own_cpu_ns >= 50_000_000


def test_others_share() -> None:
    """CPU time of others is the machine's less this process's; what a kernel does not offer is left out, never 0."""
    before, after = Reading({"cpu_ns": 100, "forks": 3}, 10), Reading({"cpu_ns": 900, "forks": 5}, 310)
    found = between(before, after, ())
    assert found["other_cpu_ns"] == 500
    assert found["forks"] == 2
    assert "steal_ns" not in found
    assert "other_cpu_ns" not in between(Reading({}, 0), Reading({}, 5), ())


# -- memory floor ------------------------------------------------------------------------------------------------------


def test_the_edge() -> None:
    """The edge is the largest limit that failed; its text is diagnosed, a SIGKILL without one is the OOM killer's."""
    said = "runc create failed: unable to set memory limit to 2490368 (current usage: 2301952, peak usage: 2629632)"
    low = Attempts(4096, 1, 0, "run", "killed", killed=True)
    high = Attempts(8192, 3, 2, "create", said)
    floor = Floor("runc", 16384, attempts=[high, low, Attempts(16384, 5, 5)])
    assert floor.edge is high
    assert describe_edge(high)["cause"] == "oom-during-init"
    assert describe_edge(high)["cause_from"] == "text"
    assert describe_edge(low) == {
        "stage": "run",
        "text": "killed",
        "cause": "oom-during-init",
        "cause_from": "signal",
        "decisive": None,
    }
    assert [each["limit_bytes"] for each in floor.to_json()["attempts"]] == [4096, 8192, 16384]
    assert Floor("x", None, "why").to_json()["reason"] == "why"


@pytest.mark.parametrize(
    ("status", "stamp", "error", "said"),
    [
        (0, 5, None, None),
        (-9, None, None, "killed by signal 9 before its first instruction"),
        (3, 5, None, "ended with status 3 after its first instruction"),
        (None, None, "runc create failed", "runc create failed"),
    ],
)
def test_how_it_died(status: int | None, stamp: int | None, error: str | None, said: str | None) -> None:
    """A container that did not end well is described, whether or not the runtime noticed."""
    found = death(Sample(Turn("x", 0, 0), {}, first_instruction_ns=stamp, exit_status=status, error=error))
    assert (found is None) if said is None else (found is not None and said in found)


# -- claims ------------------------------------------------------------------------------------------------------------


def test_claims_are_whole() -> None:
    """Every claim names its source and the version that was read, and its published figures are of its kind."""
    assert set(load_claims()) == {"crun-readme", "youki-readme"}
    for claim in load_claims().values():
        assert claim.source.startswith("https://")
        assert claim.seen
        assert all((each.seconds is not None) == (claim.figure == "total") for each in claim.result)
        assert all((each.mean_ms is not None) == (claim.figure == "each") for each in claim.result)
    with pytest.raises(InputError, match=r"--claim nope: .*crun-readme, youki-readme"):
        find_claim("nope")


def test_theirs_and_ours() -> None:
    """Published and measured figures stand side by side, with the ratio of each, and what differs is told."""
    report = ClaimReport(find_claim("crun-readme"), {}, ENVIRONMENT, [])
    report.times = {"runc": [30_000_000, 32_000_000] * 20, "crun": [15_000_000, 16_000_000] * 20}
    by_name = {each["runtime"]: each for each in report.results}
    assert by_name["crun"]["theirs"] == {"seconds": 1.69}
    assert by_name["crun"]["ours"]["seconds"] == pytest.approx(1.55)
    assert by_name["crun"]["ours"]["ci95"][0] < 1.55 < by_name["crun"]["ours"]["ci95"][1]
    (ratio,) = report.ratios
    assert (ratio["a"], ratio["b"]) == ("runc", "crun")
    assert ratio["theirs"] == pytest.approx(1.69 / 3.34)
    assert ratio["ours"] == pytest.approx(0.5)
    youki = ClaimReport(find_claim("youki-readme"), {}, ENVIRONMENT, [])
    assert any(line.startswith("cpus: theirs 16, ours 2") for line in youki.differences)
    assert any("sudo" in line for line in youki.differences)
    assert json.loads(json.dumps(youki.to_json(), allow_nan=False))["schema"] == "oci-harness/claim/1"
