"""What a fault needs of this host, found by trying; {name: probe}. A probe says why not, or None."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from harness.cgroup import groups
from harness.kernel import shim
from harness.runtime.session import Session

Probe = Callable[[Session, str], str | None]


def _root(_session: Session, _argument: str) -> str | None:
    return None if os.geteuid() == 0 else "not root"


def _cgroup(session: Session, version: str) -> str | None:
    versions = {hierarchy.version for hierarchy in session.layout.hierarchies if hierarchy.controllers}
    return None if int(version) in versions else f"no cgroup v{version} controller in this view"


def _version(session: Session, name: str) -> int | None:
    """The version in which runtimes can use a controller: what v2 has in a hybrid layout they pass over."""
    found = session.layout.version(name)
    return None if found == 2 and session.layout.mode == "hybrid" else found


def _controller(session: Session, argument: str) -> str | None:
    """`memory` in any version, `memory:1` in version 1."""
    name, _, version = argument.partition(":")
    found = _version(session, name)
    if found is None:
        only = " that is not of v2 only" if session.layout.version(name) else ""
        return f"no {name} controller{only} in this view"
    return None if not version or found == int(version) else f"{name} is a cgroup v{found} controller in this view"


def _cgroup_file(session: Session, name: str) -> str | None:
    """`cpu.rt_runtime_us`: whether a new cgroup has this file; what is before the dot is the controller."""
    controller = name.partition(".")[0]
    hierarchy = session.layout.hierarchy(controller)
    if hierarchy is None or _version(session, controller) is None:
        return f"no {controller} controller in this view"
    path = f"{session.workspace.cgroup}/file-probe"

    def look() -> bool:
        created = groups.create(session.layout, path, [controller], exist_ok=True)
        try:
            return Path(hierarchy.mount_point, path, name).exists()
        finally:
            groups.remove(session.layout, path, enabled=created.enabled)

    return None if session.namespace.call(look) else f"this kernel has no {name}"


def _no_cgroup_file(session: Session, name: str) -> str | None:
    return f"there is {name}" if _cgroup_file(session, name) is None else None


def _no_controller(session: Session, name: str) -> str | None:
    return f"the {name} controller is there" if _version(session, name) else None


def _mode(session: Session, modes: str) -> str | None:
    return None if session.layout.mode in modes.split("|") else f"the runtime sees a {session.layout.mode} layout"


def _v2_controller(session: Session, _argument: str) -> str | None:
    """Whether cgroup v2 has a controller, mounted or not: a mount in a namespace that is gone right after tells."""
    target = session.workspace.path / "cgroup2-probe"

    def look() -> bool:
        target.mkdir()
        try:
            shim.mount("none", str(target), "cgroup2")
            try:
                return bool((target / "cgroup.controllers").read_text().split())
            finally:
                shim.umount(str(target), shim.MNT_DETACH)
        finally:
            target.rmdir()

    try:
        return None if session.namespace.call(look) else "cgroup v2 has no controller in this kernel"
    except OSError as error:
        return f"cgroup v2 cannot be mounted: {error.strerror}"


def _directory(session: Session, path: str) -> str | None:
    return None if session.namespace.call(Path(path).is_dir) else f"no directory {path} in this view"


def _cpus(_session: Session, count: str) -> str | None:
    found = os.cpu_count() or 1
    return None if found >= int(count) else f"{found} CPUs, {count} are needed"


def _lsm(_session: Session, name: str) -> str | None:
    loaded = Path("/sys/kernel/security/lsm")
    names = loaded.read_text().split(",") if loaded.exists() else _lsm_by_effect()
    return None if name in names else f"{name} is not active in this kernel"


def _lsm_by_effect() -> list[str]:
    found = []
    if Path("/sys/module/apparmor/parameters/enabled").exists():
        found.append("apparmor")
    if Path("/sys/fs/selinux/enforce").exists():
        found.append("selinux")
    return found


def _no_lsm(session: Session, name: str) -> str | None:
    return f"{name} is active in this kernel" if _lsm(session, name) is None else None


def _capability_missing(_session: Session, name: str) -> str | None:
    return f"{name} is there" if has_capability(name) else None


def _capability(_session: Session, name: str) -> str | None:
    return None if has_capability(name) else f"{name} is missing"


def has_capability(name: str) -> bool:
    """Whether this process has a capability in effect; `CAP_SYS_RESOURCE`."""
    import prctl

    return bool(getattr(prctl.cap_effective, name.removeprefix("CAP_").lower()))


def _command(_session: Session, name: str) -> str | None:
    return None if shutil.which(name) else f"no {name} on this host"


def _overlay(session: Session, _argument: str) -> str | None:
    known = Path("/proc/filesystems").read_text().split()
    return None if "overlay" in known else "no overlay file system in this kernel"


def _user_namespace(_session: Session, _argument: str) -> str | None:
    return None if Path("/proc/self/ns/user").exists() else "no user namespaces in this kernel"


def _time_namespace(_session: Session, _argument: str) -> str | None:
    return None if Path("/proc/self/ns/time").exists() else "no time namespaces in this kernel"


def _no_systemd(_session: Session, _argument: str) -> str | None:
    return "systemd runs" if Path("/run/systemd/system").exists() else None


def _systemd(_session: Session, _argument: str) -> str | None:
    return None if Path("/run/systemd/system").exists() else "systemd does not run"


PROBES: dict[str, Probe] = {
    "root": _root,
    "cgroup": _cgroup,
    "controller": _controller,
    "cgroup-file": _cgroup_file,
    "no-cgroup-file": _no_cgroup_file,
    "no-controller": _no_controller,
    "mode": _mode,
    "v2-controller": _v2_controller,
    "directory": _directory,
    "cpus": _cpus,
    "lsm": _lsm,
    "no-lsm": _no_lsm,
    "capability": _capability,
    "no-capability": _capability_missing,
    "command": _command,
    "overlay": _overlay,
    "user-namespace": _user_namespace,
    "time-namespace": _time_namespace,
    "no-systemd": _no_systemd,
    "systemd": _systemd,
}


def unmet(session: Session, needs: list[str]) -> str | None:
    """Why a fault cannot happen here; None when it can. A need is `name` or `name:argument`."""
    for need in needs:
        name, _, argument = need.partition(":")
        reason = PROBES[name](session, argument)
        if reason is not None:
            return reason
    return None
