"""One finished call of a runtime, with everything that is known of it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict


class LogRecord(Struct, frozen=True):
    """One line of `--log FILE --log-format json`; level is None when the line is no such record."""

    level: str | None
    msg: str
    time: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"level": self.level, "msg": self.msg, "time": self.time}


def parse_log(text: bytes) -> tuple[LogRecord, ...]:
    """Every line of a runtime's JSON log; what is no JSON record is kept as text, never dropped.

    Before runc 1.1.15 a newline in a nsexec message broke the JSON, so half lines are real.
    """
    records = []
    # not splitlines: it breaks a message at U+2028 and the like, which crun writes as they are
    for line in text.decode(errors="replace").split("\n"):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and isinstance(value.get("msg"), str):
            level, time = value.get("level"), value.get("time")
            records.append(
                LogRecord(
                    level if isinstance(level, str) else None,
                    value["msg"],
                    time if isinstance(time, str) else None,
                )
            )
        else:
            records.append(LogRecord(None, line.rstrip("\r")))
    return tuple(records)


class Usage(Struct, frozen=True):
    """getrusage(2) of the runtime's process and the children it waited for."""

    user_us: int
    system_us: int
    # None: the kernel counts the memory of the process that called clone as well (fs/exec.c exec_mmap), and the figure
    # is not above that, so it says nothing about the runtime
    maxrss_kib: int | None
    minflt: int
    majflt: int
    nvcsw: int
    nivcsw: int


class Operation(Struct, frozen=True):
    """One call of a runtime: what was run, when, how it ended and what it said."""

    verb: str
    argv: tuple[str, ...]
    start_ns: int  # CLOCK_MONOTONIC, right before the clone
    end_ns: int  # CLOCK_MONOTONIC, as soon as the wait returned
    exit_status: int  # -N: killed by signal N
    usage: Usage
    stdout: bytes = b""
    stderr: bytes = b""
    log: tuple[LogRecord, ...] = ()
    truncated: bool = False  # stdout, stderr or log was longer than what is kept
    timed_out: bool = False
    killed: tuple[int, ...] = ()  # pids that had to be killed at the deadline

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns

    @property
    def command(self) -> str:
        """The argv as one line that a shell takes."""
        return shlex.join(self.argv)

    @property
    def message(self) -> str:
        """The runtime's own last word: its last error record, else the last line of stderr, else of stdout."""
        for record in reversed(self.log):
            if record.level in ("error", "fatal", None):
                return record.msg.strip()[:4096]
        for stream in (self.stderr, self.stdout):
            lines = stream.decode(errors="replace").strip().splitlines()
            if lines:
                return lines[-1].strip()[:4096]
        return ""

    def to_json(self) -> dict[str, Any]:
        usage = self.usage
        return {
            "verb": self.verb,
            "argv": list(self.argv),
            "start_ns": self.start_ns,
            "end_ns": self.end_ns,
            "duration_ns": self.duration_ns,
            "exit_status": self.exit_status,
            "timed_out": self.timed_out,
            "truncated": self.truncated,
            "usage": asdict(usage),
            "stdout": self.stdout.decode(errors="replace"),
            "stderr": self.stderr.decode(errors="replace"),
            "log": [record.to_json() for record in self.log],
        }
