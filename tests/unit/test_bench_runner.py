"""Workers of a benchmark, and signals that come at any moment."""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from harness.bench.plan import make_plan
from harness.bench.run import Runner


class Interrupting:
    """A bench that is interrupted many times in each of its lifecycles; one lasts until the runner has noticed."""

    stop: threading.Event

    def run(self, _runtime: Any, turn: Any) -> Any:
        for _ in range(50):
            os.kill(os.getpid(), signal.SIGINT)
        assert self.stop.wait(30)
        return SimpleNamespace(turn=turn, error=None)


def test_workers_have_ended_when_an_interrupt_is_raised() -> None:
    """However often and wherever it comes: what is taken down afterwards is no longer in use."""
    bench = Interrupting()
    used: Any = bench  # all that a runner asks of one
    runtimes: Any = [SimpleNamespace(name="runc")]
    plan = make_plan(["runc"], 9, 0, 0, "interleaved")
    before = threading.active_count()
    handler = signal.getsignal(signal.SIGINT)
    for _ in range(20):
        runner = Runner(used, runtimes)
        bench.stop = runner.stop
        with pytest.raises(KeyboardInterrupt):
            runner.run(plan, parallel=3)
        assert threading.active_count() == before
        assert 1 <= len(runner.samples) <= 3
    assert signal.getsignal(signal.SIGINT) is handler
