"""The experiments of `bench`, with real runtimes: noise floor, stopping, cold cache, sweeps, ablation, floors."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from actors import Answer, CommandLine, Sessions, until

from harness.bench.ablation import FULL_EVERY, run_ablation
from harness.bench.claims import find_claim, run_claim
from harness.bench.lifecycle import Sample
from harness.bench.live import Live
from harness.bench.memory_floor import find_floors
from harness.bench.parts import load_parts
from harness.bench.run import run_bench
from harness.bench.sweep import run_sweep
from harness.errors import HostError
from harness.runtime.discovery import Runtime
from harness.runtime.session import Session

BOTH = ("--runtime", "runc", "--runtime", "crun")


@pytest.fixture(scope="module")
def runtimes(sessions: Sessions) -> list[Runtime]:
    return [sessions.runtime("runc"), sessions.runtime("crun")]


@pytest.fixture(autouse=True)
def _needs(require: Callable[..., None]) -> None:
    require("root", "runc", "crun")


def alive_in(session: Session) -> int:
    """Containers of this session whose state the runtimes keep."""
    return sum(1 for root in (session.workspace.path / "root").iterdir() for entry in root.iterdir() if entry.is_dir())


# -- the plain benchmark's further options -----------------------------------------------------------------------------


def test_null(pair: Session, runtimes: list[Runtime]) -> None:
    """With `null` each runtime also runs against itself, paired like the others, and only real names are summarized."""
    found = run_bench(pair, runtimes, runs=6, warmup=0, null=True, footprint_runs=0)
    assert found.runtimes == list(found.summary) == list(found.null) == ["runc", "crun"]
    for name, comparisons in found.null.items():
        whole = next(each for each in comparisons if each.stage == "whole_ns")
        assert (whole.a, whole.b, whole.n) == (name, f"{name}~again", 6)
    assert {(each.a, each.b) for each in found.comparisons} == {("runc", "crun")}
    assert set(found.to_json()["null"]) == {"runc", "crun"}


def test_each_sample_knows_what_else_happened(pair: Session, runtimes: list[Runtime]) -> None:
    """Every sample carries counters of the time in which it was taken: each runtime forks, switches and faults."""
    found = run_bench(pair, runtimes, runs=2, warmup=0, footprint_runs=0)
    for sample in found.samples:
        assert sample.disturbance["forks"] >= 4  # one for each verb
        assert sample.disturbance["context_switches"] > 10
        assert sample.disturbance["minor_faults"] > 100
        assert all(value >= 0 for value in sample.disturbance.values())


def test_max_time_ends_with_a_whole_round(pair: Session, runtimes: list[Runtime]) -> None:
    """The clock ends it after a whole round, long before all runs are done, and the result says so."""
    found = run_bench(pair, runtimes, runs=5000, warmup=0, max_time_s=0.4, footprint_runs=0)
    assert found.ended == "max-time"
    assert 1 <= len(found.of("runc")) == len(found.of("crun")) < 1000
    assert "max-time" in [caveat["id"] for caveat in found.to_json()["caveats"]]


def test_until_ci(pair: Session, runtimes: list[Runtime]) -> None:
    """A width that is easily reached ends it at the first look; its interval is that narrow."""
    found = run_bench(pair, runtimes, runs=5000, warmup=0, until_ci=0.6, max_time_s=60, footprint_runs=0)
    assert found.ended == "until-ci"
    whole = next(each for each in found.comparisons if each.stage == "whole_ns")
    assert (whole.ci95[1] - whole.ci95[0]) / 2 / whole.ratio <= 0.6


def test_cold(pair: Session, runtimes: list[Runtime]) -> None:
    """A cold lifecycle reads the runtime's binary from disk again: it has major faults that a warm one has not."""
    found = run_bench(pair, runtimes[:1], runs=2, warmup=1, cold=True, footprint_runs=0)
    warm = run_bench(pair, runtimes[:1], runs=2, warmup=1, footprint_runs=0)
    faults = [[sample.disturbance["major_faults"] for sample in each.samples] for each in (found, warm)]
    assert min(faults[0]) > max(faults[1])
    assert "cold-cache" in [caveat["id"] for caveat in found.to_json()["caveats"]]


