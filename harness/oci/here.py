"""What this host has of the things that a config.json from another host may ask for."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Self

from msgspec import Struct

from harness.oci.vocabulary import CAPABILITIES, RLIMITS

CAP_SYS_RESOURCE = 24
_SIZE = re.compile(r"hugepages-(\d+)kB")


class Here(Struct, frozen=True):
    """Facts of this host, and of the process that asks."""

    capabilities: frozenset[str]  # names that a container may get: known to the kernel, in our bounding set
    raises_limits: bool  # CAP_SYS_RESOURCE
    hard_limits: dict[str, int | None]  # RLIMIT_*: our hard limit, None is infinity
    oom_score_adj: int
    hugepage_sizes: frozenset[str]  # as the spec writes them: 2MB
    cpus: frozenset[int] | None  # online; None: not known
    nodes: frozenset[int] | None  # online memory nodes; None: not known
    apparmor: frozenset[str] | None  # loaded profiles; None: AppArmor is off
    selinux: bool
    controllers: frozenset[str]  # of cgroups, by the kernel's names, that a runtime can use
    unified: bool  # whether cgroup v2 has more than one of them
    swap_limit: bool  # whether memory and swap together can be limited
    rdt: bool
    uids: tuple[range, ...]  # ids that are mapped where we are
    gids: tuple[range, ...]

    @classmethod
    def look(cls) -> Self:
        """Ask the kernel. Never raises: what cannot be read is not there, or not known."""
        status = dict(line.split(":\t", 1) for line in _text("/proc/self/status").splitlines() if ":\t" in line)
        bounding, effective = (int(status.get(name, "0").strip() or "0", 16) for name in ("CapBnd", "CapEff"))
        controllers, unified, swap = _controllers()
        return cls(
            capabilities=frozenset(name for bit, name in enumerate(CAPABILITIES) if bounding >> bit & 1),
            raises_limits=bool(effective >> CAP_SYS_RESOURCE & 1),
            hard_limits={name: _hard_limit(name) for name in RLIMITS if hasattr(resource, name)},
            oom_score_adj=int(_text("/proc/self/oom_score_adj").strip() or "0"),
            hugepage_sizes=frozenset(_page_sizes()),
            cpus=_numbers(_text("/sys/devices/system/cpu/online")),
            nodes=_numbers(_text("/sys/devices/system/node/online")),
            apparmor=_profiles(),
            selinux=Path("/sys/fs/selinux/enforce").exists(),
            controllers=controllers,
            unified=unified,
            swap_limit=swap,
            rdt=Path("/sys/fs/resctrl/schemata").exists(),
            uids=_mapped("/proc/self/uid_map"),
            gids=_mapped("/proc/self/gid_map"),
        )


def _controllers() -> tuple[frozenset[str], bool, bool]:
    """Usable controllers, whether they are those of cgroup v2, whether memory and swap can be limited together.

    Of a hybrid layout runtimes use version 1 alone.
    """
    v1: set[str] = set()
    v2: set[str] = set()
    swap = False
    for line in _text("/proc/self/mountinfo").splitlines():
        front, _, back = line.partition(" - ")
        kind, _, options = (*back.split(), "", "", "")[:3]
        place = front.split()[4]
        if kind == "cgroup":
            v1.update(options.split(","))
            swap = swap or Path(f"{place}/memory.memsw.limit_in_bytes").exists()
        elif kind == "cgroup2":
            v2.update(_text(f"{place}/cgroup.controllers").split())
    if "memory" in v2 or "pids" in v2:
        return frozenset(v2), True, "memory" in v2
    return frozenset(v1), False, swap


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _hard_limit(name: str) -> int | None:
    hard = resource.getrlimit(getattr(resource, name))[1]
    return None if hard == resource.RLIM_INFINITY else hard


def _page_sizes() -> list[str]:
    """Documentation/admin-guide/mm/hugetlbpage.rst; names as in the kernel's hugetlb cgroup files."""
    sizes = []
    for path in Path("/sys/kernel/mm/hugepages").glob("hugepages-*"):
        match = _SIZE.fullmatch(path.name)
        if match:
            kib = int(match[1])
            sizes.append(f"{kib >> 20}GB" if kib >> 20 else f"{kib >> 10}MB" if kib >> 10 else f"{kib}KB")
    return sizes


def parse_list(text: str) -> frozenset[int] | None:
    """`0-3,7` -> {0, 1, 2, 3, 7}; None when it is no such list (cpuset(7), List format)."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()) or int(last or first) > 65535:
            return None
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def _numbers(text: str) -> frozenset[int] | None:
    return parse_list(text) if text.strip() else None


def _profiles() -> frozenset[str] | None:
    if _text("/sys/module/apparmor/parameters/enabled").strip() != "Y":
        return None
    lines = _text("/sys/kernel/security/apparmor/profiles").splitlines()
    return frozenset(line.rpartition(" (")[0] for line in lines)


def _mapped(path: str) -> tuple[range, ...]:
    """user_namespaces(7): the ids inside of our namespace."""
    lines = [[int(number) for number in line.split()] for line in _text(path).splitlines()]
    return tuple(range(start, start + size) for start, _, size in lines)
