"""The probe program on the real kernel: what works, what was taken away, what hangs, and that nothing stays."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cgroup.hierarchy import detect
from harness.compat.probes.controllers import try_controllers
from harness.compat.probes.tries import NOBODY, program, try_all
from harness.errors import HostError
from harness.kernel import procfs
from harness.oci.recipe import data_root
from harness.process.children import reap_orphans

Require = Callable[..., None]
DENY = str(data_root() / "payload" / "deny")
# What every kernel of this decade gives to root; names of probes whose failure would be the probe's own fault.
ALWAYS = (
    "ns:mnt",
    "ns:pid",
    "ns:net",
    "ns:uts",
    "ns:ipc",
    "mount:tmpfs",
    "mount:bind",
    "seccomp:errno",
    "seccomp:trap",
)


@pytest.fixture(scope="module", autouse=True)
def none_left() -> Iterator[None]:
    """Processes that a try, or a command, leaves to end by themselves are ours once something made us the subreaper."""
    yield
    until = time.monotonic() + 5
    while (left := procfs.children(os.getpid())) and time.monotonic() < until:
        reap_orphans(frozenset(stat.comm for pid in left if (stat := procfs.process_stat(pid)) is not None))
    assert not left, [procfs.process_stat(pid) for pid in left]


def cgroups(pid: int) -> list[str]:
    """Those that the process with this pid has made to try something."""
    return [str(path) for h in detect().hierarchies for path in Path(h.mount_point).glob(f"oci-harness-*-{pid}-*")]


def test_what_root_can(require: Require) -> None:
    """Plain namespaces, mounts and filters work for root, each in a process of its own."""
    require("root")
    tried = try_all(ALWAYS)
    assert {name: each.reason for name, each in tried.items()} == dict.fromkeys(ALWAYS)


@pytest.mark.parametrize(
    ("number", "name"),
    [("435", "call:clone3"), ("437", "call:openat2"), ("434", "call:pidfd"), ("442", "mount:recursive-readonly")],
)
def test_behaviour_not_version(require: Require, number: str, name: str) -> None:
    """A call that a filter takes away is found missing, whatever release the kernel says it is."""
    require("root")
    assert try_all([name])[name].works
    denied = try_all([name], prefix=[DENY, str(errno.ENOSYS), number])[name]
    assert (denied.works, denied.error) == (False, errno.ENOSYS)


def test_a_call_without_effect(require: Require) -> None:
    """A call that says it went well and did nothing is found out: errno 0 from a filter is a success without effect."""
    require("root")
    denied = try_all(["ns:uts"], prefix=[DENY, "0", "272"] if os.uname().machine == "x86_64" else [DENY, "0", "97"])
    assert denied["ns:uts"].reason == "no effect: not so that it is another namespace"


def test_rootless(require: Require) -> None:
    """As nobody the user namespace comes first; what needs the real root is refused there and only there."""
    require("root")
    names = ("mount:device-node", "limit:realtime")
    own, nobody = try_all(names), try_all(names, rootless=NOBODY)
    assert all(each.works for each in own.values())
    assert not any(each.works for each in nobody.values())


def test_no_user_namespaces(require: Require) -> None:
    """Where an unprivileged user can make no user namespace, every rootless probe says just that."""
    require("root")
    unshare = "272&268435456" if os.uname().machine == "x86_64" else "97&268435456"
    tried = try_all(("ns:uts", "mount:tmpfs"), rootless=NOBODY, prefix=[DENY, "28", unshare])
    assert {each.reason for each in tried.values()} == {"unshare(CLONE_NEWUSER): ENOSPC (No space left on device)"}


def test_a_probe_that_hangs(require: Require, tmp_path: Path) -> None:
    """One that cannot end is killed at the deadline and told as late, and others are not hurt."""
    require("root")
    os.mkfifo(tmp_path / "cgroup.procs")  # in the place of a cgroup's: to open it for writing waits for ever
    begin = time.monotonic()
    tried = try_all(("ns:uts", "seccomp:kill-process"), rootless=NOBODY, cgroup=str(tmp_path))
    assert all(each.late for each in tried.values())
    assert time.monotonic() - begin < 10
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout
    assert left == ""


def test_controllers(require: Require) -> None:
    """Every mounted controller answers, with what was written to try it, and its cgroup is gone afterwards."""
    require("root")
    before = cgroups(os.getpid())
    layout = detect()
    found = try_controllers(layout, f"oci-harness-host-{os.getpid()}-test", ["no_such"])
    assert cgroups(os.getpid()) == before
    assert {name for name, each in found.items() if each.version} == {
        n for h in layout.hierarchies for n in h.controllers
    }
    assert found["no_such"].usable is None
    for name in ("memory", "pids", "cpu"):
        if name in found:
            assert found[name].usable, found[name].reason
            assert found[name].tried


def test_unbuilt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the compiled program there is one line that says what to do."""
    (tmp_path / "payload").mkdir()
    monkeypatch.setattr("harness.compat.probes.tries.data_root", lambda: tmp_path)
    with pytest.raises(HostError, match="not built"):
        program()


def host(*args: str, before: tuple[str, ...] = ()) -> dict[str, object]:
    argv = [*before, sys.executable, "-m", "harness", "host", "--json", *args]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, "")
    assert cgroups(running.pid) == []
    value: dict[str, object] = json.loads(out)
    return value


def test_host_document(require: Require) -> None:
    """The whole document: probes as root and rootless, every view of every runtime, findings; nothing left behind."""
    require("root", "runc", "crun")
    value = host("--runtime", "runc", "--runtime", "crun")
    probes = value["probes"]
    assert isinstance(probes, dict)
    assert len(probes) > 50
    assert all(set(each) == {"works", "reason", "rootless"} for each in probes.values())
    runtimes = value["runtimes"]
    assert isinstance(runtimes, list)
    for each in runtimes:
        assert set(each["views"]) == {"host", "legacy", "hybrid", "unified"}
        for start in each["views"].values():
            assert start["works"] is not False or (start["reason"] and start["cause"])
        assert each["usable"] == any(start["works"] for start in each["views"].values())
    findings = value["findings"]
    assert isinstance(findings, list)
    ids = [finding["id"] for finding in findings]
    refused = [each["name"] for each in runtimes if each["views"]["host"]["works"] is False]
    assert ids.count("runtime-does-not-start") == len(refused)
    capabilities = value["capabilities"]
    assert isinstance(capabilities, dict)
    if "CAP_SYS_RESOURCE" in capabilities["missing"]:
        assert any("CAP_SYS_RESOURCE" in finding["message"] and finding["fix"] for finding in findings)


def test_unprivileged_host(require: Require) -> None:
    """Without capabilities the document is whole, says so in one finding, and tries no view."""
    require("root")
    value = host("--runtime", "runc", before=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))
    findings = value["findings"]
    assert isinstance(findings, list)
    assert "not-privileged" in [finding["id"] for finding in findings]
