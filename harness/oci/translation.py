"""A container as docker or podman describes it -> the config.json that their engine would have handed to a runtime.

Source: moby daemon/oci_linux.go and daemon/pkg/oci, podman pkg/specgen/generate. The recipe `default` is the ground.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Any

from msgspec import Struct, field

from harness.errors import InputError
from harness.oci.here import Here
from harness.oci.host_part import HostPart
from harness.oci.inspect_docker import HostConfig, Inspected, ThrottleDevice
from harness.oci.recipe import load_recipe
from harness.oci.translated_mounts import translated_mounts
from harness.oci.version import minimum_version
from harness.oci.vocabulary import CAPABILITIES, RLIMITS

PATH_VARIABLE = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
_PRIVATE_PERIOD_US = 100_000


class Translated(Struct, frozen=True):
    """A config.json, whom its process runs as, and what the description could not tell."""

    document: dict[str, Any]
    user: str
    groups: tuple[str, ...]
    rootfs: tuple[str, ...]  # directories to look for the root file system at
    notes: list[HostPart] = field(default_factory=list)


def translate(inspected: Inspected, here: Here) -> Translated:
    """One container of docker or podman as a config.json. Raises InputError for what no engine would have taken."""
    host, settings = inspected.host_config, inspected.config
    document = load_recipe("default").config
    notes: list[HostPart] = []
    process = {
        "terminal": bool(settings.tty),
        "user": {"uid": 0, "gid": 0},
        "args": _args(inspected),
        "env": _environment(inspected),
        "cwd": settings.working_dir or "/",
        "capabilities": _capabilities(inspected, here),
        **({"oomScoreAdj": host.oom_score_adj} if host.oom_score_adj else {}),
    }
    document["process"] = process
    document["root"] = {"path": "rootfs", "readonly": bool(host.readonly_rootfs)}
    _namespaces(document, inspected, notes)
    document["mounts"] = translated_mounts(document["mounts"], inspected)
    linux = document["linux"]
    linux["resources"] = {"devices": linux["resources"]["devices"], **_limits(host)}
    _devices(linux, host, notes)
    _block_io(linux["resources"], host, notes)
    if host.sysctls:
        linux["sysctl"] = dict(host.sysctls)
    if rlimits := [_rlimit(each.name, each.soft, each.hard) for each in host.ulimits or ()]:
        process["rlimits"] = rlimits
    if host.cgroup_parent:
        systemd = host.cgroup_parent.endswith(".slice")
        scope = "docker" if inspected.engine == "docker" else "libpod"
        linux["cgroupsPath"] = (
            f"{host.cgroup_parent}:{scope}:{inspected.id}"
            if systemd
            else (f"{host.cgroup_parent.rstrip('/')}/{inspected.id}")
        )
    _security(document, inspected, notes)
    if host.init:
        notes.append(HostPart("/process/args", "--init", "the engine's own init is not put in front of the command"))
    document["ociVersion"] = minimum_version(document)
    found = (inspected.graph_driver or {}).get("Data")
    merged = found.get("MergedDir") if isinstance(found, dict) else None
    rootfs = tuple(each for each in (inspected.rootfs, merged) if isinstance(each, str) and each)
    return Translated(document, settings.user or "", tuple(host.group_add or ()), rootfs, notes)


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _args(inspected: Inspected) -> list[str]:
    if inspected.path:
        return [inspected.path, *(inspected.args or ())]
    args = [*_words(inspected.config.entrypoint), *_words(inspected.config.cmd)]
    if not args:
        raise InputError("neither Path nor Config.Entrypoint nor Config.Cmd: there is no command to run")
    return args


def _environment(inspected: Inspected) -> list[str]:
    env = list(inspected.config.env or ())
    names = {each.partition("=")[0] for each in env}
    ground = [PATH_VARIABLE, *([f"HOSTNAME={inspected.config.hostname}"] if inspected.config.hostname else ())]
    ground += ["TERM=xterm"] if inspected.config.tty else []
    return [*(each for each in ground if each.partition("=")[0] not in names), *env]


def _capabilities(inspected: Inspected, here: Here) -> dict[str, list[str]]:
    """moby daemon/pkg/oci/caps TweakCapabilities; podman says what came out of it."""
    host = inspected.host_config
    if inspected.bounding_caps is not None:
        effective = list(inspected.effective_caps or ())
        sets = {"bounding": list(inspected.bounding_caps), "effective": effective, "permitted": effective}
        if inspected.config.user not in (None, "", "0", "root"):
            sets |= {"inheritable": effective, "ambient": effective}
        return sets
    everything = [name for name in CAPABILITIES if name in here.capabilities]
    added, dropped = _capability_names(host.cap_add), _capability_names(host.cap_drop)
    if host.privileged:
        wanted = everything
    elif "ALL" in added:
        wanted = [name for name in everything if name not in dropped]
    elif "ALL" in dropped:
        wanted = added
    else:
        usual = load_recipe("default").config["process"]["capabilities"]["bounding"]
        wanted = [*(name for name in usual if name not in dropped), *added]
    wanted = list(dict.fromkeys(wanted))
    return {"bounding": wanted, "effective": wanted, "permitted": wanted}


def _capability_names(names: list[str] | None) -> list[str]:
    upper = [name.upper() for name in names or ()]
    return [name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}" for name in upper]


def _namespaces(document: dict[str, Any], inspected: Inspected, notes: list[HostPart]) -> None:
    host, settings = inspected.host_config, inspected.config
    modes = {"network": host.network_mode, "pid": host.pid_mode, "ipc": host.ipc_mode, "uts": host.uts_mode}
    namespaces: list[dict[str, Any]] = [{"type": "mount"}]
    for kind, mode in modes.items():
        if mode == "host":
            continue
        namespaces.append({"type": kind})
        pointer = f"/linux/namespaces/{len(namespaces) - 1}"
        if mode and mode.startswith(("container:", "ns:")):
            notes.append(HostPart(pointer, f"{kind} of {mode}", "the namespace of another container; a new one here"))
        elif kind == "network" and mode != "none":
            notes.append(
                HostPart(pointer, f"network {mode or 'default'}", "a new network namespace, with nothing but lo")
            )
    if (host.cgroupns_mode or host.cgroup_mode) == "private":
        namespaces.append({"type": "cgroup"})
    if host.userns_mode not in (None, "", "host"):
        notes.append(HostPart("/linux/namespaces", f"user {host.userns_mode}", "the ids that it maps are not told"))
    document["linux"]["namespaces"] = namespaces
    document.pop("hostname", None)
    if host.uts_mode != "host" and settings.hostname:
        document["hostname"] = settings.hostname
        if settings.domainname:
            document["domainname"] = settings.domainname


def _limits(host: HostConfig) -> dict[str, Any]:
    """moby daemon/daemon_unix.go: getMemoryResources, getCPUResources, getPidsLimit."""
    memory = {
        "limit": _above(host.memory),
        "reservation": _above(host.memory_reservation),
        "swap": host.memory_swap if host.memory_swap else None,
        "swappiness": host.memory_swappiness if (host.memory_swappiness or -1) >= 0 else None,
        "disableOOMKiller": host.oom_kill_disable or None,
    }
    cpu: dict[str, Any] = {
        "shares": _above(host.cpu_shares),
        "period": _PRIVATE_PERIOD_US if _above(host.nano_cpus) else None,
        "quota": (host.nano_cpus or 0) * _PRIVATE_PERIOD_US // 10**9 if _above(host.nano_cpus) else None,
        "cpus": host.cpuset_cpus or None,
        "mems": host.cpuset_mems or None,
        "realtimeRuntime": host.cpu_realtime_runtime or None,
        "realtimePeriod": host.cpu_realtime_period or None,
    }
    cpu |= {"period": host.cpu_period} if host.cpu_period else {}
    cpu |= {"quota": host.cpu_quota} if host.cpu_quota else {}
    pids = {"limit": host.pids_limit if (host.pids_limit or 0) > 0 else -1 if host.pids_limit else None}
    groups = {"memory": memory, "cpu": cpu, "pids": pids}
    told = {name: {key: value for key, value in group.items() if value is not None} for name, group in groups.items()}
    return {name: group for name, group in told.items() if group}


def _above(value: int | None) -> int | None:
    return value if value is not None and value > 0 else None


def _rlimit(name: str, soft: int, hard: int) -> dict[str, Any]:
    kind = name.upper() if name.upper().startswith("RLIMIT_") else f"RLIMIT_{name.upper()}"
    if kind not in RLIMITS:
        raise InputError(f"/HostConfig/Ulimits: there is no limit {name!r}")
    infinite = 2**64 - 1  # -1 is how docker says it
    return {"type": kind, "soft": soft if soft >= 0 else infinite, "hard": hard if hard >= 0 else infinite}


def _devices(linux: dict[str, Any], host: HostConfig, notes: list[HostPart]) -> None:
    rules, nodes = linux["resources"]["devices"], []
    for number, each in enumerate(host.devices or ()):
        status = _device(each.path_on_host)
        inside = each.path_in_container or each.path_on_host
        if status is None:
            what = f"/HostConfig/Devices/{number}: {each.path_on_host}"
            notes.append(HostPart("/linux/devices", what, f"no such device here, so no {inside}"))
            continue
        kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
        numbers = {"type": kind, "major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
        mode = stat.S_IMODE(status.st_mode)
        nodes.append({"path": inside, **numbers, "fileMode": mode, "uid": status.st_uid, "gid": status.st_gid})
        rules.append({"allow": True, **numbers, "access": each.cgroup_permissions or "rwm"})
    for rule in host.device_cgroup_rules or ():
        match = _RULE.fullmatch(rule)
        if match is None:
            raise InputError(f"/HostConfig/DeviceCgroupRules: {rule!r} is no rule such as 'c 42:* rwm'")
        given = {name: int(match[group]) for name, group in (("major", 2), ("minor", 3)) if match[group] != "*"}
        rules.append({"allow": True, "type": match[1], **given, "access": match[4]})
    if host.privileged:
        rules[:] = [{"allow": True, "access": "rwm"}]
        notes.append(HostPart("/linux/devices", "privileged", "the engine adds every device of its host; not here"))
    if host.device_requests:
        notes.append(HostPart("/linux/devices", "DeviceRequests (--gpus, CDI)", "only that host's drivers can say"))
    if nodes:
        linux["devices"] = nodes


def _device(path: str) -> os.stat_result | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else None


def _block_io(resources: dict[str, Any], host: HostConfig, notes: list[HostPart]) -> None:
    told: dict[str, Any] = {"weight": host.blkio_weight} if host.blkio_weight else {}
    lists: dict[str, list[tuple[str, dict[str, int]]]] = {
        "weightDevice": [(each.path, {"weight": each.weight}) for each in host.blkio_weight_device or ()],
        "throttleReadBpsDevice": _rates(host.blkio_device_read_bps),
        "throttleWriteBpsDevice": _rates(host.blkio_device_write_bps),
        "throttleReadIOPSDevice": _rates(host.blkio_device_read_iops),
        "throttleWriteIOPSDevice": _rates(host.blkio_device_write_iops),
    }
    for name, entries in lists.items():
        for path, value in entries:
            status = _device(path)
            if status is None or not stat.S_ISBLK(status.st_mode):
                notes.append(HostPart(f"/linux/resources/blockIO/{name}", path, "no such block device here: left out"))
                continue
            numbers = {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
            told.setdefault(name, []).append({**numbers, **value})
    if told:
        resources["blockIO"] = told


def _rates(devices: list[ThrottleDevice] | None) -> list[tuple[str, dict[str, int]]]:
    return [(each.path, {"rate": each.rate}) for each in devices or ()]


def _security(document: dict[str, Any], inspected: Inspected, notes: list[HostPart]) -> None:
    host, process, linux = inspected.host_config, document["process"], document["linux"]
    seccomp = "the engine's default profile"
    for text in host.security_opt or ():
        name, separator, value = text.partition("=")
        if not separator:
            name, _, value = text.partition(":")
        match name:
            case "no-new-privileges":
                process["noNewPrivileges"] = value != "false"
            case "seccomp":
                seccomp = "" if value == "unconfined" else "a profile of its own"
            case "systempaths" if value == "unconfined":
                linux["maskedPaths"], linux["readonlyPaths"] = [], []
    if host.masked_paths is not None:
        linux["maskedPaths"] = host.masked_paths
    if host.readonly_paths is not None:
        linux["readonlyPaths"] = host.readonly_paths
    if host.privileged:
        linux["maskedPaths"], linux["readonlyPaths"], seccomp = [], [], ""
    for key, label in (("apparmorProfile", inspected.app_armor_profile), ("selinuxLabel", inspected.process_label)):
        if label and label != "unconfined":
            process[key] = label
    if inspected.mount_label:
        linux["mountLabel"] = inspected.mount_label
    if seccomp:
        notes.append(HostPart("/linux/seccomp", seccomp, "it is not in this output, so nothing is filtered here"))
