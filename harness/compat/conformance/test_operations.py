"""runtime.md, Lifecycle and Operations: create, start, kill and delete in each status, and their errors."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from harness.cgroup.hierarchy import cgroup_paths
from harness.compat.conformance.claims import claim
from harness.compat.conformance.lab import NAMESPACES, STATUS, Lab, read
from harness.compat.conformance.test_state import refused, state_of
from harness.process.command import Stdio
from harness.runtime.container import Container
from harness.runtime.failures import check, describe
from harness.runtime.options import START, CreateOptions, DeleteOptions, KillOptions

ERRORS = "runtime.md#runtimeErrors"
CREATE = "runtime.md#runtimeCreate"
START_SECTION = "runtime.md#runtimeStart"
KILL = "runtime.md#runtimeKill"
DELETE = "runtime.md#runtimeDelete"
WAIT_S = 3.0  # for the end of a process that has been told to end
EXITS: dict[str, Any] = {"process": {"args": ["/payload", "exit", "0"]}}
# net.core.somaxconn takes no word, so the environment cannot be made
IMPOSSIBLE: dict[str, Any] = {
    "linux": {"namespaces": [*NAMESPACES, {"type": "network"}], "sysctl": {"net.core.somaxconn": "many"}}
}


def stopped(lab: Lab) -> Container:
    container = lab.created(EXITS)
    check(container.start())
    container.wait(WAIT_S)
    return container


# create


@claim(CREATE, "This operation MUST create a new container.", "ignore:create")
def test_create_makes_container(lab: Lab) -> None:
    container = lab.created({})
    assert lab.exists(container.id)


@claim(
    CREATE,
    "if it is not provided a path to the bundle and the container ID to associate with the container.",
    "accept:create",
)
def test_create_without_id(lab: Lab) -> None:
    container = lab.container({})
    refused(container.client.call(CreateOptions(str(container.bundle.path))))


@claim(
    CREATE,
    "if it is not provided a path to the bundle and the container ID to associate with the container.",
    "accept:create",
)
def test_create_without_bundle(lab: Lab) -> None:
    """A path where there is no bundle; the command line's default is the current directory."""
    refused(lab.client.call(CreateOptions(str(lab.session.workspace.path / "no-such-bundle")), "without-bundle"))
    assert not lab.exists("without-bundle")


@claim(
    CREATE,
    "If the ID provided is not unique across all containers within the scope of the runtime, or is not valid in "
    "any other "
    "way, the implementation MUST generate an error and a new container MUST NOT be created.",
    "accept:create",
)
def test_create_with_taken_id(lab: Lab) -> None:
    first = lab.created({})
    before = state_of(first)
    second = lab.container({})
    refused(second.client.create(first.id, CreateOptions(str(second.bundle.path))))
    assert state_of(first) == before


@claim(
    CREATE,
    "If the ID provided is not unique across all containers within the scope of the runtime, or is not valid in "
    "any other "
    "way, the implementation MUST generate an error and a new container MUST NOT be created.",
    "accept:create",
)
@pytest.mark.parametrize("kind", ["empty", "with-slash", "dot-dot"])
def test_create_with_bad_id(lab: Lab, kind: str) -> None:
    """An id that leaves the runtime's state directory, or names no directory at all, cannot be valid."""
    container = lab.container({})
    bad = {"empty": "", "with-slash": "a/b", "dot-dot": ".."}[kind]
    # with a pid file: what is made all the same is known, and ended
    operation = container.client.create(bad, CreateOptions(str(container.bundle.path), f"{container.directory}/pid"))
    if operation.exit_status == 0:
        container.client.call(DeleteOptions(force=True), bad)
    refused(operation)


@claim(
    CREATE,
    "`process.args` MUST NOT be applied until triggered by the `start` operation.",
    "early:create",
)
def test_create_does_not_run_program(lab: Lab) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        container = lab.created({"process": {"args": ["/payload", "pause"]}}, stdio=Stdio(stdout=writer))
        state_of(container)  # takes its time: whoever would write has had the time to
        with pytest.raises(BlockingIOError):
            os.read(reader, 64)
        assert state_of(container)["status"] == "created"
    finally:
        os.close(reader)
        os.close(writer)


@claim(
    CREATE,
    "Any changes made to the `config.json` file after this operation will not have an effect on the container.",
    "again:start",
)
def test_config_changes_after_create(lab: Lab) -> None:
    container = lab.created({"process": {"args": ["/payload", "exit", "7"]}})
    lab.rewrite(container, {"process": {"args": ["/payload", "exit", "8"]}})
    check(container.start())
    assert container.wait(WAIT_S).status == 7


@claim(
    CREATE,
    "If the runtime cannot apply a property as specified in the configuration, it MUST generate an error and a new "
    "container MUST NOT be created.",
    "/linux/sysctl",
)
def test_create_that_cannot_be(lab: Lab) -> None:
    lab.refused(IMPOSSIBLE)


@claim(
    ERRORS,
    "Unless otherwise stated, generating an error MUST leave the state of the environment as if the operation "
    "were never "
    "attempted",
    "/linux/sysctl",
    needs=("host-process:",),
)
def test_failed_create_leaves_nothing(lab: Lab) -> None:
    """No cgroup and nothing in the runtime's state directory."""
    container = lab.container(IMPOSSIBLE)
    operation = container.create()
    assert operation.exit_status != 0, describe(operation)
    path = container.bundle.config.get("/linux/cgroupsPath")
    cgroups = [Path(hierarchy.mount_point + path) for hierarchy in lab.session.layout.hierarchies]
    assert [str(cgroup) for cgroup in cgroups if lab.session.namespace.call(cgroup.is_dir)] == []
    assert [entry for entry in os.listdir(container.client.root) if container.id in entry] == []  # noqa: PTH208 - names are all that is asked


