"""The mounts of a container that docker or podman describes, as config.json has them.

Source: moby daemon/oci_linux.go, withMounts; podman pkg/specgen/generate.
"""

from __future__ import annotations

from typing import Any

from harness.oci.inspect_docker import HostConfig, Inspected, MountPoint, TmpfsOptions

Mount = dict[str, Any]


def translated_mounts(usual: list[Mount], inspected: Inspected) -> list[Mount]:
    """The engine's usual mounts, without those that the user's hide, then the user's by their depth (withMounts)."""
    host = inspected.host_config
    wanted: dict[str, Mount] = {}
    for destination, source in (
        ("/etc/resolv.conf", inspected.resolv_conf_path),
        ("/etc/hostname", inspected.hostname_path),
        ("/etc/hosts", inspected.hosts_path),
    ):
        if source:
            wanted[destination] = _bind(source, destination, ["rbind", "rprivate"])
    for destination, text in (host.tmpfs or {}).items():
        wanted[destination] = _tmpfs(destination, text, inspected.engine)
    for bind in host.binds or ():  # a container that never ran has no Mounts yet
        source, _, rest = bind.partition(":")
        destination, _, text = rest.partition(":")
        if source.startswith("/") and destination:
            wanted[destination] = _bind(source, destination, _bind_options(text.split(",")))
    asked = {each.target: each.tmpfs_options for each in host.mounts or ()}
    for each in inspected.mounts or ():
        if each.type == "tmpfs":
            text = _tmpfs_text(asked.get(each.destination))
            wanted.setdefault(each.destination, _tmpfs(each.destination, text, inspected.engine))
        elif each.source:
            wanted[each.destination] = _bind(each.source, each.destination, _mount_options(each))
    kept = [_adjusted(mount, host) for mount in usual if not _hidden(mount["destination"], wanted, host)]
    if "/sys/fs/cgroup" not in wanted and "/sys" not in wanted:
        options = ["nosuid", "noexec", "nodev", "relatime", *([] if host.privileged else ["ro"])]
        kept.append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options})
    return [*kept, *sorted(wanted.values(), key=lambda mount: mount["destination"].rstrip("/").count("/"))]


def _hidden(destination: str, wanted: dict[str, Mount], host: HostConfig) -> bool:
    below_dev = destination.startswith("/dev/") and "/dev" in wanted
    return destination in wanted or below_dev or (destination == "/dev/shm" and host.ipc_mode == "none")


def _adjusted(mount: Mount, host: HostConfig) -> Mount:
    options = list(mount["options"])
    if mount["destination"] == "/dev/shm" and host.shm_size:
        options = [*(each for each in options if not each.startswith("size=")), f"size={host.shm_size}"]
    if mount["destination"] == "/sys" and host.privileged:
        options.remove("ro")
    return {**mount, "options": options}


def _bind(source: str, destination: str, options: list[str]) -> Mount:
    return {"destination": destination, "type": "bind", "source": source, "options": options}


def _tmpfs(destination: str, text: str, engine: str) -> Mount:
    given = [each for each in text.split(",") if each]
    ground = ["noexec", "nosuid", "nodev"] if engine == "docker" else []
    opposite = {"noexec": "exec", "nosuid": "suid", "nodev": "dev"}
    options = [each for each in ground if opposite[each] not in given and each not in given] + given
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options}


def _tmpfs_text(options: TmpfsOptions | None) -> str:
    if options is None:
        return ""
    size = [f"size={options.size_bytes}"] if options.size_bytes else []
    return ",".join([*size, *([f"mode={options.mode:o}"] if options.mode else [])])


def _bind_options(given: list[str]) -> list[str]:
    kept = [each for each in given if each not in ("", "rw", "z", "Z", "U", "nocopy", "copy", "cached", "delegated")]
    binds = [] if "bind" in kept or "rbind" in kept else ["rbind"]
    propagates = {"private", "rprivate", "shared", "rshared", "slave", "rslave"} & set(kept)
    return [*binds, *kept, *([] if propagates else ["rprivate"])]


def _mount_options(mount: MountPoint) -> list[str]:
    given = list(mount.options or ()) or (mount.mode or "").split(",")
    if mount.rw is False and "ro" not in given:
        given.append("ro")
    if mount.propagation and mount.propagation not in given:
        given.append(mount.propagation)
    return _bind_options(given)
