"""Doubts about a benchmark's figures, as closed data: each has an id that scripts can rely on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

if TYPE_CHECKING:
    from harness.bench.result import Result

FEW_SAMPLES = 30
NOISY_SPREAD = 0.5  # (p95 - median) / median of create
CHURN = 3  # network namespaces more than before
CARRY_OVER = 0.05  # of the time after itself
STOLEN = 0.01  # of the samples' time
BUSY = 0.5  # of one CPU


class Caveat(Struct, frozen=True):
    """`applies` returns the text for this result, or None."""

    id: str
    applies: Callable[[Result], str | None]
    of_host: bool = False  # needs nothing but the environment


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


def _expedited(result: Result) -> str | None:
    if result.environment.get("rcu_expedited") != "1":
        return None
    return "rcu_expedited is set: changes of namespaces and cgroups wait less than on a kernel as it comes"


def _dynmods(result: Result) -> str | None:
    if result.environment["cgroup"].get("mode") != "unified" or result.environment.get("favordynmods") is not False:
        return None
    return "cgroup2 is mounted without favordynmods: a move into a cgroup may wait for an RCU grace period"


def _cgroup_v1(result: Result) -> str | None:
    if result.environment["cgroup"].get("mode") not in ("legacy", "hybrid"):
        return None
    return (
        "cgroup v1: a process is moved into every hierarchy after it was born (no clone into a cgroup); "
        "figures of a unified host differ"
    )


def _self_copy(result: Result) -> str | None:
    copies = [
        f"{runtime['name']} {runtime['version']} copies its binary ({runtime['binary']['bytes'] / 1e6:.1f} MB)"
        for runtime in result.environment.get("runtimes", ())
        if runtime.get("copies_itself")
    ]
    return f"{', '.join(copies)} in each create, against CVE-2019-5736; 1.2 and later need not" if copies else None


def _lsm(result: Result) -> str | None:
    major = sorted(set(result.environment.get("lsm") or ()) & {"apparmor", "selinux", "smack", "tomoyo", "bpf"})
    return f"LSM {', '.join(major)}: its hooks and labels are part of the times" if major else None


def _boost(result: Result) -> str | None:
    boost = result.environment["cpu"].get("boost")
    return "CPU boost is on: the frequency depends on heat and on what other cores do" if boost else None


def _filtered(result: Result) -> str | None:
    count = result.environment.get("own_seccomp_filters")
    return f"this process is itself under {count} seccomp filters, and so is all that it starts" if count else None


def _notify(result: Result) -> str | None:
    if not (result.environment.get("config") or {}).get("seccomp_notify"):
        return None
    return "seccomp notify: the agent behind the socket is part of the times"


def _cold(result: Result) -> str | None:
    return (
        "the page cache was dropped before each lifecycle: the disk is part of the times"
        if result.settings.get("cold")
        else None
    )


def _first_ones(result: Result) -> str | None:
    if result.settings["warmup"] or result.settings.get("cold"):
        return None
    return "no warm-up: the first lifecycles may have found the page cache cold"


def _churn(result: Result) -> str | None:
    before, after = (result.environment.get(f"net_namespaces_{when}") for when in ("before", "after"))
    if before is None or after is None or after - before < CHURN:
        return None
    return (
        f"{after - before} network namespaces more than before were not torn down yet at the end: starts paid for "
        "containers that had gone; try --pause-ms 10"
    )


def _carry_over(result: Result) -> str | None:
    found = [each for each in result.carry_over if each.found and abs(each.ratio - 1) > CARRY_OVER]
    if not found:
        return None
    told = "; ".join(
        f"{each.runtime}'s {each.stage.removesuffix('_ns')} takes {each.ratio:.2f} times as long after {each.after}"
        for each in found
    )
    return f"a neighbour's clean-up is part of the times ({told}, against after itself); try --pause-ms 10"


def _null(result: Result) -> str | None:
    differ = [
        f"{name} {each.stage.removesuffix('_ns')} {each.ratio:.3f}"
        for name, found in result.null.items()
        for each in found
        if each.verdict != "no-detectable-difference"
    ]
    if not differ:
        return None
    told = ", ".join(differ)
    total = sum(len(found) for found in result.null.values())
    return f"a runtime differs from itself in {len(differ)} of {total} comparisons ({told}); 1 in 20 is chance"


def _disturbed(result: Result, name: str) -> float | None:
    """Sum of a recorded quantity by the samples' whole time."""
    pairs = [
        (sample.disturbance[name], whole)
        for sample in result.samples
        if name in sample.disturbance and (whole := sample.stages.get("whole_ns"))
    ]
    return sum(value for value, _ in pairs) / sum(whole for _, whole in pairs) if pairs else None


