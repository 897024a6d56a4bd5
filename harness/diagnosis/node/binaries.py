"""The binaries of runtimes and shims: those that configurations name, and those that are installed."""

from __future__ import annotations

from collections.abc import Iterator

from harness.diagnosis.node.daemons import Daemon, Handler, daemons
from harness.diagnosis.node.elf import executable
from harness.diagnosis.node.finding import Evidence, Finding
from harness.diagnosis.node.tree import Tree

# systemd's for services, exec(5) DefaultPath
PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
USUAL = ("runc", "crun", "youki", "runsc", "conmon", "containerd", "containerd-shim-runc-v2", "dockerd", "crio")
CAUSE = "runtime-missing"


def _find(tree: Tree, name: str) -> str | None:
    if name.startswith("/"):
        return name if tree.exists(name) else None
    return next((f"{directory}/{name}" for directory in PATH if tree.exists(f"{directory}/{name}")), None)


def _has_programs(tree: Tree) -> bool:
    return tree.live or len(tree.entries("/usr/bin")) > 20


def runtime_binaries(tree: Tree) -> Iterator[Finding]:
    """Named and missing; there and not for this machine, not executable, or without their loader."""
    if not _has_programs(tree):
        tree.miss("binaries of runtimes", "this tree holds no programs")
        return
    checked: set[str] = set()
    for daemon in daemons(tree):
        if daemon.broken is not None or daemon.bundled:
            continue
        yield from _default(daemon)
        for handler in daemon.handlers:
            for name in _needs(daemon, handler):
                path = _find(tree, name)
                if path is None:
                    yield _missing(daemon, handler, name)
                elif path not in checked:
                    checked.add(path)
                    yield from executable(tree, path, f"runtime {handler.name} of {daemon.name}", CAUSE)
            if "kata" in f"{handler.type} {handler.binary or ''}" and tree.live and not tree.exists("/dev/kvm"):
                yield Finding(
                    "kvm-missing",
                    "error",
                    f"runtime {handler.name} of {daemon.name} starts virtual machines, but there is no /dev/kvm",
                    "vmm-failed",
                    "Load kvm_intel or kvm_amd, switch on virtualization in the firmware or nested virtualization.",
                    (Evidence(daemon.source, f"{handler.name}: {handler.type or handler.binary}"),),
                )
    for name in USUAL:
        path = _find(tree, name)
        if path is not None and path not in checked:
            yield from executable(tree, path, name, CAUSE)


def _needs(daemon: Daemon, handler: Handler) -> list[str]:
    """Programs that a handler takes. Source: containerd core/runtime/v2, shim binary names."""
    if daemon.name == "CRI-O":
        return [handler.binary or handler.name]
    kind = handler.type
    if daemon.name == "containerd" and not kind:
        kind = "io.containerd.runc.v2"
    if kind.startswith("/"):
        return [kind]
    parts = kind.split(".")
    shim = [f"containerd-shim-{parts[-2]}-{parts[-1]}"] if len(parts) >= 2 else []
    if kind.startswith("io.containerd.runc."):
        return [*shim, handler.binary or "runc"]
    return [handler.binary] if handler.binary else shim


def _missing(daemon: Daemon, handler: Handler, name: str) -> Finding:
    where = "" if name.startswith("/") else f" in {':'.join(PATH)}"
    return Finding(
        "runtime-binary-missing",
        "error",
        f"{daemon.source} names runtime {handler.name}, which takes {name}, but there is none{where}",
        CAUSE,
        f"Install {name}, or correct the runtime's entry in {daemon.source} and restart {daemon.name}.",
        (Evidence(daemon.source, f"runtime {handler.name}: {name}"),),
    )


def _default(daemon: Daemon) -> Iterator[Finding]:
    names = [handler.name for handler in daemon.handlers]
    if daemon.default and names and daemon.default not in ("runc", "crun", *names):
        yield Finding(
            "default-runtime-unknown",
            "error",
            f"{daemon.source}: the default runtime {daemon.default} is not configured (there are {', '.join(names)})",
            CAUSE,
            f"Name one of {', '.join(names)} as default runtime, or add an entry for {daemon.default}.",
            (Evidence(daemon.source, f"default runtime {daemon.default}"),),
        )


def apparmor_parser(tree: Tree) -> Iterator[Finding]:
    """With AppArmor on, daemons load their default profile with apparmor_parser, and fail without it."""
    enabled = (tree.read("/sys/module/apparmor/parameters/enabled") or "").strip()
    if enabled == "Y" and _has_programs(tree) and _find(tree, "apparmor_parser") is None:
        yield Finding(
            "apparmor-parser-missing",
            "warning",
            "AppArmor is on, but there is no apparmor_parser: a daemon cannot load its default profile",
            "apparmor",
            "Install the package apparmor, or switch AppArmor off (apparmor=0) on purpose.",
            (Evidence("/sys/module/apparmor/parameters/enabled", "Y"),),
        )
