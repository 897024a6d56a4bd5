"""Which part of the container stack a process is, by the name that the kernel shows (at most 15 characters)."""

from __future__ import annotations

import re
from typing import Literal

Role = Literal["runtime", "shim", "daemon"]

# runc names its stages by prctl(2); before that, init is started from /proc/self/exe or a descriptor (/proc/self/fd/6).
_RUNTIME = re.compile(r"runc(:\[\d:[A-Z]+\]?)?|crun|youki|runsc(-.*)?|exe|\d|kata-runtime|libcrun.*")
_SHIM = re.compile(r"containerd-shim.*|docker-containe.*|conmon(rs)?")
_DAEMON = re.compile(r"containerd|dockerd|crio|cri-dockerd|kubelet|podman|buildkitd|k3s.*|rke2.*")


def role(comm: str) -> Role | None:
    """None: some other program."""
    if _SHIM.fullmatch(comm):
        return "shim"
    if _RUNTIME.fullmatch(comm):
        return "runtime"
    return "daemon" if _DAEMON.fullmatch(comm) else None


def family(comm: str) -> str:
    """`runc:[2:INIT]` and `runc` are one."""
    return "runc" if comm.startswith("runc:") else comm
