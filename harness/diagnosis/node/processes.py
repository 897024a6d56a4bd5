"""The node's processes, from /proc or from what ps printed into a copied tree."""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

from harness.diagnosis.node.roles import role
from harness.diagnosis.node.tree import Tree
from harness.kernel.procfs import ProcessStat, parse_stat

LISTINGS = (
    "/sos_commands/process/ps_axo*",
    "/sos_commands/process/ps_aux*",
    "/sos_commands/process/ps_*",
    "/ps",
    "/ps.txt",
    "/ps_*",
)
_LONG_START = ("STARTED",)  # ps -o lstart: five words below one
_COMM_BYTES = 15


class Process(Struct, frozen=True):
    """`start_ticks`, `wchan`, `arguments` are None where the source does not tell."""

    pid: int
    ppid: int | None
    comm: str
    state: str  # one letter, proc_pid_stat(5)
    start_ticks: int | None  # clock ticks since boot
    arguments: str | None
    wchan: str | None


class Table(Struct, frozen=True):
    """All processes of the node's pid namespace."""

    source: str
    processes: dict[int, Process]

    def of_role(self, *roles: str) -> list[Process]:
        return [process for process in self.processes.values() if role(process.comm) in roles]


def read_stat(tree: Tree, pid: int) -> ProcessStat | None:
    """None: no such process."""
    text = tree.read(f"/proc/{pid}/stat")
    try:
        return parse_stat(text) if text else None
    except ValueError as error:
        tree.miss(f"/proc/{pid}/stat", str(error))
        return None


def _read(tree: Tree, pid: int) -> Process | None:
    stat = read_stat(tree, pid)
    if stat is None:
        return None
    arguments = wchan = None
    if role(stat.comm) is not None:
        wchan = tree.read(f"/proc/{pid}/wchan")
        # reading the command line takes the process's mmap lock, which one that hangs may hold for ever
        if stat.state != "D":
            arguments = (tree.read(f"/proc/{pid}/cmdline") or "").replace("\0", " ").strip()
    return Process(pid, stat.ppid, stat.comm, stat.state, stat.start_ticks, arguments, wchan)


@lru_cache(maxsize=2)
def table_of(tree: Tree) -> Table | None:
    """None, with a note: nothing tells."""
    names = [name for name in tree.entries("/proc") if name.isdecimal()]
    found = {int(name): process for name in names if (process := _read(tree, int(name))) is not None}
    if found:
        return Table("/proc", found)
    for pattern in LISTINGS:
        for path in tree.glob(pattern):
            parsed = parse_listing(tree.read(path, 64 << 20) or "")
            if parsed:
                return Table(path, parsed)
    tree.miss("processes", "no /proc/PID/stat and no output of ps in this tree")
    return None


def parse_listing(text: str) -> dict[int, Process]:
    """Output of `ps aux`, `ps -ef`, `ps axo ...`: any that has the columns PID and COMMAND (or CMD). Lines that do not
    fit the header are left out."""
    lines = text.splitlines()
    header = next((line.split() for line in lines if re.search(r"\bPID\b", line)), None)
    if header is None:
        return {}
    names = [name for each in header for name in ((each,) * (5 if each in _LONG_START else 1))]
    last = next((name for name in ("COMMAND", "CMD", "ARGS") if names[-1] == name), None)
    if last is None:
        return {}
    found = {}
    for line in lines:
        words = line.split(None, len(names) - 1)
        row = dict(zip(names, words, strict=False))
        if len(words) < len(names) or not row["PID"].isdecimal():
            continue
        state = row.get("STAT") or row.get("S") or "?"
        ppid = row.get("PPID", "")
        found[int(row["PID"])] = Process(
            int(row["PID"]),
            int(ppid) if ppid.isdecimal() else None,
            _comm(row[last]),
            state[0],
            None,
            row[last],
            row.get("WCHAN"),
        )
    return found


def _comm(command: str) -> str:
    """The name in a command line: `[runc] <defunct>`, `/usr/bin/containerd-shim-runc-v2 -id ...`, `runc:[2:INIT]`."""
    word = command.removesuffix(" <defunct>").split(" ")[0]
    if word.startswith("[") and word.endswith("]"):
        word = word[1:-1]
    elif word.startswith("/"):
        word = word.rsplit("/", 1)[-1]
    return word[:_COMM_BYTES]
