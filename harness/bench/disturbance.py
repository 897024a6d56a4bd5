"""What else the machine did while a sample was taken: read from the kernel right before and right after it.

Each of the two readings of a few kernel files costs about 0.04 ms, before the first operation and after the last.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from harness.cgroup.hierarchy import detect
from harness.process.operation import Operation

TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PRESSURES: Final = ("cpu", "memory", "io")
WAIT_KINDS: Final = {"steal": 7, "iowait": 4}  # place in the "cpu" line of /proc/stat, proc_stat(5)


class Reading(Struct, frozen=True):
    """Counters since boot; one that the kernel does not offer is absent."""

    counters: dict[str, int]
    own_cpu_ns: int


def _stat(text: str) -> dict[str, int]:
    """proc_stat(5): the whole machine's CPU time by kind, context switches and forks."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        words = rest.split()
        if name == "cpu":
            ticks = [int(word) for word in words]
            found["cpu_ns"] = (sum(ticks[:8]) - ticks[3] - ticks[4] - ticks[7]) * TICK_NS  # all but idle, iowait, steal
            found |= {f"{kind}_ns": ticks[at] * TICK_NS for kind, at in WAIT_KINDS.items() if at < len(ticks)}
        elif name in ("ctxt", "processes"):
            found[{"ctxt": "context_switches", "processes": "forks"}[name]] = int(words[0])
    return found


def _pressure(text: str) -> int:
    """Microseconds in which some task waited, of the `some` line (Documentation/accounting/psi.rst)."""
    some = next(line for line in text.splitlines() if line.startswith("some "))
    return int(some.rpartition("total=")[2])


class Recorder:
    """Reads the counters; use as a context manager. What this kernel does not offer is left out of what it gives."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._try("stat", "/proc/stat")
        for resource in PRESSURES:
            self._try(f"{resource}_pressure", f"/proc/pressure/{resource}")
        cpuacct = detect().hierarchy("cpuacct")
        if cpuacct is not None and cpuacct.version == 1:  # in nanoseconds, where /proc/stat counts 10 ms ticks
            self._try("cpuacct", f"{cpuacct.mount_point}/cpuacct.usage")

    def _try(self, name: str, path: str) -> None:
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.pread(fd, 1, 0)  # PSI that is off can be opened but not read
            except OSError:
                os.close(fd)
                raise
            self._files[name] = fd

    def read(self) -> Reading:
        counters: dict[str, int] = {}
        for name, fd in self._files.items():
            text = os.pread(fd, 65536, 0).decode()
            if name == "stat":
                counters |= _stat(text)
            elif name == "cpuacct":
                counters["cpu_ns"] = int(text)
            else:
                counters[f"{name}_us"] = _pressure(text)
        return Reading(counters, time.process_time_ns())

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def between(before: Reading, after: Reading, operations: Iterable[Operation]) -> dict[str, int]:
    """What happened from one reading to the next.

    other_cpu_ns: CPU time of all that is neither the harness nor an operation of this sample: other processes, the
    kernel's own threads (which tear down namespaces and cgroups of earlier containers), the container itself, and
    lifecycles that run at the same time. steal_ns, iowait_ns: of the whole machine, in steps of a tick. forks,
    context_switches: of the whole machine, this sample's own included. *_pressure_us: time in which some task waited
    for the resource. major_faults, minor_faults, preempted: of the operations.
    """
    found = {name: value - before.counters[name] for name, value in after.counters.items() if name in before.counters}
    used_ns = preempted = minor = major = 0
    for operation in operations:
        used_ns += (operation.usage.user_us + operation.usage.system_us) * 1000
        preempted += operation.usage.nivcsw
        minor += operation.usage.minflt
        major += operation.usage.majflt
    if "cpu_ns" in found:
        own_ns = after.own_cpu_ns - before.own_cpu_ns
        found["other_cpu_ns"] = max(0, found.pop("cpu_ns") - used_ns - own_ns)
    return found | {"preempted": preempted, "minor_faults": minor, "major_faults": major}
