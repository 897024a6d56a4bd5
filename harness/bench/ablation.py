"""What each part of config.json costs: containers with random subsets of the parts, and a robust regression.

Half of the parts are left out at random, each round anew and the same for all runtimes (fewer of those that others
need). So the cost of each part is estimated from all samples at once, in many surroundings, and what costs more or
less together with another part is averaged. Every FULL_EVERY-th round has all parts; it is kept out of the
regression, and tells whether the parts' costs add up to the whole. Runtimes are not compared here, so they take turns
block by block, which keeps what one leaves behind away from the other.

JSON, schema "oci-harness/ablation/1" (Ablation.to_json):
    settings, environment, caveats[], parts[{name, about, needs[]}]
    costs{RUNTIME[]}       figures.Cost, dearest first; dearest{RUNTIME[]}: the three by name, proven ones first
    fit{RUNTIME{}}         bare_ns (no part at all), full_ns (measured with all), predicted_full_ns, residual_ns,
                           network_left_to_next_ns (what tearing down a network namespace costs the next container)
    samples[{runtime, round, order, kept[], stages{}, error?}]
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Final

from msgspec import Struct, field

from harness.bench.caveats import find_host_caveats
from harness.bench.environment import record, record_after
from harness.bench.figures import Cost
from harness.bench.parts import OVERLAY, Part, closed, config_with, load_parts, whole_config
from harness.bench.plan import balanced_orders
from harness.errors import InputError, OperationError
from harness.oci.bundle import Bundle, Template
from harness.oci.rootfs import copy_tree
from harness.oci.spec import Config, minimum_version
from harness.process.command import Stdio, dev_null
from harness.runtime.console import ConsoleSocket
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.failures import check
from harness.runtime.options import CreateOptions
from harness.runtime.session import Session

SCHEMA = "oci-harness/ablation/1"
STAGES: Final = ("create_ns", "start_ns", "delete_ns")
ROUNDS = 800
FULL_EVERY = 8  # rounds
FEWEST = 60  # good samples of a runtime; a regression on fewer says nothing
NUISANCES = 3  # columns before the parts: one, time, "the container right before had a network namespace"
NETWORK: Final = "namespace:network"
KEPT, KEPT_NEEDED = 0.5, 0.75  # how often a part is there; one that others need
DEAREST = 3
BLOCK = 25  # rounds of one runtime in a row


class PlainTemplate(Template, frozen=True):
    """As a Template, with the one plain directory `lower` as the root file system of all, in place of an overlay."""

    def instantiate(self, directory: Path, cgroups_path: str, call: Callable[..., None]) -> Bundle:
        config = self.config.copy()
        config.set("/linux/cgroupsPath", cgroups_path)
        config.set("/root/path", str(self.lower))
        (directory / "config.json").write_bytes(config.encode())
        return Bundle(directory, config)


class Ablated(Struct, frozen=True):
    """One container with some of the parts."""

    runtime: str
    round: int
    order: int
    kept: frozenset[str]
    stages: dict[str, int] = field(default_factory=dict)
    error: str | None = None

    @property
    def operations_ns(self) -> int:
        return sum(self.stages.values())

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "runtime": self.runtime,
            "round": self.round,
            "order": self.order,
            "kept": sorted(self.kept),
            "stages": self.stages,
        }
        return found | ({"error": self.error} if self.error is not None else {})


class Fit(Struct, frozen=True):
    """One runtime's regression."""

    costs: list[Cost]  # dearest first
    bare_ns: float  # create, start and delete of a container with no part at all
    full_ns: float | None  # measured with all parts; None: no such round went well
    predicted_full_ns: float
    residual_ns: float  # robust standard deviation of what the parts do not explain
    network_left_to_next_ns: float

    @property
    def dearest(self) -> list[Cost]:
        """The DEAREST dearest of the parts whose cost can be told from none, then of the others."""
        return sorted(self.costs, key=lambda cost: (not (cost.found and cost.cost_ns > 0), -cost.cost_ns))[:DEAREST]


