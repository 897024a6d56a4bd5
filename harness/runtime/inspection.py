"""Everything the kernel shows of one process or container: namespaces, cgroup figures, network interfaces."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.cgroup.files import CgroupFiles
from harness.cgroup.hierarchy import Layout, cgroup_paths, detect
from harness.errors import InputError
from harness.kernel import namespaces, procfs, shim


def inspect_process(pid: int, layout: Layout | None = None, *, network: bool = True) -> dict[str, Any]:
    """JSON-ready: {pid, comm, state, start_ticks, namespaces{}, cgroup{}, network[]}.

    Raises InputError when there is no such process.
    """
    stat = procfs.process_stat(pid)
    if stat is None:
        raise InputError(f"no process {pid}")
    layout = layout or detect()
    try:
        return {
            "pid": pid,
            "comm": stat.comm,
            "state": stat.state,
            "start_ticks": stat.start_ticks,
            "namespaces": _namespaces(pid),
            "cgroup": inspect_cgroup(pid, layout),
            "network": _network(pid) if network else None,
        }
    except ProcessLookupError:
        raise InputError(f"process {pid} ended while it was looked at") from None


def _namespaces(pid: int) -> dict[str, Any]:
    try:
        theirs, own = namespaces.namespaces_of(pid), namespaces.namespaces_of(os.getpid())
    except PermissionError:
        return {"reason": f"/proc/{pid}/ns may not be read (ptrace(2), PTRACE_MODE_READ)"}
    shared = namespaces.shared(theirs, own)
    return {
        kind: None if found is None else {"inode": found.inode, "shared_with_host": shared[kind]}
        for kind, found in theirs.items()
    }


def inspect_cgroup(pid: int, layout: Layout) -> dict[str, Any]:
    """{mode, paths{controller: path}, statistics{}} of the cgroup that a process is in now."""
    paths = {key or "unified": path for key, (_, path) in cgroup_paths(pid, layout).items()}
    with CgroupFiles.of_pid(layout, pid) as files:
        statistics = files.snapshot().to_json()
    return {"mode": layout.mode, "paths": paths, "statistics": statistics}


def _network(pid: int) -> list[dict[str, Any]] | dict[str, str]:
    """Interfaces and addresses in the process's network namespace; {"reason"} where they cannot be read."""
    # Not pyroute2's NetNS: it forks to open its socket, and the child of a process that has threads (a session has
    # one) may wait for ever for a lock that only the parent could release. A thread may enter the namespace alone.
    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            return thread.submit(_interfaces, pid).result()
        except OSError as error:
            return {"reason": os.strerror(error.errno) if error.errno else str(error)}


def _interfaces(pid: int) -> list[dict[str, Any]]:
    """For a thread that ends with it: it stays in the network namespace of `pid` (setns(2))."""
    from pyroute2 import IPRoute

    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        shim.setns(fd, shim.CLONE_FLAGS["net"])
    finally:
        os.close(fd)
    with IPRoute() as netns:
        addresses: dict[int, list[str]] = {}
        for message in netns.get_addr():
            addresses.setdefault(message["index"], []).append(f"{message.get('address')}/{message['prefixlen']}")
        return [
            {
                "name": link.get("ifname"),
                "state": link.get("state"),
                "mtu": link.get("mtu"),
                "addresses": addresses.get(link["index"], []),
            }
            for link in netns.get_links()
        ]
