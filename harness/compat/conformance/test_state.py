"""runtime.md, State and Query State: what `state` says of a container in each status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.compat.conformance.claims import claim
from harness.compat.conformance.lab import Lab
from harness.process.operation import Operation
from harness.runtime.container import Container
from harness.runtime.failures import check
from harness.runtime.options import STATE

STATE_SECTION = "runtime.md#runtimeState"
QUERY = "runtime.md#runtimeQueryState"


def state_of(container: Container) -> dict[str, Any]:
    """What the runtime prints, as it is: the harness's own reading of it would forgive too much."""
    value = json.loads(check(container.client.call(STATE, container.id)).stdout)
    assert isinstance(value, dict)
    return value


@claim(
    STATE_SECTION,
    "(string, REQUIRED) is version of the Open Container Initiative Runtime Specification",
    "state:ociVersion",
)
def test_state_has_oci_version(lab: Lab) -> None:
    version = state_of(lab.created({}))["ociVersion"]
    assert isinstance(version, str)
    assert version.count(".") == 2


@claim(STATE_SECTION, "(string, REQUIRED) is the container's ID.", "state:id")
def test_state_has_id(lab: Lab) -> None:
    container = lab.created({}, container_id="An_id+1.2-3")
    assert state_of(container)["id"] == "An_id+1.2-3"


@claim(
    STATE_SECTION,
    "(int, REQUIRED when `status` is `created` or `running` on Linux",
    "state:pid",
    needs=("host-process:",),
)
@pytest.mark.parametrize("status", ["created", "running"])
def test_state_has_pid(lab: Lab, status: str) -> None:
    container = lab.created({})
    if status == "running":
        check(container.start())
    assert container.init is not None
    assert state_of(container)["pid"] == container.init.pid


@claim(STATE_SECTION, "(string, REQUIRED) is the absolute path to the container's bundle directory.", "state:bundle")
def test_state_has_bundle(lab: Lab) -> None:
    container = lab.created({})
    assert state_of(container)["bundle"] == str(container.bundle.path)


@claim(
    STATE_SECTION,
    "`created`: the runtime has finished the create operation (after step 2 in the lifecycle), and the container "
    "process "
    "has neither exited nor executed the user-specified program",
    "state:status",
)
def test_status_created(lab: Lab) -> None:
    assert state_of(lab.created({}))["status"] == "created"


@claim(
    STATE_SECTION,
    "`running`: the container process has executed the user-specified program but has not exited",
    "state:status",
)
def test_status_running(lab: Lab) -> None:
    assert state_of(lab.run({}).container)["status"] == "running"


@claim(STATE_SECTION, "`stopped`: the container process has exited", "state:status")
def test_status_stopped(lab: Lab) -> None:
    container = lab.created({"process": {"args": ["/payload", "exit", "0"]}})
    check(container.start())
    container.wait(3.0)
    assert state_of(container)["status"] == "stopped"


@claim(
    STATE_SECTION,
    "(map, OPTIONAL) contains the list of annotations associated with the container.",
    "/annotations/com.example.one",
)
def test_state_has_annotations(lab: Lab) -> None:
    container = lab.created({"annotations": {"com.example.one": "1", "com.example.empty": ""}})
    annotations = state_of(container)["annotations"]
    assert annotations["com.example.one"] == "1"
    assert annotations["com.example.empty"] == ""


def refused(operation: Operation) -> None:
    assert not operation.timed_out
    assert operation.exit_status != 0, f"{operation.command} generated no error"


@claim(QUERY, "This operation MUST generate an error if it is not provided the ID of a container.", "accept:state")
def test_state_without_id(lab: Lab) -> None:
    refused(lab.client.call(STATE))


@claim(QUERY, "Attempting to query a container that does not exist MUST generate an error.", "accept:state")
def test_state_of_none(lab: Lab) -> None:
    refused(lab.client.call(STATE, "nobody"))
