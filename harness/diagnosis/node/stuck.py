"""Runtimes and shims that wait in the kernel without end, and dead ones that nobody reaps."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

from harness.diagnosis.node.finding import Evidence, Finding, some
from harness.diagnosis.node.processes import Process, read_stat, table_of
from harness.diagnosis.node.tree import Tree
from harness.process.command import run

SETTLED_S = 0.5  # a process in state D or Z for a moment is nothing; one that is so still after this is
STACK_TIMEOUT_S = 2.0
_SWITCHES = re.compile(r"^(?:non)?voluntary_ctxt_switches:\s*(\d+)$", re.MULTILINE)
_LAST_RAN = re.compile(r"^se\.exec_start\s*:\s*(\d+)", re.MULTILINE)


def stuck_processes(tree: Tree) -> Iterator[Finding]:
    """State D without one context switch meanwhile, and zombies. In a copy: as the listing shows them."""
    table = table_of(tree)
    if table is None:
        return
    suspects = [each for each in table.of_role("runtime", "shim", "daemon") if each.state in "DZ"]
    if suspects and tree.live:
        before = {process.pid: _switches(tree, process.pid) for process in suspects}
        time.sleep(SETTLED_S)
        suspects = [process for process in suspects if _unmoved(tree, process, before[process.pid])]
    for process in suspects:
        if process.state == "D":
            yield _blocked(tree, process, table.source)
    zombies = [process for process in suspects if process.state == "Z"]
    if zombies:
        yield _zombies(zombies, {p: table.processes[p].comm for p in table.processes}, table.source)


def _switches(tree: Tree, pid: int) -> list[str]:
    return _SWITCHES.findall(tree.read(f"/proc/{pid}/status") or "")


def _unmoved(tree: Tree, process: Process, before: list[str]) -> bool:
    stat = read_stat(tree, process.pid)
    same = stat is not None and stat.start_ticks == process.start_ticks and stat.state == process.state
    return same and _switches(tree, process.pid) == before


def _blocked(tree: Tree, process: Process, source: str) -> Finding:
    where = f" in {process.wchan}" if process.wchan and process.wchan not in ("0", "-") else ""
    for_long = _waiting_s(tree, process)
    since = f" for {for_long} s" if for_long is not None else ""
    evidence = [Evidence(f"{source}/{process.pid}/stat" if source == "/proc" else source, f"state D{where}")]
    stack = _stack(process.pid) if tree.live else None
    if stack:
        evidence.append(Evidence(f"/proc/{process.pid}/stack", stack))
    return Finding(
        "process-blocked",
        "error" if tree.live else "warning",
        f"{process.comm} {process.pid} waits in the kernel{where}{since} (state D) and cannot be killed",
        "runtime-timeout",
        "Find what it waits for (the stack; dmesg): a disk, a network file system, a frozen or dying cgroup. Only when "
        "that answers, or after a reboot, does it go on.",
        tuple(evidence),
    )


def _waiting_s(tree: Tree, process: Process) -> int | None:
    """Since it last ran, by the scheduler's clock (/proc/PID/sched, where the kernel has it); None: not known."""
    ran = _LAST_RAN.search(tree.read(f"/proc/{process.pid}/sched") or "") if tree.live else None
    if ran is None:
        return None
    return max(0, int(time.clock_gettime(time.CLOCK_MONOTONIC)) - int(ran[1]) // 1000)


def _stack(pid: int) -> str | None:
    """Read by a child with a deadline: the kernel takes a lock for it that a process amid execve(2) holds."""
    try:
        done = run("cat", ["/bin/cat", f"/proc/{pid}/stack"], timeout_s=STACK_TIMEOUT_S)
    except OSError:
        return None
    return done.stdout.decode(errors="replace").strip() or None


def _zombies(zombies: list[Process], comms: dict[int, str], source: str) -> Finding:
    parents = sorted({f"{comms.get(z.ppid, '?')} {z.ppid}" for z in zombies if z.ppid is not None})
    who = some([f"{zombie.comm} {zombie.pid}" for zombie in zombies])
    by = f", children of {some(parents)}" if parents else ""
    mine = str(os.getpid())
    return Finding(
        "zombie",
        "info" if any(parent.endswith(f" {mine}") for parent in parents) else "warning",
        f"{len(zombies)} dead and not reaped: {who}{by}",
        "runtime-timeout",
        "Look at the parent: a shim or daemon that hangs no longer reaps. Restart that; the zombies go with it.",
        (Evidence(source, f"state Z: {who}"),),
    )
