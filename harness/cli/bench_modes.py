"""The experiments of `oci-harness bench` beside the plain one: sweep, ablation, memory floor, published claims."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.cli.bench_tables import print_ablation, print_claim, print_floors, print_sweep

if TYPE_CHECKING:
    from harness.bench.sweep import Point
    from harness.cli.bench import Asked

INTERRUPTED = 130


def sweep(asked: Asked, texts: tuple[str, ...], base: Point, runs: int, options: dict[str, Any]) -> int:
    from harness.bench.sweep import parse_sweeps, run_sweep

    _, points = parse_sweeps(texts, base)
    total = runs * len(points) * len(asked.runtimes)
    with asked.session() as session, asked.progress("lifecycles", total) as tick:
        result = run_sweep(
            session,
            asked.runtimes,
            texts,
            base=base,
            runs=runs,
            timeout_s=asked.timeout_s,
            on_sample=lambda sample: None if sample.turn.warmup else tick(sample),
            **options,
        )
    if asked.emit(result.to_json()):
        print_sweep(result)
    if not any(sample.error is None for _, each in result.points for sample in each.samples):
        if result.interrupted:
            return INTERRUPTED
        first = next((sample.error for _, each in result.points for sample in each.samples), "nothing was measured")
        click.echo(f"oci-harness: no lifecycle went well: {first}", err=True)
        return 4
    return INTERRUPTED if result.interrupted else 0


def ablate(asked: Asked, seed: int, warmup: int, options: dict[str, Any]) -> int:
    """`options`: rounds, max_time_s, pause_ms, where they were given."""
    from harness.bench.ablation import ROUNDS, run_ablation

    total = options.get("rounds", ROUNDS) * len(asked.runtimes)
    with asked.session() as session, asked.progress("containers", total) as tick:
        result = run_ablation(
            session, asked.runtimes, seed=seed, warmup=warmup, timeout_s=asked.timeout_s, on_sample=tick, **options
        )
    if asked.emit(result.to_json()):
        print_ablation(result)
    if result.interrupted:
        return INTERRUPTED
    hopeless = [name for name in result.runtimes if not result.good(name)]
    if hopeless:
        first = next(sample.error for sample in result.samples if sample.runtime == hopeless[0])
        click.echo(f"oci-harness: no container of {', '.join(hopeless)} went well: {first}", err=True)
        return 4
    return 0


def memory_floor(asked: Asked, max_time_s: float | None) -> int:
    from harness.bench.memory_floor import MAX_TIME_S, find_floors

    limit_s = MAX_TIME_S if max_time_s is None else max_time_s
    with asked.session() as session, asked.progress("runtimes", len(asked.runtimes)) as tick:
        result = find_floors(session, asked.runtimes, on_floor=tick, max_time_s=limit_s)
    if asked.emit(result.to_json()):
        print_floors(result)
    return 0 if any(floor.floor_bytes is not None for floor in result.floors) else 3


def published(name: str) -> tuple[str, ...]:
    """The runtimes of a claim that are in PATH. Raises InputError for a claim that is not there."""
    import shutil

    from harness.bench.claims import find_claim

    return tuple(each.runtime for each in find_claim(name).result if shutil.which(each.runtime))


def claim(asked: Asked, name: str, seed: int) -> int:
    from harness.bench.claims import find_claim, run_claim

    wanted = find_claim(name)
    total = wanted.repeats * len(asked.runtimes)
    with asked.session() as session, asked.progress("units", total) as tick:
        result = run_claim(
            session, asked.runtimes, wanted, seed=seed, timeout_s=asked.timeout_s, on_unit=lambda: tick(None)
        )
    if asked.emit(result.to_json()):
        print_claim(result)
    if result.interrupted:
        return INTERRUPTED
    return 0 if any(result.times.values()) else 4
