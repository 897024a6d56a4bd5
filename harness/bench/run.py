"""Carry out a benchmark's plan, one lifecycle at a time or several at once, and keep every sample."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue

from msgspec.structs import replace

from harness.bench import page_cache
from harness.bench.disturbance import Recorder
from harness.bench.environment import record, record_after
from harness.bench.footprint import measure_footprint
from harness.bench.lifecycle import Bench, Sample
from harness.bench.plan import Order, Turn, make_plan
from harness.bench.result import AGAIN, Ended, Result
from harness.bench.stopping import StopRule
from harness.runtime.discovery import Runtime
from harness.runtime.lifecycle import End, ends_by
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


@contextlib.contextmanager
def _signals_set(stop: threading.Event) -> Iterator[threading.Event]:
    """What would raise KeyboardInterrupt sets `stop` and the yielded event.

    The exception may come between any two instructions, and leave workers alone with a session that is taken down.
    """
    interrupted = threading.Event()

    def ask(*_: object) -> None:
        interrupted.set()
        stop.set()

    ours = threading.current_thread() is threading.main_thread()  # in any other no signal handler runs
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if ours else ()
    before = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
    for number in before:
        signal.signal(number, ask)
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Runner:
    """Takes turns until there are none left or somebody stops it; keeps every sample."""

    def __init__(
        self,
        bench: Bench,
        runtimes: list[Runtime],
        on_sample: Callable[[Sample], None] = lambda _: None,
        rule: StopRule | None = None,
    ) -> None:
        self.bench = bench
        self.by_name = {runtime.name: runtime for runtime in runtimes}
        self.on_sample = on_sample
        self.rule = rule
        self.stop = threading.Event()
        self.samples: list[Sample] = []
        self.gave_up = False
        self._error: BaseException | None = None
        self._choice = threading.Lock()
        self._rounds = 0

    def _hopeless(self) -> bool:
        last = self.samples[-GIVE_UP_AFTER:]
        return len(self.samples) == len(last) == GIVE_UP_AFTER and all(sample.error for sample in last)

    def _next(self, turns: SimpleQueue[Turn]) -> Turn | None:
        """The next turn; None at the end. Between two rounds the rule is asked."""
        with self._choice:
            if self.stop.is_set():
                return None
            try:
                turn = turns.get_nowait()
            except Empty:
                return None
            if self.rule is not None and not turn.warmup and turn.index >= self._rounds:
                done, self._rounds = self._rounds, turn.index + 1
                if done and self.rule.ends([s for s in self.samples if not s.turn.warmup], done):
                    self.stop.set()
                    return None
            return turn

    def _take(self, turns: SimpleQueue[Turn], pause_s: float) -> None:
        while (turn := self._next(turns)) is not None:
            sample = self.bench.run(self.by_name[turn.runtime], turn)
            self.samples.append(sample)
            self.on_sample(sample)
            if self._hopeless():
                self.gave_up = True
                self.stop.set()
            if pause_s:
                self.stop.wait(pause_s)

    def _worker(self, turns: SimpleQueue[Turn], pause_s: float) -> None:
        try:
            self._take(turns, pause_s)
        except BaseException as error:  # handed to the main thread
            self._error = error
            self.stop.set()

    def run(self, turns: Iterable[Turn], parallel: int = 1, pause_s: float = 0.0) -> None:
        """Raises KeyboardInterrupt once all that was under way has ended and been cleaned up."""
        queue: SimpleQueue[Turn] = SimpleQueue()
        for turn in turns:
            queue.put(turn)
        with _no_collector():
            if parallel == 1:
                self._take(queue, pause_s)
            else:
                self._together(queue, parallel, pause_s)

    def _together(self, turns: SimpleQueue[Turn], parallel: int, pause_s: float) -> None:
        threads = [threading.Thread(target=self._worker, args=(turns, pause_s)) for _ in range(parallel)]
        with _signals_set(self.stop) as interrupted:  # each worker ends and cleans up the lifecycle that it is in
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(WAKE_S)
        if interrupted.is_set():
            raise KeyboardInterrupt
        if self._error is not None:
            raise self._error

    @property
    def measured(self) -> list[Sample]:
        """Without the warm-up, in the order in which they ran; of one that never went well, its warm-up's failures."""
        found = sorted((s for s in self.samples if not s.turn.warmup), key=lambda sample: sample.turn.order)
        return found or [sample for sample in self.samples if sample.error]


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
    cold: bool = False,
    null: bool = False,
    until_ci: float | None = None,
    max_time_s: float | None = None,
    footprint_runs: int = 3,
    settings: tuple[tuple[str, object], ...] = (),
    timeout_s: float = 30.0,
    on_sample: Callable[[Sample], None] = lambda _: None,
) -> Result:
    """Measure `runs` lifecycles of each runtime. A KeyboardInterrupt ends it early and keeps the samples so far.

    `null`: each runtime against itself as well. `until_ci` and `max_time_s` end it before all runs: see stopping.py.
    """
    template = session.template(recipe, settings)
    how = end or ends_by(template)
    arms = [*runtimes, *(replace(runtime, name=runtime.name + AGAIN) for runtime in runtimes if null)]
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
            "cold": cold,
            "null": null,
            "until_ci": until_ci,
            "max_time_s": max_time_s,
        },
        environment=record(runtimes, session.choice, template),
        runtimes=[runtime.name for runtime in runtimes],
    )
    if cold:
        page_cache.drop()  # not allowed: said before anything is measured
    rule = StopRule(result.runtimes, until_ci, max_time_s) if until_ci is not None or max_time_s is not None else None
    with Recorder() as recorder:
        bench = Bench(session, template, how, timeout_s, recorder, cold)
        runner = Runner(bench, arms, on_sample, rule)
        try:
            runner.run(
                make_plan([arm.name for arm in arms], runs, warmup, seed, order), parallel, pause_s=pause_ms / 1000
            )
            if footprint_runs and not all(sample.error for sample in runner.samples):
                result.footprint = measure_footprint(bench, runtimes, footprint_runs)
        except KeyboardInterrupt:
            result.interrupted = True
    result.samples = runner.measured
    result.ended = _ended(result, runner)
    result.environment |= record_after()
    return result


def _ended(result: Result, runner: Runner) -> Ended:
    if result.interrupted:
        return "interrupted"
    if runner.gave_up:
        return "gave-up"
    reason = runner.rule.reason if runner.rule is not None else None
    return "until-ci" if reason == "until-ci" else "max-time" if reason == "max-time" else "planned"
