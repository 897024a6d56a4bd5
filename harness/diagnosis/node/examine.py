"""All checks over one tree: each looks at one field, none changes anything, none stops the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from harness.diagnosis.node import (
    binaries,
    drivers,
    filesystems,
    kernel_log,
    limits,
    sockets,
    state,
    stuck,
)
from harness.diagnosis.node.elf import executable
from harness.diagnosis.node.finding import SEVERITIES, Examination, Finding
from harness.diagnosis.node.tree import Tree

Check = Callable[[Tree], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "kernel-log": kernel_log.kernel_log,
    "file-systems": filesystems.file_systems,
    "stuck-processes": stuck.stuck_processes,
    "recorded-state": state.recorded_state,
    "containerd-tasks": state.containerd_tasks,
    "containerd-metadata": state.containerd_metadata,
    "sockets": sockets.sockets,
    "pid-files": sockets.pid_files,
    "configurations": drivers.configurations,
    "cgroup-drivers": drivers.cgroup_drivers,
    "cgroup-mode": drivers.cgroup_mode,
    "runtime-binaries": binaries.runtime_binaries,
    "apparmor-parser": binaries.apparmor_parser,
    "key-quota": limits.key_quota,
    "tasks": limits.tasks,
    "namespaces": limits.namespaces,
    "bpf-jit": limits.bpf_jit,
    "mount-table": limits.mount_table,
    "open-files": limits.open_files,
    "inotify": limits.inotify,
    "terminals": limits.pseudo_terminals,
    "cgroups": limits.cgroups,
}


def examine(tree: Tree, executables: tuple[str, ...] = ()) -> Examination:
    """Look at everything; `executables`: paths of the tree, further files that must be executable here.

    Never raises: what could not be looked at is in `unseen`.
    """
    result = Examination()
    checks = CHECKS | {
        f"executable {path}": lambda tree, path=path: executable(tree, path, "executable") for path in executables
    }
    for name, check in checks.items():
        result.checks.append(name)
        try:
            for finding in check(tree):
                result.findings.append(finding)
        except Exception as error:  # a file of a form that nobody thought of must not hide the other findings
            tree.miss(f"check {name}", f"{type(error).__name__}: {error}")
    result.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    result.unseen = list(tree.unseen)
    return result


def live() -> Tree:
    """The node that this runs on."""
    return Tree(Path("/"), live=True)


def copied(root: Path) -> Tree:
    """A copy of a node's files, of a support bundle say."""
    return Tree(root, live=False)
