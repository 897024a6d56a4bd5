"""Do the configurations of daemons and kubelet agree on the cgroup driver, and with what the node has."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.diagnosis.node import binaries, drivers
from harness.diagnosis.node.daemons import containerd, crio
from harness.diagnosis.node.examine import copied
from harness.diagnosis.node.finding import Finding
from harness.diagnosis.node.kubelet import kubelet
from harness.diagnosis.node.tree import Tree

V2 = """version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = {0}
"""
V3 = V2.replace("version = 2", "version = 3").replace("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
V1 = V2.replace("version = 2\n", "").replace('"io.containerd.grpc.v1.cri"', "cri")
CONFIG = "etc/containerd/config.toml"
UNIFIED = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
HYBRID = """31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
KUBELET = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"


def tree_of(tmp_path: Path, files: dict[str, str]) -> Tree:
    for path, text in files.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return copied(tmp_path)


def driver_findings(tree: Tree) -> list[Finding]:
    return [*drivers.configurations(tree), *drivers.cgroup_drivers(tree)]


@pytest.mark.parametrize("config", [V1, V2, V3], ids=["v1", "v2", "v3"])
def test_agreement_is_no_finding(tmp_path: Path, config: str) -> None:
    """systemd on both sides, in each layout of containerd's file."""
    files = {CONFIG: config.format("true"), "var/lib/kubelet/config.yaml": KUBELET + "cgroupDriver: systemd\n"}
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    tree = tree_of(tmp_path, files)
    daemon = containerd(tree)
    assert daemon is not None
    assert daemon.driver == "systemd"
    assert driver_findings(tree) == []


@pytest.mark.parametrize(("config", "severity"), [(V2, "error"), (V1, "error"), (V3, "warning")])
def test_mismatch(tmp_path: Path, config: str, severity: str) -> None:
    """cgroupfs against systemd is named with both values and both files; a containerd whose kubelet may ask, milder."""
    files = {CONFIG: config.format("false"), "var/lib/kubelet/config.yaml": KUBELET + "cgroupDriver: systemd\n"}
    (finding,) = driver_findings(tree_of(tmp_path, files))
    assert (finding.id, finding.cause, finding.severity) == (
        "cgroup-driver-mismatch",
        "cgroup-driver-mismatch",
        severity,
    )
    assert "SystemdCgroup = false of runtime runc" in finding.message
    assert "systemd (/var/lib/kubelet/config.yaml)" in finding.message
    assert "SystemdCgroup = true in /etc/containerd/config.toml" in finding.fix


def test_defaults(tmp_path: Path) -> None:
    """Neither side says anything: both are cgroupfs, and agree."""
    tree = tree_of(tmp_path, {CONFIG: "version = 2\n", "var/lib/kubelet/config.yaml": KUBELET})
    assert kubelet(tree).driver == "cgroupfs"
    assert driver_findings(tree) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("var/lib/kubelet/kubeadm-flags.env", 'KUBELET_KUBEADM_ARGS="--cgroup-driver=systemd --v=2"\n'),
        ("etc/default/kubelet", "# --cgroup-driver=cgroupfs\nKUBELET_EXTRA_ARGS=--cgroup-driver=systemd\n"),
        ("etc/systemd/system/kubelet.service.d/10.conf", "[Service]\nEnvironment=X=--cgroup-driver systemd\n"),
    ],
)
def test_flags_win(tmp_path: Path, path: str, text: str) -> None:
    """A flag wins over the file, from wherever the unit takes it."""
    tree = tree_of(tmp_path, {"var/lib/kubelet/config.yaml": KUBELET + "cgroupDriver: cgroupfs\n", path: text})
    assert (kubelet(tree).driver, kubelet(tree).driver_source) == ("systemd", f"/{path}")


def test_imports(tmp_path: Path) -> None:
    """A drop-in that adds a runtime drops SystemdCgroup on containerd before 2, where sections are replaced whole."""
    dropin = V2.split("[plugins", 1)[0] + (
        '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]\nruntime_type = "io.containerd.runc.v2"\n'
    )
    files = {
        CONFIG: 'imports = ["/etc/containerd/conf.d/*.toml"]\n' + V2.format("true"),
        "etc/containerd/conf.d/99-nvidia.toml": dropin,
        "var/lib/kubelet/config.yaml": KUBELET + "cgroupDriver: systemd\n",
    }
    findings = driver_findings(tree_of(tmp_path, files))
    assert [each.id for each in findings] == ["import-replaces-section", "cgroup-driver-mismatch"]
    assert "/etc/containerd/conf.d/99-nvidia.toml" in findings[0].message


def test_imports_are_merged_by_a_later_containerd(tmp_path: Path) -> None:
    """With version 3 of the file the drop-in's runtime stands beside the others."""
    dropin = (
        "version = 3\n"
        '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.crun]\n'
        'runtime_type = "io.containerd.runc.v2"\n'
    )
    files = {CONFIG: 'imports = ["conf.d/crun.toml"]\n' + V3.format("true"), "etc/containerd/conf.d/crun.toml": dropin}
    daemon = containerd(tree_of(tmp_path, files))
    assert daemon is not None
    assert ([each.name for each in daemon.handlers], daemon.driver) == (["runc", "crun"], "systemd")


