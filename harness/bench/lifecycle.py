"""One measured lifecycle: create, start, first instruction, kill, exit, delete.

No interpreter work lies between the two clocks of a stage: both are read in the shim. What the harness does between the
operations is measured as well and told apart (harness_ns).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.bench.plan import Turn
from harness.errors import OperationError
from harness.kernel import shim
from harness.oci.bundle import Template
from harness.process.children import NANOSECONDS
from harness.process.command import Place, Stdio
from harness.process.operation import Operation
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.failures import check
from harness.runtime.session import Session

End = Literal["kill", "exit"]

# The stages that a sample can have, in the order in which they happen; whole is from the first clone to the last wait.
STAGES = ("create_ns", "start_ns", "kill_ns", "exit_ns", "delete_ns", "whole_ns")


@dataclass(frozen=True, slots=True)
class Sample:
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
            "rootfs": self.rootfs,
        }
        for name in ("first_instruction_reason", "error", "failed_stage"):
            if getattr(self, name) is not None:
                result[name] = getattr(self, name)
        return result


def ends_by(template: Template) -> End:
    """kill where the container's process would stay for ever (payload pause), exit where it ends by itself."""
    args = template.config.get("/process/args", [])
    return "kill" if args[:1] == ["/payload"] and args[1:2] in (["pause"], ["memory"]) else "exit"


def stamps(template: Template) -> bool:
    """Whether the container's process is the payload, which hands out the time of its first instruction."""
    return bool(template.config.get("/process/args", [])[:1] == ["/payload"])


@dataclass(frozen=True, slots=True)
class Bench:
    """What every lifecycle of a benchmark has in common."""

    session: Session
    template: Template
    end: End
    timeout_s: float = 30.0

    def run(self, runtime: Runtime, turn: Turn, place: Place | None = None) -> Sample:
        """One lifecycle, cleaned up whatever happens. A runtime's failure is in the sample, not raised."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        container = self.session.container(
            runtime, self.template, f"b{turn.order}", stdio=Stdio(stdout=writer), place=place
        )
        try:
            return self._measure(container, turn, reader, writer)
        except (OperationError, TimeoutError) as error:
            stage = container.operations[-1].verb if container.operations else "create"
            return Sample(turn, {}, error=str(error), failed_stage=stage)
        finally:
            os.close(reader)
            container.clean_up()

    def _measure(self, container: Container, turn: Turn, reader: int, writer: int) -> Sample:
        try:
            create = check(container.create())
        finally:
            os.close(writer)
        start = check(container.start())
        resumed_ns = start.end_ns
        stamp: int | None = None
        reason: str | None = "the container's process is not the payload"
        if stamps(self.template):
            stamp, reason = self._read_stamp(container, reader)
            resumed_ns = shim.monotonic_ns()
        kill: Operation | None = None
        if self.end == "kill":
            kill = check(container.kill())
        last = kill or start
        ended = container.wait(self.timeout_s)
        delete = check(container.delete())

        exit_ns = max(0, ended.end_ns - last.end_ns)
        operations = [op for op in (create, start, kill, delete) if op is not None]
        whole_ns = delete.end_ns - create.start_ns
        waited = (resumed_ns - start.end_ns) + exit_ns
        after_start = None if stamp is None else stamp - start.start_ns
        return Sample(
            turn,
            stages={
                "create_ns": create.duration_ns,
                "start_ns": start.duration_ns,
                "kill_ns": None if kill is None else kill.duration_ns,
                "exit_ns": exit_ns,
                "delete_ns": delete.duration_ns,
                "whole_ns": whole_ns,
            },
            first_instruction_ns=None if after_start is None else create.duration_ns + after_start,
            first_instruction_reason=reason,
            start_to_first_instruction_ns=after_start,
            first_instruction_at_ns=stamp,
            harness_ns=whole_ns - waited - sum(op.duration_ns for op in operations),
            exit_status=ended.status,
            usage={
                op.verb: {
                    "user_us": op.usage.user_us,
                    "system_us": op.usage.system_us,
                    "maxrss_kib": op.usage.maxrss_kib,
                }
                for op in operations
            },
            rootfs=container.bundle.provided.how if container.bundle.provided else "",
        )

    def _read_stamp(self, container: Container, reader: int) -> tuple[int | None, str | None]:
        """The payload's CLOCK_MONOTONIC line. A pipe at its end means that the payload never ran."""
        if not shim.poll(reader, shim.POLLIN, int(self.timeout_s * NANOSECONDS)):
            raise TimeoutError(f"no stamp from the payload within {self.timeout_s:.0f} s")
        text = os.read(reader, 64)
        if not container.client.runtime.dialect.shares_host_clock:
            return None, dict(container.client.runtime.dialect.lacks).get("host-clock", "not the host's clock")
        if not text.strip().isdigit():
            return None, "the payload ended without a stamp"
        return int(text), None
