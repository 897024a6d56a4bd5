"""OOM kills in the kernel's log: who was killed, by which memory cgroup's limit, and how big it was."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct, field

from harness.diagnosis.node.finding import Evidence, Finding, some
from harness.diagnosis.node.kernel_text import Message
from harness.diagnosis.node.roles import Role, family, role

OURS = "/oci-harness-"  # cgroups that this package makes, to fail in

# Linux 4.19 and later, mm/oom_kill.c dump_oom_summary; a cgroup's name may hold anything but a newline
_SUMMARY = re.compile(
    r"oom-kill:constraint=(?P<constraint>\w+),.*?(?:,global_oom|,oom_memcg=(?P<limit>.*?)),task_memcg=(?P<cgroup>.*),"
    r"task=(?P<comm>.*),pid=(?P<pid>\d+),uid=\d+"
)
_ANNOUNCED = re.compile(r"(?P<kind>Memory cgroup out of memory|Out of memory)[^:]*: Kill process (?P<pid>\d+) ")
_KILLED = re.compile(
    r"(?:(?P<kind>Memory cgroup out of memory|Out of memory)[^:]*: )?Killed process (?P<pid>\d+) \((?P<comm>.*)\),? .*?"
    r"anon-rss:(?P<anon>\d+)kB, file-rss:(?P<file>\d+)kB(?:, shmem-rss:(?P<shmem>\d+)kB)?"
)


class Kill(Struct):
    """One kill, put together from the lines that tell of it."""

    pid: int
    comm: str
    scope: Literal["cgroup", "node"] | None = None  # whose memory was short; None: the log does not say
    limit: str | None = None  # the memory cgroup whose limit was reached
    cgroup: str | None = None  # that of the process
    rss_kb: int | None = None
    messages: list[Message] = field(default_factory=list)

    @property
    def role(self) -> Role | None:
        return role(self.comm)


def kills_in(messages: Iterable[Message]) -> list[Kill]:
    """All kills, in the order of their first line."""
    found: dict[int, Kill] = {}
    announced: dict[int, Literal["cgroup", "node"]] = {}
    for message in messages:
        if match := _SUMMARY.search(message.text):
            kill = found.setdefault(int(match["pid"]), Kill(int(match["pid"]), match["comm"]))
            kill.scope = "node" if match["limit"] is None else "cgroup"
            kill.limit, kill.cgroup = match["limit"], match["cgroup"]
            kill.messages.append(message)
        elif match := _KILLED.search(message.text):
            pid = int(match["pid"])
            kill = found.setdefault(pid, Kill(pid, match["comm"]))
            kill.rss_kb = sum(int(match[name] or 0) for name in ("anon", "file", "shmem"))
            kill.scope = kill.scope or (_scope(match["kind"]) if match["kind"] else announced.get(pid))
            kill.messages.append(message)
        elif match := _ANNOUNCED.search(message.text):
            announced[int(match["pid"])] = _scope(match["kind"])
    return list(found.values())


def _scope(kind: str) -> Literal["cgroup", "node"]:
    return "cgroup" if kind.startswith("Memory cgroup") else "node"


def oom_kills(messages: Iterable[Message]) -> Iterator[Finding]:
    """One finding for each program killed and kind of shortage. A container's own program that hit its own limit is
    no matter of the node and left out."""
    groups: dict[tuple[str, str], list[Kill]] = {}
    elsewhere: list[Kill] = []
    for kill in kills_in(messages):
        if kill.role is not None:
            groups.setdefault((family(kill.comm), _situation(kill)), []).append(kill)
        elif kill.scope == "node":
            elsewhere.append(kill)
    for (comm, situation), kills in groups.items():
        yield _of_stack(comm, situation, kills)
    if elsewhere:
        yield _of_node(elsewhere)


def _situation(kill: Kill) -> str:
    """`init`: the limit is the container's own; `unit`: the one of a daemon's unit; `node`: all memory was used."""
    if OURS in (kill.limit or ""):
        return "ours"
    if kill.scope == "cgroup":
        return "unit" if (kill.limit or "").rstrip("/").endswith(".service") else "init"
    return "node"


def _evidence(kills: list[Kill]) -> tuple[Evidence, ...]:
    lines = [message for kill in kills[-2:] for message in kill.messages]
    return tuple(Evidence(each.where, f"{each.when} {each.text}".strip()) for each in lines)


def _of_stack(comm: str, situation: str, kills: list[Kill]) -> Finding:
    last = kills[-1]
    size = f", {last.rss_kb} kB resident" if last.rss_kb is not None else ""
    times = f"{len(kills)} times, last" if len(kills) > 1 else "once, as"
    when = last.messages[-1].when
    who = f"the OOM killer killed {comm} {times} pid {last.pid}{size} ({when})"
    limits = some(sorted({kill.limit for kill in kills if kill.limit}))
    at = f", at the limit of {limits}" if limits else ""
    dead = "shim-died" if last.role == "shim" else "runtime-crash" if last.role == "runtime" else "symptom-only"
    if situation == "ours":
        return Finding(
            "oom-kill-own",
            "info",
            f"{who}{at}: made on purpose by oci-harness",
            "oom-during-init",
            "Nothing to be done.",
            _evidence(kills),
        )
    if situation == "init":
        return Finding(
            "oom-kill-in-container",
            "warning",
            f"{who}{at}: the container's memory limit is below what its start takes",
            "oom-during-init" if last.role == "runtime" else dead,
            "Raise the container's memory limit (a forgotten Mi is typical); the runtime's init needs about 10 MiB.",
            _evidence(kills),
        )
    if situation == "unit":
        return Finding(
            "oom-kill-in-unit",
            "warning",
            f"{who}{at}: the unit's own memory limit",
            dead,
            "Raise or remove MemoryMax= of that unit (systemctl show -p MemoryMax), and restart it.",
            _evidence(kills),
        )
    return Finding(
        "oom-kill-on-node",
        "warning",
        f"{who}: the node had no memory left",
        dead,
        "Free memory: reserve some for the system (kube-reserved, system-reserved), lower the limits of pods, or find "
        "the largest process in the table that the log prints.",
        _evidence(kills),
    )


def _of_node(kills: list[Kill]) -> Finding:
    last = kills[-1]
    size = f" ({last.rss_kb} kB resident)" if last.rss_kb is not None else ""
    return Finding(
        "node-out-of-memory",
        "warning",
        f"the node ran out of memory: the OOM killer killed {some([f'{kill.comm} {kill.pid}' for kill in kills])}, "
        f"last {last.comm}{size} at {last.messages[-1].when}",
        "symptom-only",
        "Reserve memory for the system (kube-reserved, system-reserved), lower the limits of pods, or add memory.",
        _evidence(kills),
    )
