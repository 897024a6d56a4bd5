"""What the configuration files of containerd, CRI-O and docker say of runtimes and cgroup drivers."""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
from functools import lru_cache
from typing import Any

from msgspec import Struct

from harness.diagnosis.node.processes import table_of
from harness.diagnosis.node.tree import Tree

CONTAINERD = "/etc/containerd/config.toml"
CONTAINERD_CONFIGS = (
    "/sos_commands/containerd/containerd_config_dump",  # the effective one, all files merged
    CONTAINERD,
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
)
# versions 3, 2 and 1 of the file
CRI = ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri")
CRIO = ("/etc/crio/crio.conf", "/etc/crio/crio.conf.d/*")
DOCKER = "/etc/docker/daemon.json"
IMPORTS = 256  # a file can import others without end
_DRIVER = "native.cgroupdriver="


class Handler(Struct, frozen=True):
    """A runtime that a daemon is told of. `systemd` None: not said."""

    name: str
    type: str  # containerd's runtime_type, "" elsewhere
    binary: str | None  # BinaryName, runtime_path or path
    systemd: bool | None = None


class Daemon(Struct, frozen=True):
    """One daemon's configuration."""

    name: str
    source: str
    version: int | None  # of containerd's file format
    driver: str | None  # "systemd" or "cgroupfs"; None: the default, which the node decides
    said: str  # how the file says it
    default: str | None  # the default runtime
    handlers: tuple[Handler, ...] = ()
    cri_disabled: bool = False
    replaced: str | None = None  # an import that replaces the CRI section on containerd before 2
    broken: str | None = None  # the file cannot be used, and why
    sources: tuple[str, ...] = ()

    @property
    def bundled(self) -> bool:
        """k3s and rke2 bring their own binaries."""
        return "/rancher/" in self.source


def _table(value: Any, *path: str) -> dict[str, Any]:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: _merged(below[key], value) if key in below else value for key, value in above.items()}


@lru_cache(maxsize=2)
def containerd(tree: Tree) -> Daemon | None:
    """None: no configuration file. Source: containerd cmd/containerd/server/config, services/server/config before 2."""
    table = table_of(tree)
    running = [p for p in table.processes.values() if p.comm == "containerd" and p.arguments] if table else []
    named = [match[1] for p in running if (match := re.search(r"(?:--config|-c)[= ](\S+)", p.arguments or ""))]
    path = next((each for each in (*named, *CONTAINERD_CONFIGS) if tree.exists(each)), None)
    if path is None:
        return None
    merged: dict[str, Any] = {}
    replaced: dict[str, Any] = {}
    replacing = None
    pending, loaded = [path], list[str]()
    disabled: list[Any] = []
    version = None
    while pending and len(loaded) < IMPORTS:
        current = pending.pop(0)
        text = tree.read(current)
        if current in loaded or text is None:
            continue
        try:
            document = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            return Daemon("containerd", current, None, None, "", None, broken=f"not TOML: {error}")
        loaded.append(current)
        given = document.get("version", 1)
        version = given if version is None and isinstance(given, int) else version
        plugins = _table(document, "plugins")
        if len(loaded) > 1 and set(plugins) & set(replaced) & set(CRI):
            replacing = current
        merged, replaced = _merged(merged, plugins), replaced | plugins
        listed = document.get("disabled_plugins")
        disabled += listed if isinstance(listed, list) else []
        imports = document.get("imports")
        for name in imports if isinstance(imports, list) and "config_dump" not in current else []:
            if isinstance(name, str):
                full = posixpath.normpath(posixpath.join(posixpath.dirname(current), name))
                pending += tree.glob(full) if "*" in full else [full]
    daemon = _containerd(path, version or 1, merged if (version or 1) >= 3 else replaced, disabled)
    other = _containerd(path, version or 1, replaced if (version or 1) >= 3 else merged, disabled)
    return Daemon(
        "containerd",
        path,
        version or 1,
        daemon.driver,
        daemon.said,
        daemon.default,
        daemon.handlers,
        daemon.cri_disabled,
        replacing if daemon.driver != other.driver else None,
        sources=tuple(loaded),
    )


