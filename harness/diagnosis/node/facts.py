"""The basic facts of a node, live or copied: kernel, cgroups, namespaces, security modules, capabilities."""

from __future__ import annotations

import os
import re
from typing import Any

from harness.cgroup.hierarchy import detect, parse_proc_cgroups
from harness.diagnosis.node.elf import machine_of
from harness.diagnosis.node.mounts import layout
from harness.diagnosis.node.tree import Tree
from harness.kernel import shim
from harness.oci.vocabulary import CAPABILITIES

_EFFECTIVE = re.compile(r"^CapEff:\s*([0-9a-f]+)$", re.MULTILINE)


def facts(tree: Tree) -> dict[str, Any]:
    """JSON-ready; what a copy does not tell is None. `path` of a controller is the mount point of its hierarchy."""
    return {
        "kernel": _kernel(tree),
        "cgroup": _cgroup(tree),
        "namespaces": _namespaces(tree),
        "lsm": _lsm(tree),
        "capabilities": {"missing": _missing_capabilities(tree) if tree.live else None},
    }


def _kernel(tree: Tree) -> dict[str, Any]:
    if tree.live:
        uname = os.uname()
        return {"release": uname.release, "version": uname.version, "machine": uname.machine}
    release = (tree.read("/proc/sys/kernel/osrelease") or "").strip()
    if not release:  # "Linux version 6.1.0-18-amd64 ...", "Linux host 6.1.0-18-amd64 ..."
        texts = (tree.read(path) for path in ("/proc/version", "/uname", "/sos_commands/kernel/uname_-a"))
        words = next((text.split() for text in texts if text), [])
        release = words[2] if len(words) > 2 else ""
    machine = machine_of(tree)
    return {"release": release or None, "version": None, "machine": machine[0] if machine else None}


def _cgroup(tree: Tree) -> dict[str, Any]:
    found = detect() if tree.live else layout(tree)
    try:
        known = [each.name for each in parse_proc_cgroups(tree.read("/proc/cgroups") or "")]
    except ValueError as error:
        tree.miss("/proc/cgroups", str(error))
        known = []
    controllers = {}
    for name, version in found.versions(known).items():
        hierarchy = found.hierarchy(name)
        controllers[name] = {"version": version, "path": hierarchy.mount_point if hierarchy else None}
    return {"mode": found.mode, "controllers": controllers}


def _namespaces(tree: Tree) -> dict[str, Any]:
    """{kind: {"present": whether this kernel has it}}; {} for a copy."""
    if not tree.live:
        return {}
    there = set(tree.entries("/proc/self/ns"))
    return {kind: {"present": kind in there} for kind in shim.NAMESPACES if not kind.endswith("_for_children")}


def _lsm(tree: Tree) -> list[str] | None:
    """Active security modules; where securityfs is not mounted only those that show themselves elsewhere."""
    text = tree.read("/sys/kernel/security/lsm")
    if text is not None:
        return [name for name in text.strip().split(",") if name]
    if not tree.live:
        return None
    tree.miss(
        "/sys/kernel/security/lsm", "securityfs is not mounted; apparmor and selinux are known by their own files"
    )
    apparmor = (tree.read("/sys/module/apparmor/parameters/enabled") or "").strip() == "Y"
    selinux = tree.exists("/sys/fs/selinux/enforce")
    return [name for name, active in (("apparmor", apparmor), ("selinux", selinux)) if active]


def _missing_capabilities(tree: Tree) -> list[str]:
    """Those of this kernel that this process has not in effect."""
    match = _EFFECTIVE.search(tree.read("/proc/self/status") or "")
    last = tree.number("/proc/sys/kernel/cap_last_cap")
    held = int(match[1], 16) if match else 0
    count = len(CAPABILITIES) if last is None else last + 1
    names = [*CAPABILITIES, *(f"CAP_{number}" for number in range(len(CAPABILITIES), count))][:count]
    return [name for number, name in enumerate(names) if not held >> number & 1]