class Ablation(Struct, dict=True):
    settings: dict[str, Any]
    environment: dict[str, Any]
    runtimes: list[str]
    parts: tuple[Part, ...]
    samples: list[Ablated] = field(default_factory=list)
    interrupted: bool = False

    def good(self, runtime: str) -> list[Ablated]:
        return [sample for sample in self.samples if sample.runtime == runtime and sample.error is None]

    @cached_property
    def fits(self) -> dict[str, Fit]:
        """A runtime with too few good samples has none."""
        return {name: fit for name in self.runtimes if (fit := self._fit(name)) is not None}

    def _fit(self, runtime: str) -> Fit | None:
        from harness.bench.statistics import marginal, together

        every = frozenset(part.name for part in self.parts)
        rows = [sample for sample in self.good(runtime) if sample.kept != every]
        if len(rows) < FEWEST:
            return None
        before = {
            sample.order: NETWORK in previous.kept
            for previous, sample in itertools.pairwise(sorted(self.samples, key=lambda sample: sample.order))
        }
        last = max(sample.order for sample in rows)
        design = [
            [1.0, 2 * sample.order / max(last, 1) - 1, float(before.get(sample.order, False))]
            + [float(part.name in sample.kept) for part in self.parts]
            for sample in rows
        ]
        values, bounds, residual = marginal(design, [sample.operations_ns for sample in rows])
        after_network = sum(row[2] for row in design) / len(design)
        by_stage = {stage: marginal(design, [s.stages[stage] for s in rows], resamples=1)[0] for stage in STAGES}
        costs = [
            Cost(
                part.name,
                values[at],
                bounds[at],
                together(bounds[at], values[at], len(self.parts)),
                {stage: found[at] for stage, found in by_stage.items()},
                n_with=sum(part.name in sample.kept for sample in rows),
                n_without=sum(part.name not in sample.kept for sample in rows),
            )
            for at, part in enumerate(self.parts, NUISANCES)
        ]
        full = [sample.operations_ns for sample in self.good(runtime) if sample.kept == every]
        bare = values[0] + values[2] * after_network
        return Fit(
            sorted(costs, key=lambda cost: -cost.cost_ns),
            bare,
            median(full) if full else None,
            bare + sum(values[NUISANCES:]),
            residual,
            values[2],
        )

    @cached_property
    def caveats(self) -> list[dict[str, str]]:
        found = []
        for name in self.runtimes:
            own = [sample for sample in self.samples if sample.runtime == name]
            failed = [sample for sample in own if sample.error is not None]
            if failed:
                text = f"{name}: {len(failed)} of {len(own)} containers failed and are left out; the first: "
                found.append({"id": "failed-samples", "message": text + str(failed[0].error)})
            if name not in self.fits:
                text = f"{name}: fewer than {FEWEST} good samples; no costs can be told"
                found.append({"id": "few-samples", "message": text})
            elif (fit := self.fits[name]).full_ns and abs(fit.predicted_full_ns / fit.full_ns - 1) > 0.15:
                text = f"{name}: the costs do not add up: {fit.predicted_full_ns / fit.full_ns:.0%} of the whole"
                found.append({"id": "not-additive", "message": text + "; parts are dearer or cheaper together"})
        if self.interrupted:
            found.append({"id": "interrupted", "message": "interrupted: not all planned rounds were made"})
        return found + find_host_caveats(self.environment)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "settings": self.settings,
            "environment": self.environment,
            "caveats": self.caveats,
            "parts": [{"name": part.name, "about": part.about, "needs": part.needs} for part in self.parts],
            "costs": {name: [cost.to_json() for cost in fit.costs] for name, fit in self.fits.items()},
            "dearest": {name: [cost.part for cost in fit.dearest] for name, fit in self.fits.items()},
            "fit": {
                name: {
                    "bare_ns": fit.bare_ns,
                    "full_ns": fit.full_ns,
                    "predicted_full_ns": fit.predicted_full_ns,
                    "residual_ns": fit.residual_ns,
                    "network_left_to_next_ns": fit.network_left_to_next_ns,
                }
                for name, fit in self.fits.items()
            },
            "samples": [sample.to_json() for sample in self.samples],
            "interrupted": self.interrupted,
        }


def subsets(parts: tuple[Part, ...], rounds: int, draw: random.Random) -> list[frozenset[str]]:
    """The parts kept in each round."""
    needed = {name for part in parts for name in part.needs}
    every = frozenset(part.name for part in parts)
    return [
        every
        if index % FULL_EVERY == FULL_EVERY - 1
        else closed(
            {part.name for part in parts if draw.random() < (KEPT_NEEDED if part.name in needed else KEPT)}, parts
        )
        for index in range(rounds)
    ]


