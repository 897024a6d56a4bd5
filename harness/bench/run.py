"""Carry out a benchmark's plan, one lifecycle at a time or several at once, and keep every sample."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

from harness.bench.environment import load_average, record
from harness.bench.footprint import measure_footprint
from harness.bench.lifecycle import Bench, End, Sample, ends_by
from harness.bench.plan import Order, Turn, make_plan
from harness.bench.result import Result
from harness.runtime.discovery import Runtime
from harness.runtime.session import Session

# A runtime that fails this often without one good lifecycle is broken; going on would only repeat it.
GIVE_UP_AFTER = 5
# How often the main thread looks up while workers run: the kernel may hand a signal to any thread, and Python's handler
# runs in the main one, which then sleeps on (signal(7); Python's signal module, "Signals and threads").
WAKE_S = 0.2


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Keep Python's cyclic collector from running between two operations."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


class _Runner:
    """Takes turns from the plan until it is empty or somebody stops it."""

    def __init__(
        self, bench: Bench, runtimes: list[Runtime], pause_s: float, on_sample: Callable[[Sample], None]
    ) -> None:
        self.bench = bench
        self.by_name = {runtime.name: runtime for runtime in runtimes}
        self.pause_s = pause_s
        self.on_sample = on_sample
        self.stop = threading.Event()
        self.samples: list[Sample] = []
        self._error: BaseException | None = None

    def _hopeless(self) -> bool:
        last = self.samples[-GIVE_UP_AFTER:]
        return len(self.samples) == len(last) == GIVE_UP_AFTER and all(sample.error for sample in last)

    def take(self, turns: SimpleQueue[Turn]) -> None:
        while not self.stop.is_set():
            try:
                turn = turns.get_nowait()
            except Empty:
                return
            sample = self.bench.run(self.by_name[turn.runtime], turn)
            self.samples.append(sample)
            self.on_sample(sample)
            if self._hopeless():
                self.stop.set()
            if self.pause_s:
                self.stop.wait(self.pause_s)

    def _worker(self, turns: SimpleQueue[Turn], ended: SimpleQueue[None]) -> None:
        try:
            self.take(turns)
        except BaseException as error:  # handed to the main thread
            self._error = error
            self.stop.set()
        finally:
            ended.put(None)

    def take_together(self, turns: SimpleQueue[Turn], parallel: int) -> None:
        ended: SimpleQueue[None] = SimpleQueue()
        threads = [threading.Thread(target=self._worker, args=(turns, ended)) for _ in range(parallel)]
        interrupted = False
        left = 0
        for thread in threads:
            thread.start()
            left += 1
        # not by join: before Python 3.13 one that is interrupted takes a running thread for ended (bpo-45274)
        while left:
            try:
                ended.get(timeout=WAKE_S)
                left -= 1
            except Empty:
                continue
            except KeyboardInterrupt:
                interrupted = True
                self.stop.set()  # each worker ends and cleans up the lifecycle that it is in
        for thread in threads:
            thread.join()
        if interrupted:
            raise KeyboardInterrupt
        if self._error is not None:
            raise self._error


def run_bench(
    session: Session,
    runtimes: list[Runtime],
    *,
    recipe: str = "pause",
    runs: int = 20,
    warmup: int = 2,
    seed: int = 0,
    order: Order = "interleaved",
    parallel: int = 1,
    pause_ms: float = 0.0,
    end: End | None = None,
    footprint_runs: int = 3,
    settings: tuple[tuple[str, object], ...] = (),
    timeout_s: float = 30.0,
    on_sample: Callable[[Sample], None] = lambda _: None,
) -> Result:
    """Measure `runs` lifecycles of each runtime. A KeyboardInterrupt ends it early and keeps the samples so far."""
    template = session.template(recipe, settings)
    how = end or ends_by(template)
    bench = Bench(session, template, how, timeout_s)
    names = [runtime.name for runtime in runtimes]
    result = Result(
        settings={
            "recipe": recipe,
            "runs": runs,
            "warmup": warmup,
            "seed": seed,
            "order": order,
            "parallel": parallel,
            "pause_ms": pause_ms,
            "end": how,
        },
        environment=record(runtimes, session.choice),
        runtimes=names,
    )
    turns: SimpleQueue[Turn] = SimpleQueue()
    for turn in make_plan(names, runs, warmup, seed, order):
        turns.put(turn)
    runner = _Runner(bench, runtimes, pause_ms / 1000, on_sample)
    try:
        with _no_collector():
            if parallel == 1:
                runner.take(turns)
            else:
                runner.take_together(turns, parallel)
        if footprint_runs and not all(sample.error for sample in runner.samples):
            result.footprint = measure_footprint(bench, runtimes, footprint_runs)
    except KeyboardInterrupt:
        result.interrupted = True
    result.samples = sorted((s for s in runner.samples if not s.turn.warmup), key=lambda s: s.turn.order)
    if not result.samples:  # broken from the start: the warm-up's failures are all there is to show
        result.samples = [sample for sample in runner.samples if sample.error]
    result.environment["load_after"] = load_average()
    return result
