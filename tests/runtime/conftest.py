"""What the tests with real runtimes share: a state directory of their own, sessions, the command line, the leak check."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import leaks
import pytest

from harness.oci.bundle import Template
from harness.process.command import Stdio, dev_null
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime, find_runtime
from harness.runtime.session import Session
from harness.runtime.workspace import remove_tree

RUNTIMES = ("runc", "crun", "runsc")
ENTRY = "from harness.cli.entry import main; main()"
PAUSE = ("/payload", "pause")


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


class Sessions:
    """One session for each set of runtimes, opened when it is first asked for and closed with the module."""

    def __init__(self) -> None:
        self._runtimes: dict[str, Runtime] = {}
        self._sessions: dict[tuple[str, ...], Session] = {}

    def runtime(self, name: str) -> Runtime:
        if name not in self._runtimes:
            self._runtimes[name] = find_runtime(name)
        return self._runtimes[name]

    def of(self, *names: str) -> Session:
        if names not in self._sessions:
            self._sessions[names] = Session("auto", [self.runtime(name) for name in names], kind="test")
        return self._sessions[names]

    @property
    def allowed(self) -> set[str]:
        """What a shared session itself keeps until the module ends: its directory, and its cgroup, empty."""
        names = [session.workspace.name for session in self._sessions.values()]
        cgroups = {f"{h.mount_point}/{n}" for s in self._sessions.values() for h in s.layout.hierarchies for n in names}
        return cgroups | {str(session.workspace.path) for session in self._sessions.values()}

    def mounts(self) -> list[str]:
        """Overlays that containers have left in the private mount namespaces."""
        return [
            line
            for session in self._sessions.values()
            for line in session.namespace.call(Path("/proc/thread-self/mountinfo").read_text).splitlines()
            if " - overlay " in line and session.workspace.name in line
        ]

    def close(self) -> list[str]:
        return [line for session in self._sessions.values() for line in session.close()]


@pytest.fixture(scope="module")
def sessions() -> Iterator[Sessions]:
    made = Sessions()
    dev_null()
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


def shell(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


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
def template(session: Session) -> Callable[..., Template]:
    def of(args: Sequence[str] = PAUSE, *settings: tuple[str, Any]) -> Template:
        return session.template("default", (("/process/args", list(args)), *settings))

    return of


class CommandLine:
    """Runs the real command in a process of its own."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *args: str, prelude: str = "", argv: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
        """`argv`: a command to run it with (setpriv ...); `prelude`: Python to run before it."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        command = [*argv, sys.executable, "-c", prelude + ENTRY, *args]
        self.started.append(subprocess.Popen(command, text=True, **options))
        return self.started[-1]

    def __call__(self, *args: str, timeout_s: float = 30.0, stdin: str | None = None, **options: Any) -> Answer:
        if stdin is not None:
            options["stdin"] = subprocess.PIPE
        process = self.start(*args, **options)
        out, err = process.communicate(stdin, timeout=timeout_s)
        return Answer(process.returncode, out, err)

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            with suppress(ValueError):
                process.communicate()


class Answer:
    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status, self.stdout, self.stderr = status, stdout, stderr

    def __repr__(self) -> str:
        return f"exit {self.status}\nstdout: {self.stdout[-2000:]}\nstderr: {self.stderr[-2000:]}"

    @property
    def json(self) -> Any:
        """The whole of stdout as one JSON document: anything else there fails."""
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The one line of an error; notes come before it and are lines of their own."""
        lines = [line for line in self.stderr.splitlines() if not line.startswith("note: ")]
        assert "Traceback" not in self.stderr, self
        assert len(lines) == 1, self
        assert lines[0].startswith("oci-harness: "), self
        return lines[0]


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


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text[text.rfind(")") + 2] not in "ZX"


def interrupt(process: subprocess.Popen[str], sig: signal.Signals = signal.SIGINT) -> None:
    process.send_signal(sig)
