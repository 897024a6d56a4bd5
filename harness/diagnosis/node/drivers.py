"""Do the layers agree on cgroups: the daemons' driver, the kubelet's, systemd's being there, the cgroup mode."""

from __future__ import annotations

from collections.abc import Iterator

from harness.diagnosis.node.daemons import Daemon, containerd, crio, daemons, docker
from harness.diagnosis.node.finding import Evidence, Finding, some
from harness.diagnosis.node.kubelet import Kubelet, kubelet
from harness.diagnosis.node.mounts import layout, mounts_of
from harness.diagnosis.node.processes import table_of
from harness.diagnosis.node.tree import Tree

NEEDED = ("cpu", "cpuset", "memory", "pids")  # the kubelet will not start without


def systemd_runs(tree: Tree) -> bool | None:
    """sd_booted(3), in a copy by the first process; None: nothing tells."""
    if tree.is_directory("/run/systemd/system"):
        return True
    table = table_of(tree)
    if table is None or 1 not in table.processes:
        return False if tree.live else None
    return table.processes[1].comm == "systemd"


def configurations(tree: Tree) -> Iterator[Finding]:
    """Files that a daemon cannot read, a CRI plugin that is switched off, an import that replaces its section."""
    for daemon in daemons(tree):
        if daemon.broken is not None:
            yield Finding(
                "daemon-config-unreadable",
                "error",
                f"{daemon.source}: {daemon.broken}; {daemon.name} will not start with it",
                "symptom-only",
                f"Correct {daemon.source}; `containerd config dump`, `crio config` or `dockerd --validate` tries it.",
                (Evidence(daemon.source, daemon.broken),),
            )
        if daemon.cri_disabled and _uses(kubelet(tree), "containerd"):
            yield Finding(
                "cri-disabled",
                "error",
                f"{daemon.source}: disabled_plugins has cri, which the kubelet needs",
                "symptom-only",
                "Take cri out of disabled_plugins (docker's package puts it there), restart containerd.",
                (Evidence(daemon.source, "disabled_plugins"),),
            )
        if daemon.replaced is not None:
            yield Finding(
                "import-replaces-section",
                "warning",
                f"{daemon.replaced} has a section of {daemon.source} again: containerd before 2 takes only the later "
                "one whole, a later containerd merges both, and the cgroup driver differs by that",
                "cgroup-driver-mismatch",
                f"Write the whole section, SystemdCgroup included, into {daemon.replaced}; `containerd config dump` "
                "shows what holds.",
                (Evidence(daemon.source, "imports"), Evidence(daemon.replaced, "the same section of plugins")),
            )


def _uses(told: Kubelet, name: str) -> bool:
    return told.driver is not None and (told.endpoint is None or name in told.endpoint)


def cgroup_drivers(tree: Tree) -> Iterator[Finding]:
    """The kubelet's driver against that of the daemon it talks to, and each daemon's against the node."""
    told = kubelet(tree)
    mode = layout(tree).mode
    systemd = systemd_runs(tree)
    chosen = _daemon_of(tree, told)
    if chosen is not None and told.driver is not None:
        driver = chosen.driver or _docker_default(mode, systemd)
        if driver is not None and driver != told.driver:
            yield _mismatch(chosen, driver, told, systemd)
    for daemon in daemons(tree):
        if daemon.driver == "systemd" and systemd is False:
            yield Finding(
                "systemd-driver-without-systemd",
                "error",
                f"{daemon.name} uses the systemd cgroup driver ({daemon.said}), but systemd does not run here",
                "systemd-dbus",
                f"Use the cgroupfs driver in {daemon.source} and in the kubelet, or run systemd as PID 1.",
                (Evidence(daemon.source, daemon.said), Evidence("/run/systemd/system", "no such directory")),
            )
        if daemon.driver == "cgroupfs" and systemd and mode == "unified" and daemon.broken is None:
            yield Finding(
                "cgroupfs-driver-beside-systemd",
                "info",
                f"{daemon.name} uses the cgroupfs driver ({daemon.said}) on a cgroup v2 node that systemd manages: it "
                "works, but two write the same tree",
                "cgroup-driver-mismatch",
                "Prefer systemd on both sides: SystemdCgroup = true, cgroupDriver: systemd.",
                (Evidence(daemon.source, daemon.said),),
            )


