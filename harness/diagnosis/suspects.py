"""Where in config.json a failure's text points to: the order in which the minimizer tries things, and no more.

A wrong guess costs a few containers; no verdict rests on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from harness.diagnosis.skeleton import LACK
from harness.oci import pointer as json_pointer

_LONG: Final = 200  # characters of a value that are looked for in the text
_BY_FILE: Final = 60  # points for the member that a cgroup file belongs to: nothing else says it as plainly
_BY_CAUSE: Final = 25  # for a place where the cause usually sits

# Names of cgroup files (v1 and v2), the member that sets them.
_CGROUP_FILES: Final = (
    (r"memory\.(?:limit_in_bytes|max)\b", "/linux/resources/memory/limit"),
    (r"memory\.(?:memsw\.\w+|swap\.max)\b", "/linux/resources/memory/swap"),
    (r"memory\.(?:soft_limit_in_bytes|low)\b", "/linux/resources/memory/reservation"),
    (r"memory\.swappiness\b", "/linux/resources/memory/swappiness"),
    (r"memory\.oom_control\b", "/linux/resources/memory/disableOOMKiller"),
    (r"cpu\.(?:shares|weight)\b", "/linux/resources/cpu/shares"),
    (r"cpu\.(?:cfs_quota_us|max)\b", "/linux/resources/cpu/quota"),
    (r"cpu\.(?:cfs_period_us|max)\b", "/linux/resources/cpu/period"),
    (r"cpu\.rt_runtime_us\b", "/linux/resources/cpu/realtimeRuntime"),
    (r"cpu\.rt_period_us\b", "/linux/resources/cpu/realtimePeriod"),
    (r"cpu\.idle\b", "/linux/resources/cpu/idle"),
    (r"cpuset\.cpus\b", "/linux/resources/cpu/cpus"),
    (r"cpuset\.mems\b", "/linux/resources/cpu/mems"),
    (r"pids\.max\b", "/linux/resources/pids/limit"),
    (r"hugetlb\.", "/linux/resources/hugepageLimits"),
    (r"rdma\.max\b", "/linux/resources/rdma"),
    (r"net_cls\.", "/linux/resources/network/classID"),
    (r"net_prio\.", "/linux/resources/network/priorities"),
    (r"(?:blkio|io)\.(?:bfq\.)?(?:weight|throttle|max|latency)", "/linux/resources/blockIO"),
    (r"devices\.(?:allow|deny)\b|bpf", "/linux/resources/devices"),
    (r"oom_score_adj", "/process/oomScoreAdj"),
    (r"attr/(?:keycreate|exec)|selinux|security label", "/process/selinuxLabel"),
    (r"apparmor", "/process/apparmorProfile"),
    (r"(?:clone|unshare|setns|nsenter|namespace)", "/linux/namespaces"),
    (r"(?:chdir|cwd)", "/process/cwd"),
    (r"(?:setgroups|setgid|setuid|user)", "/process/user"),
    (r"capset|capabilit", "/process/capabilities"),
    (r"(?:resctrl|intelrdt|intel_rdt)", "/linux/intelRdt"),
    (r"\bspec version|ociversion|semver|\bversion\b", "/ociVersion"),
)

# Beginning of a cause's slug, where it usually sits; likelier first.
_CAUSES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("exec-", ("/process/args", "/process/user", "/process/env", "/mounts")),
    ("missing-interpreter", ("/process/args", "/mounts")),
    ("cwd-", ("/process/cwd", "/process/user", "/mounts", "/root/readonly")),
    ("user-not-found", ("/process/user",)),
    ("setuid-", ("/process/noNewPrivileges", "/process/args", "/process/user", "/mounts")),
    ("mount-", ("/mounts", "/root/readonly")),
    ("idmapped-", ("/mounts",)),
    ("overlay-", ("/mounts",)),
    ("rootfs-readonly", ("/root/readonly", "/mounts")),
    ("rootfs-", ("/root/path", "/process/user", "/linux/namespaces", "/linux/rootfsPropagation")),
    ("procfs-", ("/linux/maskedPaths", "/linux/readonlyPaths", "/mounts")),
    ("no-space", ("/mounts", "/linux/resources")),
    ("cpuset", ("/linux/resources/cpu/cpus", "/linux/resources/cpu/mems", "/linux/cgroupsPath")),
    ("cgroup-path", ("/linux/cgroupsPath",)),
    ("cgroup-", ("/linux/resources", "/linux/cgroupsPath")),
    ("device-cgroup", ("/linux/resources/devices", "/linux/devices")),
    ("hugetlb", ("/linux/resources/hugepageLimits",)),
    ("intel-rdt", ("/linux/intelRdt",)),
    ("oom-during", ("/linux/resources/memory",)),
    ("oom-score", ("/process/oomScoreAdj",)),
    ("pids-", ("/linux/resources/pids", "/process/rlimits")),
    ("namespace-", ("/linux/namespaces", "/linux/timeOffsets")),
    ("userns-", ("/linux/uidMappings", "/linux/gidMappings", "/process/user", "/linux/namespaces")),
    ("newuidmap", ("/linux/uidMappings", "/linux/gidMappings")),
    ("capability", ("/process/capabilities",)),
    ("seccomp", ("/linux/seccomp",)),
    ("apparmor", ("/process/apparmorProfile",)),
    ("selinux", ("/process/selinuxLabel", "/linux/mountLabel")),
    ("rlimit", ("/process/rlimits",)),
    ("sysctl", ("/linux/sysctl",)),
    ("tty-", ("/process/terminal",)),
    ("hooks-", ("/hooks",)),
    ("nvidia-", ("/hooks",)),
    ("runtime-timeout", ("/hooks",)),
)


class Suspicion:
    """The words of one failure."""

    def __init__(self, text: str, cause: str | None, fields: Iterable[str] = ()) -> None:
        self._text = "\n".join([text, *fields]).lower()
        self._plain = re.sub(r"[^a-z0-9]", "", self._text)
        self._places = [(place, _BY_FILE) for pattern, place in _CGROUP_FILES if re.search(pattern, self._text)]
        if cause is not None:
            found = next((places for slug, places in _CAUSES if cause.startswith(slug)), ())
            self._places += [(place, _BY_CAUSE - rank) for rank, place in enumerate(found)]

    def score(self, pointer: str, value: Any) -> int:
        """Points for a place: the longest of its words that the text has, and what the tables say. 0: no suspect."""
        pointer = pointer.removeprefix(LACK).partition("=")[0]
        tables = sum(points for place, points in self._places if pointer == place or pointer.startswith(place + "/"))
        words = max((len(word) for word in _words(value) if self._says(word)), default=0)
        return tables + words + sum(self._names(token) for token in json_pointer.parse(pointer)[-2:])

    def order(self, places: Iterable[tuple[str, Any]]) -> tuple[list[str], int]:
        """(pointers, likeliest first and else as they come; how many of them are suspects)."""
        scored = [(self.score(pointer, value), pointer) for pointer, value in places]
        ranked = sorted(scored, key=lambda each: -each[0])
        return [pointer for _, pointer in ranked], sum(points > 0 for points, _ in ranked)

    def _says(self, word: str) -> bool:
        """Whether the text has the word, and not only as a part of another."""
        at = self._text.find(word)
        while at >= 0:
            before, after = self._text[at - 1 : at], self._text[at + len(word) : at + len(word) + 1]
            if not (before and before in _INSIDE and word[0] in _INSIDE) and not (after and after in _INSIDE):
                return True
            at = self._text.find(word, at + 1)
        return False

    def _names(self, token: str) -> int:
        """A member's own name, however it is written: oomScoreAdj, oom_score_adj, RLIMIT for rlimits."""
        plain = re.sub(r"[^a-z0-9]", "", token.lower()).removesuffix("s")
        return len(plain) if len(plain) >= 4 and plain in self._plain else 0


_INSIDE: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_/-.")


def _words(value: Any) -> Iterator[str]:
    """The single values in a value, in lower case, as a text may have them: a path without its first slash too."""
    if isinstance(value, dict):
        for key, each in value.items():
            if "." in key or "/" in key:
                yield from _words(key)
            yield from _words(each)
    elif isinstance(value, list):
        for each in value:
            yield from _words(each)
    elif isinstance(value, str) and 3 <= len(value) <= _LONG:
        text = value.lower()
        yield text
        if text[0] == "/" and len(text) > 3:
            yield text[1:]
    elif isinstance(value, int) and not isinstance(value, bool) and not 0 <= value < 10:
        yield str(value)
