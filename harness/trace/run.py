"""Carry out a trace run: every start of every runtime, then take them all apart."""

from __future__ import annotations

from collections.abc import Callable

from harness.kernel.events import RECEIVE_BUFFER_BYTES
from harness.kernel.tracefs import BUFFER_KIB
from harness.runtime.discovery import Runtime
from harness.runtime.lifecycle import End, Failure, ends_by
from harness.runtime.session import Session
from harness.trace.collect import Order, Recorded, Tracer, plan
from harness.trace.result import Result

# A runtime that fails this often without one good start is broken; going on would only repeat it.
GIVE_UP_AFTER = 5


def run_trace(
    session: Session,
    runtimes: list[Runtime],
    *,
    runs: int = 10,
    warmup: int = 2,
    deep: bool = False,
    recipe: str = "pause",
    settings: tuple[tuple[str, object], ...] = (),
    order: Order = "interleaved",
    pause_s: float = 0.0,
    end: End | None = None,
    timeout_s: float = 30.0,
    receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES,
    buffer_kib: int = BUFFER_KIB,
    wait: Callable[[float], object] = lambda _: None,
    on_start: Callable[[Recorded], None] = lambda _: None,
) -> Result:
    """A KeyboardInterrupt ends it early and keeps the starts so far. `wait` sleeps for `pause_s` after each start."""
    template = session.template(recipe, settings)
    how = end or ends_by(template)
    result = Result(
        runtimes=runtimes,
        choice=session.choice,
        settings={
            "recipe": recipe,
            "runs": runs,
            "warmup": warmup,
            "deep": deep,
            "order": order,
            "pause_ms": pause_s * 1000,
            "end": how,
        },
    )
    recorded: list[Recorded] = []
    tracer = Tracer(session.workspace.name, deep=deep, receive_buffer_bytes=receive_buffer_bytes, buffer_kib=buffer_kib)
    with tracer:
        try:
            for number, (runtime, index) in enumerate(plan(runtimes, runs, warmup, order)):
                own = [one.lived for one in recorded if one.runtime is runtime]
                if len(own) == GIVE_UP_AFTER and all(isinstance(lived, Failure) for lived in own):
                    continue
                recorded.append(
                    tracer.run(session, runtime, template, index, f"t{number}", end=how, timeout_s=timeout_s)
                )
                on_start(recorded[-1])
                if pause_s:
                    wait(pause_s)
        except KeyboardInterrupt:
            result.interrupted = True
        decoded = tracer.decode(recorded)
    result.notes += tracer.notes
    result.starts = [one for one in decoded if one.index >= 0]
    return result
