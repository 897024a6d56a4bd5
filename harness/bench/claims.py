"""Published measurements, repeated here: theirs and ours side by side, and what differs in the set-up.

Claims are data, in bundles/claims.toml. Runtimes take turns in random order, which the published series did not do.

JSON, schema "oci-harness/claim/1" (ClaimReport.to_json):
    claim{name, title, source, seen, method, setup{}}, settings, environment, caveats[]
    results[{runtime, theirs{version?, seconds or mean_ms, ...}, ours{..., ci95, n, operations_ms{}}, reason?}]
    ratios[{a, b, theirs, ours, ci95[2]}]   b / a; theirs None where the page lacks one of the two
    limits[{runtime, memory_bytes, theirs_starts, tries, started, text?}]
    differences[]                           one line each
"""

from __future__ import annotations

import itertools
import random
import tomllib
from collections.abc import Callable
from functools import cache
from statistics import fmean, stdev
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct, field

from harness.bench import page_cache
from harness.bench.caveats import find_host_caveats
from harness.bench.environment import record, record_after
from harness.bench.memory_floor import RECIPE, Search
from harness.bench.plan import balanced_orders
from harness.errors import HostError, InputError, OperationError
from harness.oci.bundle import Template
from harness.oci.recipe import data_root
from harness.process.command import Stdio, dev_null
from harness.process.operation import Operation
from harness.runtime.discovery import Runtime
from harness.runtime.failures import check
from harness.runtime.options import CreateOptions, DeleteOptions
from harness.runtime.session import Session

