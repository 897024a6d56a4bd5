"""The fault engine with real runtimes: what it catches, what it takes back, and that the host is as it was."""

from __future__ import annotations

import os
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from actors import CommandLine, Sessions, until

from harness.errors import HostError
from harness.faults import attempt as attempt_module
from harness.faults import schema
from harness.faults.attempt import Attempt, run_attempt
from harness.faults.catalogue import Cause, Entry, find_faults, load_catalogue, parse_fault
from harness.faults.keep import keep_bundle
from harness.faults.key_quota import FEW, held
from harness.faults.reproduce import Proofs, reproduce
from harness.faults.verdict import Verdict
from harness.kernel import procfs
from harness.kernel.kmsg import KernelLog
from harness.process.children import kill_tree, reap_orphans
from harness.runtime.dialects import RUNC
from harness.runtime.discovery import Runtime, find_runtime
from harness.runtime.session import Session

IN_GUESTS = ("apparmor-profile",)  # steps that need another kernel: tests/vm
KEY_USER = 1999900000  # that of the catalogue's key-quota
CAUSES = {"no-space": Cause("meaning", ["node"], "tell", "fix")}
HEAD = 'title = "t"\ncause = "no-space"\nside = "node"\nsummary = "s"\n'
HEAL = '[heal]\ntext = "h"\nundo = ["config", "node", "rootfs"]\n'
DENIED = (
    HEAD
    + '[[break.config]]\npointer = "/process/args"\nvalue = ["/x"]\n'
    + '[[break.rootfs]]\ndo = "write"\npath = "/x"\n'
)


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest, require: Callable[..., None], sessions: Sessions) -> Runtime:
    require("root", "runc", "crun")
    return sessions.runtime(request.param)


@pytest.fixture
def session(pair: Session) -> Session:
    return pair


def entry(slug: str, text: str, runtime: Runtime, **expect: Any) -> Entry:
    document = tomllib.loads(text)
    document["expect"] = [{"runtime": runtime.dialect.name, **expect}]
    return parse_fault(slug, document, slug, CAUSES)


def verdict(session: Session, runtime: Runtime, wanted: Entry) -> Verdict:
    return next(reproduce(session, [wanted], [runtime]))


def attempt(session: Session, runtime: Runtime, wanted: Entry) -> Attempt:
    log = KernelLog()
    try:
        return run_attempt(session, runtime, wanted, False, log)
    finally:
        log.close()


