"""What the kubelet is told: its cgroup driver and the socket of its runtime, and where each is said."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from msgspec import Struct

from harness.diagnosis.node.processes import table_of
from harness.diagnosis.node.tree import Tree

CONFIGS = (
    "/var/lib/kubelet/config.yaml",
    "/etc/kubernetes/kubelet/config.json",
    "/etc/kubernetes/kubelet/kubelet-config.json",
    "/etc/kubernetes/kubelet.conf.d/00-kubelet.conf",
    "/var/lib/kubelet/kubelet-config.yaml",
    "/home/kubernetes/kubelet-config.yaml",
)
FLAGS = (
    "/var/lib/kubelet/kubeadm-flags.env",
    "/etc/default/kubelet",
    "/etc/sysconfig/kubelet",
    "/etc/systemd/system/kubelet.service.d/*.conf",
    "/usr/lib/systemd/system/kubelet.service.d/*.conf",
    "/etc/systemd/system/kubelet.service",
)
DEFAULT_DRIVER = "cgroupfs"  # pkg/kubelet/apis/config/v1beta1/defaults.go; kubeadm writes systemd into the file


class Kubelet(Struct, frozen=True):
    """`driver` None: no kubelet is set up here."""

    driver: str | None
    driver_source: str
    endpoint: str | None  # "unix:///run/containerd/containerd.sock"
    endpoint_source: str


def _flag(text: str, name: str) -> str | None:
    """The last value of a flag, `--name=value` or `--name value`, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found = re.findall(rf"--{name}[= ]\"?([^\s\"']+)", "\n".join(lines))
    return found[-1] if found else None


@lru_cache(maxsize=2)
def kubelet(tree: Tree) -> Kubelet:
    """Flags win over the file, as in the kubelet; those of a running one over those of unit files."""
    flags: list[tuple[str, str]] = []
    table = table_of(tree)
    running = [p for p in table.processes.values() if p.comm == "kubelet" and p.arguments] if table else []
    for process in running:
        flags.append((f"arguments of kubelet {process.pid}", process.arguments or ""))
    if not running:
        flags += [(path, tree.read(path) or "") for pattern in FLAGS for path in tree.glob(pattern)]
    values: dict[str, tuple[str, str]] = {}
    named = [_flag(text, "config") for _, text in flags]
    dropins = [_flag(text, "config-dir") for _, text in flags]
    known = False
    for path in dict.fromkeys([*filter(None, named), *CONFIGS]):
        document = _yaml(tree, path)
        if document is None:
            continue
        known = True
        values |= _values(document, path)
        for directory in filter(None, dropins):
            for extra in tree.glob(f"{directory}/*.conf"):
                values |= _values(_yaml(tree, extra) or {}, extra)
        break
    for source, text in flags:
        for key, name in (
            ("cgroupDriver", "cgroup-driver"),
            ("containerRuntimeEndpoint", "container-runtime-endpoint"),
        ):
            value = _flag(text, name)
            if value is not None:
                values[key] = (value, source)
    known = known or bool(running)
    default = (DEFAULT_DRIVER, "the kubelet's default") if known else (None, "")
    driver, driver_source = values.get("cgroupDriver", default)
    endpoint, endpoint_source = values.get("containerRuntimeEndpoint", (None, ""))
    return Kubelet(driver, driver_source, endpoint, endpoint_source)


def _values(document: dict[str, Any], path: str) -> dict[str, tuple[str, str]]:
    names = ("cgroupDriver", "containerRuntimeEndpoint")
    return {name: (document[name], path) for name in names if isinstance(document.get(name), str) and document[name]}


def _yaml(tree: Tree, path: str) -> dict[str, Any] | None:
    text = tree.read(path)
    if text is None:
        return None
    import yaml

    try:
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        tree.miss(path, f"not YAML: {' '.join(str(error).split())}")
        return None
    return document if isinstance(document, dict) else None
