"""The form of a fault file. Whatever is not named here is refused, with what is allowed in its place."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Side = Literal["image", "config", "node", "kernel"]
Stage = Literal["validate", "create", "start", "exec", "run", "kill", "delete"]
Moment = Literal["after-create", "after-start", "before-delete"]
Leak = Literal["cgroup", "state", "process"]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a fault file."""


class Patch(_Strict, frozen=True):
    """A change of config.json: the value at a JSON pointer, or the pointer taken away."""

    pointer: str
    value: Any = msgspec.UNSET
    delete: bool = False


class _RootfsStep(_Strict, frozen=True, tag_field="do"):
    """A change inside the root file system; `path` is absolute in there."""

    path: str


class Write(_RootfsStep, frozen=True, tag="write"):
    """A file with this text, or these bytes in hexadecimal."""

    text: str = ""
    hex: str = ""
    mode: int = 0o644


class MakeDirectory(_RootfsStep, frozen=True, tag="mkdir"):
    mode: int = 0o755


class ChangeMode(_RootfsStep, frozen=True, tag="chmod"):
    mode: int


class ChangeOwner(_RootfsStep, frozen=True, tag="chown"):
    uid: int
    gid: int


class Remove(_RootfsStep, frozen=True, tag="remove"):
    """A file, a link, or a directory with all in it."""


class Link(_RootfsStep, frozen=True, tag="symlink"):
    target: str


class CopyBinary(_RootfsStep, frozen=True, tag="binary"):
    """A program: busybox or the payload, whole or damaged: cut off, for another machine, in want of its loader."""

    of: Literal["busybox", "payload"] = "payload"
    damage: Literal["none", "truncated", "foreign-machine", "missing-loader", "empty"] = "none"
    mode: int = 0o755


RootfsStep = Write | MakeDirectory | ChangeMode | ChangeOwner | Remove | Link | CopyBinary


class _NodeStep(_Strict, frozen=True, tag_field="do"):
    """A reversible change of the node, taken back when the attempt is over."""


class Tmpfs(_NodeStep, frozen=True, tag="tmpfs"):
    """A small tmpfs over a directory; `fill` takes all of its bytes or inodes, `options` as for mount -o.

    `keep`: what was in the directory is in the tmpfs too, so `bytes` must be enough for it.
    """

    path: str
    bytes: int = 1_048_576
    inodes: int = 0  # 0: as the kernel likes
    fill: Literal["nothing", "bytes", "inodes"] = "nothing"
    keep: bool = False
    options: str = ""


class Remount(_NodeStep, frozen=True, tag="remount"):
    """A directory bind-mounted onto itself with further flags.

    `whole`: no bind mount; the file system mounted there is made read-only itself.
    """

    path: str
    flags: list[Literal["ro", "noexec", "nosuid", "nodev", "shared", "unbindable"]] = []
    whole: bool = False


class HostPath(_NodeStep, frozen=True, tag="host-path"):
    """A file (text) or directory on the node, ${bundle} or below it; or one that is taken away."""

    path: str
    kind: Literal["file", "directory", "fifo", "absent"] = "directory"
    text: str = ""
    mode: int = 0o755


class Cgroup(_NodeStep, frozen=True, tag="cgroup"):
    """A cgroup below ${run}, with values in its files: {"pids.max": "1"}; what is not there is left out.

    In cgroup v1 a missing parent's cpuset is that of its own parent.
    """

    path: str
    controllers: list[str] = []  # none: all
    files: dict[str, str] = {}
    frozen: bool = False
    occupied: bool = False  # a process of ours sits in it
    holds_runtime: bool = False  # the runtime is started in it


class FakeRuntime(_NodeStep, frozen=True, tag="fake-runtime"):
    """The runtime's binary is another file: a script, a copy with another mode, a foreign binary, or nothing."""

    kind: Literal["script", "missing", "not-executable", "foreign-machine", "directory"]
    text: str = ""


class Wrap(_NodeStep, frozen=True, tag="wrap"):
    """The runtime is called through another command: prlimit, setpriv, unshare, ..."""

    argv: list[str]


class DenySyscalls(_NodeStep, frozen=True, tag="deny-syscalls"):
    """System calls fail for the runtime, as on a kernel that lacks them (ENOSYS), or behind a filter (EPERM).

    A name is that of a system call, or `call(FLAG)` for one with that flag in its first argument: a CLONE_NEW* of
    unshare, setns and clone, or an option of prctl.
    """

    names: list[str]
    errno: Literal["ENOSYS", "EPERM", "EACCES", "EINVAL", "ENOMEM", "EAGAIN", "ENOSPC", "EDQUOT"] = "ENOSYS"