class Node:
    """What a look at the node from inside the session finds."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.before = self._look()

    def _look(self) -> dict[str, list[str]]:
        session = self._session
        call = session.namespace.call
        mounts = call(Path("/proc/thread-self/mountinfo").read_text).splitlines()
        below = [f"{h.mount_point}/{session.workspace.cgroup}" for h in session.layout.hierarchies]
        cgroups = [str(path) for top in below for path in call(lambda top=top: list(Path(top).glob("*/")))]
        return {
            "mounts": sorted(" ".join(line.split()[3:6]) for line in mounts),
            "cgroups": sorted(cgroups),
            "state": sorted(map(str, session.workspace.path.glob("root/*/*"))),
            "containers": sorted(map(str, session.workspace.path.glob("c/*"))),
            "keys": ["used up"] if held(KEY_USER) > FEW else [],
        }

    @property
    def changed(self) -> dict[str, list[str]]:
        """Whatever is there now and was not before, or the other way round."""
        now = self._look()
        return {what: sorted({*now[what]} ^ {*self.before[what]}) for what in now if now[what] != self.before[what]}


@pytest.fixture
def node(session: Session) -> Node:
    return Node(session)


# --- what is caught


@pytest.mark.parametrize(
    ("expect", "reason"),
    [
        ({"stage": "start", "exit_status": 1}, "failed at create, expected at start"),
        ({"exit_status": 2}, "exit status 1, expected 2"),
        ({"clause": "another text"}, "the text is another"),
        ({"stderr": "another line"}, "the container's stderr is another"),
        ({"timed_out": True}, "ended, but should have hung"),
        ({"exit_status": 1, "log": "another record"}, "the runtime's log does not say it"),
        ({"exit_status": 1, "kernel_log": "another line"}, "the kernel's log does not say it"),
        ({"outcome": "tolerates"}, "expected to be tolerated, but failed at create"),
    ],
)
def test_a_wrong_expectation_is_inconclusive(
    session: Session, runtime: Runtime, expect: dict[str, Any], reason: str
) -> None:
    found = verdict(session, runtime, entry("wrong", DENIED + HEAL, runtime, **expect))
    assert (found.verdict, found.as_expected) == ("inconclusive", False)
    assert reason in (found.reason or "")


def test_one_run_proves_all_that_are_healed_to_the_same_bundle(session: Session, runtime: Runtime) -> None:
    """Only with `proofs`; a fault that is healed to another bundle has a run of its own."""
    same = find_faults(("mount-target-below-a-file", "namespace-type-unknown"))
    other = find_faults(("exec-permission-denied",))[:1]
    proofs: Proofs = {}
    found = list(reproduce(session, [*same, *other], [runtime], proofs=proofs))
    assert [each.verdict for each in found] == ["reproduced"] * 3
    assert [each.healed_as for each in found] == [None, "mount-target-below-a-file", None]
    assert found[1].healed is found[0].healed
    assert found[1].to_json()["counterfactual"]["as_of"] == "mount-target-below-a-file"
    assert [each.healed_as for each in reproduce(session, same, [runtime])] == [None, None]


def test_a_broken_bundle_that_runs_is_not_reproduced(session: Session, runtime: Runtime) -> None:
    harmless = HEAD + '[[break.config]]\npointer = "/hostname"\nvalue = "other"\n'
    found = verdict(session, runtime, entry("harmless", harmless + HEAL, runtime, exit_status=1))
    assert (found.verdict, found.as_expected, found.reason) == ("not-reproduced", False, "the broken bundle runs")


def test_a_heal_that_does_not_heal_is_caught(session: Session, runtime: Runtime) -> None:
    useless = '[heal]\ntext = "h"\n[[heal.rootfs]]\ndo = "chmod"\npath = "/x"\nmode = 0o600\n'
    found = verdict(session, runtime, entry("useless", DENIED + useless, runtime, exit_status=1))
    assert (found.verdict, found.as_expected) == ("inconclusive", False)
    assert "the healed bundle fails as well, at create" in (found.reason or "")


LEAVES = {
    "state": "mkdir -p ${root}/${id}",
    "cgroup": "mkdir -p TOP/${cgroup}",
    "process": "mkdir -p TOP/${cgroup}; sleep 100 <&- >&- 2>&- & echo $$! >TOP/${cgroup}/cgroup.procs",
}


@pytest.mark.parametrize("kind", LEAVES)
def test_what_a_runtime_leaves_is_caught_and_removed(session: Session, runtime: Runtime, node: Node, kind: str) -> None:
    top = session.layout.hierarchies[0].mount_point
    script = f"#!/bin/sh\n{LEAVES[kind].replace('TOP', top)}\nexit 7\n"
    text = HEAD + f"[[break.node]]\ndo = \"fake-runtime\"\nkind = \"script\"\ntext = '''{script}'''\n" + HEAL
    found = verdict(session, runtime, entry(f"leaves-{kind}", text, runtime, exit_status=7))
    assert (found.verdict, found.as_expected) == ("inconclusive", False)
    assert f"left behind: {'cgroup' if kind == 'process' else kind}: " in (found.reason or "")
    assert {leak.partition(":")[0] for leak in found.leaks} == {kind, *(["cgroup"] if kind == "process" else [])}
    assert node.changed == {}


def test_a_known_leak_is_told_but_no_failure(session: Session, runtime: Runtime) -> None:
    script = "#!/bin/sh\nmkdir -p ${root}/${id}\nexit 7\n"
    text = HEAD + f"[[break.node]]\ndo = \"fake-runtime\"\nkind = \"script\"\ntext = '''{script}'''\n" + HEAL
    found = verdict(session, runtime, entry("known-leak", text, runtime, exit_status=7, leaks=["state"]))
    assert (found.verdict, found.as_expected) == ("reproduced", True)
    assert [leak.partition(":")[0] for leak in found.leaks] == ["state"]


# --- what is taken back

EVERY_STEP = """
[[break.node]]
do = "tmpfs"
path = "${root}"
fill = "inodes"
inodes = 50
[[break.node]]
do = "remount"
path = "${work}"
flags = ["ro"]
[[break.node]]
do = "remount"
path = "${rootfs}"
whole = true
[[break.node]]
do = "host-path"
path = "${bundle}/other"
[[break.node]]
do = "cgroup"
path = "${run}/parent-of-${id}"
occupied = true
frozen = true
holds_runtime = true
[[break.node]]
do = "key-quota"
uid = 1999900000
[[break.node]]
do = "fake-runtime"
kind = "missing"
[[break.node]]
do = "wrap"
argv = ["true"]
[[break.node]]
do = "deny-syscalls"
names = ["openat2"]
[[break.node]]
do = "state-file"
change = "garbage"
[[break.node]]
do = "kill-init"
[[break.node]]
do = "global-options"
args = ["--debug"]
[[break.node]]
do = "create-options"
args = ["--no-pivot"]
[[break.node]]
do = "deadline"
seconds = 1.0
"""
REFUSED = '[[break.node]]\ndo = "host-path"\npath = "/etc/oci-harness"\n'


def test_every_node_step_is_taken_back_when_a_later_one_is_refused(
    session: Session, runtime: Runtime, node: Node
) -> None:
    named = {step["do"] for step in tomllib.loads(EVERY_STEP)["break"]["node"]}
    assert named == set(tags()) - {"taken-id", *IN_GUESTS}
    wanted = entry("refused", HEAD + EVERY_STEP + REFUSED + HEAL, runtime, exit_status=1)
    found = attempt(session, runtime, wanted)
    assert found.inapplicable is not None
    assert "a fault may only change ${bundle}" in found.inapplicable
    assert not Path("/etc/oci-harness").exists()
    assert node.changed == {}


def tags() -> list[str]:
    return [str(step.__struct_config__.tag) for step in schema.NodeStep.__args__]


def test_every_node_step_is_taken_back_when_the_lifecycle_raises(
    session: Session, runtime: Runtime, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, list[str]]] = []

    def broken(*_: object) -> None:
        seen.append(node.changed)
        raise RuntimeError("in the middle")

    monkeypatch.setattr(attempt_module, "_lifecycle", broken)
    # one that holds a container under the id, and therefore stands before those that take its root away
    steps = '[[break.node]]\ndo = "taken-id"\n' + EVERY_STEP
    with pytest.raises(RuntimeError, match="in the middle"):
        attempt(session, runtime, entry("raises", HEAD + steps + HEAL, runtime, exit_status=1))
    assert {"mounts", "cgroups", "state", "containers", "keys"} == set(seen[0])
    assert node.changed == {}


def test_processes_that_hang_in_a_frozen_cgroup_are_ended_at_the_deadline(
    session: Session, runtime: Runtime, node: Node
) -> None:
    wanted = load_catalogue()["cgroup-parent-frozen"]
    began = time.monotonic()
    found = attempt(session, runtime, wanted)
    assert found.timed_out
    assert time.monotonic() - began < 3.0
    assert node.changed == {}


def test_who_hangs_in_a_frozen_cgroup_is_not_thawed_before_it_is_killed(
    session: Session, runtime: Runtime, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine so slow that the killing begins half a second after the deadline: else the runtime would go on."""

    def late(pid: int) -> list[int]:
        time.sleep(0.5)
        return kill_tree(pid)

    monkeypatch.setattr("harness.process.command.kill_tree", late)
    found = attempt(session, runtime, load_catalogue()["cgroup-parent-frozen"])
    assert (found.timed_out, found.failed_stage) == (True, "create")
    assert node.changed == {}


