"""Reproduce faults: for each runtime break, match, heal, match again, and say what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from harness.faults.attempt import run_attempt
from harness.faults.catalogue import Entry
from harness.faults.preconditions import unmet
from harness.faults.verdict import Verdict, choose, judge
from harness.kernel.kmsg import KernelLog
from harness.runtime.discovery import Runtime
from harness.runtime.session import Session


def reproduce(
    session: Session,
    entries: list[Entry],
    runtimes: list[Runtime],
    on_verdict: Callable[[Verdict], None] = lambda _: None,
) -> Iterator[Verdict]:
    """Every entry on every runtime, one after the other."""
    log = KernelLog()
    try:
        for entry in entries:
            for runtime in runtimes:
                verdict = _reproduce_one(session, entry, runtime, log)
                on_verdict(verdict)
                yield verdict
    finally:
        log.close()


def _reproduce_one(session: Session, entry: Entry, runtime: Runtime, log: KernelLog) -> Verdict:
    fault = entry.fault
    base: dict[str, Any] = {
        "fault": entry.slug,
        "runtime": runtime.name,
        "runtime_version": runtime.version,
        "runtime_path": runtime.path,
        "view": session.choice.view,
        "kernel": os.uname().release,
        "view_steps": tuple(map(str, session.choice.steps)),
        "cause": fault.cause,
        "side": fault.side,
    }

    def not_applicable(reason: str) -> Verdict:
        return Verdict(**base, verdict="not-applicable", as_expected=True, reason=reason, healed_by=fault.heal.text)

    expect = choose(fault, runtime.dialect.name, runtime.version, 2 if session.layout.mode == "unified" else 1)
    if expect is None:
        return not_applicable(f"the catalogue does not say what {runtime.dialect.name} {runtime.version} does here")
    reason = unmet(session, fault.needs)
    if reason is not None:
        return not_applicable(reason)
    broken = run_attempt(session, runtime, entry, False, log)
    if broken.inapplicable is not None:
        return not_applicable(broken.inapplicable)
    if expect.outcome == "tolerates":
        return judge(entry, expect, broken, None, base)
    healed = run_attempt(session, runtime, entry, True, log)
    if healed.inapplicable is not None:
        return not_applicable(f"it cannot be healed here: {healed.inapplicable}")
    return judge(entry, expect, broken, healed, base)
