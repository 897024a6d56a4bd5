"""Reproduce faults: for each runtime break, match, heal, match again, and say what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from harness.faults.attempt import Attempt, run_attempt
from harness.faults.catalogue import Entry
from harness.faults.preconditions import unmet
from harness.faults.verdict import Verdict, choose, judge, match_clause
from harness.kernel.kmsg import KernelLog
from harness.runtime.discovery import Runtime
from harness.runtime.session import Session

# {(runtime, recipe, command of exec): (fault, its healed bundle, which ran)}
Proofs = dict[tuple[str, str, tuple[str, ...]], tuple[str, Attempt]]


def reproduce(
    session: Session,
    entries: list[Entry],
    runtimes: list[Runtime],
    on_verdict: Callable[[Verdict], None] = lambda _: None,
    proofs: Proofs | None = None,
) -> Iterator[Verdict]:
    """Every entry on every runtime, one after the other.

    With `proofs`, which is added to, a healed bundle that is the recipe as it is runs once for all faults that are
    healed to it, and their verdicts name the fault it ran for: where a lifecycle takes seconds.
    """
    log = KernelLog()
    try:
        for entry in entries:
            for runtime in runtimes:
                verdict = _reproduce_one(session, entry, runtime, log, proofs)
                on_verdict(verdict)
                yield verdict
    finally:
        log.close()


def _reproduce_one(session: Session, entry: Entry, runtime: Runtime, log: KernelLog, proofs: Proofs | None) -> Verdict:
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

    reason = unmet(session, fault.needs)
    if reason is not None:
        return not_applicable(reason)
    expect = choose(fault, runtime.dialect.name, runtime.version, 2 if session.layout.mode == "unified" else 1)
    if expect is None:
        return not_applicable(f"the catalogue does not say what {runtime.dialect.name} {runtime.version} does here")
    broken = run_attempt(session, runtime, entry, False, log)
    if broken.inapplicable is not None:
        return not_applicable(broken.inapplicable)
    if expect.outcome == "tolerates":
        return judge(entry, expect, broken, None, base)
    bundle = (runtime.name, fault.recipe, tuple(fault.exec_command))
    if proofs is not None and fault.heals_to_recipe and bundle in proofs:
        slug, ran = proofs[bundle]
        return judge(entry, expect, broken, ran, base | {"healed_as": slug})
    healed = run_attempt(session, runtime, entry, True, log)
    if healed.inapplicable is not None:
        return not_applicable(f"it cannot be healed here: {healed.inapplicable}")
    lacking = fault.heal.lacking
    if healed.failed_stage is not None and lacking is not None and match_clause(lacking, healed.text) is not None:
        return not_applicable(f"it cannot be healed here: {healed.text}")
    if proofs is not None and fault.heals_to_recipe and healed.failed_stage is None and not healed.leaks:
        proofs[bundle] = (entry.slug, healed)
    return judge(entry, expect, broken, healed, base)
