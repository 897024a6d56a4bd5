"""Pytest's side of the suite: its options, the runtimes as parameters, containers, and what is known to deviate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest
from msgspec import Struct

from harness.compat.conformance.claims import MARK, case_name, claim_of, name_of
from harness.compat.conformance.deviations import deviation_of
from harness.compat.conformance.lab import Lab, Stage, build_rootfs
from harness.compat.conformance.needs import unmet
from harness.compat.conformance.recorder import DOCUMENTS
from harness.errors import HarnessError
from harness.runtime.discovery import Runtime, find_runtimes
from harness.runtime.session import Session

DEFAULT_RUNTIMES = ("runc", "crun")
RUNTIMES = pytest.StashKey[dict[str, Runtime]]()


class Given(Struct, frozen=True):
    """What the caller of pytest has opened and chosen already, see suite.run."""

    session: Session | None  # None: the cases are only listed
    runtimes: tuple[Runtime, ...]
    only: AbstractSet[tuple[str, str]] | None = None  # (case, runtime's name)


GIVEN: list[Given] = []  # the last one counts; none when pytest is called by hand


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "conformance to the OCI runtime-spec")
    group.addoption("--runtime", action="append", default=[], metavar="NAME[=PATH]", help="a runtime; runc and crun")
    group.addoption("--view", default="auto", help="cgroup layout that the runtimes see: auto, host, legacy, ...")
    group.addoption("--deadline", type=float, default=10.0, metavar="SECONDS", help="of each call of a runtime")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARK}(claim): the sentence of the runtime-spec that a case checks")
    chosen: dict[str, Runtime] = {runtime.name: runtime for runtime in _chosen(config)}
    config.stash[RUNTIMES] = chosen


def _chosen(config: pytest.Config) -> Sequence[Runtime]:
    if GIVEN:
        return GIVEN[-1].runtimes
    try:
        return find_runtimes(tuple(config.getoption("--runtime") or DEFAULT_RUNTIMES))
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lab" in metafunc.fixturenames:
        found = metafunc.config.stash[RUNTIMES]
        runtimes = list(found)
        if GIVEN and GIVEN[-1].only is not None:  # of hundreds of runtimes most have nothing to do with a case
            name = case_name(metafunc.function.__name__)
            wanted = {runtime for case, runtime in GIVEN[-1].only if case.partition("[")[0] == name}
            runtimes = [runtime for runtime in runtimes if runtime in wanted]
        metafunc.parametrize("runtime", runtimes, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        claim_of(item)  # each has one
        item.extra_keyword_matches.add(name_of(item))  # for -k: the name as it is shown


@pytest.fixture(scope="session")
def session(pytestconfig: pytest.Config) -> Iterator[Session]:
    """One mount namespace and view for all runtimes; at the end nothing of the run is left."""
    if GIVEN:
        given = GIVEN[-1].session
        assert given is not None  # nothing is run without one
        yield given
        return
    runtimes = list(pytestconfig.stash[RUNTIMES].values())
    try:
        opened = Session(
            pytestconfig.getoption("--view"),
            runtimes,
            kind="conformance",
            timeout_s=pytestconfig.getoption("--deadline"),
        )
    except HarnessError as error:
        pytest.exit(str(error), returncode=3)
    with opened:
        yield opened


@pytest.fixture(scope="session")
def lower(session: Session) -> Path:
    target = session.workspace.path / "rootfs" / "conformance"
    if not target.exists():
        target.mkdir()
        build_rootfs(target)
    return target


@pytest.fixture(scope="session")
def runtime(request: pytest.FixtureRequest) -> Runtime:
    found: Runtime = request.config.stash[RUNTIMES][request.param]
    return found


@pytest.fixture(scope="module")
def stage(session: Session, runtime: Runtime, lower: Path) -> Iterator[Stage]:
    made = Stage(session, runtime, lower)
    yield made
    assert made.close() == []


@pytest.fixture
def lab(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Lab]:
    """A case's containers. One that is known to deviate here is expected to fail, and reported when it does not."""
    layout, call = stage.session.layout, stage.session.namespace.call  # a view's cgroups are seen in there only
    reason = call(unmet, claim_of(request.node).needs, stage.runtime, layout)
    if reason is not None:
        pytest.skip(reason)
    known = call(deviation_of, stage.runtime, layout, name_of(request.node))
    if known is not None:
        request.node.add_marker(pytest.mark.xfail(reason=known.reason, strict=True))
    made = Lab(stage)
    request.node.stash[DOCUMENTS] = made.documents
    yield made
    assert made.close() == []
