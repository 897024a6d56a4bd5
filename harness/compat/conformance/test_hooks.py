"""config.md, POSIX-platform Hooks, and runtime.md, Lifecycle: when, where and with what each hook runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness.compat.conformance.claims import claim
from harness.compat.conformance.lab import NAMESPACES, Lab
from harness.compat.conformance.test_state import refused, state_of
from harness.kernel.namespaces import namespaces_of
from harness.oci.rootfs import payload_binary
from harness.runtime.container import Container
from harness.runtime.failures import check

HOOKS = "config.md#configHooks"
LIFECYCLE = "runtime.md#runtimeLifecycle"
IN_RUNTIME = ("prestart", "createRuntime", "poststart", "poststop")
IN_CONTAINER = ("createContainer", "startContainer")
WAIT_S = 3.0  # for the end of a process that ends by itself
ORDER = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
AT_CREATE = ("prestart", "createRuntime", "createContainer")
# What a container of its own has: what would be the runtime's own if the hook ran there.
SPACES = [*NAMESPACES, {"type": "network"}, {"type": "uts"}, {"type": "ipc"}]


class Records:
    """What the hooks of one container wrote down: each is the payload, which appends a line to a file."""

    def __init__(self, container: Container) -> None:
        self._outside = container.directory / "hooks"
        self._inside = container.directory / "upper/hooks"

    def hook(self, kind: str, name: str, status: int = 0, **more: Any) -> dict[str, Any]:
        """startContainer's path resolves in the container, all others' in the runtime's namespace."""
        inside = kind == "startContainer"
        path = "/payload" if inside else str(payload_binary())
        file = "/hooks" if inside else str(self._outside)
        return {"path": path, "args": ["payload", "hook", file, name, str(status)], **more}

    def all(self) -> list[dict[str, Any]]:
        """In the order of their clocks."""
        found = []
        for file in (self._outside, self._inside):
            if file.exists():
                found += [json.loads(line) for line in file.read_text().splitlines()]
        return sorted(found, key=lambda record: int(record["at_ns"]))

    def one(self, name: str) -> dict[str, Any]:
        records = [record for record in self.all() if record["name"] == name]
        assert len(records) == 1, f"the {name} hook ran {len(records)} times; there were {self.names()}"
        return records[0]

    def names(self) -> list[str]:
        return [record["name"] for record in self.all()]


def with_hooks(lab: Lab, *kinds: str, twice: bool = False, fails: str = "", **more: Any) -> tuple[Container, Records]:
    """A container, not created yet, with a hook of each kind; its process ends by itself."""
    patch: dict[str, Any] = {"process": {"args": ["/payload", "exit", "0"]}, "linux": {"namespaces": SPACES}}
    container = lab.container(patch)
    records = Records(container)
    hooks: dict[str, list[dict[str, Any]]] = {}
    for kind in kinds:
        status = 9 if kind == fails else 0
        hooks[kind] = [records.hook(kind, kind, status, **more)]
        if twice:
            hooks[kind].append(records.hook(kind, f"{kind}-second"))
    lab.rewrite(container, {"hooks": hooks})
    return container, records


def whole(container: Container) -> None:
    check(container.create())
    check(container.start())
    container.wait(WAIT_S)
    check(container.delete())


@claim(HOOKS, "Hooks MUST be called in the listed order.", "/hooks/{kind}/1", "reverse:/hooks/{kind}")
@pytest.mark.parametrize("kind", ORDER)
def test_hooks_in_listed_order(lab: Lab, kind: str) -> None:
    container, records = with_hooks(lab, kind, twice=True)
    whole(container)
    assert records.names() == [kind, f"{kind}-second"]


@claim(
    HOOKS,
    "The state of the container MUST be passed to hooks over stdin so that they may do work appropriate to the current "
    "state of the container.",
    "/hooks/{kind}",
    "/annotations",
)
@pytest.mark.parametrize("kind", ORDER)
def test_hook_gets_state(lab: Lab, kind: str) -> None:
    container, records = with_hooks(lab, kind)
    lab.rewrite(container, {"annotations": {"com.example.hook": "yes"}})
    whole(container)
    # the payload writes each byte as the character of that number
    state = json.loads(records.one(kind)["stdin"].encode("latin-1"))
    assert state["id"] == container.id
    assert state["bundle"] == str(container.bundle.path)
    assert isinstance(state["ociVersion"], str)
    assert state["annotations"] == {"com.example.hook": "yes"}


