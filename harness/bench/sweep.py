"""The same benchmark at several points: parallel starts, live containers, pauses, page cache; in random order.

JSON, schema "oci-harness/bench-sweep/1" (SweepResult.to_json):
    settings, environment, caveats[]  as in result.py; sweep{DIMENSION: [values]}
    points[{point{}, summary{}, comparisons[], carry_over[], outliers[], against_first{RUNTIME: Comparison}}]
    samples[{..., point}]             `point` is the place in points; order counts over the whole sweep
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from harness.bench import page_cache
from harness.bench.caveats import find_caveats
from harness.bench.disturbance import Recorder
from harness.bench.environment import record, record_after
from harness.bench.lifecycle import Bench, Sample
from harness.bench.live import Live
from harness.bench.plan import Turn, balanced_orders
from harness.bench.result import Result
from harness.bench.run import Runner
from harness.errors import InputError
from harness.runtime.discovery import Runtime
from harness.runtime.lifecycle import ends_by
from harness.runtime.session import Session

if TYPE_CHECKING:
    from harness.bench.figures import Comparison

SCHEMA = "oci-harness/bench-sweep/1"
BLOCKS = 4  # pieces that the rounds of a point are cut into
BLOCKS_WITH_LIVE = 2  # where going from point to point means making and removing containers
MOST_POINTS = 64
STAGE = "whole_ns"


class Point(Struct, frozen=True):
    """One combination of what is swept; what is not swept has the benchmark's own value."""

    parallel: int = 1
    live: int = 0
    pause_ms: float = 0.0
    cache: str = "warm"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


AS_USUAL: Final = Point()


def _at_least(least: int, text: str) -> int:
    value = int(text)
    if value < least:
        raise ValueError
    return value


