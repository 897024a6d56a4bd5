"""A benchmark's result: the contract's JSON, and every caveat by a result that deserves it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from harness.bench.caveats import CAVEATS, find_caveats
from harness.bench.lifecycle import Sample
from harness.bench.plan import Turn
from harness.bench.result import ALL_STAGES, Result

ENVIRONMENT: dict[str, Any] = {
    "cgroup": {"view": "host", "steps": [], "refused": {}},
    "cpu": {"virtual_machine": False, "governor": "performance", "usable": 2},
    "load_before": 0.1,
    "rcu_normal": "0",
}
SETTINGS: dict[str, Any] = {"parallel": 1, "order": "interleaved", "runs": 30, "warmup": 0, "seed": 1}


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
        place, _, key = name.rpartition("__")
        target = settings if place == "settings" else environment[place] if place else environment
        target[key] = value
    if samples is None:
        samples = [sample(name, index, 10_000_000 + index) for index in range(30) for name in runtimes]
    return Result(settings, environment, list(runtimes), samples, interrupted=interrupted)


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
        ("rootfs-not-overlay", result([sample(name, i, rootfs="") for i in range(30) for name in "ab"])),
    ],
)
def test_not_yet(name: str, found: Result) -> None:
    """Just below the limit there is no caveat."""
    assert name not in caveats(found)


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


def test_comparison_pairs_rounds() -> None:
    """Only rounds that both have, and in which neither failed, are compared; each pair of runtimes once."""
    samples = [sample("a", i) for i in range(6)] + [sample("b", i, 2 * 10**7) for i in range(2, 9)] + [failed("b", 1)]
    samples += [sample("c", 100)]
    found = result(samples, ("a", "b", "c"))
    assert {(each.a, each.b, each.n) for each in found.comparisons} == {("a", "b", 4)}
    assert next(each for each in found.comparisons if each.stage == "create_ns").ratio == 2
    assert len(found.of("b")) == 8
    assert found.values("b", "create_ns") == [2 * 10**7] * 7
    assert found.values("b", "kill_ns") == []
