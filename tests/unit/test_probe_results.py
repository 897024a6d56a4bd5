"""What the probes print, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from harness.cgroup.hierarchy import Layout
from harness.compat.probes.findings import findings, missing_capabilities
from harness.compat.probes.host import Probed
from harness.compat.probes.settings import parse_key_users, settings, subordinate_ids
from harness.compat.probes.starts import Start
from harness.compat.probes.tries import Try, parse
from harness.diagnosis.node.finding import SEVERITIES
from harness.faults.catalogue import load_causes


@pytest.mark.parametrize(
    ("outcome", "works", "reason"),
    [
        ("0", True, None),
        ("1", False, "mount: EPERM (Operation not permitted)"),
        ("nothing", False, "no effect: not so that mount"),
        ("signal 31", False, "mount: killed by signal 31"),
        ("late", False, "no end of: mount"),
    ],
)
def test_outcomes(outcome: str, works: bool, reason: str | None) -> None:
    """Each way in which a probe can end has its own reason."""
    tried = parse(f"mount:proc\t{outcome}\tmount\n")["mount:proc"]
    assert (tried.works, tried.reason, tried.late) == (works, reason, outcome == "late")


@pytest.mark.parametrize("text", ["mount:proc", "mount:proc\tx\tmount", "\t0\t", "a\t0\tb\tc"])
def test_other_lines_are_refused(text: str) -> None:
    """What is no line of the program is not taken for a result."""
    with pytest.raises(ValueError, match=r"no line|invalid literal"):
        parse(text)


def test_key_users() -> None:
    """/proc/key-users is read by uid; a line of another form is left out."""
    text = "    0:    10 9/9 4/1000000 80/25000000\n 1000: x\n65534:     1 1/1 190/200 9/20000\n"
    assert parse_key_users(text) == {
        0: {"keys": 4, "maxkeys": 1000000, "bytes": 80, "maxbytes": 25000000},
        65534: {"keys": 190, "maxkeys": 200, "bytes": 9, "maxbytes": 20000},
    }


def test_subordinate_ids(tmp_path: Path) -> None:
    """Ranges of one user add up; comments and nonsense count for nothing; no file is no range."""
    (tmp_path / "subuid").write_text("a:100000:65536\n# a:1:1\na:200000:10\nb:1:x\n")
    assert subordinate_ids(tmp_path)["a"] == {"uid": 65546, "gid": 0}
    assert "b" not in subordinate_ids(tmp_path)
    assert subordinate_ids(tmp_path / "none") == {}


def probed(**changes: object) -> Probed:
    layout = Layout("none", ())
    made = Probed(layout, settings=settings(layout), subordinate={"a": {"uid": 1, "gid": 1}})
    made.layout = replace(layout, mode="unified")
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_a_runtime_that_works_in_another_view() -> None:
    """A warning with the view in which it works; an error where no view helps."""
    refused = Start("host", "hybrid", False, "crun: no", "cgroup-v1-v2-mismatch", "node", "no", "boot otherwise")
    works = Start("legacy", "legacy", True)
    (warning,) = (f for f in findings(probed(starts={"crun": {"host": refused, "legacy": works}})) if "runtime" in f.id)
    assert (warning.severity, warning.cause) == ("warning", "cgroup-v1-v2-mismatch")
    assert warning.fix == "with this tool use --view legacy, where it works; for good: boot otherwise"
    (error,) = (f for f in findings(probed(starts={"crun": {"host": refused}})) if "runtime" in f.id)
    assert (error.severity, error.fix) == ("error", "boot otherwise")


def test_all_that_can_be_found_is_in_the_taxonomy() -> None:
    """With every probe failing the findings are sorted, and each has a known cause, a text and a fix."""
    names = (
        "ns:pid",
        "ns:time",
        "mount:proc",
        "overlay:tmpfs",
        "seccomp:errno",
        "call:exec-memfd",
        "psi",
        "idmap:tmpfs",
    )
    tries = {name: Try(name, 1, "mount: EPERM (Operation not permitted)") for name in names}
    rootless = {"ns:uts": Try("ns:uts", 28, "unshare(CLONE_NEWUSER): ENOSPC (No space left on device)")}
    found = findings(probed(tries=tries, rootless=rootless))
    if len(missing_capabilities() or []) < 20:
        assert {"no-ns-pid", "no-mount-proc", "no-seccomp-errno", "no-psi"} <= {finding.id for finding in found}
    assert "no-rootless" in {finding.id for finding in found}
    order = [SEVERITIES.index(finding.severity) for finding in found]
    assert order == sorted(order)
    assert {finding.cause for finding in found} <= set(load_causes())
    assert all(finding.message and finding.fix for finding in found)


def test_one_that_hangs() -> None:
    """A probe that had to be killed is told as that, not as something the kernel lacks."""
    (late,) = (f for f in findings(probed(tries={"psi": Try("psi", None, "no end of: write")})) if "psi" in f.message)
    assert late.id == "probe-late"
