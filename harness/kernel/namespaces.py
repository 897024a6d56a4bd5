"""Which namespaces a process is in, which two processes share, and who owns one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from msgspec import Struct

from harness.kernel import shim

T = TypeVar("T")


class Namespace(Struct, frozen=True):
    """A namespace is what its device and inode say (namespaces(7)); `inode` is the number in /proc/PID/ns links."""

    kind: str  # one of shim.NAMESPACES, "pid_for_children" among them
    device: int
    inode: int


class Details(Struct, frozen=True):
    """What ioctl_ns(2) tells of a namespace; None is absent, see `absent`."""

    namespace: Namespace
    type: str | None  # "pid" for kind "pid_for_children"
    owner_uid: int | None  # user namespace: its creator's uid; others: that of the owning user namespace
    owner_userns: int | None  # inode of the owning user namespace; of a user namespace that is its parent
    parent: int | None  # inode; only pid and user namespaces have one
    absent: Mapping[str, str]  # {field: reason}


def start_time_of(pid: int) -> int:
    """Start of a process in clock ticks since boot (proc_pid_stat(5), field 22); with the pid it names one process.

    Raises ProcessLookupError.
    """
    with _process(pid, None) as fd:
        return _start_time(fd, pid)


def _start_time(proc_fd: int, pid: int) -> int:
    fd = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_fd)
    try:
        stat = os.read(fd, 4096)
    finally:
        os.close(fd)
    fields = stat.rpartition(b")")[2].split()  # the command before it may hold spaces and brackets
    if len(fields) < 20:
        raise _gone(pid)
    return int(fields[19])


def _gone(pid: int) -> ProcessLookupError:
    return ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"/proc/{pid}")


@contextmanager
def _process(pid: int, start_time: int | None) -> Iterator[int]:
    """A descriptor of /proc/PID. It stays with this process: once that is gone every access fails with ESRCH or ENOENT,
    even when the number is in use again."""
    try:
        fd = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _gone(pid) from None
    try:
        if start_time is not None and _start_time(fd, pid) != start_time:
            raise _gone(pid)
        yield fd
    except FileNotFoundError:
        raise _gone(pid) from None
    finally:
        os.close(fd)


def namespaces_of(pid: int, *, start_time: int | None = None) -> dict[str, Namespace | None]:
    """{kind: namespace} for every kind in shim.NAMESPACES, all of one process.

    None: this kernel has no such kind, the process has left it (a zombie), or has none yet (pid_for_children before
    the first child). `start_time` (of start_time_of) makes sure that it is still the process meant.
    Raises ProcessLookupError when it is gone, PermissionError when it may not be looked at (ptrace(2),
    PTRACE_MODE_READ).
    """
    with _process(pid, start_time) as fd:
        found = shim.namespaces(fd)
    return {kind: None if ids is None else Namespace(kind, *ids) for kind, ids in found.items()}


def shared(a: Mapping[str, Namespace | None], b: Mapping[str, Namespace | None]) -> dict[str, bool | None]:
    """{kind: whether both are in the same one} of two results of namespaces_of; None: unknown for one of them."""
    result: dict[str, bool | None] = {}
    for kind in sorted({*a, *b}):
        one, other = a.get(kind), b.get(kind)
        same = one is not None and other is not None and (one.device, one.inode) == (other.device, other.inode)
        result[kind] = None if one is None or other is None else same
    return result


def details(pid: int, kind: str, *, start_time: int | None = None) -> Details:
    """More on one namespace of a process, as far as this process may know. Source: ioctl_ns(2).

    Raises ProcessLookupError, PermissionError when the namespace cannot be opened, ValueError for an unknown kind.
    """
    if kind not in shim.NAMESPACES:
        raise ValueError(f"{kind!r} is no namespace; there are {', '.join(shim.NAMESPACES)}")
    with _process(pid, start_time) as proc_fd:
        fd = os.open(f"ns/{kind}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_fd)
    try:
        return _details(fd, kind)
    finally:
        os.close(fd)


def _details(fd: int, kind: str) -> Details:
    absent: dict[str, str] = {}

    def ask(field: str, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except OSError as error:
            absent[field] = _reason(field, error)
            return None

    identity = os.fstat(fd)
    type_ = ask("type", lambda: shim.ns_type(fd))
    return Details(
        Namespace(kind, identity.st_dev, identity.st_ino),
        type_,
        ask("owner_uid", lambda: _owner_uid(fd, type_ == "user")),
        ask("owner_userns", lambda: _inode(shim.ns_userns(fd))),
        ask("parent", lambda: _inode(shim.ns_parent(fd))),
        absent,
    )


def _owner_uid(fd: int, is_user: bool) -> int:
    if is_user:
        return shim.ns_owner_uid(fd)
    owner = shim.ns_userns(fd)
    try:
        return shim.ns_owner_uid(owner)
    finally:
        os.close(owner)


def _inode(fd: int) -> int:
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def _reason(field: str, error: OSError) -> str:
    if field == "parent" and error.errno == errno.EINVAL:
        return "NS_GET_PARENT: only pid and user namespaces have a parent"
    request = {"type": "NS_GET_NSTYPE", "owner_uid": "NS_GET_OWNER_UID", "parent": "NS_GET_PARENT"}.get(
        field, "NS_GET_USERNS"
    )
    if error.errno == errno.EPERM:
        return f"{request}: not permitted (it is outside of this process's namespaces, or the initial one)"
    return f"{request}: {error.strerror}"