SCHEMA = "oci-harness/claim/1"
FILE: Final = "claims.toml"
LIMIT_TRIES: Final = 5


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One runtime's published figure."""

    runtime: str
    version: str | None = None
    seconds: float | None = None
    mean_ms: float | None = None
    sd_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None

    @property
    def value(self) -> float | None:
        """What ratios are made of."""
        return self.seconds if self.seconds is not None else self.mean_ms


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    runtime: str
    memory_bytes: int
    starts: bool


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the head of bundles/claims.toml."""

    name: str
    title: str
    source: str
    seen: str
    method: str
    operations: list[Literal["run", "create", "start", "delete-force"]]
    args: list[str]
    repeats: int
    warmup: int
    figure: Literal["total", "each"]
    cold: bool
    differs: list[str]
    setup: dict[str, Any]
    result: list[Published]
    limit: list[Limit] = []


@cache
def load_claims() -> dict[str, Claim]:
    """{name: claim}. Raises InputError."""
    file = data_root() / FILE
    try:
        claims = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8"))["claim"], list[Claim])
    except (OSError, KeyError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InputError(f"{file}: not a list of claims: {error}") from None
    return {claim.name: claim for claim in claims}


def find_claim(name: str) -> Claim:
    claims = load_claims()
    if name not in claims:
        raise InputError(f"--claim {name}: there is no such claim; there are {', '.join(claims)}")
    return claims[name]


class ClaimReport(Struct):
    """`times`: nanoseconds of each unit, in rounds: the n-th of each runtime were taken next to each other."""

    claim: Claim
    settings: dict[str, Any]
    environment: dict[str, Any]
    runtimes: list[Runtime]
    times: dict[str, list[int]] = field(default_factory=dict)
    operations: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # the same times, by operation
    reasons: dict[str, str] = field(
        default_factory=dict
    )  # why a runtime has no figure, or not the published conditions
    limits: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False

    def ours(self, runtime: str) -> dict[str, Any] | None:
        times = self.times.get(runtime, [])
        if len(times) < 2:
            return None
        mean, n = fmean(times), len(times)
        half = 1.96 * stdev(times) / n**0.5
        if self.claim.figure == "total":
            scale = self.claim.repeats / 1e9
            return {"seconds": mean * scale, "ci95": [(mean - half) * scale, (mean + half) * scale], "n": n}
        return {
            "mean_ms": mean / 1e6,
            "sd_ms": stdev(times) / 1e6,
            "min_ms": min(times) / 1e6,
            "max_ms": max(times) / 1e6,
            "ci95": [(mean - half) / 1e6, (mean + half) / 1e6],
            "n": n,
        }

    @property
    def results(self) -> list[dict[str, Any]]:
        """The published runtimes in their order, then those that were measured here beside them."""
        published = {each.runtime: each for each in self.claim.result}
        found = []
        for name in dict.fromkeys([*published, *self.times]):
            theirs = {
                key: value
                for key, value in (msgspec.structs.asdict(published[name]) if name in published else {}).items()
                if value is not None and key != "runtime"
            }
            row: dict[str, Any] = {"runtime": name, "theirs": theirs or None, "ours": self.ours(name)}
            version = next((runtime.version for runtime in self.runtimes if runtime.name == name), None)
            if row["ours"] is not None:
                row["ours"]["version"] = version
                row["ours"]["operations_ms"] = {
                    operation: fmean(times) / 1e6 for operation, times in self.operations.get(name, {}).items()
                }
            reason = self.reasons.get(name) or (None if version else "not on this host, or not asked for")
            found.append(row | ({"reason": reason} if reason else {}))
        return found

    @property
    def ratios(self) -> list[dict[str, Any]]:
        from harness.bench.statistics import compare

        published = {each.runtime: each.value for each in self.claim.result}
        found = []
        for a, b in itertools.combinations([name for name, times in self.times.items() if times], 2):
            pairs = list(zip(self.times[a], self.times[b], strict=False))
            ours = compare(a, b, "unit", pairs)
            of_a, of_b = published.get(a), published.get(b)
            theirs = of_b / of_a if of_a and of_b else None
            found.append({"a": a, "b": b, "theirs": theirs, "ours": ours.ratio, "ci95": list(ours.ci95)})
        return found

    @property
    def differences(self) -> list[str]:
        """What is not as it was published: first what the host tells, then what no host could share."""
        setup, here = self.claim.setup, self.environment
        facts = {
            "kernel": here["kernel"]["release"],
            "cpus": here["cpu"]["usable"],
            "memory_bytes": here["memory_bytes"],
            "cgroup_mode": here["cgroup"]["mode"],
        }
        found = [
            f"{key}: theirs {setup[key]}, ours {ours}" for key, ours in facts.items() if setup.get(key, ours) != ours
        ]
        versions = {runtime.name: runtime.version for runtime in self.runtimes}
        for each in self.claim.result:
            ours = versions.get(each.runtime)
            if each.version and ours and each.version != ours:
                found.append(f"{each.runtime}: theirs {each.version}, ours {ours}")
        if here["cpu"]["virtual_machine"]:
            found.append("ours is a virtual machine")
        return [
            *found,
            "ours took turns in random order, one unit of each runtime after the other",
            *self.claim.differs,
        ]

    def to_json(self) -> dict[str, Any]:
        claim = self.claim
        return {
            "schema": SCHEMA,
            "claim": {key: getattr(claim, key) for key in ("name", "title", "source", "seen", "method", "setup")},
            "settings": self.settings,
            "environment": self.environment,
            "caveats": find_host_caveats(self.environment),
            "results": self.results,
            "ratios": self.ratios,
            "limits": self.limits,
            "differences": self.differences,
            "times_ns": self.times,
            "interrupted": self.interrupted,
        }


def run_claim(
    session: Session,
    runtimes: list[Runtime],
    claim: Claim,
    *,
    seed: int = 0,
    timeout_s: float = 30.0,
    on_unit: Callable[[], None] = lambda: None,
) -> ClaimReport:
    """Repeat a published measurement with each runtime. A KeyboardInterrupt keeps what there is.

    Raises HostError where the page cache must be dropped and may not.
    """
    settings: tuple[tuple[str, Any], ...] = (("/process/args", claim.args),)
    asked = {"repeats": claim.repeats, "warmup": claim.warmup, "cold": claim.cold, "seed": seed, "recipe": RECIPE}
    template = session.template(RECIPE, settings)
    done = ClaimReport(claim, asked, record(runtimes, session.choice, template), runtimes)
    if not (template.lower / claim.args[0].lstrip("/")).is_symlink():
        raise HostError(f"{claim.args[0]} is not in the root file system: apt-get install busybox-static")
    draw = random.Random(seed)
    by_name = {runtime.name: runtime for runtime in runtimes}
    done.times, done.operations = {name: [] for name in by_name}, {name: {} for name in by_name}
    orders = balanced_orders(list(by_name), draw)
    serial = itertools.count()
    try:
        for index in range(claim.warmup + claim.repeats):
            for name in next(orders):
                if name in done.reasons:
                    continue
                if claim.cold:
                    page_cache.drop()
                try:
                    taken = unit(session, by_name[name], template, f"u{next(serial)}", claim, timeout_s)
                except (OperationError, TimeoutError) as error:
                    done.reasons[name] = str(error)
                    continue
                if index >= claim.warmup:
                    done.times[name].append(sum(taken.values()))
                    for operation, time_ns in taken.items():
                        done.operations[name].setdefault(operation, []).append(time_ns)
                    on_unit()
        for limit in claim.limit:
            if limit.runtime in by_name:
                done.limits.append(_limit(session, by_name[limit.runtime], limit))
    except KeyboardInterrupt:
        done.interrupted = True
    done.environment |= record_after()
    return done


def unit(
    session: Session, runtime: Runtime, template: Template, container_id: str, claim: Claim, timeout_s: float
) -> dict[str, int]:
    """The operations of one unit -> {operation: its time in ns}. Raises OperationError."""
    stdio = Stdio(stdout=dev_null(), stderr=dev_null())
    container = session.container(runtime, template, container_id, stdio=stdio)
    done: dict[str, Operation] = {}
    try:
        for operation in claim.operations:
            if operation == "run":
                options = CreateOptions(str(container.bundle.path), stdio=stdio, verb="run")
                done[operation] = check(container.client.run(container.id, options, timeout_s))
            elif operation == "create":
                done[operation] = check(container.create())
            elif operation == "start":
                done[operation] = check(container.start())
            else:
                done[operation] = check(container.client.delete(container.id, DeleteOptions(force=True)))
        return {name: each.duration_ns for name, each in done.items()}
    finally:
        container.clean_up()


def _limit(session: Session, runtime: Runtime, limit: Limit) -> dict[str, Any]:
    found = Search(session, runtime, LIMIT_TRIES, 10.0).attempt(limit.memory_bytes, stop_at_failure=False)
    return {
        "runtime": runtime.name,
        "memory_bytes": limit.memory_bytes,
        "theirs_starts": limit.starts,
        "tries": found.tries,
        "started": found.started,
        **({"text": found.text} if found.text else {}),
    }