def _pause(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 60_000:
        raise ValueError
    return value


def _cache(text: str) -> str:
    if text not in ("warm", "cold"):
        raise ValueError
    return text


DIMENSIONS: Final[dict[str, tuple[str, Callable[[str], Any], str]]] = {
    "parallel": ("parallel", lambda text: _at_least(1, text), "1,2,4"),
    "live": ("live", lambda text: _at_least(0, text), "0,100,500"),
    "pause-ms": ("pause_ms", _pause, "0,10"),
    "cache": ("cache", _cache, "warm,cold"),
}


def parse_sweeps(texts: tuple[str, ...], base: Point) -> tuple[dict[str, list[Any]], list[Point]]:
    """`("parallel=1,2", "live=0,100")` -> ({field: values}, all combinations). Raises InputError."""
    values: dict[str, list[Any]] = {}
    for text in texts:
        name, _, listed = text.partition("=")
        if name not in DIMENSIONS:
            raise InputError(
                f"--sweep {text}: what can be swept is {', '.join(DIMENSIONS)}, as in --sweep parallel=1,2"
            )
        key, parse, example = DIMENSIONS[name]
        try:
            found = [parse(part) for part in listed.split(",")]
        except ValueError:
            raise InputError(f"--sweep {text}: write values with commas, as in --sweep {name}={example}") from None
        if key in values or len(set(found)) < len(found):
            raise InputError(f"--sweep {text}: {name} or one of its values is there twice")
        values[key] = found
    points = [replace(base, **dict(zip(values, row, strict=True))) for row in itertools.product(*values.values())]
    if len(points) > MOST_POINTS:
        raise InputError(f"--sweep: {len(points)} points are more than {MOST_POINTS}; sweep fewer values at a time")
    return values, points


class SweepResult(Struct, dict=True):
    """One Result for each point; samples of all points share one count of order."""

    settings: dict[str, Any]
    environment: dict[str, Any]
    runtimes: list[str]
    points: list[tuple[Point, Result]] = field(default_factory=list)
    kept_by: str | None = None  # the runtime that kept the live containers
    interrupted: bool = False

    @cached_property
    def against_first(self) -> list[dict[str, Comparison]]:
        """For each point {runtime: its whole lifecycle there (b) against the first point (a)}; not paired."""
        from harness.bench.statistics import compare_independent

        found = []
        base = self.points[0][1] if self.points else None
        for index, (_, result) in enumerate(self.points):
            found.append(
                {
                    name: compare_independent("first point", f"point {index}", STAGE, before, here)
                    for name in self.runtimes
                    if base is not None
                    and (before := base.values(name, STAGE))
                    and (here := result.values(name, STAGE))
                }
            )
        return found

    @cached_property
    def caveats(self) -> list[dict[str, str]]:
        """Those of all points, each text once; one that only some points have names them."""
        where: dict[tuple[str, str], list[int]] = {}
        for index, (_, result) in enumerate(self.points):
            for caveat in find_caveats(result):
                where.setdefault((caveat["id"], caveat["message"]), []).append(index)
        return [
            {
                "id": name,
                "message": text if len(at) == len(self.points) else f"{text} (points {', '.join(map(str, at))})",
            }
            for (name, text), at in where.items()
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "settings": self.settings,
            "environment": self.environment,
            "caveats": self.caveats,
            "live_kept_by": self.kept_by,
            "points": [
                {
                    "point": point.to_json(),
                    "summary": {
                        name: {stage: summary.to_json() for stage, summary in stages.items()}
                        for name, stages in result.summary.items()
                    },
                    "comparisons": [each.to_json() for each in result.comparisons],
                    "carry_over": [each.to_json() for each in result.carry_over],
                    "outliers": [each.to_json() for each in result.outliers],
                    "against_first": {name: each.to_json() for name, each in against.items()},
                }
                for (point, result), against in zip(self.points, self.against_first, strict=True)
            ],
            "samples": [
                sample.to_json() | {"point": index}
                for index, (_, result) in enumerate(self.points)
                for sample in result.samples
            ],
            "interrupted": self.interrupted,
        }


def cut(points: list[Point], runs: int, draw: random.Random) -> Iterator[tuple[int, range]]:
    """(place of the point, its rounds) in the order in which they run: blocks of all points, shuffled as in a lottery.

    Each set of blocks has every point once, so that a drift of the machine hits all points alike.
    """
    wanted = BLOCKS_WITH_LIVE if len({point.live for point in points}) > 1 else BLOCKS
    blocks = min(wanted, runs)
    edges = [runs * block // blocks for block in range(blocks + 1)]
    for start, end in itertools.pairwise(edges):
        for index in draw.sample(range(len(points)), len(points)):
            yield index, range(start, end)


def run_sweep(
    session: Session,
    runtimes: list[Runtime],
    texts: tuple[str, ...],
    *,
    base: Point = AS_USUAL,
    recipe: str = "pause",
    runs: int = 20,
    warmup: int = 1,
    seed: int = 0,
    settings: tuple[tuple[str, object], ...] = (),
    timeout_s: float = 30.0,
    on_sample: Callable[[Sample], None] = lambda _: None,
    on_live: Callable[[int], None] = lambda _: None,
) -> SweepResult:
    """`runs` rounds at each point, cut into blocks that come in random order; a warm-up before each block.

    A KeyboardInterrupt ends it early and keeps the samples so far; the live containers are removed in any case.
    Raises InputError for sweeps that make no sense, HostError where the page cache cannot be dropped.
    """
    values, points = parse_sweeps(texts, base)
    template = session.template(recipe, settings)
    environment = record(runtimes, session.choice, template)
    names = [runtime.name for runtime in runtimes]
    asked = {"recipe": recipe, "runs": runs, "warmup": warmup, "seed": seed, "sweep": values, "order": "interleaved"}
    asked |= {"end": ends_by(template)}
    done = SweepResult(asked, environment, names)
    if any(point.cache == "cold" for point in points):
        page_cache.drop()
    samples: list[list[Sample]] = [[] for _ in points]
    draw = random.Random(seed)
    orders = balanced_orders(names, draw)
    place = itertools.count()
    with Recorder() as recorder:
        try:
            with Live(session, runtimes, on_live) as live:
                for index, rounds in cut(points, runs, draw):
                    point = points[index]
                    live.adjust(point.live)
                    bench = Bench(session, template, ends_by(template), timeout_s, recorder, point.cache == "cold")
                    runner = Runner(bench, runtimes, on_sample)
                    turns = [
                        Turn(name, at, next(place), warmup=warm)
                        for warm, part in ((True, range(warmup)), (False, rounds))
                        for at in part
                        for name in next(orders)
                    ]
                    try:
                        runner.run(turns, point.parallel, point.pause_ms / 1000)
                    finally:
                        samples[index] += runner.measured
                    done.kept_by = live.runtime
        except KeyboardInterrupt:
            done.interrupted = True
    environment |= record_after()
    if any(point.live for point in points):  # the live ones have just gone: nothing that a start has paid for
        environment["net_namespaces_after"] = None
    for point, found in zip(points, samples, strict=True):
        own = asked | {"parallel": point.parallel, "pause_ms": point.pause_ms, "cold": point.cache == "cold"}
        done.points.append((point, Result(own, environment, names, found, interrupted=done.interrupted)))
    return done