def _stolen(result: Result) -> str | None:
    share = _disturbed(result, "steal_ns")
    return f"the hypervisor took {share:.1%} of the time for others" if share and share > STOLEN else None


def _busy(result: Result) -> str | None:
    share = _disturbed(result, "other_cpu_ns")
    if share is None or share < BUSY or result.settings["parallel"] > 1:
        return None
    return f"others (processes, kernel threads, the containers) used {share:.0%} of a CPU while samples were taken"


def _outliers(result: Result) -> str | None:
    if not result.outliers:
        return None
    explained = sum(bool(each.different) for each in result.outliers)
    return (
        f"{len(result.outliers)} of {len(result.samples)} samples are outliers, and kept; "
        f"something else was recorded to be unusual in {explained} of them"
    )


def _cut(result: Result) -> str | None:
    if result.ended != "max-time":
        return None
    return f"--max-time ended it before the interval was as narrow as asked or all {result.settings['runs']} runs done"


CAVEATS: Final = (
    Caveat("interrupted", _interrupted),
    Caveat("max-time", _cut),
    Caveat("failed-samples", _failed),
    Caveat("view-not-host", _view, of_host=True),
    Caveat("few-samples", _few),
    Caveat("wide-spread", _noisy),
    Caveat("outliers", _outliers),
    Caveat("null-differs", _null),
    Caveat("carry-over", _carry_over),
    Caveat("netns-churn", _churn, of_host=True),
    Caveat("loaded", _load, of_host=True),
    Caveat("busy", _busy),
    Caveat("stolen", _stolen),
    Caveat("oversubscribed", _parallel),
    Caveat("blocked-order", _blocked),
    Caveat("no-warm-up", _first_ones),
    Caveat("cold-cache", _cold),
    Caveat("governor", _governor, of_host=True),
    Caveat("boost", _boost, of_host=True),
    Caveat("rcu-normal", _rcu, of_host=True),
    Caveat("rcu-expedited", _expedited, of_host=True),
    Caveat("no-favordynmods", _dynmods, of_host=True),
    Caveat("cgroup-v1", _cgroup_v1, of_host=True),
    Caveat("copies-itself", _self_copy, of_host=True),
    Caveat("lsm", _lsm, of_host=True),
    Caveat("seccomp-notify", _notify),
    Caveat("under-seccomp", _filtered, of_host=True),
    Caveat("rootfs-not-overlay", _copy),
    Caveat("no-first-instruction", _no_stamp),
    Caveat("virtual-machine", _virtual, of_host=True),
)


def find_caveats(result: Result) -> list[dict[str, str]]:
    """[{id, message}] of those that apply."""
    return [{"id": caveat.id, "message": text} for caveat in CAVEATS if (text := caveat.applies(result)) is not None]


def find_host_caveats(environment: dict[str, Any]) -> list[dict[str, str]]:
    """Those that follow from the environment alone, for experiments that are no plain benchmark."""
    from harness.bench.result import Result

    bare = Result({}, environment, [])
    return [
        {"id": caveat.id, "message": text}
        for caveat in CAVEATS
        if caveat.of_host and (text := caveat.applies(bare)) is not None
    ]
