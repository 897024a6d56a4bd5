"""One lifecycle of a broken bundle, or of the same one healed, with the whole chain of evidence."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from harness.cgroup.files import CgroupFiles
from harness.cgroup.statistics import CgroupSnapshot
from harness.errors import HarnessError, HostError, OperationError
from harness.faults import leaks, rootfs_steps, schema
from harness.faults.catalogue import Entry
from harness.faults.node import Node, apply_patches
from harness.faults.node_cgroups import thaw_after
from harness.kernel import namespaces
from harness.kernel.kmsg import KernelLine, KernelLog
from harness.process.operation import Operation, parse_log
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime
from harness.runtime.options import CreateOptions
from harness.runtime.session import Session

DEADLINE_S = 10.0


class Attempt(Struct):
    """What happened. `failed_stage` None: the whole lifecycle went well and the process ended with status 0."""

    healed: bool
    failed_stage: schema.Stage | None = None
    text: str = ""  # the runtime's own last word at that stage, or the last line of the process's stderr
    exit_status: int | None = None  # of the operation at that stage; at stage run of the container's process
    timed_out: bool = False
    operations: list[Operation] = field(default_factory=list)
    container_stderr: str = ""
    container_exit: int | None = None
    done: list[str] = field(default_factory=list)  # the changes that were made, in words
    kernel_log: list[KernelLine] | None = None  # None: it cannot be read here
    namespaces: dict[str, int] | None = None  # {kind: inode} of those that init has of its own
    # the container's cgroup when init had been made, and when the lifecycle was over: limits, use, events
    cgroup_created: CgroupSnapshot | None = None
    cgroup_ended: CgroupSnapshot | None = None
    leaks: list[str] = field(default_factory=list)
    inapplicable: str | None = None  # the node would not be changed so, and why

    @property
    def name(self) -> str:
        return "healed" if self.healed else "broken"

    def evidence(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "changes": self.done,
            "container_stderr": self.container_stderr,
            "container_exit": self.container_exit,
            "kernel_log": None if self.kernel_log is None else [line.text for line in self.kernel_log],
            "namespaces": self.namespaces,
            "cgroup_created": None if self.cgroup_created is None else self.cgroup_created.to_json(),
            "cgroup_ended": None if self.cgroup_ended is None else self.cgroup_ended.to_json(),
        }


class _Failed(Exception):
    """Internal: the lifecycle ended here."""

    def __init__(self, stage: schema.Stage, operation: Operation | None = None) -> None:
        self.stage = stage
        self.operation = operation


def _changes(fault: schema.Fault, healed: bool) -> tuple[list[schema.Patch], list[Any], list[Any]]:
    """Patches, rootfs steps and node steps of the broken or the healed bundle."""
    broken, heal = fault.break_, fault.heal
    if not healed:
        return broken.config, list(broken.rootfs), list(broken.node)
    config = [] if "config" in heal.undo else broken.config
    rootfs = [] if "rootfs" in heal.undo else broken.rootfs
    node = [] if "node" in heal.undo else broken.node
    return [*config, *heal.config], [*rootfs, *heal.rootfs], [*node, *heal.node]


def run_attempt(session: Session, runtime: Runtime, entry: Entry, healed: bool, log: KernelLog) -> Attempt:
    """Break (or break and heal), go through the lifecycle, gather the evidence, take everything back.

    Raises HostError when something could not be taken back; a node that will not be changed is in `inapplicable`.
    """
    fault = entry.fault
    attempt = Attempt(healed)
    container_id = f"{entry.slug[:80]}-{'healed' if healed else 'broken'}"
    container = session.container(runtime, session.template(fault.recipe), container_id)
    sound = container.client
    log.read()
    node = _node(session, runtime, container)
    try:
        try:
            options = _apply(fault, healed, container, node)
        except (OSError, HostError) as error:
            attempt.inapplicable = str(error)
            return attempt
        attempt.done = node.done
        container.client = replace(
            sound,
            runtime=replace(runtime, path=node.binary),
            prefix=tuple(node.prefix),
            extra=tuple(node.global_args),
            timeout_s=node.timeout_s or DEADLINE_S,
        )
        thaw_after(node, container.client.timeout_s or DEADLINE_S)
        before = leaks.present(session, container)
        _lifecycle(fault, container, node, attempt, options)
        attempt.operations = list(container.operations)
        # of a create that failed, or a delete that went well; at other stages the container may well be there
        if attempt.failed_stage in (None, "create") and not attempt.timed_out:
            attempt.leaks = leaks.left_since(session, container, before)
    finally:
        container.client = sound  # whatever the fault made of it, cleaning up is done by the real one
        try:
            node.close()
        finally:
            container.clean_up()
            leaks.sweep(session, container)
    attempt.kernel_log = log.read() if log.available else None
    return attempt


def _node(session: Session, runtime: Runtime, container: Container) -> Node:
    work = container.directory / "work-dir"
    work.mkdir()
    variables = {
        "id": container.id,
        "bundle": str(container.bundle.path),
        "rootfs": str(container.bundle.path / "rootfs"),
        "work": str(work),
        "run": session.workspace.cgroup,
        "cgroup": f"{session.workspace.cgroup}/{container.id}",
        "root": container.client.root,
    }
    return Node(session, runtime, variables, runtime.path)


def _apply(fault: schema.Fault, healed: bool, container: Container, node: Node) -> CreateOptions:
    """Make all changes. Raises OSError, HostError."""
    patches, rootfs, steps = _changes(fault, healed)
    config, path = container.bundle.config, container.bundle.path
    node.done += apply_patches(config, patches, node.variables)
    raw = fault.break_.raw_config
    if raw is not None and not (healed and "config" in fault.heal.undo):
        (path / "config.json").write_text(raw)
        node.done.append("config.json holds other bytes")
    else:
        (path / "config.json").write_bytes(config.encode())
    for step in rootfs:
        node.session.namespace.call(rootfs_steps.apply, step, path / "rootfs")
        node.done.append(rootfs_steps.describe(step))
    for step in steps:
        node.apply(step)
    return CreateOptions(str(path), f"{container.directory}/pid", extra=tuple(node.create_args))


def _good(stage: schema.Stage, operation: Operation) -> Operation:
    if operation.exit_status != 0 or operation.timed_out:
        raise _Failed(stage, operation)
    return operation


# How a Go program begins to say that it crashes; a stack trace follows.
_CRASH = re.compile(r"^(?:fatal error|panic|runtime|runtime/cgo): .+", re.MULTILINE)


def _said(operation: Operation) -> str:
    """The runtime's own last word; of a crash the first, and without the form of a log record on stderr."""
    if not operation.log and (crash := _CRASH.search(operation.stderr.decode(errors="replace"))):
        return crash[0].strip()
    return _plain(operation.message)