def test_the_keys_of_a_user_who_is_somebody_are_left_alone(session: Session, runtime: Runtime) -> None:
    text = HEAD + '[[break.node]]\ndo = "key-quota"\nuid = 0\n' + HEAL
    found = attempt(session, runtime, entry("keys-of-root", text, runtime, exit_status=1))
    assert "uid 0 is root" in (found.inapplicable or "")


@pytest.mark.parametrize("path", ["/etc", "${bundle}/../..", "${root}", "/"])
def test_no_path_of_the_host_can_be_changed(session: Session, runtime: Runtime, path: str) -> None:
    text = HEAD + f'[[break.node]]\ndo = "host-path"\npath = "{path}"\nkind = "absent"\n' + HEAL
    found = attempt(session, runtime, entry("host", text, runtime, exit_status=1))
    assert "a fault may only change ${bundle}" in (found.inapplicable or "")


def test_a_node_that_cannot_be_put_back_is_an_error(
    session: Session, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never silent: but the rest is taken back all the same."""
    from harness.faults.node import Node as NodeUnderTest

    original = NodeUnderTest.close

    def stubborn(self: NodeUnderTest) -> None:
        def refuse() -> None:
            raise OSError(16, "Device or resource busy")

        self.undo.callback(refuse)
        original(self)

    monkeypatch.setattr(NodeUnderTest, "close", stubborn)
    wanted = entry("stubborn", HEAD + EVERY_STEP + HEAL, runtime, exit_status=1)
    with pytest.raises(HostError, match=r"could not be put back: .*busy"):
        attempt(session, runtime, wanted)


# --- a few of the catalogue, at least one for every kind of step

SAMPLE = {
    "tmpfs": "state-dir-no-inodes",
    "remount": "rootfs-readonly",
    "host-path": "bundle-not-traversable",
    "cgroup": "memory-limit-parent",
    "fake-runtime": "runtime-missing",
    "wrap": "capability-setgid",
    "deny-syscalls": "keyctl-denied",
    "key-quota": "key-quota",
    "taken-id": "id-taken",
    "state-file": "state-truncated",
    "kill-init": "init-killed",
    "global-options": "log-directory-missing",
    "deadline": "runtime-hangs",
}


def test_the_sample_has_every_kind_of_step() -> None:
    catalogue = load_catalogue()
    assert set(SAMPLE) == set(tags()) - {"create-options", *IN_GUESTS}
    for tag, slug in SAMPLE.items():
        used = {str(step.__struct_config__.tag) for step in catalogue[slug].fault.break_.node}
        assert tag in used, slug


@pytest.mark.parametrize("slug", SAMPLE.values(), ids=SAMPLE.keys())
def test_the_catalogue_is_right_here_and_the_host_as_before(
    session: Session, runtime: Runtime, node: Node, slug: str
) -> None:
    found = verdict(session, runtime, load_catalogue()[slug])
    assert found.as_expected, f"{found.verdict}: {found.reason}: {found.text}"
    assert node.changed == {}


def test_what_a_sigkill_leaves_is_found_by_gc(session: Session, cli: CommandLine, base: Path) -> None:
    """In the middle of a frozen cgroup, with a runtime that hangs in it: the worst moment there is."""
    began = cli.start("reproduce", "cgroup-parent-frozen", "--runtime", "runc", "--view", session.choice.view)
    until(lambda: list(base.glob("*/c/cgroup-parent-frozen-broken/create-*.log")), "the runtime was started")
    time.sleep(0.2)
    began.kill()
    began.wait()
    run = next(base.glob("*/c/cgroup-parent-frozen-broken")).parent.parent.name
    assert f"removed {run}: " in cli("gc").stdout
    # init is an orphan of that process, and so became ours
    until(lambda: reap_orphans(RUNC.helper_comms) or not orphans(), "init was reaped")


def orphans() -> list[int]:
    stats = [procfs.process_stat(pid) for pid in procfs.children(os.getpid())]
    return [stat.pid for stat in stats if stat is not None and stat.comm in RUNC.helper_comms]


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_a_kept_bundle_fails_without_us(name: str, require: Callable[..., None], tmp_path: Path) -> None:
    """The commands that --keep prints show the same failure in a plain shell."""
    require(name)
    runtime = find_runtime(name)
    (entry,) = find_faults(("exec-permission-denied",))
    with Session("auto", [runtime]) as session:
        (verdict,) = reproduce(session, [entry], [runtime])
    assert verdict.verdict == "reproduced"
    create, after = keep_bundle(entry, tmp_path / "kept").commands(verdict)
    shown = subprocess.run(create, shell=True, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    subprocess.run(after, shell=True, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert shown.returncode != 0
    assert verdict.clause is not None
    assert verdict.clause in shown.stderr.replace('\\"', '"')
