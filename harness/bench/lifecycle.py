"""One measured lifecycle as the stages that a benchmark compares.

What the harness does between the operations is told apart from them (harness_ns).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from harness.bench import page_cache
from harness.bench.disturbance import Recorder, between
from harness.bench.plan import Turn
from harness.oci.bundle import Template
from harness.process.command import Place
from harness.runtime.discovery import Runtime
from harness.runtime.lifecycle import End, Failure, Lifecycle, run_lifecycle
from harness.runtime.session import Session

# The stages that a sample can have, in the order in which they happen; whole is from the first clone to the last wait.
STAGES = ("create_ns", "start_ns", "kill_ns", "exit_ns", "delete_ns", "whole_ns")


class Sample(Struct, frozen=True):
    """One lifecycle. Times are nanoseconds; a stage that did not happen is None."""

    turn: Turn
    stages: dict[str, int | None]
    # create_ns plus the time from start's clone to the payload's first instruction: what the harness did between the
    # two is left out. None, and the reason, where the container has no clock that can be compared.
    first_instruction_ns: int | None = None
    first_instruction_reason: str | None = None
    start_to_first_instruction_ns: int | None = None
    first_instruction_at_ns: int | None = None  # CLOCK_MONOTONIC
    harness_ns: int | None = None  # between the operations: neither the runtime's time nor the container's
    exit_status: int | None = None
    usage: dict[str, dict[str, int | None]] = field(default_factory=dict)
    disturbance: dict[str, int] = field(default_factory=dict)  # harness/bench/disturbance.py, between()
    rootfs: str = ""
    error: str | None = None
    failed_stage: str | None = None

    def value(self, stage: str) -> int | None:
        return self.first_instruction_ns if stage == "first_instruction_ns" else self.stages.get(stage)

    def to_json(self) -> dict[str, Any]:
        result: dict[str, Any] = {
            "runtime": self.turn.runtime,
            "index": self.turn.index,
            "order": self.turn.order,
            "stages": self.stages,
            "first_instruction_ns": self.first_instruction_ns,
            "start_to_first_instruction_ns": self.start_to_first_instruction_ns,
            "first_instruction_at_ns": self.first_instruction_at_ns,
            "harness_ns": self.harness_ns,
            "exit_status": self.exit_status,
            "usage": self.usage,
            "disturbance": self.disturbance,
            "rootfs": self.rootfs,
        }
        for name in ("first_instruction_reason", "error", "failed_stage"):
            if getattr(self, name) is not None:
                result[name] = getattr(self, name)
        return result


class Bench(Struct, frozen=True):
    """What every lifecycle of a benchmark has in common."""

    session: Session
    template: Template
    end: End
    timeout_s: float = 30.0
    recorder: Recorder | None = None
    cold: bool = False  # drop the page cache before each

    def run(self, runtime: Runtime, turn: Turn, place: Place | None = None) -> Sample:
        """One lifecycle, cleaned up whatever happens. A runtime's failure is in the sample, not raised."""
        if self.cold:
            page_cache.drop()
        before = self.recorder.read() if self.recorder else None
        lived = run_lifecycle(
            self.session,
            runtime,
            self.template,
            f"b{turn.order}",
            end=self.end,
            timeout_s=self.timeout_s,
            place=place,
        )
        if isinstance(lived, Failure):
            return Sample(turn, {}, error=lived.error, failed_stage=lived.stage)
        disturbance = between(before, self.recorder.read(), lived.operations) if before and self.recorder else {}
        return _sample(turn, lived, disturbance)


def _sample(turn: Turn, lived: Lifecycle, disturbance: dict[str, int]) -> Sample:
    create, start, kill, delete = lived.create, lived.start, lived.kill, lived.delete
    exit_ns = max(0, lived.ended.end_ns - (kill or start).end_ns)
    waited = (lived.resumed_ns - start.end_ns) + exit_ns
    after_start = None if lived.stamp_ns is None else lived.stamp_ns - start.start_ns
    return Sample(
        turn,
        stages={
            "create_ns": create.duration_ns,
            "start_ns": start.duration_ns,
            "kill_ns": None if kill is None else kill.duration_ns,
            "exit_ns": exit_ns,
            "delete_ns": delete.duration_ns,
            "whole_ns": lived.whole_ns,
        },
        first_instruction_ns=None if after_start is None else create.duration_ns + after_start,
        first_instruction_reason=lived.stamp_reason,
        start_to_first_instruction_ns=after_start,
        first_instruction_at_ns=lived.stamp_ns,
        harness_ns=lived.whole_ns - waited - sum(op.duration_ns for op in lived.operations),
        exit_status=lived.ended.status,
        usage={
            op.verb: {
                "user_us": op.usage.user_us,
                "system_us": op.usage.system_us,
                "maxrss_kib": op.usage.maxrss_kib,
            }
            for op in lived.operations
        },
        disturbance=disturbance,
        rootfs=lived.rootfs,
    )