STATUS_AT: dict[str, tuple[str, ...]] = {
    "prestart": ("creating", "created"),  # step 3: after the environment was made, `create` has not finished
    "createRuntime": ("creating", "created"),
    "createContainer": ("creating", "created"),
    "startContainer": ("created",),  # step 7: the program has not been executed
    "poststart": ("running", "stopped"),  # step 9: it has, and it may have ended
    "poststop": ("stopped",),
}


@claim(
    "runtime.md#runtimeState",
    "(string, REQUIRED) is the runtime state of the container.",
    "/hooks/{kind}",
)
@pytest.mark.parametrize("kind", ORDER)
def test_hook_state_has_status(lab: Lab, kind: str) -> None:
    container, records = with_hooks(lab, kind)
    whole(container)
    state = json.loads(records.one(kind)["stdin"].encode("latin-1"))
    assert state["status"] in STATUS_AT[kind]


@claim(
    "runtime.md#runtimeState",
    "For hooks executed in the runtime namespace, it is the pid as seen by the runtime.",
    "/hooks/{kind}",
    needs=("host-process:",),
)
@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "poststart"])
def test_hook_state_has_pid_of_runtime(lab: Lab, kind: str) -> None:
    container, records = with_hooks(lab, kind)
    whole(container)
    assert container.init is not None
    assert json.loads(records.one(kind)["stdin"].encode("latin-1"))["pid"] == container.init.pid


@claim(
    "runtime.md#runtimeState",
    "For hooks executed in the container namespace, it is the pid as seen by the container.",
    "/hooks/{kind}",
)
@pytest.mark.parametrize("kind", IN_CONTAINER)
def test_hook_state_has_pid_of_container(lab: Lab, kind: str) -> None:
    container, records = with_hooks(lab, kind)
    whole(container)
    assert json.loads(records.one(kind)["stdin"].encode("latin-1"))["pid"] == 1


@claim(HOOKS, "The `{kind}` hooks MUST be executed in the runtime namespace.", "/hooks/{kind}")
@pytest.mark.parametrize("kind", IN_RUNTIME)
def test_hook_in_runtime_namespace(lab: Lab, kind: str) -> None:
    container, records = with_hooks(lab, kind)
    whole(container)
    mine = namespaces_of(os.getpid())
    seen = records.one(kind)["namespaces"]
    for name in ("net", "uts", "ipc", "pid"):
        own = mine[name]
        assert own is not None
        assert seen[name] == f"{name}:[{own.inode}]"
    # the session's mount namespace is the runtime's
    assert seen["mnt"] == lab.session.namespace.call(Path("/proc/thread-self/ns/mnt").readlink).name


@claim(
    HOOKS, "The `{kind}` hooks MUST be executed in the container namespace.", "/hooks/{kind}", needs=("host-process:",)
)
@pytest.mark.parametrize("kind", IN_CONTAINER)
def test_hook_in_container_namespace(lab: Lab, kind: str) -> None:
    found: list[Records] = []

    def prepare(container: Container) -> None:
        found.append(Records(container))
        lab.rewrite(container, {"hooks": {kind: [found[0].hook(kind, kind)]}})

    theirs = namespaces_of(lab.run({"linux": {"namespaces": SPACES}}, prepare=prepare).pid)
    seen = found[0].one(kind)["namespaces"]
    for name in ("mnt", "net", "uts", "ipc", "pid"):
        own = theirs[name]
        assert own is not None
        assert seen[name] == f"{name}:[{own.inode}]", name


@claim(
    "config.md#configHooksPrestart",
    "The `prestart` hooks MUST be called before the `createRuntime` hooks.",
    *(f"/hooks/{kind}" for kind in AT_CREATE),
)
def test_hooks_of_create_in_order(lab: Lab) -> None:
    container, records = with_hooks(lab, *AT_CREATE)
    check(container.create())
    assert records.names() == list(AT_CREATE)


@claim(
    "config.md#configHooksCreateContainer",
    "The `createContainer` hooks MUST be called as part of the `create` operation after the runtime environment "
    "has been "
    "created (according to the configuration in config.json) but before the `pivot_root` or any equivalent "
    "operation has "
    "been executed.",
    "/hooks/createContainer",
)
def test_create_container_hook_before_pivot_root(lab: Lab) -> None:
    """Its path is one of the host, and what it writes lands there: the container's root is not yet its root."""
    container, records = with_hooks(lab, "createContainer")
    check(container.create())
    assert records.one("createContainer")["args"][0] == "payload"


@claim(
    "config.md#configHooksStartContainer",
    "The `startContainer` hooks MUST be called before the user-specified process is executed as part of the `start` "
    "operation.",
    "/hooks/startContainer",
)
def test_start_container_hook_at_start(lab: Lab) -> None:
    container, records = with_hooks(lab, "startContainer")
    check(container.create())
    assert records.names() == []
    start = check(container.start())
    container.wait(WAIT_S)
    stamp = int(container.stdout.splitlines()[-1])
    assert start.start_ns < records.one("startContainer")["at_ns"] < stamp


