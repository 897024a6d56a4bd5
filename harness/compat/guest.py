"""One agent at work, in a guest or on this host: its messages as they come, its death as a result."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from harness.compat import machine
from harness.compat.initramfs import GUEST, Script
from harness.compat.kernels import Kernel
from harness.compat.program_files import files_of
from harness.errors import HostError
from harness.process import companion

# Nothing is heard for so long: a kernel that hangs, or a harness that does. An attempt has at most some ten operations
# of 10 s each, and its cleaning up.
SILENCE_S = 240.0
# Until the first word: a boot takes 4 s of emulation, with systemd 20 s; many times that on a machine that is busy.
BOOT_S = {"kvm": 25.0, "tcg": 180.0}
HOST_END_S = 30.0
KVM_BROKEN = "KVM internal error"  # qemu's word for it, and then it stands still


class Job(Struct, frozen=True):
    """What one agent is to do, all in one view of one kernel."""

    kernel: Kernel
    view: str
    runtimes: dict[str, str]  # {name: absolute path}
    cases: tuple[tuple[str, str], ...]  # (case, runtime)
    timeout_s: float
    systemd_root: Path | None = None
    conformance: str = ""  # which of the suite's cases, as pytest's -k
    cpus: Mapping[str, int] = field(default_factory=dict)  # {case: how many it needs}, of those that need more than one

    def shifts(self) -> dict[int, list[tuple[str, str]]]:
        """{CPUs: cases}, the few first. A second CPU, emulated in turn with it, comes up for its cases."""
        found: dict[int, list[tuple[str, str]]] = {}
        for case in self.cases:
            found.setdefault(self.cpus.get(case[0], 1), []).append(case)
        return dict(sorted(found.items()))

    def to_json(self) -> dict[str, Any]:
        return {
            "view": self.view.partition("+")[0],  # what comes behind it is who PID 1 is
            "timeout_s": self.timeout_s,
            "runtimes": self.runtimes,
            "shifts": [{"cpus": cpus, "cases": cases} for cpus, cases in self.shifts().items()],
            "conformance": self.conformance,
        }


def agent_argv(descriptor: int | None = None) -> tuple[str, ...]:
    """The agent, as this Python starts it from this checkout or installation."""
    program = f"from harness.compat.guest_agent import serve; serve({descriptor if descriptor is not None else ''})"
    return (sys.executable, "-P", "-c", program)


@cache
def compile_package() -> None:
    """A guest may not write to the host's files, and would compile all of the package anew, emulated; quick if done."""
    compileall.compile_dir(Path(__file__).parents[1], quiet=2)


def agent_environment() -> dict[str, str]:
    package = Path(__file__).parents[2]
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin") + f":/usr/local/sbin:/usr/sbin:/sbin:/{GUEST}/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(package),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OCI_HARNESS_DIR": "/run/oci-harness",
    }


