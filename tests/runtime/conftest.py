"""What the tests with real runtimes share: their own state directory, sessions, the command, the leak check."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import leaks
import numpy  # noqa: F401 - starts its threads now, so that they are no leak of the first test that needs it
import pytest
from actors import PAUSE, CommandLine, Sessions

from harness.process.command import Stdio, dev_null, nothing_to_read, own_null
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.session import Session
from harness.runtime.workspace import remove_tree

RUNTIMES = ("runc", "crun", "runsc")


@pytest.fixture(scope="session", autouse=True)
def base() -> Iterator[Path]:
    """A state directory of this test run alone, which must be gone at its end."""
    path = Path(f"/run/oci-harness-tests-{os.getpid()}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCI_HARNESS_DIR", str(path))
        yield path
    left = sorted(map(str, path.rglob("*"))) if path.exists() else []
    remove_tree(path)
    assert not left, f"left in the state directory: {left[:20]}"


@pytest.fixture(scope="module")
def sessions() -> Iterator[Sessions]:
    made = Sessions()
    for opened in (dev_null, nothing_to_read, own_null):  # once, and they stay
        opened()
    before = leaks.snapshot()
    yield made
    assert made.close() == []
    assert leaks.new_since(before) == []


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest, require: Callable[..., None], sessions: Sessions) -> Iterator[None]:
    """Every test: no process, cgroup, mount, netns, directory, descriptor or thread more than before."""
    require("root")
    for name in ("session", "pair"):  # shared: open before the first look
        if name in request.fixturenames:
            request.getfixturevalue(name)
    before = leaks.snapshot()
    yield
    left = leaks.new_since(before, sessions.allowed) + sessions.mounts()
    assert left == [], "left behind:\n" + "\n".join(left)


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, require: Callable[..., None], sessions: Sessions) -> Runtime:
    require("root", request.param)
    return sessions.runtime(request.param)


@pytest.fixture
def session(runtime: Runtime, sessions: Sessions) -> Session:
    return sessions.of(runtime.name)


@pytest.fixture
def pair(require: Callable[..., None], sessions: Sessions) -> Session:
    """A session in which runc and crun both work."""
    require("root", "runc", "crun")
    return sessions.of("runc", "crun")


@pytest.fixture
def lacking(runtime: Runtime) -> Callable[[str], None]:
    """Skip, with the dialect's own words, what this runtime cannot do: a feature of `lacks`, or a verb."""

    def skip(feature: str) -> None:
        reason = dict(runtime.dialect.lacks).get(feature)
        if reason is not None:
            pytest.skip(f"{runtime.name} lacks {feature}: {reason}")

    return skip


Make = Callable[..., Container]


@pytest.fixture
def make(runtime: Runtime, session: Session, no_leaks: None) -> Iterator[Make]:
    """Containers of the runtime under test, not yet created; cleaned up at the end of the test."""
    made: list[Container] = []

    def container(
        args: Sequence[str] = PAUSE,
        *settings: tuple[str, Any],
        container_id: str | None = None,
        stdio: Stdio | None = None,
    ) -> Container:
        template = session.template("default", (("/process/args", list(args)), *settings))
        made.append(session.container(runtime, template, container_id, stdio=stdio))
        return made[-1]

    yield container
    left = [line for container in made for line in container.clean_up()]
    assert left == []


@pytest.fixture
def cli(no_leaks: None) -> Iterator[CommandLine]:
    made = CommandLine()
    yield made
    made.close()


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """A fake runtime: a shell script that knows --version and --help; `cases` is the body of its `case $verb in`."""

    def write(cases: str = "", *, name: str = "fake", version: str = "echo fake version 9.9.9", head: str = "") -> str:
        path = tmp_path / name
        path.write_text(
            f"""#!/bin/sh
{head}
here={tmp_path}
case "$1" in
--version) {version}; exit 0 ;;
--help) printf '  %s\\n' create start state kill delete run list ps exec pause resume; exit 0 ;;
esac
while [ $# -gt 0 ]; do
  case "$1" in
  --root) root=$2; shift 2 ;;
  --log) log=$2; shift 2 ;;
  --log-format) shift 2 ;;
  *) break ;;
  esac
done
verb=$1; shift
pidfile=
[ "$verb" = create ] && while [ $# -gt 1 ]; do [ "$1" = --pid-file ] && pidfile=$2; shift; done
case "$verb" in
{cases}
*) exit 0 ;;
esac
"""
        )
        path.chmod(0o755)
        return str(path)

    return write
