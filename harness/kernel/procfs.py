"""Facts about processes from /proc: identity, descent, and which processes belong to a run."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

PROC = Path("/proc")
COMM_LENGTH = 15  # characters of a command name: TASK_COMM_LEN without the NUL


class ProcessStat(Struct, frozen=True):
    """The part of /proc/PID/stat (proc_pid_stat(5)) that tells processes apart."""

    pid: int
    comm: str
    state: str  # one letter: R S D T Z X ...
    ppid: int
    start_ticks: int  # clock ticks since boot; with the pid it names one process for good


def parse_stat(text: str) -> ProcessStat:
    """Parse /proc/PID/stat; comm may hold blanks and parentheses. Raises ValueError."""
    opening, closing = text.find("("), text.rfind(")")
    rest = text[closing + 1 :].split()
    if opening < 0 or closing < opening or len(rest) < 20:
        raise ValueError(f"not a line of /proc/PID/stat: {text[:80]!r}")
    return ProcessStat(int(text[:opening]), text[opening + 1 : closing], rest[0], int(rest[1]), int(rest[19]))


def process_stat(pid: int) -> ProcessStat | None:
    """None when the process is gone."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return parse_stat(os.read(fd, 4096).decode(errors="replace"))
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)


def is_alive(pid: int, start_ticks: int) -> bool:
    """Whether just this process still runs: a recycled pid or a zombie does not count."""
    stat = process_stat(pid)
    return stat is not None and stat.start_ticks == start_ticks and stat.state not in "ZX"


def pids() -> Iterator[int]:
    with os.scandir(PROC) as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def children(pid: int) -> list[int]:
    """Direct children, zombies included (/proc/PID/task/TID/children; by a walk over all where it is not built in)."""
    found: list[int] = []
    try:
        with os.scandir(f"/proc/{pid}/task") as tasks:
            for task in tasks:
                with open(f"{task.path}/children", "rb") as file:
                    found += map(int, file.read().split())
    except FileNotFoundError:
        if process_stat(pid) is None:
            return []
        stats = (process_stat(other) for other in pids())
        return [stat.pid for stat in stats if stat is not None and stat.ppid == pid]
    except ProcessLookupError:
        return []
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.readall()
    except OSError:  # gone, a kernel thread, or not ours to see
        return b""


def _link(pid: int, name: str) -> bytes:
    try:
        return os.readlink(f"/proc/{pid}/{name}".encode())
    except OSError:
        return b""


def command_line(pid: int) -> str:
    """The arguments joined by blanks; "" when the process is gone or a zombie."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")


def processes_naming(marker: str, *, ignore: frozenset[int] = frozenset()) -> list[ProcessStat]:
    """Live processes whose cgroup, command line, working directory or root names `marker` as a whole path component.

    That finds a runtime, its helpers and its containers alike, whoever their parent is by now.
    """
    needle = re.compile(rb"(?<![A-Za-z0-9_.+-])" + re.escape(os.fsencode(marker)) + rb"(?![A-Za-z0-9_.+-])")
    found = []
    for pid in pids():
        if pid in ignore:
            continue
        text = b"\0".join((_read(pid, "cgroup"), _read(pid, "cmdline"), _link(pid, "cwd"), _link(pid, "root")))
        if needle.search(text):
            stat = process_stat(pid)
            if stat is not None and stat.state not in "ZX":
                found.append(stat)
    return found


def is_killed(pid: int) -> bool:
    """Whether SIGKILL is pending: the process was killed, and something such as a frozen cgroup keeps it from dying."""
    pending = re.findall(rb"^S(?:ig|hd)Pnd:\s*([0-9a-f]+)$", _read(pid, "status"), re.MULTILINE)
    return any(int(mask, 16) & 1 << signal.SIGKILL - 1 for mask in pending)


def boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()
