"""Sockets that nobody listens on, or nobody answers on, and pid files that name another process."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from msgspec import Struct

from harness.diagnosis.node.finding import Evidence, Finding
from harness.diagnosis.node.kubelet import kubelet
from harness.diagnosis.node.processes import table_of
from harness.diagnosis.node.roles import role
from harness.diagnosis.node.tree import Tree


class Endpoint(Struct, frozen=True):
    """A socket of the container stack. `blocks`: what its daemon's being away means."""

    path: str
    daemon: str
    unit: str
    cause: str = "symptom-only"


ENDPOINTS = (
    Endpoint("/run/containerd/containerd.sock", "containerd", "containerd"),
    Endpoint("/run/k3s/containerd/containerd.sock", "containerd of k3s", "k3s"),
    Endpoint("/run/docker/containerd/containerd.sock", "containerd of docker", "docker"),
    Endpoint("/run/crio/crio.sock", "CRI-O", "crio"),
    Endpoint("/run/cri-dockerd.sock", "cri-dockerd", "cri-docker"),
    Endpoint("/run/docker.sock", "dockerd", "docker"),
    Endpoint("/run/podman/podman.sock", "podman", "podman.socket"),
    Endpoint("/run/dbus/system_bus_socket", "D-Bus", "dbus", "systemd-dbus"),
)
PID_FILES = (
    ("/run/docker.pid", "dockerd"),
    ("/run/docker/containerd/containerd.pid", "containerd of docker"),
    ("/run/containerd/containerd.pid", "containerd"),
)
LISTINGS = ("/sos_commands/networking/netstat_*", "/sos_commands/networking/ss_*", "/ss", "/netstat", "/ss_*")
_ACCEPTS = 0x10000  # include/uapi/linux/net.h, __SO_ACCEPTCON


def _normal(path: str) -> str:
    return "/run/" + path.removeprefix("/var/run/") if path.startswith("/var/run/") else path


def listening(tree: Tree) -> tuple[str, set[str]] | None:
    """(source, paths that somebody listens on in this network namespace); None, with a note: nothing tells."""
    text = tree.read("/proc/net/unix", 64 << 20)
    if text is not None:
        # Num RefCount Protocol Flags Type St Inode Path, net/unix/af_unix.c unix_seq_show
        rows = [line.split(None, 7) for line in text.splitlines()[1:]]
        return "/proc/net/unix", {
            _normal(row[7]) for row in rows if len(row) == 8 and int(row[3], 16) & _ACCEPTS and row[7].startswith("/")
        }
    for pattern in LISTINGS:
        for path in tree.glob(pattern):
            lines = [line for line in (tree.read(path, 64 << 20) or "").splitlines() if "LISTEN" in line]
            if lines:
                return path, {_normal(word) for line in lines for word in line.split() if word.startswith("/")}
    tree.miss("listening sockets", "no /proc/net/unix and no output of ss or netstat in this tree")
    return None


def sockets(tree: Tree) -> Iterator[Finding]:
    """The stack's sockets, and the one that the kubelet is told to use."""
    told = listening(tree)
    if told is None:
        return
    source, paths = told
    wanted = _normal((kubelet(tree).endpoint or "").removeprefix("unix://"))
    known = [endpoint.path for endpoint in ENDPOINTS]
    extra = [Endpoint(wanted, "the kubelet's runtime", "containerd")] if wanted and wanted not in known else []
    for endpoint in (*ENDPOINTS, *extra):
        if endpoint.path in paths:
            continue
        if tree.is_socket(endpoint.path):
            answer = _ask(tree, endpoint.path) if tree.live else "ECONNREFUSED"
            if answer == "EAGAIN":
                yield _overrun(endpoint)
            elif answer == "ECONNREFUSED":
                yield _stale(endpoint, source, endpoint.path == wanted)
        elif endpoint.path == wanted and not tree.exists(endpoint.path):
            yield Finding(
                "endpoint-missing",
                "error",
                f"the kubelet is told to use {endpoint.path}, which does not exist: {endpoint.daemon} is not running",
                endpoint.cause,
                f"systemctl status {endpoint.unit}; correct containerRuntimeEndpoint if it listens elsewhere.",
                (Evidence(kubelet(tree).endpoint_source, endpoint.path), Evidence(source, "no such listener")),
            )


def _ask(tree: Tree, path: str) -> str:
    """What connect(2) says, without waiting; a listener in another network namespace is in no table of ours."""
    where = tree.locate(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(where))
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "")
            if name not in ("ECONNREFUSED", "EAGAIN", "ENOENT"):
                tree.miss(path, f"connect: {error.strerror or error}")
            return name
    return ""


def _stale(endpoint: Endpoint, source: str, needed: bool) -> Finding:
    return Finding(
        "stale-socket",
        "error" if needed else "warning",
        f"nobody listens on {endpoint.path}: {endpoint.daemon} is not running",
        endpoint.cause,
        f"systemctl status {endpoint.unit} and its journal say why it ended; start it. The file itself is no obstacle: "
        "a daemon replaces its old socket when it starts.",
        (Evidence(source, f"no listener on {endpoint.path}"),),
    )


def _overrun(endpoint: Endpoint) -> Finding:
    return Finding(
        "socket-overrun",
        "error",
        f"{endpoint.daemon} does not take connections on {endpoint.path}: its queue is full",
        "runtime-timeout",
        f"{endpoint.daemon} hangs: take its goroutine dump (kill -USR1), look at its disk, restart {endpoint.unit}.",
        (Evidence(f"connect {endpoint.path}", "EAGAIN"),),
    )


def pid_files(tree: Tree) -> Iterator[Finding]:
    """A daemon refuses to start while the process that its old pid file names runs, whoever that is by now."""
    for path, daemon in PID_FILES:
        pid = tree.number(path)
        table = table_of(tree) if pid is not None else None
        process = table.processes.get(pid) if table is not None and pid is not None else None
        if process is not None and role(process.comm) != "daemon":
            yield Finding(
                "pid-file-of-another",
                "error",
                f"{path} names pid {pid}, which is {process.comm} and not {daemon}: {daemon} may refuse to start",
                "symptom-only",
                f"Remove {path}, then start {daemon}.",
                (Evidence(path, str(pid)), Evidence(f"/proc/{pid}/stat", process.comm)),
            )
