"""Peak memory of a runtime, read from a cgroup of its own: in extra lifecycles, so that no timed one pays for it.

The rusage of a child cannot tell: the kernel starts its maximum at that of the process that cloned it.
"""

from __future__ import annotations

import contextlib
import os
from statistics import median
from typing import Any

from harness.bench.lifecycle import Bench
from harness.bench.plan import Turn
from harness.cgroup import groups
from harness.errors import HostError
from harness.kernel import shim
from harness.process.command import Place
from harness.runtime.discovery import Runtime

PEAK_FILE = {1: "memory.max_usage_in_bytes", 2: "memory.peak"}


def measure_footprint(bench: Bench, runtimes: list[Runtime], runs: int) -> dict[str, Any]:
    """{runtime: {peak_memory_bytes, method, n, samples[]}}: the median over `runs` lifecycles, all verbs together.

    It counts what the kernel charges: the runtime's memory, its kernel memory, page cache it was first to touch, and
    the container's init until it is moved to its own cgroup. None and the reason where there is no memory controller.
    """
    return {runtime.name: _measure(bench, runtime, runs) for runtime in runtimes}


def _measure(bench: Bench, runtime: Runtime, runs: int) -> dict[str, Any]:
    hierarchy = bench.session.layout.hierarchy("memory")
    if hierarchy is None:
        return {"peak_memory_bytes": None, "method": None, "reason": "no memory controller in this view"}
    peaks: list[int] = []
    reason = None
    for run in range(runs):
        path = f"{bench.session.workspace.cgroup}/runtime-{runtime.name}-{run}"
        try:
            peak = _one(bench, runtime, run, path)
        except (OSError, HostError) as error:
            reason = str(error)
            break
        if peak is not None:
            peaks.append(peak)
    method = f"{PEAK_FILE[hierarchy.version]} of a cgroup v{hierarchy.version} of its own"
    if not peaks:
        return {"peak_memory_bytes": None, "method": method, "reason": reason or "the lifecycles failed"}
    return {"peak_memory_bytes": int(median(peaks)), "method": method, "n": len(peaks), "samples": peaks}


def _one(bench: Bench, runtime: Runtime, run: int, path: str) -> int | None:
    session = bench.session
    hierarchy = session.layout.hierarchy("memory")
    assert hierarchy is not None
    call = session.namespace.call
    created = call(groups.create, session.layout, path, ("memory",))
    try:
        root = call(hierarchy.open)
        try:
            directory = shim.open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY)
        finally:
            os.close(root)
        try:
            place = (
                Place(session.namespace.fd, directory, ())
                if hierarchy.version == 2
                else Place(session.namespace.fd, -1, (directory,))
            )
            sample = bench.run(runtime, Turn(f"{runtime.name}-footprint", run, 10_000_000 + run), place)
            peak = shim.read_files([directory], [PEAK_FILE[hierarchy.version]])[0]
            if sample.error is not None:
                return None
            if isinstance(peak, OSError):
                raise peak
            return int(peak)
        finally:
            os.close(directory)
    finally:
        with contextlib.suppress(OSError, HostError, TimeoutError):
            call(lambda: groups.remove(session.layout, path, enabled=created.enabled))