def _daemon_of(tree: Tree, told: Kubelet) -> Daemon | None:
    found = {"containerd": containerd(tree), "crio": crio(tree), "docker": docker(tree)}
    name = next((name for name in found if name in (told.endpoint or "")), None)
    if name is not None:
        if found[name] is None and told.driver is not None:
            tree.miss(f"cgroup driver of {name}", f"the kubelet uses {told.endpoint}, but no configuration is here")
        return found[name]
    return next((daemon for daemon in found.values() if daemon is not None and not daemon.cri_disabled), None)


def _docker_default(mode: str, systemd: bool | None) -> str | None:
    if systemd is None or mode == "none":
        return None
    return "systemd" if systemd and mode == "unified" else "cgroupfs"


def _mismatch(daemon: Daemon, driver: str, told: Kubelet, systemd: bool | None) -> Finding:
    # CRI RuntimeConfig: CRI-O from 1.28 and containerd from 2.0 tell the kubelet, which asks from 1.31 on
    asks = daemon.name == "CRI-O" or (daemon.version or 0) >= 3
    better = "systemd" if systemd is not False else "cgroupfs"
    wanted = {
        "containerd": f"SystemdCgroup = {'true' if better == 'systemd' else 'false'} in {daemon.source}",
        "CRI-O": f'cgroup_manager = "{better}" in {daemon.source}',
        "docker": f'"exec-opts": ["native.cgroupdriver={better}"] in {daemon.source}',
    }[daemon.name]
    return Finding(
        "cgroup-driver-mismatch",
        "warning" if asks else "error",
        f"{daemon.name} uses the {driver} cgroup driver ({daemon.said}), "
        f"the kubelet {told.driver} ({told.driver_source})"
        + ("; a kubelet from 1.31 on asks the runtime and takes its driver instead" if asks else ""),
        "cgroup-driver-mismatch",
        f"{wanted}, and cgroupDriver: {better} for the kubelet; restart both, and drain the node before.",
        (
            Evidence(daemon.source, daemon.said),
            Evidence(told.driver_source, f"cgroupDriver: {told.driver}"),
        ),
    )


def cgroup_mode(tree: Tree) -> Iterator[Finding]:
    """A layout that some runtimes refuse, and controllers that are not there."""
    source = mounts_of(tree)[0]
    if not source:
        return
    found = layout(tree)
    unified = found.unified
    if found.mode == "none":
        yield Finding(
            "cgroup-not-mounted",
            "error",
            "no cgroup hierarchy is mounted",
            "cgroup-controller-missing",
            "mount -t cgroup2 none /sys/fs/cgroup",
            (Evidence(source, "no cgroup or cgroup2"),),
        )
        return
    if found.mode == "hybrid" and unified is not None and unified.controllers:
        names = ", ".join(unified.controllers)
        yield Finding(
            "hybrid-with-controllers",
            "warning",
            f"hybrid cgroup layout in which v2 has controllers ({names} at {unified.mount_point}): crun refuses it, "
            "runc does not",
            "cgroup-v1-v2-mismatch",
            "Boot with systemd.unified_cgroup_hierarchy=1, or give v1 those controllers as well; for one run: --view "
            "legacy.",
            (Evidence(f"{unified.mount_point}/cgroup.controllers", names),),
        )
    if found.mode == "unified" and not (unified and unified.controllers):
        tree.miss("cgroup v2 controllers", "no cgroup.controllers in this tree")
        return
    missing = [name for name in NEEDED if found.version(name) is None]
    if missing:
        yield Finding(
            "controller-missing",
            "warning",
            f"no {some(missing, 4)} cgroup controller: limits for it fail, and the kubelet does not start without",
            "cgroup-controller-missing",
            "Boot option cgroup_enable=memory (cgroup_disable= off), a kernel with it, or mount the v1 hierarchy.",
            (Evidence(source, f"mode {found.mode}; controllers {', '.join(found.versions()) or 'none'}"),),
        )
