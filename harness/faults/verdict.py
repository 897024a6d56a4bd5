"""Judge a broken and a healed attempt against the catalogue: reproduced only if all of it is as it should be."""

from __future__ import annotations

import re
from typing import Any, Literal

from msgspec import Struct, field

from harness.faults import schema
from harness.faults.attempt import Attempt
from harness.faults.catalogue import Entry
from harness.process.operation import Operation

Word = Literal["reproduced", "not-reproduced", "not-applicable", "inconclusive"]


class Verdict(Struct):
    """One fault on one runtime. `as_expected` is what the exit status depends on."""

    fault: str
    runtime: str
    runtime_version: str
    runtime_path: str
    view: str
    kernel: str
    view_steps: tuple[str, ...]  # the mounts that make the view
    verdict: Word
    cause: str
    side: str
    as_expected: bool
    reason: str | None = None
    stage: str | None = None
    text: str = ""
    clause: str | None = None  # the decisive part of text
    expected: str = "fails"
    healed_by: str = ""
    broken: Attempt | None = None
    healed: Attempt | None = None
    healed_as: str | None = None  # the fault that the healed bundle, the same one, has run for
    leaks: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """What came of it, without what was seen on the way."""
        counterfactual = {
            "verdict": _counterfactual(self.healed),
            "healed_by": self.healed_by,
            "text": self.healed.text if self.healed else "",
        }
        if self.healed_as is not None:
            counterfactual["as_of"] = self.healed_as
        return {
            "fault": self.fault,
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "view": self.view,
            "kernel": self.kernel,
            "verdict": self.verdict,
            "as_expected": self.as_expected,
            "expected": self.expected,
            "reason": self.reason,
            "cause": self.cause,
            "side": self.side,
            "stage": self.stage,
            "text": self.text,
            "clause": self.clause,
            "counterfactual": counterfactual,
            "leaks": self.leaks,
        }

    def operations(self) -> list[tuple[str, Operation]]:
        """All calls of the runtime, each with the attempt that it belongs to: `broken` or `healed`."""
        return [(a.name, op) for a in self._attempts() for op in a.operations]

    def to_json(self) -> dict[str, Any]:
        return self.summary() | {
            "evidence": {a.name: a.evidence() for a in self._attempts()},
            "operations": [{"attempt": name, "command": op.command, **op.to_json()} for name, op in self.operations()],
        }

    def _attempts(self) -> list[Attempt]:
        return [attempt for attempt in (self.broken, self.healed) if attempt is not None]


def _counterfactual(healed: Attempt | None) -> str:
    if healed is None:
        return "not-run"
    return "runs" if healed.failed_stage is None else f"fails at {healed.failed_stage}"


def version_key(version: str) -> tuple[int, ...]:
    """`1.1.5+ds1` -> (1, 1, 5)."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[+~-]", version)[0]))


def choose(fault: schema.Fault, dialect: str, version: str, cgroup: int) -> schema.Expect | None:
    """The first entry of the catalogue that holds for this runtime, version and cgroup version."""
    own = version_key(version)
    for expect in fault.expect:
        if expect.runtime != dialect or expect.cgroup not in (None, cgroup):
            continue
        if expect.since is not None and own < version_key(expect.since):
            continue
        if expect.before is not None and own >= version_key(expect.before):
            continue
        return expect
    return None


def match_clause(pattern: str, text: str) -> str | None:
    """The clause of `wrapper: wrapper: CLAUSE` that the pattern describes whole, or None."""
    found = re.fullmatch(rf"(?:.*?(?:: |; ))??(?P<clause>{pattern})", text.strip(), re.DOTALL)
    return found["clause"] if found else None


def disagreement(expect: schema.Expect, attempt: Attempt) -> str | None:
    """What is not as the catalogue says of a failure; None when all of it is."""
    if attempt.failed_stage != expect.stage:
        return f"failed at {attempt.failed_stage}, expected at {expect.stage}: {attempt.text}"
    if expect.timed_out != attempt.timed_out:
        return "had to be killed at its deadline" if attempt.timed_out else "ended, but should have hung"
    if expect.exit_status is not None and expect.exit_status != attempt.exit_status:
        return f"exit status {attempt.exit_status}, expected {expect.exit_status}"
    if expect.clause is not None and match_clause(expect.clause, attempt.text) is None:
        return f"the text is another: {attempt.text}"
    if not _has(expect.stderr, attempt.container_stderr.splitlines()):
        return f"the container's stderr is another: {attempt.container_stderr.strip()[-200:]}"
    records = [record.msg for operation in attempt.operations for record in operation.log]
    if not _has(expect.log, records):
        return f"the runtime's log does not say it: {'; '.join(records)[-500:]}"
    if attempt.kernel_log is not None and not _has(expect.kernel_log, [line.text for line in attempt.kernel_log]):
        return "the kernel's log does not say it"
    return None


def _has(pattern: str | None, lines: list[str]) -> bool:
    """Whether one of the lines is what the pattern describes; so it is when there is none."""
    return pattern is None or any(re.fullmatch(pattern, line.strip()) for line in lines)


def judge(
    entry: Entry, expect: schema.Expect, broken: Attempt, healed: Attempt | None, base: dict[str, Any]
) -> Verdict:
    """`base`: the fields that say where this was."""
    leaks = [*broken.leaks, *(healed.leaks if healed else [])]
    unexpected = [leak for leak in leaks if leak.partition(":")[0] not in expect.leaks]
    clause = match_clause(expect.clause, broken.text) if expect.clause else None

    def verdict(word: Word, as_expected: bool, reason: str | None = None) -> Verdict:
        return Verdict(
            **base,
            verdict=word,
            as_expected=as_expected,
            reason=reason,
            stage=broken.failed_stage,
            text=broken.text,
            clause=clause,
            expected=expect.outcome,
            healed_by=entry.fault.heal.text,
            broken=broken,
            healed=healed,
            leaks=leaks,
        )

    if broken.failed_stage is None:
        tolerated = expect.outcome == "tolerates"
        reason = "the runtime tolerates it" if tolerated else "the broken bundle runs"
        return verdict("not-reproduced", tolerated and not unexpected, expect.note or reason)
    if expect.outcome == "tolerates":
        return verdict(
            "inconclusive", False, f"expected to be tolerated, but failed at {broken.failed_stage}: {broken.text}"
        )
    if (wrong := disagreement(expect, broken)) is not None:
        return verdict("inconclusive", False, wrong)
    if healed is None or healed.failed_stage is not None:
        said = "" if healed is None else f"{healed.failed_stage}: {healed.text}"
        return verdict("inconclusive", False, f"the healed bundle fails as well, at {said}")
    if unexpected:
        return verdict("inconclusive", False, f"left behind: {'; '.join(unexpected)}")
    return verdict("reproduced", True)