def _containerd(path: str, version: int, plugins: dict[str, Any], disabled: list[Any]) -> Daemon:
    section = next((name for name in CRI if _table(plugins, name)), CRI[0 if version >= 3 else 1])
    cri = _table(plugins, section)
    default = _text(_table(cri, "containerd").get("default_runtime_name")) or "runc"
    handlers = []
    for name, value in _table(cri, "containerd", "runtimes").items():
        options = _table(value, "options")
        systemd = options.get("SystemdCgroup")
        binary = _text(options.get("BinaryName")) or _text(_table(value).get("runtime_path"))
        kind = _text(_table(value).get("runtime_type")) or ""
        handlers.append(Handler(name, kind, binary, systemd if isinstance(systemd, bool) else None))
    handler = next((each for each in handlers if each.name == default), None)
    said = "SystemdCgroup is not set (false by default)"
    systemd_cgroup = bool(cri.get("systemd_cgroup"))  # version 1 and 2, before options of runtimes had it
    if handler is not None and handler.systemd is not None:
        systemd_cgroup, said = handler.systemd, f"SystemdCgroup = {str(handler.systemd).lower()} of runtime {default}"
    elif systemd_cgroup:
        said = "systemd_cgroup = true"
    return Daemon(
        "containerd",
        path,
        version,
        "systemd" if systemd_cgroup else "cgroupfs",
        said,
        default,
        tuple(handlers),
        any(name in disabled for name in ("cri", *CRI)),
    )


@lru_cache(maxsize=2)
def crio(tree: Tree) -> Daemon | None:
    """None: no configuration file. Source: crio.conf(5); drop-ins in the order of their names."""
    paths = [path for pattern in CRIO for path in tree.glob(pattern) if not tree.is_directory(path)]
    merged: dict[str, Any] = {}
    driver_source = ""
    for path in paths:
        try:
            document = tomllib.loads(tree.read(path) or "")
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            return Daemon("CRI-O", path, None, None, "", None, broken=f"not TOML: {error}")
        if "cgroup_manager" in _table(document, "crio", "runtime"):
            driver_source = path
        merged = _merged(merged, document)
    if not paths:
        return None
    section = _table(merged, "crio", "runtime")
    driver = _text(section.get("cgroup_manager"))
    handlers = tuple(
        Handler(name, "", _text(_table(value).get("runtime_path")))
        for name, value in _table(section, "runtimes").items()
    )
    said = f'cgroup_manager = "{driver}"' if driver else 'cgroup_manager is not set ("systemd" by default)'
    default = _text(section.get("default_runtime"))
    return Daemon(
        "CRI-O", driver_source or paths[0], None, driver or "systemd", said, default, handlers, sources=tuple(paths)
    )


@lru_cache(maxsize=2)
def docker(tree: Tree) -> Daemon | None:
    """None: no configuration file. Source: dockerd(8), native.cgroupdriver."""
    text = tree.read(DOCKER)
    if text is None:
        return None
    try:
        document = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        return Daemon("docker", DOCKER, None, None, "", None, broken=f"not JSON: {error}")
    options = document.get("exec-opts") if isinstance(document, dict) else None
    words = [word for word in options if isinstance(word, str)] if isinstance(options, list) else []
    drivers = [word.removeprefix(_DRIVER) for word in words if word.startswith(_DRIVER)]
    handlers = tuple(
        Handler(name, _text(_table(value).get("runtimeType")) or "", _text(_table(value).get("path")))
        for name, value in _table(document, "runtimes").items()
    )
    driver = drivers[-1] if drivers else None
    said = f"{_DRIVER}{driver}" if driver else "native.cgroupdriver is not set"
    return Daemon("docker", DOCKER, None, driver, said, _text(_table(document).get("default-runtime")), handlers)


def daemons(tree: Tree) -> list[Daemon]:
    """Those that are configured here."""
    return [daemon for daemon in (containerd(tree), crio(tree), docker(tree)) if daemon is not None]
