"""The circumstances of a benchmark: everything known to move its figures, read from the kernel, never guessed."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

from harness.oci.bundle import Template
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
        "boost": _boost(),
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


def _net_namespaces() -> int | None:
    """Network namespaces that the kernel still holds, those that wait to be torn down included (slabinfo(5), root)."""
    try:
        lines = Path("/proc/slabinfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("net_namespace ")), None)


def _swap_bytes() -> int:
    """Swap that is on (proc_swaps(5)); 0 without any."""
    try:
        lines = Path("/proc/swaps").read_text().splitlines()[1:]
    except OSError:  # a kernel without swap
        return 0
    return sum(int(line.split()[2]) * 1024 for line in lines)


def _boost() -> bool | None:
    """Whether a CPU may go above its nominal frequency; None where the kernel does not say."""
    intel = read_line("/sys/devices/system/cpu/intel_pstate/no_turbo")
    if intel is not None:
        return intel == "0"
    boost = read_line("/sys/devices/system/cpu/cpufreq/boost")
    return None if boost is None else boost == "1"


def _own_seccomp_filters() -> int | None:
    """Seccomp filters on this process, which everything that it starts inherits; proc_pid_status(5), Linux 5.9."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    count = fields.get("Seccomp_filters")
    return None if count is None else int(count)


def _config_facts(template: Template) -> dict[str, Any]:
    """What of config.json is known to move a start's time by more than all the rest."""
    document = template.config.document
    linux = document.get("linux") or {}
    seccomp = linux.get("seccomp")
    return {
        "namespaces": [entry.get("type") for entry in linux.get("namespaces") or () if "path" not in entry],
        "seccomp": seccomp is not None,
        "seccomp_notify": "SCMP_ACT_NOTIFY" in json.dumps(seccomp) or bool((seccomp or {}).get("listenerPath")),
        "hooks": sum(len(entries) for entries in (document.get("hooks") or {}).values()),
    }


def record(runtimes: list[Runtime], choice: ViewChoice, template: Template | None = None) -> dict[str, Any]:
    """JSON-ready. A value that this kernel does not offer is None."""
    uname = platform.uname()
    lsm = read_line("/sys/kernel/security/lsm")
    return {
        "oci_harness": VERSION,
        "python": platform.python_version(),
        "kernel": {"release": uname.release, "version": uname.version, "machine": uname.machine},
        "cpu": _cpu_facts(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "swap_bytes": _swap_bytes(),
        "mitigations": _mitigations(),
        "lsm": lsm.split(",") if lsm else None,
        "own_seccomp_filters": _own_seccomp_filters(),
        "cgroup": choice.to_json(),
        "cgroup_driver": "cgroupfs",  # the harness never asks a runtime to go through systemd
        # clone3(2) CLONE_INTO_CGROUP knows cgroup v2 only; elsewhere each process is moved after it was born
        "clone_into_cgroup": choice.mode == "unified",
        "favordynmods": _favordynmods(),
        "rcu_expedited": read_line("/sys/kernel/rcu_expedited"),
        "rcu_normal": read_line("/sys/kernel/rcu_normal"),
        "transparent_hugepage": read_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load_before": load_average(),
        "net_namespaces_before": _net_namespaces(),
        "config": None if template is None else _config_facts(template),
        "runtimes": [runtime.to_json() | binary_facts(runtime.path) | _self_copy(runtime) for runtime in runtimes],
    }


def record_after() -> dict[str, Any]:
    """The part of the circumstances that a benchmark itself may have changed."""
    return {"load_after": load_average(), "net_namespaces_after": _net_namespaces()}


def _self_copy(runtime: Runtime) -> dict[str, Any]:
    """Whether each create and exec copies the whole binary; None where that is not known.

    runc from 1.0.0-rc7 on copies itself into a memfd against CVE-2019-5736; 1.2 seals it by an overlay mount where it
    may (libcontainer/dmz, runc's CHANGELOG for 1.2.0).
    """
    if runtime.dialect.name != "runc":
        return {"copies_itself": None}
    numbers = re.match(r"(\d+)\.(\d+)", runtime.version)
    if numbers is None:
        return {"copies_itself": None}
    return {"copies_itself": True if (int(numbers[1]), int(numbers[2])) < (1, 2) else None}


def binary_facts(path: str) -> dict[str, Any]:
    """What tells one build of a runtime from another: size, modification time and SHA-256 of the binary."""
    import hashlib

    status = Path(path).stat()
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"binary": {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest}}
