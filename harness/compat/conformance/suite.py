"""Run the suite in this process: the cases under pytest, in a session of the caller's."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING

from harness.compat.conformance.verdicts import Report, Verdict
from harness.errors import HarnessError, HostError, InputError
from harness.runtime.discovery import Runtime
from harness.runtime.session import Session

if TYPE_CHECKING:
    from harness.compat.conformance.claims import Claim
    from harness.compat.conformance.conftest import Given

HERE = Path(__file__).parent


def require_pytest() -> None:
    """Raises HostError where pytest is not installed."""
    if importlib.util.find_spec("pytest") is None:
        raise HostError("the conformance suite needs pytest; pip install 'oci-harness[conformance]'")


def run(
    session: Session,
    runtimes: Sequence[Runtime],
    *,
    expression: str = "",
    only: AbstractSet[tuple[str, str]] | None = None,
    on_verdict: Callable[[Verdict, int], None] = lambda _verdict, _total: None,
) -> Report:
    """Run the cases on each runtime; Ctrl-C ends it with KeyboardInterrupt, and nothing is left.

    `expression` is pytest's -k, `only` holds (case, runtime's name), `on_verdict` is told of each verdict and of how
    many there will be. Raises InputError for an expression that is none or that selects nothing, HostError without
    pytest, HarnessError when the suite itself is broken.
    """
    require_pytest()
    import pytest

    from harness.compat.conformance.claims import SPEC_VERSION
    from harness.compat.conformance.conftest import Given
    from harness.compat.conformance.recorder import Recorder

    report = Report(SPEC_VERSION, list(runtimes), session.choice.to_json())

    def keep(verdict: Verdict) -> None:
        report.verdicts.append(verdict)
        on_verdict(verdict, recorder.total)

    recorder = Recorder(keep, only)
    started = time.monotonic()
    status, output = _pytest(Given(session, tuple(runtimes), only), recorder, expression)
    report.seconds = time.monotonic() - started
    if status == pytest.ExitCode.INTERRUPTED and not recorder.errors:
        raise KeyboardInterrupt
    _check(status, output, expression, recorder.errors)
    return report


def cases(expression: str = "") -> dict[str, Claim]:
    """{case: what it checks}, as pytest collects them; nothing is run. Raises as `run` does."""
    require_pytest()
    from harness.compat.conformance.conftest import Given
    from harness.compat.conformance.recorder import Collector
    from harness.runtime.dialects import RUNC

    collector = Collector()
    any_runtime = Runtime("any", "", RUNC, "", "", frozenset())
    status, output = _pytest(Given(None, (any_runtime,)), collector, expression, "--collect-only")
    _check(status, output, expression, [])
    return collector.claims


def _pytest(given: Given, plugin: object, expression: str, *more: str) -> tuple[int, str]:
    """Exit status and output. Neither the configuration of whatever directory this is, nor plugins installed here."""
    import pytest

    from harness.compat.conformance.conftest import GIVEN

    argv = [str(HERE), "-c", os.devnull, "--rootdir", str(HERE), "-p", "no:cacheprovider", "-s", "--tb=short", *more]
    argv += ["-k", expression] if expression else []
    output = io.StringIO()
    GIVEN.append(given)
    try:
        with _no_foreign_plugins(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            return int(pytest.main(argv, plugins=[plugin])), output.getvalue()
    finally:
        GIVEN.pop()


def _check(status: int, output: str, expression: str, errors: list[str]) -> None:
    from pytest import ExitCode  # noqa: PT013 - one name of it

    if status == ExitCode.USAGE_ERROR and expression:
        raise InputError(f"-k {expression}: {_error_in(output)}")
    if status == ExitCode.NO_TESTS_COLLECTED:
        raise InputError(f"-k {expression}: no case has such a name" if expression else "no case was asked for")
    if errors or status not in (ExitCode.OK, ExitCode.TESTS_FAILED):
        raise HarnessError(f"the suite did not run: {errors[0] if errors else _error_in(output)}")


def _error_in(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    named = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (named or lines or ["pytest said nothing"])[-1]


@contextlib.contextmanager
def _no_foreign_plugins() -> Iterator[None]:
    ours = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": ""}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