def run_ablation(
    session: Session,
    runtimes: list[Runtime],
    *,
    rounds: int = ROUNDS,
    warmup: int = 2,
    seed: int = 0,
    max_time_s: float = 240.0,
    pause_ms: float = 10.0,
    timeout_s: float = 30.0,
    on_sample: Callable[[Ablated], None] = lambda _: None,
) -> Ablation:
    """`rounds` containers of each runtime, fewer if `max_time_s` is over after a block.

    A KeyboardInterrupt ends it early and keeps the samples so far.
    """
    parts = load_parts()
    whole = whole_config(parts)
    names = [runtime.name for runtime in runtimes]
    by_name = {runtime.name: runtime for runtime in runtimes}
    asked = {
        "rounds": rounds,
        "warmup": warmup,
        "seed": seed,
        "max_time_s": max_time_s,
        "pause_ms": pause_ms,
        "recipe": "kubernetes",
    }
    done = Ablation(asked, record(runtimes, session.choice), names, parts)
    draw = random.Random(seed)
    orders = balanced_orders(names, draw)
    lower = session.template("kubernetes").lower
    plain = session.workspace.path / "rootfs" / "plain"
    plain.mkdir()
    copy_tree(lower, plain)
    every = frozenset(part.name for part in parts)
    end = time.monotonic() + max_time_s
    order = itertools.count()

    def one(name: str, index: int, kept: frozenset[str]) -> Ablated:
        document = config_with(whole, kept, parts)
        document["process"]["args"] = ["/payload"]
        document["ociVersion"] = minimum_version(document)
        place = next(order)
        config = Config(document)
        template = Template(config, lower) if OVERLAY in kept else PlainTemplate(config, plain)
        time.sleep(pause_ms / 1000)  # the kernel tears down what the container before had
        stages, error = lifecycle(session, by_name[name], template, f"a{place}", timeout_s)
        return Ablated(name, index, place, kept, stages, error)

    plan = subsets(parts, rounds, draw)
    try:
        for start in range(0, rounds, BLOCK):
            if time.monotonic() >= end:
                break
            for name in next(orders):
                for _ in range(warmup):
                    one(name, -1, every)
                for index, kept in enumerate(plan[start : start + BLOCK], start):
                    done.samples.append(one(name, index, kept))
                    on_sample(done.samples[-1])
    except KeyboardInterrupt:
        done.interrupted = True
    done.environment |= record_after()
    return done


def lifecycle(
    session: Session, runtime: Runtime, template: Template, container_id: str, timeout_s: float
) -> tuple[dict[str, int], str | None]:
    """create, start, the payload's own end, delete; with a terminal if the config asks for one. -> (times, error)."""
    stdio = Stdio(stdout=dev_null(), stderr=dev_null())
    container = session.container(runtime, template, container_id, stdio=stdio)
    try:
        with contextlib.ExitStack() as stack:
            create = container.create(_create_options(container, template, stdio, stack))
            check(create)
            start = check(container.start())
            container.wait(timeout_s)
            delete = check(container.delete())
        return {"create_ns": create.duration_ns, "start_ns": start.duration_ns, "delete_ns": delete.duration_ns}, None
    except (OperationError, TimeoutError, OSError) as error:
        return {}, str(error)
    finally:
        container.clean_up()


def _create_options(
    container: Container, template: Template, stdio: Stdio, stack: contextlib.ExitStack
) -> CreateOptions:
    plain = CreateOptions(str(container.bundle.path), f"{container.directory}/pid", stdio=stdio)
    if not template.config.get("/process/terminal", False):
        return plain
    console = stack.enter_context(ConsoleSocket(container.directory))
    # nobody reads the terminal: what the payload writes fits into its buffer
    stack.callback(_close_terminal, console)
    return CreateOptions(plain.bundle, plain.pid_file, console_socket=console.path, stdio=stdio)


def _close_terminal(console: ConsoleSocket) -> None:
    with contextlib.suppress(OSError, InputError):
        os.close(console.receive(0.001))