def _plain(text: str) -> str:
    """The message of a line that is a log record, such as a runtime writes to stderr; else the line."""
    records = parse_log(text.encode()) if text.startswith("{") else ()
    return records[-1].msg.strip() if records else text


def _lifecycle(fault: schema.Fault, container: Container, node: Node, attempt: Attempt, options: CreateOptions) -> None:
    """create, start, (exec), wait, (kill), delete; notes where it ended."""
    stays = fault.recipe in ("pause", "kubernetes") or bool(fault.exec_command)
    files: CgroupFiles | None = None
    try:
        try:
            _good("create", container.create(options))
        except OperationError as error:
            raise _Failed("create", error.operation) from None
        except OSError as error:  # the runtime itself cannot be started
            attempt.text = f"fork/exec {node.binary}: {(error.strerror or str(error)).lower()}"
            raise _Failed("create") from None
        files = _observe(node, container, attempt)
        node.at("after-create", container)
        _good("start", container.start())
        node.at("after-start", container)
        if fault.exec_command:
            _good("exec", container.exec(*fault.exec_command, timeout_s=container.client.timeout_s))
        if stays:
            _good("kill", container.kill())
        try:
            attempt.container_exit = container.wait(container.client.timeout_s).status
        except TimeoutError:
            attempt.timed_out = True
            raise _Failed("run") from None
        _look_again(files, attempt)
        if not stays and attempt.container_exit != 0:
            raise _Failed("run")
        node.at("before-delete", container)
        _good("delete", container.delete())
    except _Failed as failed:
        _look_again(files, attempt)
        attempt.failed_stage = failed.stage
        if failed.operation is not None:
            attempt.exit_status = failed.operation.exit_status
            attempt.timed_out = failed.operation.timed_out
            attempt.text = attempt.text or _said(failed.operation)
        elif failed.stage == "run":
            attempt.exit_status = attempt.container_exit
    attempt.container_stderr = container.stderr.decode(errors="replace")
    if attempt.failed_stage == "run":
        lines = attempt.container_stderr.strip().splitlines()
        attempt.text = _plain(lines[-1]) if lines else ""


def _observe(node: Node, container: Container, attempt: Attempt) -> CgroupFiles | None:
    """Namespaces and cgroup of init, right after create; the files of its cgroup stay open until the node's end."""
    init = container.init
    if init is None:
        return None
    with contextlib.suppress(OSError, HarnessError):
        theirs, own = namespaces.namespaces_of(init.pid), namespaces.namespaces_of(os.getpid())
        same = namespaces.shared(theirs, own)
        attempt.namespaces = {kind: found.inode for kind, found in theirs.items() if found and not same[kind]}
    with contextlib.suppress(OSError, HarnessError):
        session = node.session
        files = session.namespace.call(CgroupFiles.of_pid, session.layout, init.pid)
        node.undo.callback(files.close)
        attempt.cgroup_created = files.snapshot()
        return files
    return None


def _look_again(files: CgroupFiles | None, attempt: Attempt) -> None:
    if files is not None and attempt.cgroup_ended is None:
        attempt.cgroup_ended = files.snapshot()
