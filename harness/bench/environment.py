"""The circumstances of a benchmark: everything known to move its figures, read from the kernel, never guessed."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from harness.runtime.discovery import Runtime
from harness.runtime.session import ViewChoice
from harness.version import VERSION


def read_line(path: str) -> str | None:
    """The first line of a kernel file, None where there is none."""
    try:
        return Path(path).read_text().strip().split("\n")[0]
    except OSError:
        return None


def _cpu_facts() -> dict[str, Any]:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    facts = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in facts.items()}
    return {
        "model": fields.get("model name") or fields.get("CPU part"),
        "online": os.cpu_count(),
        "usable": len(os.sched_getaffinity(0)),
        "virtual_machine": "hypervisor" in fields.get("flags", "").split(),
        "governor": read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clocksource": read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    }


def _mitigations() -> dict[str, str]:
    directory = Path("/sys/devices/system/cpu/vulnerabilities")
    if not directory.is_dir():
        return {}
    return {path.name: read_line(str(path)) or "" for path in sorted(directory.iterdir())}


def _favordynmods() -> bool | None:
    """Whether a cgroup2 mount has favordynmods; None where no cgroup2 is mounted."""
    lines = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line]
    return any("favordynmods" in line for line in lines) if lines else None


def load_average() -> float:
    return os.getloadavg()[0]


def record(runtimes: list[Runtime], choice: ViewChoice) -> dict[str, Any]:
    """JSON-ready. A value that this kernel does not offer is None."""
    uname = platform.uname()
    return {
        "oci_harness": VERSION,
        "python": platform.python_version(),
        "kernel": {"release": uname.release, "version": uname.version, "machine": uname.machine},
        "cpu": _cpu_facts(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "mitigations": _mitigations(),
        "lsm": (read_line("/sys/kernel/security/lsm") or "").split(",")
        if read_line("/sys/kernel/security/lsm")
        else None,
        "cgroup": choice.to_json(),
        "favordynmods": _favordynmods(),
        "rcu_expedited": read_line("/sys/kernel/rcu_expedited"),
        "rcu_normal": read_line("/sys/kernel/rcu_normal"),
        "transparent_hugepage": read_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load_before": load_average(),
        "runtimes": [runtime.to_json() | binary_facts(runtime.path) for runtime in runtimes],
    }


def binary_facts(path: str) -> dict[str, Any]:
    """What tells one build of a runtime from another: size, modification time and SHA-256 of the binary."""
    import hashlib

    status = Path(path).stat()
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"binary": {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest}}