class KeyQuota(_NodeStep, frozen=True, tag="key-quota"):
    """A process of ours holds as many keys as `uid` may have (keyrings(7)); a uid that nobody else uses."""

    uid: int


class AppArmorProfile(_NodeStep, frozen=True, tag="apparmor-profile"):
    """An AppArmor profile is loaded; `rules` is what stands between its braces, less the final newline."""

    name: str
    rules: str


class TakenId(_NodeStep, frozen=True, tag="taken-id"):
    """Another container has this container's id already."""


class StateFile(_NodeStep, frozen=True, tag="state-file"):
    """The runtime's own record of the container is cut off, filled with other text or taken away."""

    change: Literal["truncate", "garbage", "remove"]
    when: Moment = "after-create"


class KillInit(_NodeStep, frozen=True, tag="kill-init"):
    """Init is killed behind the runtime's back."""

    when: Moment = "after-create"


class GlobalOptions(_NodeStep, frozen=True, tag="global-options"):
    """Global options of the runtime, such as --systemd-cgroup."""

    args: list[str]


class CreateArguments(_NodeStep, frozen=True, tag="create-options"):
    """Options of create, such as --no-pivot or a console socket that nobody listens on."""

    args: list[str]


class Deadline(_NodeStep, frozen=True, tag="deadline"):
    """Operations get only so long, for faults in which something hangs."""

    seconds: float


NodeStep = (
    Tmpfs
    | Remount
    | HostPath
    | Cgroup
    | FakeRuntime
    | Wrap
    | DenySyscalls
    | KeyQuota
    | AppArmorProfile
    | TakenId
    | StateFile
    | KillInit
    | GlobalOptions
    | CreateArguments
    | Deadline
)


class Change(_Strict, frozen=True):
    """Steps of the three kinds, applied in the order config, rootfs, node."""

    config: list[Patch] = []
    rootfs: list[RootfsStep] = []
    node: list[NodeStep] = []
    raw_config: str | None = None  # the bytes of config.json as they are, for files that are no JSON


class Heal(_Strict, frozen=True):
    """How the one broken thing is mended. `undo` leaves out the break's steps of that kind; the others come on top."""

    text: str
    undo: list[Literal["config", "rootfs", "node"]] = []
    config: list[Patch] = []
    rootfs: list[RootfsStep] = []
    node: list[NodeStep] = []
    # a regular expression for the clause of a healed bundle that fails since this node lacks what it needs when whole:
    # then nothing can be proven here, and the fault is not applicable
    lacking: str | None = None


class Expect(_Strict, frozen=True):
    """What one runtime must show. The first entry whose conditions hold here is the one that counts."""

    runtime: str  # a dialect: runc, crun, runsc
    outcome: Literal["fails", "tolerates"] = "fails"
    stage: Stage = "create"
    # the runtime's last error record (or its stderr where it writes no log) is `wrapper: wrapper: CLAUSE`; a regular
    # expression for the whole clause
    clause: str | None = None
    # a regular expression for a whole line of what the container's process wrote to stderr
    stderr: str | None = None
    # regular expressions for a whole record of the runtime's log, of any level, and for a whole line of the kernel's:
    # where the last word is but a symptom, the reason stands there
    log: str | None = None
    kernel_log: str | None = None
    exit_status: int | None = None  # of the operation at `stage`; at stage run of the container's process
    timed_out: bool = False
    leaks: list[Leak] = []  # what this runtime is known to leave behind then: a finding, not a failure of ours
    # conditions
    since: str | None = None  # runtime version, inclusive
    before: str | None = None  # exclusive
    cgroup: Literal[1, 2] | None = None
    note: str = ""


class Fault(_Strict, frozen=True):
    """One file of the catalogue; its name is the slug."""

    title: str
    cause: str
    side: Side
    summary: str  # what is broken, one sentence, may use ${...}
    break_: Change = msgspec.field(name="break")
    heal: Heal
    expect: list[Expect]
    variant: str | None = None
    recipe: str = "default"
    needs: list[str] = []  # preconditions, see harness/faults/preconditions.py
    exec_command: list[str] = []  # a command to `exec` once it runs: for faults of that stage
    notes: str = ""

    @property
    def heals_to_recipe(self) -> bool:
        """Whether the healed bundle is the recipe as it is, on the node as it is."""
        broken, heal = self.break_, self.heal
        changed = {"config": broken.config or broken.raw_config, "rootfs": broken.rootfs, "node": broken.node}
        undone = all(kind in heal.undo for kind, steps in changed.items() if steps)
        return undone and not (heal.config or heal.rootfs or heal.node)
