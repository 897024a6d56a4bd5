"""In what the circumstances of two results differ, of all that is known to move figures."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from harness.report.saved import Circumstances, fact, runtime_fact

SETTINGS: Final = ("recipe", "order", "parallel", "pause_ms", "end", "cold")
# place in the environment: what it is called
FACTS: Final = {
    "kernel/release": "kernel",
    "kernel/version": "kernel build",
    "kernel/machine": "architecture",
    "cpu/model": "CPU",
    "cpu/usable": "usable CPUs",
    "cpu/virtual_machine": "virtual machine",
    "cpu/boost": "CPU boost",
    "cpu/governor": "governor",
    "cpu/clocksource": "clock source",
    "memory_bytes": "memory",
    "swap_bytes": "swap",
    "mitigations": "mitigations",
    "lsm": "LSM",
    "own_seccomp_filters": "seccomp filters on the harness",
    "cgroup/view": "cgroup view",
    "cgroup/mode": "cgroup mode",
    "cgroup/steps": "steps to the view",
    "cgroup_driver": "cgroup driver",
    "favordynmods": "favordynmods",
    "rcu_expedited": "rcu_expedited",
    "rcu_normal": "rcu_normal",
    "transparent_hugepage": "transparent huge pages",
    "config": "config.json",
    "oci_harness": "oci-harness",
}
ALIKE: Final = {"memory_bytes": 0.01}  # relative: what a kernel reserves at boot varies a little


class Differing(Struct, frozen=True):
    """One fact; None: not recorded, or nothing that this kernel offers."""

    what: str
    old: Any
    new: Any
    subject: bool = False  # the runtime itself, which may be what the comparison is about

    def __str__(self) -> str:
        if isinstance(self.old, dict) and isinstance(self.new, dict):
            names = sorted(name for name in self.old | self.new if self.old.get(name) != self.new.get(name))
            return f"{self.what} ({', '.join(names)})"
        return f"{self.what} {_short(self.old)} -> {_short(self.new)}"

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, "old": self.old, "new": self.new, "subject": self.subject}


def _short(value: Any) -> str:
    if value is None:
        return "not known"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _alike(place: str, old: Any, new: Any) -> bool:
    if place in ALIKE and isinstance(old, int) and isinstance(new, int) and min(old, new) > 0:
        return abs(old / new - 1) <= ALIKE[place]
    return bool(old == new)


def differing(old: Circumstances, new: Circumstances, pairs: list[tuple[str, str]]) -> list[Differing]:
    """`pairs`: (name in old, name in new) of each runtime that is compared."""
    found = [
        Differing(name.replace("_", "-"), before, after)
        for name in SETTINGS
        if (before := old.settings.get(name)) != (after := new.settings.get(name))
    ]
    found += [
        Differing(name, before, after)
        for place, name in FACTS.items()
        if not _alike(place, before := fact(old.environment, place), after := fact(new.environment, place))
    ]
    return found + [each for a, b in pairs for each in _runtime(old, a, new, b)]


def _runtime(old: Circumstances, a: str, new: Circumstances, b: str) -> list[Differing]:
    """The version where it differs, else the binary."""
    for place, name in (("version", "version"), ("binary/sha256", "binary")):
        before, after = runtime_fact(old.environment, a, place), runtime_fact(new.environment, b, place)
        if before != after:
            called = a if a == b else f"{a} / {b}"
            return [Differing(f"{called} {name}", before, after, subject=True)]
    return []


def same_binary(old: Circumstances, a: str, new: Circumstances, b: str) -> bool:
    before, after = (runtime_fact(r.environment, name, "binary/sha256") for r, name in ((old, a), (new, b)))
    return before is not None and bool(before == after)