def test_cold_where_it_is_not_allowed(cli: CommandLine) -> None:
    """Where /proc/sys may not be written to `--cold` is refused, with the file's name, and nothing is measured."""
    argv = ("unshare", "-m", "sh", "-c", 'mount --bind -o ro /proc/sys /proc/sys && exec "$@"', "sh")
    answer = cli("bench", "--runtime", "runc", "--runs", "1", "--cold", "--json", argv=argv)
    assert answer.status == 3, answer
    assert "/proc/sys/vm/drop_caches" in answer.error
    assert answer.stdout == ""


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--ablate", "--memory-floor"), "--ablate and --memory-floor are two experiments"),
        (("--ablate", "--recipe", "true"), "--recipe cannot be used with --ablate"),
        (("--claim", "crun-readme", "--runs", "3"), "--runs cannot be used with --claim"),
        (("--claim", "nope"), "--claim nope: there is no such claim"),
        (("--sweep", "parallel=1", "--null"), "--null cannot be used with --sweep"),
        (("--sweep", "parallel"), "--sweep parallel: write values"),
    ],
)
def test_what_does_not_go_together(cli: CommandLine, args: tuple[str, ...], said: str) -> None:
    """Options that an experiment has no use for are refused in one line, before anything runs."""
    answer = cli("bench", "--runtime", "runc", *args)
    assert answer.status == 2, answer
    assert said in answer.error


# -- sweeps ------------------------------------------------------------------------------------------------------------


def test_sweep(pair: Session, runtimes: list[Runtime]) -> None:
    """Each point has its samples, summary and comparison, with that many live containers while it runs."""
    seen: list[int] = []

    def look(sample: Sample) -> None:
        seen.append(alive_in(pair))

    found = run_sweep(pair, runtimes, ("live=0,4", "parallel=1,2"), runs=2, warmup=0, on_sample=look)
    assert [(point.live, point.parallel) for point, _ in found.points] == [(0, 1), (0, 2), (4, 1), (4, 2)]
    for _, result in found.points:
        assert [sample.error for sample in result.samples] == [None] * 4
        assert {(each.a, each.b, each.n) for each in result.comparisons} == {("runc", "crun", 2)}
    assert max(seen) >= 4
    assert min(seen) <= 1
    assert alive_in(pair) == 0
    as_json = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert as_json["schema"] == "oci-harness/bench-sweep/1"
    assert as_json["live_kept_by"] in ("runc", "crun")
    assert sorted(each["order"] for each in as_json["samples"]) == list(range(16))
    assert as_json["points"][0]["against_first"]["runc"]["ratio"] == 1


def test_an_interrupted_sweep(pair: Session, runtimes: list[Runtime]) -> None:
    """Ctrl-C while live containers are made, or later, removes them all and keeps the samples so far."""
    for at, hook in ((3, "on_live"), (2, "on_sample")):
        calls: list[object] = []

        def stop(what: object, calls: list[object] = calls, at: int = at) -> None:
            calls.append(what)
            if len(calls) == at:
                raise KeyboardInterrupt

        found = run_sweep(pair, runtimes, ("live=5",), runs=3, warmup=0, **{hook: stop})
        assert found.interrupted
        assert alive_in(pair) == 0
        samples = [sample for _, result in found.points for sample in result.samples]
        assert len(samples) == (0 if hook == "on_live" else 2)


