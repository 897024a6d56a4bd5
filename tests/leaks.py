"""What a run may leave behind on a host, as one comparable value: `difference` tells what is more than before.

Only things that can belong to this project count, and of those only what the calling process or its descendants made:
somebody else's live run on the same machine is no leak of ours.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

MARKER = "oci-harness"
# PREFIX kind-pid-random, see harness/runtime/workspace.py; `c` is the kind of a kept container, which has no pid.
RUN_NAME = re.compile(r"oci-harness-[A-Za-z0-9_+.-]+")
MAKER = re.compile(r"oci-harness-(?!c-)[A-Za-z0-9_]+-(\d+)(?:-|$)")
DEFAULT_BASE = Path("/run/oci-harness")
RUNTIME_STATE = (Path("/run/runc"), Path("/run/crun"), Path("/run/runsc"))
# Memory files that are made ready for the next command (harness/process/capture.py): a small stock, not a leak.
STOCK_OF_CAPTURES = 4


# Pids of commands that the tests have started: what carries one of them in its name is ours, also when it has ended.
makers: set[int] = set()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Each field holds one line for each thing, with the number of its occurrences."""

    processes: Counter[str]
    cgroups: Counter[str]
    mounts: Counter[str]
    network_namespaces: Counter[str]
    directories: Counter[str]
    descriptors: Counter[str]
    threads: Counter[str]


def own_base() -> Path:
    return Path(os.environ.get("OCI_HARNESS_DIR", str(DEFAULT_BASE)))


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _parents() -> dict[int, tuple[int, str, str]]:
    """{pid: (parent's pid, command name, state)} of all processes that are no kernel threads."""
    found = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        text = _read(f"/proc/{entry.name}/stat").decode(errors="replace")
        opening, closing = text.find("("), text.rfind(")")
        if opening < 0:
            continue
        state, parent = text[closing + 2 :].split()[:2]
        if int(parent) != 2 and entry.name != "2":
            found[int(entry.name)] = (int(parent), text[opening + 1 : closing], state)
    return found


def _descendants(processes: dict[int, tuple[int, str, str]], root: int) -> set[int]:
    found = {root}
    while more := {pid for pid, (parent, _, _) in processes.items() if parent in found} - found:
        found |= more
    return found


class _Host:
    """One look at the process table, and from it who made a run."""

    def __init__(self) -> None:
        self.processes = _parents()
        self.ours = _descendants(self.processes, os.getpid())
        self.bases = [base for base in Path("/run").glob(f"{MARKER}*") if base != own_base()]

    def is_foreign(self, text: str) -> bool:
        """Whether the run in `text` is somebody else's: its maker is none of ours, or its directory lies elsewhere."""
        named = RUN_NAME.search(text)
        if named is None:
            return False
        maker = MAKER.match(named.group())
        if maker is not None:
            return int(maker[1]) not in self.ours | makers
        return any((base / named.group()).exists() for base in self.bases)

    def own_processes(self) -> Iterator[str]:
        own = os.fsencode(own_base())
        for pid, (parent, comm, state) in self.processes.items():
            if pid == os.getpid():
                continue
            cgroup, arguments = _read(f"/proc/{pid}/cgroup"), _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ")
            places = os.fsencode(_link(f"/proc/{pid}/cwd")) + b" " + os.fsencode(_link(f"/proc/{pid}/root"))
            marked = (MARKER + "-").encode() in cgroup and not self.is_foreign(cgroup.decode(errors="replace"))
            if state == "Z" and parent not in self.ours:
                continue  # for somebody else to reap
            if pid in self.ours or marked or own in arguments or own in places:
                yield f"{pid} ({comm}, {state}) {arguments.decode(errors='replace').strip()}"

    def network_namespaces(self) -> Iterator[str]:
        """Those that a process of ours is in, and those that are kept by a mount."""
        for pid in self.ours:
            with suppress(OSError):
                yield f"netns {os.stat(f'/proc/{pid}/ns/net').st_ino}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if " - nsfs " in line:
                yield f"netns {line.split()[3]} at {line.split()[4]}"

    def cgroups(self) -> Iterator[str]:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            front, _, back = line.partition(" - ")
            if back.split()[0] not in {"cgroup", "cgroup2"}:
                continue
            mount_point = front.split()[4]
            for directory, _, _ in os.walk(mount_point):
                relative = directory.removeprefix(mount_point)
                if MARKER in relative and not self.is_foreign(relative):
                    yield directory

    def directories(self) -> Iterator[str]:
        yield from _entries(own_base(), "*")
        yield from _entries(own_base(), "*/c/*")
        if own_base() != DEFAULT_BASE:  # somebody else's, but for what a process of ours put there all the same
            for name in _entries(DEFAULT_BASE, "*"):
                maker = MAKER.search(name)
                if maker is not None and int(maker[1]) in self.ours | makers:
                    yield name
        for name in _entries(Path("/tmp"), f"{MARKER}*"):
            yield name
        for base in RUNTIME_STATE:
            yield from _entries(base, "*")


def _entries(base: Path, pattern: str) -> list[str]:
    return [str(path) for path in base.glob(pattern)] if base.is_dir() else []


def _mounts() -> list[str]:
    """Root, mount point, type and source of each: the ids change when a mount is made again."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        front, _, back = line.partition(" - ")
        found.append(" ".join([*front.split()[3:5], *back.split()[:2]]))
    return found


def _descriptors() -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the listing itself needs one, gone by now
        target = _link(f"/proc/self/fd/{entry}")
        if target:
            found[re.sub(r":\[\d+\]$", "", target)] += 1
    if found[f"/memfd:{MARKER} (deleted)"] <= STOCK_OF_CAPTURES:
        del found[f"/memfd:{MARKER} (deleted)"]
    return found


def _threads() -> list[str]:
    return [_read(str(task / "comm")).decode().strip() for task in Path("/proc/self/task").iterdir()]


def snapshot() -> Snapshot:
    host = _Host()
    return Snapshot(
        processes=Counter(host.own_processes()),
        cgroups=Counter(host.cgroups()),
        mounts=Counter(_mounts()),
        network_namespaces=Counter(set(host.network_namespaces())),
        directories=Counter(host.directories()),
        descriptors=_descriptors(),
        threads=Counter(_threads()),
    )


def difference(before: Snapshot, after: Snapshot, allowed: Iterable[str] = ()) -> list[str]:
    """One line for each thing that is more in `after`; `allowed`: what is known to stay, as its whole line."""
    spared = set(allowed)
    return [
        f"{field.name}: {line}" + (f" ({count} more)" if count > 1 else "")
        for field in fields(Snapshot)
        for line, count in sorted((getattr(after, field.name) - getattr(before, field.name)).items())
        if line not in spared
    ]


def new_since(before: Snapshot, allowed: Iterable[str] = ()) -> list[str]:
    """`difference` from `before` to now.

    What only one of two looks in a row has seen is somebody else's doing, but for our own processes: of those even one
    that is about to end counts. A thread that has been joined stays in /proc for as long as the kernel takes to end it.
    """
    spared = list(allowed)
    first = difference(before, snapshot(), spared)
    if not first:
        return []
    second = difference(before, snapshot(), spared)
    end = time.monotonic() + 1.0
    while second and all(line.startswith("threads: ") for line in second) and time.monotonic() < end:
        time.sleep(0.005)
        second = difference(before, snapshot(), spared)
    return [line for line in first if line in second or line.startswith("processes: ")]