# start


@claim(START_SECTION, "This operation MUST run the user-specified program as specified by `process`.", "ignore:start")
def test_start_runs_program(lab: Lab) -> None:
    container = lab.created({"process": {"args": ["/payload", "exit", "42"]}})
    check(container.start())
    assert container.wait(WAIT_S).status == 42


@claim(START_SECTION, "This operation MUST generate an error if it is not provided the container ID.", "accept:start")
def test_start_without_id(lab: Lab) -> None:
    refused(lab.client.call(START))


@claim(
    START_SECTION,
    "Attempting to `start` a container that is not `created` MUST have no effect on the container and MUST "
    "generate an error.",
    "accept:start",
)
@pytest.mark.parametrize("status", ["none", "running", "stopped"])
def test_start_when_not_created(lab: Lab, status: str) -> None:
    if status == "none":
        refused(lab.client.call(START, "nobody"))
        return
    container = lab.run({}).container if status == "running" else stopped(lab)
    before = state_of(container)
    refused(container.start())
    assert state_of(container) == before


@claim(START_SECTION, "This operation MUST generate an error if `process` was not set.", "add:/process")
def test_start_without_process(lab: Lab) -> None:
    """A runtime that refuses to create it has said so earlier: then there is nothing to start."""
    lab.refused({"process": None}, at_start=True)


@claim("config.md#configProcess", "(object, OPTIONAL) specifies the container process.", "refuse:!/process")
def test_create_without_process(lab: Lab) -> None:
    """What is OPTIONAL in a config.json may be left out; `process` is needed no earlier than by `start`."""
    lab.created({"process": None})


# kill


@claim(KILL, "This operation MUST send the specified signal to the container process.", "ignore:kill", "other:kill")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGUSR1", "SIGHUP"])
def test_kill_sends_signal(lab: Lab, name: str) -> None:
    """In a pid namespace of the runtime: its own init would never see a signal that it does not handle."""
    running = lab.run({"linux": {"namespaces": [{"type": "mount"}]}}, STATUS)
    check(running.container.kill(name))
    number = signal.Signals[name].value
    # a sandbox tells of the signal with an exit status, as shells do
    assert running.container.wait(WAIT_S).status == (128 + number if running.own_kernel else -number)


@claim(KILL, "This operation MUST send the specified signal to the container process.", "ignore:kill")
def test_kill_of_created(lab: Lab) -> None:
    container = lab.created({})
    check(container.kill("SIGKILL"))
    assert container.wait(WAIT_S).status == -signal.SIGKILL
    assert state_of(container)["status"] == "stopped"


@claim(KILL, "This operation MUST generate an error if it is not provided the container ID.", "accept:kill")
def test_kill_without_id(lab: Lab) -> None:
    refused(lab.client.call(replace(START, verb="kill")))


@claim(
    KILL,
    "Attempting to send a signal to a container that is neither `created` nor `running` MUST have no effect on the "
    "container and MUST generate an error.",
    "accept:kill",
)
@pytest.mark.parametrize("status", ["none", "stopped"])
def test_kill_when_not_there(lab: Lab, status: str) -> None:
    if status == "none":
        refused(lab.client.call(KillOptions("SIGKILL"), "nobody"))
        return
    container = stopped(lab)
    before = state_of(container)
    refused(container.kill("SIGKILL"))
    assert state_of(container) == before


# delete


@claim(DELETE, "This operation MUST generate an error if it is not provided the container ID.", "accept:delete")
def test_delete_without_id(lab: Lab) -> None:
    refused(lab.client.call(DeleteOptions()))


@claim(
    DELETE,
    "Attempting to `delete` a container that is not `stopped` MUST have no effect on the container and MUST "
    "generate an "
    "error.",
    "accept:delete",
)
@pytest.mark.parametrize("status", ["none", "created", "running"])
def test_delete_when_not_stopped(lab: Lab, status: str) -> None:
    if status == "none":
        refused(lab.client.call(DeleteOptions(), "nobody"))
        return
    container = lab.created({}) if status == "created" else lab.run({}).container
    before = state_of(container)
    refused(container.client.delete(container.id))
    assert lab.exists(container.id), "the container is gone"
    assert state_of(container) == before


@claim(
    DELETE,
    "Deleting a container MUST delete the resources that were created during the `create` step.",
    "ignore:delete",
)
def test_delete_removes_container(lab: Lab) -> None:
    container = stopped(lab)
    check(container.delete())
    assert not lab.exists(container.id)


@claim(
    DELETE,
    "Deleting a container MUST delete the resources that were created during the `create` step.",
    "ignore:delete",
    needs=("host-process:",),
)
def test_delete_removes_cgroups(lab: Lab) -> None:
    container = lab.run({}, read("/proc/self/cgroup")).container
    assert container.init is not None
    paths = cgroup_paths(container.init.pid, lab.session.layout)
    made = {f"{h.mount_point}/{path}" for h, path in paths.values() if container.id in path}
    assert made, f"the container is in no cgroup of its own: {paths}"
    check(container.kill("SIGKILL"))
    container.wait(WAIT_S)
    check(container.delete())
    assert [path for path in made if os.path.isdir(path)] == []  # noqa: PTH112 - a text already


@claim(DELETE, "Once a container is deleted its ID MAY be used by a subsequent container.", "ignore:delete")
def test_id_is_free_after_delete(lab: Lab) -> None:
    first = stopped(lab)
    check(first.delete())
    second = lab.container(EXITS)
    again = CreateOptions(str(second.bundle.path), f"{second.directory}/pid", stdio=Stdio())
    check(second.client.create(first.id, again))
    check(second.client.call(DeleteOptions(force=True), first.id))
