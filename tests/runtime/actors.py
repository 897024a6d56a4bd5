"""What the tests with real runtimes work with: shared sessions, the command in a process of its own, small shells."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import leaks

from harness.runtime.discovery import Runtime, find_runtime
from harness.runtime.session import Session

ENTRY = "from harness.cli.entry import main; main()"
PAUSE = ("/payload", "pause")


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


def shell(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


class CommandLine:
    """Runs the real command in a process of its own."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *args: str, prelude: str = "", argv: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
        """`argv`: a command to run it with (setpriv ...); `prelude`: Python to run before it."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        command = [*argv, sys.executable, "-c", prelude + ENTRY, *args]
        self.started.append(subprocess.Popen(command, text=True, **options))
        leaks.makers.add(self.started[-1].pid)
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
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:  # not read to its end: a container may hold the other one
                    stream.close()


class Answer:
    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status, self.stdout, self.stderr = status, stdout, stderr

    def __repr__(self) -> str:
        return f"exit {self.status}\nstdout: {(self.stdout or '')[-2000:]}\nstderr: {(self.stderr or '')[-2000:]}"

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


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text[text.rfind(")") + 2] not in "ZX"


def read_until(fd: int, wanted: bytes, timeout_s: float = 10.0) -> bytes:
    """Read from a pipe or terminal until `wanted` has come. Raises TimeoutError with what came instead."""
    seen = b""
    end = time.monotonic() + timeout_s
    while wanted not in seen:
        ready, _, _ = select.select([fd], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise TimeoutError(f"no {wanted!r} within {timeout_s} s, but {seen!r}")
        try:
            part = os.read(fd, 65536)
        except OSError:  # EIO: the terminal's other side is closed
            part = b""
        if not part:
            raise EOFError(f"no {wanted!r} before the end, but {seen!r}")
        seen += part
    return seen


def until(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    """Look again and again until `condition` holds. Raises TimeoutError naming `what`."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        time.sleep(0.005)