class Guest:
    """An agent that works on a job. Read `channel` when it is readable, and look at `overdue` now and then."""

    def __init__(self, job: Job, directory: Path, accelerator: machine.Accelerator | None) -> None:
        """`accelerator` None: a process on this host. Raises HostError, OSError."""
        self.job = job
        self.accelerator = accelerator
        self.started = time.monotonic()
        self.boot_s: float | None = None  # until the agent's first word
        self.current: tuple[str, str] | None = None  # the case and runtime it is at
        self.finished: set[tuple[str, str]] = set()
        self._asked = frozenset(job.cases)
        self._heard = self.started
        self._buffer = b""
        if accelerator is None:
            self.machine = _here(directory)
        else:
            compile_package()
            environment = agent_environment() | {"TMPDIR": "/run"}
            # each start of a runtime would ask for a dozen files over 9p
            brought = tuple(dict.fromkeys(file for path in job.runtimes.values() for file in files_of(path)))
            given = tuple(environment.items())
            script = Script(agent_argv(), given, "/", job.kernel.modules, job.systemd_root, brought)
            self.machine = machine.start(job.kernel, script, directory, accelerator, max(job.shifts()))
        self.channel = self.machine.channel
        self.channel.setblocking(False)

    @property
    def where(self) -> str:
        return f"{self.job.kernel.release}, {self.job.view}"

    @property
    def left(self) -> tuple[tuple[str, str], ...]:
        """The cases that have no verdict yet."""
        return tuple(case for case in self.job.cases if case not in self.finished)

    def messages(self) -> Iterator[dict[str, Any]]:
        """What has come; the job is sent on `hello`. Raises EOFError once the other end is gone."""
        self._fill()
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            message = self._understood(line)
            if message is None:
                continue
            self._heard = time.monotonic()
            match message["kind"]:
                case "hello":
                    self.boot_s = round(self._heard - self.started, 2)
                    self._send(self.job.to_json())
                case "begin":
                    self.current = (message["case"], message["runtime"])
                case "cell":
                    self.finished.add((message["case"], message["runtime"]))
                    self.current = None
            yield message

    def _understood(self, line: bytes) -> dict[str, Any] | None:
        """The message of a line; None for what no agent says of this job: a guest may be out of its mind."""
        try:
            message = json.loads(line)
        except ValueError:
            return None
        if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
            return None
        if message["kind"] in ("begin", "cell"):
            case, runtime = message.get("case"), message.get("runtime")
            # the cases of a suite are SUITE:NAME
            if not isinstance(case, str) or (case.partition(":")[0], runtime) not in self._asked:
                return None
        return message

    def _fill(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    part = self.channel.recv(1 << 20)
                except ConnectionError:
                    part = b""
                if not part:
                    if b"\n" in self._buffer:
                        return
                    raise EOFError
                self._buffer += part

    def _send(self, value: dict[str, Any]) -> None:
        self.channel.setblocking(True)
        try:
            self.channel.sendall(json.dumps(value).encode() + b"\n")
        finally:
            self.channel.setblocking(False)

    def excuse(self, seconds: float) -> None:
        """It could not be heard for so long, for this process itself stood still (SIGSTOP): that is not its fault."""
        self.started += seconds
        self._heard += seconds

    def overdue(self) -> str | None:
        """Why it must be given up, in words; None as long as it need not."""
        now = time.monotonic()
        if self.boot_s is None and self.accelerator is not None:
            if self.accelerator == "kvm" and KVM_BROKEN in self.machine.console_tail():
                return "KVM cannot run this kernel here"
            limit = BOOT_S[self.accelerator]
            return f"no word within {limit:.0f} s of its start" if now - self.started > limit else None
        return f"no word for {SILENCE_S:.0f} s" if now - self._heard > SILENCE_S else None

    def told(self) -> str:
        """How it ended, in words, from its console; to be called when the channel has ended."""
        tail = self.machine.console_tail()
        if "Kernel panic" in tail:
            panic = next(line for line in tail.splitlines() if "Kernel panic" in line).partition("Kernel panic")[2]
            return f"the guest's kernel panicked: {panic.removeprefix(' - not syncing:').strip()}"
        last = f": {tail.splitlines()[-1]}" if tail and self.boot_s is None else ""
        return f"the {'guest' if self.accelerator else 'agent'} ended before its job was done{last}"

    def close(self) -> None:
        """End it, whatever it is at; on this host it is given the time to take back what it has made."""
        if self.accelerator is None:
            self.machine.process.signal(signal.SIGINT)
            with contextlib.suppress(TimeoutError):
                self.machine.process.wait(HOST_END_S)
        self.machine.close()


def _here(directory: Path) -> machine.Machine:
    """The agent as a process on this host."""
    directory.mkdir(parents=True)
    ours, theirs = socket.socketpair()
    console = directory / "console"
    environment = agent_environment()
    if "OCI_HARNESS_DIR" in os.environ:
        environment["OCI_HARNESS_DIR"] = os.environ["OCI_HARNESS_DIR"]
    else:
        del environment["OCI_HARNESS_DIR"]
    with theirs, console.open("wb") as log:
        try:
            process = companion.start(
                agent_argv(3),
                stdout=log.fileno(),
                stderr=log.fileno(),
                extra_fds=[theirs.fileno()],
                env=tuple(f"{name}={value}" for name, value in environment.items()),
            )
        except OSError as error:
            ours.close()
            raise HostError(f"{sys.executable} cannot be started: {error.strerror}") from None
    return machine.Machine(process, ours, console, "tcg")
