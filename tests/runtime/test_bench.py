"""Benchmarks through the API: what is counted, in which order, and that the times add up."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest
from actors import Sessions

from harness.bench.lifecycle import Sample
from harness.bench.result import Result
from harness.bench.run import run_bench
from harness.runtime.discovery import Runtime, find_runtime
from harness.runtime.session import Session

STAGES = ("create_ns", "start_ns", "kill_ns", "exit_ns", "delete_ns")
RUNS = 6


class Seen:
    """A benchmark's result, and every sample as it was reported while it ran."""

    def __init__(self, session: Session, runtimes: list[Runtime], **options: Any) -> None:
        self.reported: list[Sample] = []
        self.result: Result = run_bench(session, runtimes, on_sample=self.reported.append, **options)


@pytest.fixture(scope="module")
def runtimes(sessions: Sessions) -> list[Runtime]:
    return [sessions.runtime("runc"), sessions.runtime("crun")]


@pytest.fixture(scope="module")
def interleaved(sessions: Sessions, runtimes: list[Runtime]) -> Seen:
    """One benchmark that the claims about a plain one share."""
    return Seen(sessions.of("runc", "crun"), runtimes, runs=RUNS, warmup=2, seed=11, footprint_runs=1)


@pytest.fixture(autouse=True)
def _needs(require: Callable[..., None]) -> None:
    require("root", "runc", "crun")


def sequence(seen: Seen) -> list[tuple[str, int]]:
    return [(sample.turn.runtime, sample.turn.index) for sample in seen.result.samples]


def test_counts(pair: Session, interleaved: Seen) -> None:
    """Each runtime has as many good samples as runs were asked for."""
    for name in ("runc", "crun"):
        assert len(interleaved.result.of(name)) == RUNS
        assert [sample.error for sample in interleaved.result.of(name)] == [None] * RUNS
        assert sorted(sample.turn.index for sample in interleaved.result.of(name)) == list(range(RUNS))


def test_warm_up_is_left_out(pair: Session, interleaved: Seen) -> None:
    """Warm-up lifecycles come first, are carried out, and are no samples."""
    reported = [sample.turn.warmup for sample in interleaved.reported]
    assert reported == [True] * 4 + [False] * 2 * RUNS
    assert not [sample for sample in interleaved.result.samples if sample.turn.warmup]


def test_each_round_has_each_runtime_once(pair: Session, interleaved: Seen) -> None:
    """Interleaved: one round after the other, each with every runtime once, and not always in the same order."""
    order = sequence(interleaved)
    rounds = [order[at : at + 2] for at in range(0, len(order), 2)]
    for index, turns in enumerate(rounds):
        assert {name for name, _ in turns} == {"runc", "crun"}
        assert {at for _, at in turns} == {index}
    assert {turns[0][0] for turns in rounds} == {"runc", "crun"}


def test_it_ran_in_the_order_that_it_tells(pair: Session, interleaved: Seen) -> None:
    """`order` is the order in which the lifecycles really ran: their first instructions follow each other in time."""
    samples = interleaved.result.samples
    assert [sample.turn.order for sample in samples] == list(range(4, 4 + 2 * RUNS))
    stamps = [sample.first_instruction_at_ns for sample in samples]
    assert stamps == sorted(stamps)
    assert len(set(stamps)) == len(stamps)


def test_stages_add_up(pair: Session, interleaved: Seen) -> None:
    """create, start, kill, exit, delete and what the harness did between them are no more than the whole."""
    for sample in interleaved.result.samples:
        parts = [sample.stages[stage] for stage in STAGES]
        assert all(part is not None and part >= 0 for part in parts)
        assert all(sample.stages[stage] > 0 for stage in ("create_ns", "start_ns", "kill_ns", "delete_ns"))
        assert sample.harness_ns is not None
        # What is left is the wait for the first instruction between start and kill, which is the container's own time.
        # Slack: exit_ns is cut off at 0 when init was reaped before kill itself had ended.
        slack_ns = 1_000_000
        assert sum(parts) + sample.harness_ns <= sample.stages["whole_ns"] + slack_ns
        assert -slack_ns <= sample.harness_ns < 0.5 * sample.stages["whole_ns"]


