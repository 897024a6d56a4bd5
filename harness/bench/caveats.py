"""Doubts about a benchmark's figures, as closed data: each has an id that scripts can rely on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from harness.bench.result import Result

FEW_SAMPLES = 30
NOISY_SPREAD = 0.5  # (p95 - median) / median of create


@dataclass(frozen=True, slots=True)
class Caveat:
    """`applies` returns the text for this result, or None."""

    id: str
    applies: Callable[[Result], str | None]


def _view(result: Result) -> str | None:
    view: dict[str, Any] = result.environment["cgroup"]
    if not view["steps"]:
        return None
    why = "; ".join(f"{name}: {text}" for said in view["refused"].values() for name, text in said.items())
    steps = "; ".join(view["steps"])
    return f"measured in the {view['view']} view ({steps}), in a private mount namespace" + (
        f", because {why}" if why else ""
    )


def _virtual(result: Result) -> str | None:
    cpu = result.environment["cpu"]
    return "a virtual machine: its neighbours' load is invisible here" if cpu["virtual_machine"] else None


def _governor(result: Result) -> str | None:
    governor = result.environment["cpu"]["governor"]
    return f"CPU frequency governor is {governor}, not performance" if governor not in (None, "performance") else None


def _load(result: Result) -> str | None:
    load, cpus = result.environment["load_before"], result.environment["cpu"]["usable"]
    return f"load average was {load:.1f} on {cpus} CPUs before the first run" if load > cpus * 0.5 else None


def _parallel(result: Result) -> str | None:
    cpus = result.environment["cpu"]["usable"]
    if result.settings["parallel"] <= cpus:
        return None
    return f"{result.settings['parallel']} at a time on {cpus} CPUs: queueing for a CPU is part of the times"


def _few(result: Result) -> str | None:
    fewest = min((sum(s.error is None for s in result.of(name)) for name in result.runtimes), default=0)
    return (
        f"only {fewest} good samples of a runtime; intervals are wide, p95 and p99 mean little"
        if fewest < FEW_SAMPLES
        else None
    )


def _failed(result: Result) -> str | None:
    failed = [sample for sample in result.samples if sample.error is not None]
    if not failed:
        return None
    return f"{len(failed)} of {len(result.samples)} lifecycles failed and are left out; the first: {failed[0].error}"


def _interrupted(result: Result) -> str | None:
    return "interrupted: not all planned runs were made" if result.interrupted else None


def _noisy(result: Result) -> str | None:
    noisy = [
        name
        for name, stages in result.summary.items()
        if (create := stages.get("create_ns")) and create.p95_ns > create.median_ns * (1 + NOISY_SPREAD)
    ]
    return f"wide spread of create (p95 more than half above the median): {', '.join(noisy)}" if noisy else None


def _copy(result: Result) -> str | None:
    hows = {sample.rootfs for sample in result.samples if sample.rootfs}
    return (
        f"rootfs by {', '.join(sorted(hows))}, not overlay: page cache is not shared between containers"
        if hows - {"overlay", ""}
        else None
    )


def _no_stamp(result: Result) -> str | None:
    reasons = {
        f"{sample.turn.runtime}: {sample.first_instruction_reason}"
        for sample in result.samples
        if sample.first_instruction_reason is not None
    }
    return f"no time of the first instruction ({'; '.join(sorted(reasons))})" if reasons else None


def _blocked(result: Result) -> str | None:
    if result.settings["order"] != "blocked" or len(result.runtimes) < 2:
        return None
    return "blocked order: a change of the machine's state between the blocks looks like a difference of the runtimes"


def _rcu(result: Result) -> str | None:
    if result.environment["rcu_normal"] != "1":
        return None
    return "rcu_normal is set: cgroup changes wait for whole grace periods (60 to 120 ms a create)"


CAVEATS: Final = (
    Caveat("interrupted", _interrupted),
    Caveat("failed-samples", _failed),
    Caveat("view-not-host", _view),
    Caveat("few-samples", _few),
    Caveat("wide-spread", _noisy),
    Caveat("loaded", _load),
    Caveat("oversubscribed", _parallel),
    Caveat("blocked-order", _blocked),
    Caveat("governor", _governor),
    Caveat("rcu-normal", _rcu),
    Caveat("rootfs-not-overlay", _copy),
    Caveat("no-first-instruction", _no_stamp),
    Caveat("virtual-machine", _virtual),
)


def find_caveats(result: Result) -> list[dict[str, str]]:
    """[{id, message}] of those that apply."""
    return [{"id": caveat.id, "message": text} for caveat in CAVEATS if (text := caveat.applies(result)) is not None]