@claim(
    "config.md#configHooksPoststart",
    "The `poststart` hooks MUST be called after the user-specified process is executed but before the `start` "
    "operation "
    "returns.",
    "/hooks/poststart",
)
def test_poststart_hook_before_start_returns(lab: Lab) -> None:
    container, records = with_hooks(lab, "poststart")
    check(container.create())
    assert records.names() == []
    start = check(container.start())
    assert start.start_ns < records.one("poststart")["at_ns"] < start.end_ns


@claim(
    "config.md#configHooksPoststop",
    "The `poststop` hooks MUST be called after the container is deleted but before the `delete` operation returns.",
    "/hooks/poststop",
)
def test_poststop_hook_before_delete_returns(lab: Lab) -> None:
    container, records = with_hooks(lab, "poststop")
    check(container.create())
    check(container.start())
    container.wait(WAIT_S)
    assert records.names() == []
    delete = check(container.delete())
    assert delete.start_ns < records.one("poststop")["at_ns"] < delete.end_ns


@claim(
    LIFECYCLE,
    "If any `{kind}` hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at "
    "step 12.",
    "/hooks/{kind}",
)
@pytest.mark.parametrize("kind", AT_CREATE)
def test_failed_hook_of_create(lab: Lab, kind: str) -> None:
    container, records = with_hooks(lab, kind, fails=kind)
    refused(container.create())
    assert records.names() == [kind]
    assert not lab.exists(container.id), "the container was not destroyed"


@claim(
    LIFECYCLE,
    "If any `{kind}` hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at "
    "step 12.",
    "/hooks/{kind}",
)
@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_failed_hook_of_start(lab: Lab, kind: str) -> None:
    container, records = with_hooks(lab, kind, fails=kind)
    lab.rewrite(container, {"process": {"args": ["/payload", "pause"]}})
    check(container.create())
    refused(container.start())
    assert records.names() == [kind]
    container.wait(WAIT_S)
    if lab.exists(container.id):
        assert state_of(container)["status"] == "stopped", "the container was not stopped"


@claim(
    LIFECYCLE,
    "If any `poststop` hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle "
    "continue as if the "
    "hook had succeeded.",
    "/hooks/poststop/1",
)
def test_failed_poststop_hook(lab: Lab) -> None:
    container, records = with_hooks(lab, "poststop", fails="poststop", twice=True)
    whole(container)
    assert records.names() == ["poststop", "poststop-second"]
    assert not lab.exists(container.id)


@claim(
    HOOKS,
    "(array of strings, OPTIONAL) with the same semantics as IEEE Std 1003.1-2008 `execv`'s argv.",
    "/hooks/{kind}/0/args/=extra word",
)
@pytest.mark.parametrize("kind", ORDER)
def test_hook_args(lab: Lab, kind: str) -> None:
    container, records = with_hooks(lab, kind)
    hook = container.bundle.config.document["hooks"][kind][0]
    lab.rewrite(container, {"hooks": {kind: [{**hook, "args": [*hook["args"], "extra word"]}]}})
    whole(container)
    assert records.one(kind)["args"] == [*hook["args"], "extra word"]


@claim(
    HOOKS,
    "(array of strings, OPTIONAL) with the same semantics as IEEE Std 1003.1-2008's `environ`.",
    "/hooks/{kind}/0/env",
)
@pytest.mark.parametrize("kind", ORDER)
def test_hook_env(lab: Lab, kind: str) -> None:
    container, records = with_hooks(lab, kind, env=["KEY=value with = and blank", "EMPTY="])
    whole(container)
    assert sorted(records.one(kind)["env"]) == ["EMPTY=", "KEY=value with = and blank"]


@claim(HOOKS, "(int, OPTIONAL) is the number of seconds before aborting the hook.", "/hooks/createRuntime/0/timeout")
def test_hook_timeout(lab: Lab) -> None:
    container, _ = with_hooks(lab)
    hook = {"path": str(payload_binary()), "args": ["payload", "pause"], "timeout": 1}
    lab.rewrite(container, {"hooks": {"createRuntime": [hook]}})
    operation = container.create()
    assert not operation.timed_out, "the hook was not aborted after its timeout of 1 s"
    refused(operation)


@claim(HOOKS, "This specification extends the IEEE standard in that `path` MUST be absolute.", "/hooks/createRuntime")
def test_hook_with_relative_path(lab: Lab) -> None:
    lab.refused({"hooks": {"createRuntime": [{"path": "bin/true"}]}})