def test_first_instruction_lies_in_between(pair: Session, interleaved: Seen) -> None:
    """The first instruction comes after create and start's clone, and before the end of the whole."""
    for sample in interleaved.result.samples:
        assert sample.first_instruction_reason is None
        assert sample.stages["create_ns"] < sample.first_instruction_ns < sample.stages["whole_ns"]
        assert sample.first_instruction_ns == sample.stages["create_ns"] + sample.start_to_first_instruction_ns


def test_exit_status_and_usage(pair: Session, interleaved: Seen) -> None:
    """A killed payload has its signal as exit status, and each operation its CPU time."""
    for sample in interleaved.result.samples:
        assert sample.exit_status == -9
        assert set(sample.usage) == {"create", "start", "kill", "delete"}
        assert sum(usage["user_us"] + usage["system_us"] for usage in sample.usage.values()) > 0
        assert sample.rootfs == "overlay"


def test_summary_and_comparisons_rest_on_the_samples(pair: Session, interleaved: Seen) -> None:
    """n, the median's place and the ratio follow from the raw samples."""
    result = interleaved.result
    medians = {}
    for name in ("runc", "crun"):
        values = sorted(sample.stages["whole_ns"] for sample in result.of(name))
        summary = result.summary[name]["whole_ns"]
        medians[name] = (values[RUNS // 2 - 1] + values[RUNS // 2]) / 2
        assert summary.n == RUNS
        assert summary.median_ns == pytest.approx(medians[name])
        assert summary.min_ns == values[0] <= summary.ci95_ns[0] <= summary.ci95_ns[1] <= values[-1] == summary.max_ns
    whole = next(comparison for comparison in result.comparisons if comparison.stage == "whole_ns")
    assert (whole.a, whole.b, whole.n) == ("runc", "crun", RUNS)
    rounds = {name: {s.turn.index: s.stages["whole_ns"] for s in result.of(name)} for name in ("runc", "crun")}
    logs = sorted(math.log(rounds["crun"][index] / rounds["runc"][index]) for index in range(RUNS))
    assert whole.ratio == pytest.approx(math.exp(fmean(logs[1:-1])))  # a fifth is trimmed at either end


def test_footprint(pair: Session, interleaved: Seen) -> None:
    """Where there is a memory controller the peak memory of each runtime is measured, in a plausible range."""
    if pair.layout.hierarchy("memory") is None:
        pytest.skip("no memory controller in this view")
    for name in ("runc", "crun"):
        footprint = interleaved.result.footprint[name]
        assert footprint["n"] == 1, footprint
        assert 200_000 < footprint["peak_memory_bytes"] < 500_000_000
        assert f"cgroup v{pair.layout.version('memory')}" in footprint["method"]


def test_the_caveats_of_a_short_run(pair: Session, interleaved: Seen) -> None:
    """Few samples and a view that is not the host's are told as doubts, with their ids."""
    caveats = {caveat["id"]: caveat["message"] for caveat in interleaved.result.to_json()["caveats"]}
    assert "only 6 good samples" in caveats["few-samples"]
    assert ("view-not-host" in caveats) == bool(pair.choice.steps)
    assert "failed-samples" not in caveats
    assert "interrupted" not in caveats


def test_the_seed_fixes_the_order(pair: Session, runtimes: list[Runtime]) -> None:
    """The same seed gives the same order again, another seed another one."""
    options: dict[str, Any] = {"runs": 5, "warmup": 0, "footprint_runs": 0, "recipe": "true"}
    first, again, other = (sequence(Seen(pair, runtimes, seed=seed, **options)) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other)


def test_blocked(pair: Session, runtimes: list[Runtime]) -> None:
    """Blocked: all lifecycles of one runtime, then all of the next, and a caveat says so."""
    seen = Seen(pair, runtimes, runs=3, warmup=0, order="blocked", footprint_runs=0)
    names = [name for name, _ in sequence(seen)]
    assert names in (["runc"] * 3 + ["crun"] * 3, ["crun"] * 3 + ["runc"] * 3)
    assert "blocked-order" in [caveat["id"] for caveat in seen.result.to_json()["caveats"]]


def test_parallel(pair: Session, runtimes: list[Runtime]) -> None:
    """With parallel 2 two lifecycles really overlap, and every sample is there and good."""
    seen = Seen(pair, runtimes, runs=5, warmup=0, parallel=2, footprint_runs=0)
    assert [sample.error for sample in seen.result.samples] == [None] * 10
    spans = [
        (
            sample.first_instruction_at_ns - sample.first_instruction_ns,
            sample.first_instruction_at_ns - sample.first_instruction_ns + sample.stages["whole_ns"],
        )
        for sample in seen.result.samples
    ]
    assert any(a < d and c < b for i, (a, b) in enumerate(spans) for c, d in spans[i + 1 :])
    assert sorted(sample.turn.order for sample in seen.result.samples) == list(range(10))


def test_a_container_that_ends_by_itself(pair: Session, runtimes: list[Runtime]) -> None:
    """With end "exit" nothing is killed: no kill stage, and the exit status is the payload's own."""
    seen = Seen(
        pair, runtimes[:1], runs=2, warmup=0, footprint_runs=0, settings=(("/process/args", ["/payload", "exit", "6"]),)
    )
    assert seen.result.settings["end"] == "exit"
    for sample in seen.result.samples:
        assert sample.stages["kill_ns"] is None
        assert (sample.exit_status, sample.error) == (6, None)
    assert "kill_ns" not in seen.result.summary["runc"]


def test_a_failing_recipe(pair: Session, runtimes: list[Runtime]) -> None:
    """A recipe that cannot start gives failed samples with stage and text, a caveat, and an early end."""
    seen = Seen(pair, runtimes, runs=20, warmup=0, settings=(("/process/args", ["/no/such/program"]),))
    samples = seen.result.samples
    assert 5 <= len(samples) < 40
    assert {sample.failed_stage for sample in samples} == {"create"}
    assert all("/no/such/program" in (sample.error or "") for sample in samples)
    caveats = {caveat["id"]: caveat["message"] for caveat in seen.result.to_json()["caveats"]}
    assert f"{len(samples)} of {len(samples)} lifecycles failed" in caveats["failed-samples"]
    assert seen.result.footprint == {}
    assert seen.result.summary == {"runc": {}, "crun": {}}
    assert seen.result.comparisons == []


def test_one_broken_runtime_beside_a_good_one(
    pair: Session, runtimes: list[Runtime], script: Callable[..., str]
) -> None:
    """A runtime that always fails does not hide the samples of the other."""
    broken = find_runtime(f"broken={script('create) exit 9 ;;')}")
    seen = Seen(pair, [runtimes[0], broken], runs=4, warmup=0, footprint_runs=0)
    assert [sample.error for sample in seen.result.of("runc")] == [None] * 4
    assert len(seen.result.of("broken")) == 4
    assert all(sample.error for sample in seen.result.of("broken"))
    assert seen.result.comparisons == []


def test_an_interrupt_keeps_the_samples(pair: Session, runtimes: list[Runtime]) -> None:
    """Ctrl-C in the middle ends the benchmark, and what was measured so far is kept."""
    reported: list[Sample] = []

    def tick(sample: Sample) -> None:
        reported.append(sample)
        if len(reported) == 3:
            raise KeyboardInterrupt

    result = run_bench(pair, runtimes, runs=50, warmup=0, footprint_runs=0, on_sample=tick)
    assert result.interrupted
    assert len(result.samples) == 3
    assert "interrupted" in [caveat["id"] for caveat in result.to_json()["caveats"]]


def test_no_stamp_without_a_shared_clock(require: Callable[..., None], sessions: Sessions) -> None:
    """A runtime whose containers have a clock of their own has no first instruction, but the reason."""
    require("runsc")
    runtime = sessions.runtime("runsc")
    if runtime.dialect.shares_host_clock:
        pytest.skip(f"{runtime.name} shares the host's clock")
    with Session("auto", [runtime], kind="test") as session:
        seen = Seen(session, [runtime], runs=1, warmup=0, footprint_runs=0)
    (sample,) = seen.result.samples
    assert sample.error is None
    assert sample.first_instruction_ns is None
    assert sample.first_instruction_reason == dict(runtime.dialect.lacks)["host-clock"]
    assert "no-first-instruction" in [caveat["id"] for caveat in seen.result.to_json()["caveats"]]