def test_circular_imports_end(tmp_path: Path) -> None:
    """A file that imports itself is read once."""
    tree = tree_of(tmp_path, {CONFIG: 'imports = ["config.toml", "./config.toml"]\n' + V2.format("true")})
    daemon = containerd(tree)
    assert daemon is not None
    assert daemon.driver == "systemd"


def test_broken_file(tmp_path: Path) -> None:
    """A file that is no TOML is an error with its line; the other checks go on."""
    (finding,) = driver_findings(tree_of(tmp_path, {CONFIG: "version = 2\n[plugins\n"}))
    assert (finding.id, finding.severity) == ("daemon-config-unreadable", "error")
    assert "line 2" in finding.message


def test_cri_disabled(tmp_path: Path) -> None:
    """The file of docker's package keeps the kubelet out."""
    files = {CONFIG: 'disabled_plugins = ["cri"]\n', "var/lib/kubelet/config.yaml": KUBELET}
    assert [each.id for each in driver_findings(tree_of(tmp_path, files))] == ["cri-disabled"]


def test_crio_drop_ins_and_endpoint(tmp_path: Path) -> None:
    """The daemon that the kubelet's endpoint names counts, and the last drop-in wins."""
    files = {
        CONFIG: V2.format("true"),
        "etc/crio/crio.conf": '[crio.runtime]\ncgroup_manager = "systemd"\n',
        "etc/crio/crio.conf.d/10.conf": '[crio.runtime]\ncgroup_manager = "cgroupfs"\n',
        "var/lib/kubelet/config.yaml": KUBELET
        + "cgroupDriver: systemd\ncontainerRuntimeEndpoint: unix:///run/crio/crio.sock\n",
    }
    tree = tree_of(tmp_path, files)
    (finding,) = driver_findings(tree)
    assert 'CRI-O uses the cgroupfs cgroup driver (cgroup_manager = "cgroupfs")' in finding.message
    assert (found := crio(tree)) is not None
    assert found.source == "/etc/crio/crio.conf.d/10.conf"


@pytest.mark.parametrize(("mounts", "expected"), [(UNIFIED, []), (HYBRID, ["cgroup-driver-mismatch"])])
def test_docker_default(tmp_path: Path, mounts: str, expected: list[str]) -> None:
    """Docker's default is systemd on cgroup v2 with systemd, else cgroupfs."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    files = {
        "etc/docker/daemon.json": "{}",
        "proc/self/mountinfo": mounts,
        "var/lib/kubelet/config.yaml": KUBELET
        + "cgroupDriver: systemd\ncontainerRuntimeEndpoint: unix:///run/cri-dockerd.sock\n",
    }
    assert [each.id for each in driver_findings(tree_of(tmp_path, files))] == expected


def test_systemd_driver_without_systemd(tmp_path: Path) -> None:
    """The systemd driver on a node whose first process is another init."""
    files = {CONFIG: V2.format("true"), "ps.txt": "PID TTY STAT TIME COMMAND\n1 ? Ss 0:01 /sbin/openrc-init\n"}
    assert [each.id for each in driver_findings(tree_of(tmp_path, files))] == ["systemd-driver-without-systemd"]


def test_modes(tmp_path: Path) -> None:
    """A hybrid layout whose v2 has controllers, a missing controller, and a tree that does not say what v2 has."""
    files = {"proc/self/mountinfo": HYBRID, "sys/fs/cgroup/unified/cgroup.controllers": "hugetlb\n"}
    hybrid, missing = drivers.cgroup_mode(tree_of(tmp_path / "a", files))
    assert (hybrid.id, hybrid.cause) == ("hybrid-with-controllers", "cgroup-v1-v2-mismatch")
    assert (missing.id, "no pids cgroup controller" in missing.message) == ("controller-missing", True)
    silent = tree_of(tmp_path / "b", {"proc/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"})
    assert list(drivers.cgroup_mode(silent)) == []
    assert [each.what for each in silent.unseen] == ["cgroup v2 controllers"]
    files = {"proc/1/mountinfo": UNIFIED, "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n"}
    (finding,) = drivers.cgroup_mode(tree_of(tmp_path / "c", files))
    assert "no memory cgroup controller" in finding.message


def test_binaries(tmp_path: Path) -> None:
    """A shim or BinaryName that is not there, and a default runtime that is not configured."""
    config = V2.format("true").replace('= "runc"\n', '= "fast"\n') + 'BinaryName = "/opt/bin/crun"\n'
    tree = tree_of(tmp_path, {CONFIG: config, **{f"usr/bin/p{number}": "" for number in range(30)}})
    found = {each.id: each for each in binaries.runtime_binaries(tree)}
    assert set(found) == {"default-runtime-unknown", "runtime-binary-missing"}
    messages = [each.message for each in binaries.runtime_binaries(tree)]
    assert any("containerd-shim-runc-v2" in message for message in messages)
    assert any("/opt/bin/crun" in message for message in messages)
    assert {each.cause for each in found.values()} == {"runtime-missing"}


def test_no_binaries_in_a_bundle(tmp_path: Path) -> None:
    """A tree of files without programs says nothing of programs."""
    tree = tree_of(tmp_path, {CONFIG: V2.format("true")})
    assert list(binaries.runtime_binaries(tree)) == []
    assert [each.what for each in tree.unseen if "binaries" in each.what] == ["binaries of runtimes"]
