"""A benchmark's result: the contract's JSON, and every caveat by a result that deserves it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from msgspec.structs import replace

from harness.bench.caveats import CAVEATS, find_caveats, find_host_caveats
from harness.bench.lifecycle import Sample
from harness.bench.plan import Turn
from harness.bench.result import ALL_STAGES, Result

ENVIRONMENT: dict[str, Any] = {
    "cgroup": {"view": "host", "steps": [], "refused": {}},
    "cpu": {"virtual_machine": False, "governor": "performance", "usable": 2},
    "load_before": 0.1,
    "rcu_normal": "0",
}
SETTINGS: dict[str, Any] = {"parallel": 1, "order": "interleaved", "runs": 30, "warmup": 2, "seed": 1}


def sample(runtime: str, index: int, create: int = 10_000_000, **more: Any) -> Sample:
    stages: dict[str, int | None] = {
        "create_ns": create,
        "start_ns": 4_000_000,
        "kill_ns": None,
        "exit_ns": 1_000_000,
        "delete_ns": 3_000_000,
        "whole_ns": create + 8_000_000,
    }
    fields: dict[str, Any] = {"first_instruction_ns": create + 2_000_000, "rootfs": "overlay", "exit_status": 0} | more
    return Sample(Turn(runtime, index, index), stages, **fields)


def failed(runtime: str, index: int, error: str = "runc create: no") -> Sample:
    return Sample(Turn(runtime, index, index), {}, error=error, failed_stage="create")


def result(
    samples: list[Sample] | None = None,
    runtimes: tuple[str, ...] = ("a", "b"),
    interrupted: bool = False,
    **changes: Any,
) -> Result:
    """A result that deserves no caveat but for `changes`: {"cpu.governor": ..., "settings.order": ...}."""
    environment, settings = copy.deepcopy(ENVIRONMENT), dict(SETTINGS)
    for name, value in changes.items():
        if name == "runtimes_":  # of the environment; `runtimes` are the names
            environment["runtimes"] = [value]
            continue
        place, _, key = name.rpartition("__")
        target = settings if place == "settings" else environment[place] if place else environment
        target[key] = value
    if samples is None:
        samples = [sample(name, index, 10_000_000 + index) for index in range(30) for name in runtimes]
    return Result(settings, environment, list(runtimes), samples, interrupted=interrupted)


def with_(**changes: Any) -> Result:
    """As result(), with fields of the result itself changed."""
    return replace(result(), **changes)


SEQUENCE = "abbaab" * 10  # each follows itself and the other


def placed(name: str, at: int, create: int) -> Sample:
    return replace(sample(name, at // 2, create), turn=Turn(name, at // 2, at))


def caveats(found: Result) -> dict[str, str]:
    return {caveat["id"]: caveat["message"] for caveat in find_caveats(found)}


def test_nothing_to_doubt() -> None:
    """A good result has no caveat."""
    assert caveats(result()) == {}
    assert caveats(result(cpu__governor=None, rcu_normal=None)) == {}


# id: (the result, what the message says)
DOUBTS: dict[str, tuple[Result, str]] = {
    "interrupted": (result(interrupted=True), "not all planned runs"),
    "failed-samples": (
        result([*[sample(name, i) for i in range(30) for name in "ab"], failed("a", 30, "why")]),
        "1 of 61 lifecycles failed and are left out; the first: why",
    ),
    "view-not-host": (
        result(cgroup={"view": "legacy", "steps": ["umount -l /x"], "refused": {"host": {"crun": "hybrid"}}}),
        "measured in the legacy view (umount -l /x), in a private mount namespace, because crun: hybrid",
    ),
    "few-samples": (
        result([sample("a", i) for i in range(30)] + [sample("b", i) for i in range(29)]),
        "only 29 good samples",
    ),
    "wide-spread": (
        result([sample(name, i, 10**7 * (1 + (name == "b" and i >= 27))) for i in range(30) for name in "ab"]),
        "above the median): b",
    ),
    "loaded": (result(load_before=1.01), "load average was 1.0 on 2 CPUs"),
    "oversubscribed": (result(settings__parallel=3), "3 at a time on 2 CPUs"),
    "blocked-order": (result(settings__order="blocked"), "blocked order"),
    "governor": (result(cpu__governor="powersave"), "powersave, not performance"),
    "rcu-normal": (result(rcu_normal="1"), "rcu_normal is set"),
    "max-time": (with_(ended="max-time"), "all 30 runs"),
    "outliers": (
        result([sample(n, i, 10**7 * (1 + (i == 5)) + i * 1000) for i in range(30) for n in "ab"]),
        "2 of 60 samples are outliers, and kept; something else was recorded to be unusual in 2 of them",
    ),
    "null-differs": (
        result(
            [sample("a", i) for i in range(30)] + [sample("a~again", i, 11_000_000 + i % 3) for i in range(30)], ("a",)
        ),
        "differs from itself in 3 of 6 comparisons (a create 1.100, a first_instruction 1.083, a whole 1.056)",
    ),
    "carry-over": (
        result(
            [
                placed(name, at, 10**7 * (1 + (name == "b" and at > 0 and SEQUENCE[at - 1] == "a")))
                for at, name in enumerate(SEQUENCE)
            ]
        ),
        "b's create takes 2.00 times as long after a; b's whole takes 1.56 times as long after a",
    ),
    "netns-churn": (
        result(net_namespaces_before=3, net_namespaces_after=9),
        "6 network namespaces more than before",
    ),
    "busy": (
        result([sample(n, i, disturbance={"other_cpu_ns": 12_000_000}) for i in range(30) for n in "ab"]),
        "used 67% of a CPU",
    ),
    "stolen": (
        result([sample(n, i, disturbance={"steal_ns": 1_800_000}) for i in range(30) for n in "ab"]),
        "took 10.0% of the time",
    ),
    "no-warm-up": (result(settings__warmup=0), "no warm-up"),
    "cold-cache": (result(settings__cold=True, settings__warmup=0), "the page cache was dropped"),
    "boost": (result(cpu__boost=True), "CPU boost is on"),
    "rcu-expedited": (result(rcu_expedited="1"), "rcu_expedited is set"),
    "no-favordynmods": (
        result(cgroup={"view": "host", "mode": "unified", "steps": [], "refused": {}}, favordynmods=False),
        "without favordynmods",
    ),
    "cgroup-v1": (
        result(cgroup={"view": "host", "mode": "legacy", "steps": [], "refused": {}}),
        "moved into every hierarchy",
    ),
    "copies-itself": (
        result(
            runtimes_={"name": "runc", "version": "1.1.5", "binary": {"bytes": 8_752_456}, "copies_itself": True},
        ),
        "runc 1.1.5 copies its binary (8.8 MB) in each create",
    ),
    "lsm": (result(lsm=["capability", "apparmor", "landlock"]), "LSM apparmor:"),
    "seccomp-notify": (result(config={"seccomp_notify": True}), "the agent behind the socket"),
    "under-seccomp": (result(own_seccomp_filters=2), "under 2 seccomp filters"),
    "rootfs-not-overlay": (
        result([sample(name, i, rootfs="copy" if name == "b" else "overlay") for i in range(30) for name in "ab"]),
        "rootfs by copy, overlay, not overlay",
    ),
    "no-first-instruction": (
        result(
            [
                sample(name, i, first_instruction_ns=None, first_instruction_reason="no clock")
                for i in range(30)
                for name in "a"
            ],
            ("a",),
        ),
        "(a: no clock)",
    ),
    "virtual-machine": (result(cpu__virtual_machine=True), "a virtual machine"),
}


def test_every_caveat_has_a_case() -> None:
    """The table here is complete, and no id is there twice."""
    assert [caveat.id for caveat in CAVEATS] == list(dict.fromkeys(caveat.id for caveat in CAVEATS))
    assert {caveat.id for caveat in CAVEATS} == set(DOUBTS)


@pytest.mark.parametrize("name", DOUBTS)
def test_caveat(name: str) -> None:
    """Each doubt alone gives just its own caveat, with the facts in one line."""
    found, text = DOUBTS[name]
    said = caveats(found)
    assert list(said) == [name]
    assert text in said[name]
    assert "\n" not in said[name]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("loaded", result(load_before=1.0)),
        ("oversubscribed", result(settings__parallel=2)),
        ("blocked-order", result([sample("a", i) for i in range(30)], ("a",), settings__order="blocked")),
        ("wide-spread", result([sample(n, i, 10**7 + (i >= 27) * 4 * 10**6) for i in range(30) for n in "ab"])),
        ("max-time", with_(ended="until-ci")),
        ("netns-churn", result(net_namespaces_before=3, net_namespaces_after=5)),
        ("netns-churn", result(net_namespaces_before=None, net_namespaces_after=None)),
        ("copies-itself", result(runtimes_={"name": "crun", "copies_itself": None})),
        ("no-favordynmods", result(cgroup={"view": "host", "mode": "unified", "steps": []}, favordynmods=True)),
        ("no-favordynmods", result(cgroup={"view": "host", "mode": "unified", "steps": []}, favordynmods=None)),
        ("lsm", result(lsm=["capability", "landlock", "yama"])),
        ("boost", result(cpu__boost=None)),
        ("rootfs-not-overlay", result([sample(name, i, rootfs="") for i in range(30) for name in "ab"])),
    ],
)
def test_not_yet(name: str, found: Result) -> None:
    """Just below the limit there is no caveat."""
    assert name not in caveats(found)


@pytest.mark.parametrize("name", [caveat.id for caveat in CAVEATS if caveat.of_host])
def test_caveats_of_the_host(name: str) -> None:
    """What follows from the environment alone is told for experiments without samples too, in the same words."""
    found, _ = DOUBTS[name]
    assert {each["id"]: each["message"] for each in find_host_caveats(found.environment)} == {
        name: caveats(found)[name]
    }


def test_nothing_measured() -> None:
    """A result without a good sample says so and has neither summary nor comparison."""
    for samples in ([], [failed("a", 0), failed("b", 0)]):
        found = result(samples, interrupted=True)
        as_json = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert as_json["summary"] == {"a": {}, "b": {}}
        assert as_json["comparisons"] == []
        assert {"interrupted", "few-samples"} <= set(caveats(found))
    assert "failed-samples" in caveats(result([failed("a", 0)]))
    assert "few-samples" in caveats(result([], ()))


def test_contract() -> None:
    """The JSON has what DESIGN.md promises of `bench`, schema first, in plain types."""
    found = result(
        [*[sample(n, i, 10**7 + i * (1 + (n == "b")) * 10**4) for i in range(30) for n in "ab"], failed("a", 30)]
    )
    as_json = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert next(iter(as_json)) == "schema"
    assert as_json["schema"] == "oci-harness/bench/1"
    assert {"environment", "caveats", "samples", "summary", "comparisons"} <= set(as_json)
    assert all({"id", "message"} <= set(each) for each in as_json["caveats"])
    first, last = as_json["samples"][0], as_json["samples"][-1]
    assert {"runtime", "index", "order", "stages", "first_instruction_ns", "exit_status"} <= set(first)
    assert {"create_ns", "start_ns", "delete_ns", "whole_ns"} <= set(first["stages"])
    assert first["stages"]["kill_ns"] is None
    assert "error" not in first
    assert (last["error"], last["failed_stage"], last["stages"]) == ("runc create: no", "create", {})
    for runtime in "ab":
        stages = as_json["summary"][runtime]
        assert set(stages) == set(ALL_STAGES) - {"kill_ns"}
        for figures in stages.values():
            assert {"n", "median_ns", "p95_ns", "p99_ns", "ci95_ns"} <= set(figures)
            assert len(figures["ci95_ns"]) == 2
            assert figures["n"] == 30
    assert {each["stage"] for each in as_json["comparisons"]} == set(ALL_STAGES) - {"kill_ns"}
    for each in as_json["comparisons"]:
        assert {"a", "b", "stage", "ratio", "ci95", "verdict"} <= set(each)
        assert each["verdict"] in ("a-faster", "b-faster", "no-detectable-difference")
        assert (each["a"], each["b"], each["n"]) == ("a", "b", 30)
        assert 0 < each["p_value"] <= 1
        assert 0 <= each["b_faster_share"] <= 1
        assert each["minimum_detectable"] >= 0
    assert (as_json["null"], as_json["carry_over"], as_json["outliers"]) == ({}, [], [])
    assert as_json["ended"] == "planned"


def test_comparison_pairs_rounds() -> None:
    """Only rounds that both have, and in which neither failed, are compared; each pair of runtimes once."""
    samples = [sample("a", i) for i in range(6)] + [sample("b", i, 2 * 10**7) for i in range(2, 9)] + [failed("b", 1)]
    samples += [sample("c", 100)]
    found = result(samples, ("a", "b", "c"))
    assert {(each.a, each.b, each.n) for each in found.comparisons} == {("a", "b", 4)}
    assert next(each for each in found.comparisons if each.stage == "create_ns").ratio == pytest.approx(2)
    assert len(found.of("b")) == 8
    assert found.values("b", "create_ns") == [2 * 10**7] * 7
    assert found.values("b", "kill_ns") == []


def test_an_outlier_tells_what_was_different() -> None:
    """A slow sample is kept in the summary, and named with the stage that was slow and what else happened meanwhile."""
    samples = [sample("a", i, 10**7 + i * 1000, disturbance={"steal_ns": 0, "forks": 5}) for i in range(30)]
    samples[7] = sample("a", 7, 9 * 10**7, disturbance={"steal_ns": 70_000_000, "forks": 5})
    found = result(samples, ("a",))
    (outlier,) = found.outliers
    assert (outlier.runtime, outlier.order, outlier.whole_ns) == ("a", 7, 98_000_000)
    assert outlier.times_usual == pytest.approx(5.4, abs=0.1)
    assert {each.what for each in outlier.different} == {"create_ns", "steal_ns"}
    steal = next(each for each in outlier.different if each.what == "steal_ns")
    assert (steal.value, steal.usual) == (70_000_000, 0)
    assert found.summary["a"]["whole_ns"].max_ns == 98_000_000
    assert found.to_json()["outliers"][0]["different"][0].keys() == {"what", "value", "usual"}


@pytest.mark.parametrize("n", [0, 1, 9])
def test_too_few_for_outliers(n: int) -> None:
    """Without enough samples to tell what is usual nothing is called an outlier."""
    assert result([sample("a", i, 10**7 * (1 + 9 * (i == 0))) for i in range(n)], ("a",)).outliers == []


def test_a_pair_that_overlaps_says_nothing_of_neighbours() -> None:
    """Carry-over is told only where one lifecycle ran at a time, and only against enough samples after itself."""
    samples = [placed(name, at, 10**7) for at, name in enumerate(SEQUENCE)]
    assert {(each.runtime, each.after) for each in result(samples).carry_over} == {("a", "b"), ("b", "a")}
    assert result(samples, settings__parallel=2).carry_over == []
    assert result([placed(name, at, 10**7) for at, name in enumerate("ab" * 20)]).carry_over == []
