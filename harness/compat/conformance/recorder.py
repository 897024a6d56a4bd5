"""A pytest plugin that turns what pytest reports into one verdict for each case and runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any

import pytest

from harness.compat.conformance.claims import Claim, claim_of, name_of
from harness.compat.conformance.verdicts import Outcome, Verdict

DOCUMENTS = pytest.StashKey[list[dict[str, Any]]]()  # each config.json that a case has used


class Recorder:
    """Runs just what is in `only` (case, runtime), if it is given; hands each verdict to `on_verdict`."""

    def __init__(self, on_verdict: Callable[[Verdict], None], only: AbstractSet[tuple[str, str]] | None) -> None:
        self.total = 0
        self.errors: list[str] = []  # of what kept the suite from running
        self._on_verdict = on_verdict
        self._only = only
        self._phases: list[pytest.TestReport] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(_line(report.longreprtext))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self._only is not None:
            items[:] = [item for item in items if (name_of(item), runtime_of(item)) in self._only]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.total = len(session.items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._phases.append(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._phases = []
        result = yield
        outcome, reason, text = _judged(self._phases)
        documents = item.stash.get(DOCUMENTS, None) or []
        self._on_verdict(
            Verdict(
                name_of(item),
                runtime_of(item),
                claim_of(item),
                outcome,
                reason,
                text,
                sum(phase.duration for phase in self._phases),
                tuple(documents),
            )
        )
        return result

    def pytest_internalerror(self, excrepr: object) -> None:
        self.errors.append(_line(str(excrepr)))


class Collector:
    """The claims of the cases that are collected."""

    def __init__(self) -> None:
        self.claims: dict[str, Claim] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            name = name_of(item)
            assert name not in self.claims, f"two cases are called {name}"
            self.claims[name] = claim_of(item)


def runtime_of(item: pytest.Item) -> str:
    """Each case has the runtime as a parameter."""
    return str(item.callspec.params["runtime"])  # type: ignore[attr-defined]  # only functions with parameters have it


def _judged(phases: list[pytest.TestReport]) -> tuple[Outcome, str, str]:
    """(outcome, reason, text) of set-up, call and take-down together: the first that is no pass says it."""
    for phase in phases:
        if hasattr(phase, "wasxfail"):
            return "deviates", phase.wasxfail.removeprefix("reason: "), phase.longreprtext
        if phase.failed:
            if phase.longreprtext.startswith("[XPASS(strict)]"):
                return "no-longer-deviates", phase.longreprtext.removeprefix("[XPASS(strict)] "), ""
            return "fails", _message(phase), phase.longreprtext
        if phase.skipped:
            return "skipped", _skip_reason(phase), ""
    return "passes", "", ""


def _message(phase: pytest.TestReport) -> str:
    crash = getattr(phase.longrepr, "reprcrash", None)
    message = crash.message if crash is not None else phase.longreprtext
    return message.strip().splitlines()[0].removeprefix("AssertionError: ") if message.strip() else "failed"


def _skip_reason(phase: pytest.TestReport) -> str:
    where = phase.longrepr
    return where[2].removeprefix("Skipped: ") if isinstance(where, tuple) else _line(phase.longreprtext)


def _line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else ""