def test_a_signal_ends_a_sweep(cli: CommandLine, base: Path) -> None:
    """A signal while hundreds of live containers are made leaves none, and the exit status is 130."""
    process = cli.start("bench", *BOTH, "--sweep", "live=400", "--runs", "2", "--json")
    until(lambda: list(base.glob(f"oci-harness-bench-{process.pid}-*/c/live10")), "ten live containers", timeout_s=20.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    answer = Answer(process.returncode, out, err)
    assert answer.status == 130, answer
    assert answer.json["interrupted"] is True
    assert "Traceback" not in err
    assert list(base.glob("*/c/*")) == []


def test_more_live_containers_than_descriptors(pair: Session, runtimes: list[Runtime]) -> None:
    """More than this process may have descriptors for are refused, with the limit, before one is made."""
    with Live(pair, runtimes) as live, pytest.raises(HostError, match=r"ulimit -n 10000256"):
        live.adjust(10_000_000)
    assert alive_in(pair) == 0


# -- ablation ----------------------------------------------------------------------------------------------------------


def test_ablation(sessions: Sessions, runtimes: list[Runtime]) -> None:
    """Containers with any subset of the parts start on both runtimes, and each runtime's dearest parts are named."""
    with Session("auto", runtimes, kind="test") as session:
        found = run_ablation(session, runtimes, rounds=80, warmup=1, pause_ms=0, seed=3)
    assert [(sample.runtime, sample.error) for sample in found.samples if sample.error] == []
    assert len(found.samples) == 160
    full = [sample for sample in found.samples if len(sample.kept) == len(load_parts())]
    assert len(full) == 2 * 80 // FULL_EVERY
    for name in ("runc", "crun"):
        fit = found.fits[name]
        assert {cost.part for cost in fit.costs} == {part.name for part in load_parts()}
        assert [cost.cost_ns for cost in fit.costs] == sorted((cost.cost_ns for cost in fit.costs), reverse=True)
        assert fit.full_ns is not None
    json.dumps(found.to_json(), allow_nan=False)


def test_an_interrupted_ablation(cli: CommandLine, base: Path) -> None:
    """A signal ends it: JSON with the containers so far, exit status 130, nothing left."""
    process = cli.start("bench", *BOTH, "--ablate", "--json")
    until(lambda: list(base.glob(f"oci-harness-bench-{process.pid}-*/c/a5")), "the sixth container", timeout_s=20.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    answer = Answer(process.returncode, out, err)
    assert answer.status == 130, answer
    assert answer.json["samples"]
    assert {each["id"] for each in answer.json["caveats"]} >= {"interrupted", "few-samples"}


# -- memory floors and claims ------------------------------------------------------------------------------------------


def test_memory_floor(pair: Session, runtimes: list[Runtime]) -> None:
    """runc needs more than crun; each starts at its floor, fails somewhere below, and the failure has a cause."""
    if pair.layout.hierarchy("memory") is None:
        pytest.skip("no memory controller in this view")
    found = {floor.runtime: floor for floor in find_floors(pair, runtimes, tries=2, footprint_runs=1).floors}
    floors = {}
    for name, floor in found.items():
        assert floor.reason is None
        assert floor.floor_bytes is not None
        at = next(each for each in floor.attempts if each.limit_bytes == floor.floor_bytes)
        assert at.all_started
        assert at.tries >= 4
        as_json = floor.to_json()
        assert as_json["edge"]["cause"] == "oom-during-init"
        assert as_json["edge"]["text"]
        assert as_json["peak"]["peak_memory_bytes"] > 100_000
        floors[name] = floor.floor_bytes
    assert 64 * 1024 <= floors["crun"] < floors["runc"] < 64 * 1024 * 1024


def test_no_floor_without_a_limit(require: Callable[..., None], sessions: Sessions) -> None:
    """A runtime that sets no limits has no floor, but the reason."""
    require("runsc")
    runtime = sessions.runtime("runsc")
    if runtime.dialect.uses_host_cgroups:
        pytest.skip(f"{runtime.name} sets limits")
    with Session("auto", [runtime], kind="test") as session:
        (floor,) = find_floors(session, [runtime]).floors
    assert floor.floor_bytes is None
    assert floor.reason
    assert floor.attempts == []


@pytest.mark.parametrize("name", ["crun-readme", "youki-readme"])
def test_claims(pair: Session, runtimes: list[Runtime], require: Callable[..., None], name: str) -> None:
    """A published measurement is repeated: figures of both runtimes, their ratio, the limits, and what differs."""
    require("busybox")
    claim = msgspec.structs.replace(find_claim(name), repeats=3, warmup=0)
    report = run_claim(pair, runtimes, claim)
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    by_name = {each["runtime"]: each for each in found["results"]}
    for runtime in ("runc", "crun"):
        assert by_name[runtime]["ours"]["n"] == 3
        assert list(by_name[runtime]["ours"]["operations_ms"]) == claim.operations
    assert [each["ours"] > 0 for each in found["ratios"]] == [True]
    assert {(each["runtime"], each["tries"]) for each in found["limits"]} == {
        (limit.runtime, 5) for limit in claim.limit
    }
    assert found["differences"]
    if name == "youki-readme":
        assert by_name["youki"]["ours"] is None
        assert by_name["youki"]["reason"]
