"""config.md, Linux Process: capabilities, no_new_privs, OOM score, scheduler and I/O priority."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from harness.compat.conformance.claims import claim
from harness.compat.conformance.lab import STATUS, Lab, Running, call, read
from harness.oci.vocabulary import CAPABILITIES

SECTION = "config.md#configLinuxProcess"
SCORE = read("/proc/self/oom_score_adj")
CHOWN, KILL, RAW = "CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"


def caps(running: Running, name: str) -> set[str]:
    bits = int(running.status(name), 16)
    return {known for number, known in enumerate(CAPABILITIES) if bits >> number & 1}


def with_capabilities(lab: Lab, sets: dict[str, list[str]], uid: int = 0) -> Running:
    """root's execve(2) raises all that the bounding set allows, but for no_new_privs: then the permitted set shows."""
    process: dict[str, Any] = {"user": {"uid": uid, "gid": uid}, "capabilities": sets}
    if uid == 0:
        process["noNewPrivileges"] = True
    return lab.run({"process": process}, STATUS)


@claim(
    SECTION,
    "the `bounding` field is an array of bounding capabilities that are kept for the process.",
    "/process/capabilities/bounding",
)
def test_capabilities_bounding(lab: Lab) -> None:
    assert caps(with_capabilities(lab, {"bounding": [CHOWN, KILL, RAW]}), "CapBnd") == {CHOWN, KILL, RAW}


@claim(
    SECTION,
    "the `bounding` field is an array of bounding capabilities that are kept for the process.",
    f"/process/capabilities/bounding/={KILL}",
)
def test_capabilities_bounding_each(lab: Lab) -> None:
    """Each name counts, none is more than its own bit."""
    assert caps(with_capabilities(lab, {"bounding": [CHOWN, KILL]}), "CapBnd") == {CHOWN, KILL}


@claim(
    SECTION,
    "the `permitted` field is an array of permitted capabilities that are kept for the process.",
    "/process/capabilities/permitted",
)
def test_capabilities_permitted(lab: Lab) -> None:
    sets = {"bounding": [CHOWN, KILL, RAW], "permitted": [CHOWN, KILL], "effective": [CHOWN, KILL]}
    assert caps(with_capabilities(lab, sets), "CapPrm") == {CHOWN, KILL}


@claim(
    SECTION,
    "the `effective` field is an array of effective capabilities that are kept for the process.",
    "/process/capabilities/permitted",
)
def test_capabilities_effective(lab: Lab) -> None:
    """execve(2) makes it anew from the permitted set (capabilities(7)): it shows what both of them hold."""
    sets = {"bounding": [CHOWN, KILL, RAW], "permitted": [CHOWN, RAW], "effective": [CHOWN, RAW]}
    assert caps(with_capabilities(lab, sets), "CapEff") == {CHOWN, RAW}


@claim(
    SECTION,
    "the `inheritable` field is an array of inheritable capabilities that are kept for the process.",
    "/process/capabilities/inheritable",
)
def test_capabilities_inheritable(lab: Lab) -> None:
    sets = {"bounding": [CHOWN, KILL], "permitted": [CHOWN, KILL], "inheritable": [KILL]}
    assert caps(with_capabilities(lab, sets, uid=1001), "CapInh") == {KILL}


@claim(
    SECTION,
    "the `ambient` field is an array of ambient capabilities that are kept for the process.",
    "/process/capabilities/ambient",
)
@pytest.mark.parametrize("line", ["CapAmb", "CapPrm", "CapEff"])
def test_capabilities_ambient(lab: Lab, line: str) -> None:
    """They are what a process of another user than root is left with after its execve(2)."""
    names = ("bounding", "permitted", "inheritable", "effective", "ambient")
    sets = {name: [CHOWN, RAW] if name != "ambient" else [RAW] for name in names}
    assert caps(with_capabilities(lab, sets, uid=1001), line) == {RAW}


@claim(
    SECTION,
    "Any value which cannot be mapped to a relevant kernel interface, or cannot be granted otherwise MUST be "
    "logged as a "
    "warning by the runtime.",
    "refuse:/process/capabilities/bounding/=CAP_BOGUS",
)
def test_capability_unknown(lab: Lab) -> None:
    """No error; how a warning is told is not for the spec to say."""
    assert caps(with_capabilities(lab, {"bounding": [CHOWN, "CAP_BOGUS"]}), "CapBnd") == {CHOWN}


@claim(
    SECTION,
    "setting `noNewPrivileges` to true prevents the process from gaining additional privileges.",
    "/process/noNewPrivileges",
)
def test_no_new_privileges(lab: Lab) -> None:
    assert lab.run({"process": {"noNewPrivileges": True}}, STATUS).status("NoNewPrivs") == "1"


@claim(
    SECTION, "If `oomScoreAdj` is set, the runtime MUST set `oom_score_adj` to the given value.", "/process/oomScoreAdj"
)
def test_oom_score(lab: Lab) -> None:
    """Higher than this process's: to lower it needs CAP_SYS_RESOURCE."""
    assert lab.run({"process": {"oomScoreAdj": 543}}, SCORE).text(SCORE) == "543\n"


@claim(
    SECTION,
    "If `oomScoreAdj` is not set, the runtime MUST NOT change the value of `oom_score_adj`.",
    "add:/process/oomScoreAdj",
)
def test_oom_score_unset(lab: Lab) -> None:
    assert lab.run({}, SCORE).text(SCORE) == Path("/proc/self/oom_score_adj").read_text()


@claim(
    SECTION,
    "represents the scheduling policy.",
    "/process/scheduler",
    needs=("host-process:",),
)
@pytest.mark.parametrize("policy", ["SCHED_BATCH", "SCHED_IDLE"])
def test_scheduler_policy(lab: Lab, policy: str) -> None:
    running = lab.run({"process": {"scheduler": {"policy": policy}}})
    assert os.sched_getscheduler(running.pid) == getattr(os, policy)


@claim(
    SECTION,
    "is the nice value for the process, affecting its priority.",
    "/process/scheduler/nice",
    needs=("host-process:",),
)
def test_scheduler_nice(lab: Lab) -> None:
    running = lab.run({"process": {"scheduler": {"policy": "SCHED_OTHER", "nice": 7}}})
    assert os.getpriority(os.PRIO_PROCESS, running.pid) == 7


CLASSES = {"IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}  # linux/ioprio.h


@claim(
    SECTION,
    "configures the I/O priority settings for the container's processes within the process group.",
    "/process/ioPriority",
)
@pytest.mark.parametrize("name", list(CLASSES))
def test_io_priority(lab: Lab, name: str) -> None:
    question = call("ioprio_get", 1, 0)  # IOPRIO_WHO_PROCESS, itself
    level = 6 if name == "IOPRIO_CLASS_BE" else 0  # the idle class has none
    running = lab.run({"process": {"ioPriority": {"class": name, "priority": level}}}, question)
    assert running.result(question) == CLASSES[name] << 13 | level
