"""The only importer of the compiled shim: turns -errno into OSError and C arrays into Python values.

What each call does is described in native/shim.h; here are the shapes.
"""

from __future__ import annotations

import errno
import os
import signal
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct

from harness.kernel._shim import ffi, lib

CGROUP_SUPER_MAGIC: Final = lib.OH_CGROUP_SUPER_MAGIC
CGROUP2_SUPER_MAGIC: Final = lib.OH_CGROUP2_SUPER_MAGIC
TMPFS_MAGIC: Final = lib.OH_TMPFS_MAGIC
OVERLAYFS_SUPER_MAGIC: Final = lib.OH_OVERLAYFS_SUPER_MAGIC
O_PATH: Final = lib.OH_O_PATH
POLLIN: Final = lib.OH_POLLIN
POLLPRI: Final = lib.OH_POLLPRI
MNT_DETACH: Final = lib.OH_MNT_DETACH
MS_BIND: Final = lib.OH_MS_BIND
MS_NODEV: Final = lib.OH_MS_NODEV
MS_NOEXEC: Final = lib.OH_MS_NOEXEC
MS_NOSUID: Final = lib.OH_MS_NOSUID
MS_PRIVATE: Final = lib.OH_MS_PRIVATE
MS_RDONLY: Final = lib.OH_MS_RDONLY
MS_REC: Final = lib.OH_MS_REC
MS_REMOUNT: Final = lib.OH_MS_REMOUNT
MS_SHARED: Final = lib.OH_MS_SHARED
MS_SLAVE: Final = lib.OH_MS_SLAVE
MS_UNBINDABLE: Final = lib.OH_MS_UNBINDABLE
SPAWN_PDEATHSIG: Final = lib.OH_SPAWN_PDEATHSIG
SPAWN_SETSID: Final = lib.OH_SPAWN_SETSID
SPAWN_NO_CLONE3: Final = lib.OH_SPAWN_NO_CLONE3
STAGES: Final = {
    lib.OH_STAGE_CLONE: "clone",
    lib.OH_STAGE_MOUNT_NS: "setns to the mount namespace",
    lib.OH_STAGE_CGROUP: "join the cgroup",
    lib.OH_STAGE_CWD: "chdir",
    lib.OH_STAGE_FDS: "place the descriptors",
    lib.OH_STAGE_EXEC: "exec",
    lib.OH_STAGE_SESSION: "prctl or setsid",
}
# Order of oh_namespaces.
NAMESPACES: Final = (
    "cgroup",
    "ipc",
    "mnt",
    "net",
    "pid",
    "pid_for_children",
    "time",
    "time_for_children",
    "user",
    "uts",
)
CLONE_FLAGS: Final = {
    "cgroup": lib.OH_CLONE_NEWCGROUP,
    "ipc": lib.OH_CLONE_NEWIPC,
    "mnt": lib.OH_CLONE_NEWNS,
    "net": lib.OH_CLONE_NEWNET,
    "pid": lib.OH_CLONE_NEWPID,
    "time": lib.OH_CLONE_NEWTIME,
    "user": lib.OH_CLONE_NEWUSER,
    "uts": lib.OH_CLONE_NEWUTS,
}


def _check(result: int, path: str | None = None) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result), path)
    return result


def monotonic_ns() -> int:
    """CLOCK_MONOTONIC, the clock of every timestamp in this package."""
    return lib.oh_monotonic_ns()


class Spawned(Struct, frozen=True):
    """A started child. The pidfd belongs to the caller, who closes it."""

    pid: int
    pidfd: int
    start_ns: int  # CLOCK_MONOTONIC, right before the clone
    into_clone: bool  # born in the target cgroup, not moved there


def _c_string(text: str) -> bytes:
    """For C, which would take a NUL for the end. Raises ValueError."""
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise ValueError(f"embedded null byte in {text!r}")
    return encoded


def _strings(strings: Sequence[str]) -> bytes:
    """A block of NUL-terminated strings. Raises ValueError: a NUL inside one would shift all that follow."""
    block = b"".join([os.fsencode(text) + b"\0" for text in strings])
    if block.count(0) != len(strings):
        raise ValueError(f"embedded null byte in {next(text for text in strings if chr(0) in text)!r}")
    return block


_block = lru_cache(maxsize=256)(_strings)


def kill_abandoned(child: Spawned) -> None:
    """End a child that nobody else knows of."""
    lib.oh_pidfd_send_signal(child.pidfd, signal.SIGKILL)
    while lib.oh_wait(child.pid, child.pidfd, -1, ffi.new("struct oh_exit *")) == -errno.EINTR:
        pass
    os.close(child.pidfd)


def spawn(
    path: str,
    argv: Sequence[str],
    env: tuple[str, ...],
    *,
    fds: Sequence[int],
    cwd: str | None = None,
    cgroup_fd: int = -1,
    join_fds: Sequence[int] = (),
    mount_ns_fd: int = -1,
    flags: int = 0,
    abandon: Callable[[Spawned], None] = kill_abandoned,
) -> Spawned:
    """Start `path` with `argv` and `env` ("NAME=value"); fds[i] becomes descriptor i (-1: closed).

    Raises OSError; its strerror names the step that failed when that was not the exec. ValueError: a NUL in a string.
    `abandon` gets a child that is there when the handler of a signal raises before this can return.
    """
    out = ffi.new("struct oh_spawned *")
    arguments = (
        _c_string(path),
        _strings(argv),
        len(argv),
        _block(env),
        len(env),
        ffi.NULL if cwd is None else _c_string(cwd),
        list(fds),
        len(fds),
        cgroup_fd,
        list(join_fds),
        len(join_fds),
        mount_ns_fd,
        flags,
        out,
    )
    try:
        result = lib.oh_spawn(*arguments)
        if result >= 0:
            return Spawned(out.pid, out.pidfd, out.start_ns, bool(out.into_clone))
    except BaseException:
        # raised by the handler of a signal that came during the call, when all are blocked: nobody knows the child
        if out.pid > 0:
            abandon(Spawned(out.pid, out.pidfd, out.start_ns, bool(out.into_clone)))
        raise
    stage = STAGES[out.stage]
    text = os.strerror(-result)
    raise OSError(-result, text if stage == "exec" else f"{stage}: {text}", path)


class Exit(Struct, frozen=True):
    """How a child ended, and what it and the children it waited for have used (getrusage(2))."""

    end_ns: int  # CLOCK_MONOTONIC, as soon as the wait returned
    status: int  # exit status; -N when signal N killed it
    user_us: int
    system_us: int
    maxrss_kib: int
    minflt: int
    majflt: int
    nvcsw: int
    nivcsw: int


def wait(pid: int, pidfd: int, timeout_ns: int = -1) -> Exit:
    """Wait for a child and reap it.

    Raises TimeoutError at the deadline, InterruptedError when a signal came first, ChildProcessError when `pid` is no
    child of this process.
    """
    out = ffi.new("struct oh_exit *")
    _check(lib.oh_wait(pid, pidfd, timeout_ns, out))
    status = out.status if out.code == lib.OH_CLD_EXITED else -out.status
    return Exit(
        out.end_ns,
        status,
        out.user_us,
        out.system_us,
        out.maxrss_kib,
        out.minflt,
        out.majflt,
        out.nvcsw,
        out.nivcsw,
    )


def pidfd_open(pid: int) -> int:
    """A descriptor of a process, close-on-exec. Raises ProcessLookupError when it is gone."""
    return _check(lib.oh_pidfd_open(pid, 0))


def pidfd_send_signal(pidfd: int, sig: int = signal.SIGKILL) -> None:
    _check(lib.oh_pidfd_send_signal(pidfd, sig))


def poll(fd: int, events: int, timeout_ns: int = -1) -> int:
    """revents, or 0 at the deadline. Raises InterruptedError when a signal came first."""
    return _check(lib.oh_poll(fd, events, timeout_ns))


def open_beneath(dirfd: int, path: str, flags: int = os.O_RDONLY) -> int:
    """Open a path below dirfd that neither leaves it nor follows a link (openat2(2), RESOLVE_BENEATH)."""
    return _check(lib.oh_open_beneath(dirfd, _c_string(path), flags), path)


def fs_magic(fd: int) -> int:
    """f_type of fstatfs(2)."""
    return _check(lib.oh_fs_magic(fd))


class FileBatch:
    """The bytes of many small files, read in one call; a file's content is cut out when it is asked for.

    `batch[i]` is the content of the i-th file, or an OSError value (not raised) telling why there is none.
    """

    __slots__ = ("_ends", "_errors", "_text")

    def __init__(self, text: bytes, lengths: Sequence[int]) -> None:
        self._text = text
        self._errors = lengths
        self._ends: list[int] | None = None

    def __len__(self) -> int:
        return len(self._errors)

    def __getitem__(self, index: int) -> bytes | OSError:
        length = self._errors[index]
        if length < 0:
            return OSError(-length, os.strerror(-length))
        if self._ends is None:
            end = 0
            self._ends = [end := end + max(n, 0) for n in self._errors]
        end = self._ends[index]
        return self._text[end - length : end]


_BUFFER_BYTES = 256 * 1024


class _Buffer:
    """One growing C buffer; not shared between threads."""

    def __init__(self) -> None:
        self.cap = _BUFFER_BYTES
        self.data: Any = ffi.new("char[]", self.cap)

    def grow(self) -> None:
        if self.cap >= 64 * 1024 * 1024:
            raise OSError(105, "the kernel files of one cgroup are larger than 64 MiB")
        self.cap *= 4
        self.data = ffi.new("char[]", self.cap)


def read_files(dirfds: Sequence[int], names: Sequence[str]) -> FileBatch:
    """Read names[i] in directory dirfds[i], all in one call. Names hold no slash.

    Raises ValueError for lists of different length.
    """
    count = len(names)
    if len(dirfds) != count:
        raise ValueError(f"{len(dirfds)} directories for {count} names: not the same length")
    lengths = ffi.new("int64_t[]", count)
    buffer = _Buffer()
    block = _block(tuple(names))
    fds = list(dirfds)
    while (used := lib.oh_read_files(fds, block, count, buffer.data, buffer.cap, lengths)) < 0:
        buffer.grow()
    return FileBatch(ffi.buffer(buffer.data, used)[:], ffi.unpack(lengths, count))


class OpenFiles:
    """Kernel files kept open, to be read again and again with pread at 0."""

    def __init__(self, dirfds: Sequence[int], names: Sequence[str]) -> None:
        self.names = tuple(names)
        pairs = [(d, _c_string(n)) for d, n in zip(dirfds, names, strict=True)]
        opened = [lib.oh_open_beneath(directory, name, os.O_RDONLY) for directory, name in pairs]
        self._fds = array("i", opened)  # negative: -errno of that file
        self._c_fds = ffi.from_buffer("int[]", self._fds)
        self._lengths = ffi.new("int64_t[]", len(names))
        self._buffer = _Buffer()

    def read(self) -> FileBatch:
        count = len(self.names)
        buffer = self._buffer
        while (used := lib.oh_pread_files(self._c_fds, count, buffer.data, buffer.cap, self._lengths)) < 0:
            buffer.grow()
        return FileBatch(ffi.buffer(buffer.data, used)[:], ffi.unpack(self._lengths, count))

    def sample(self, period_ns: int, stop_fd: int, max_samples: int) -> tuple[list[tuple[int, FileBatch]], int]:
        """Read all files every `period_ns` until `stop_fd` is readable or `max_samples` are there.

        Returns [(CLOCK_MONOTONIC ns before the read, contents)], and the CPU time in ns that sampling took.
        Blocks without holding the interpreter lock: call it in a thread.
        """
        count = len(self.names)
        cap = max(_BUFFER_BYTES, max_samples * count * 512)
        data = ffi.new("char[]", cap)
        times = ffi.new("int64_t[]", max_samples)
        lengths = ffi.new("int64_t[]", max_samples * count)
        cpu_ns = ffi.new("int64_t *")
        taken = lib.oh_sample(self._c_fds, count, period_ns, stop_fd, max_samples, data, cap, times, lengths, cpu_ns)
        samples: list[tuple[int, FileBatch]] = []
        at = 0
        for index in range(taken):
            sizes = [lengths[index * count + i] for i in range(count)]
            size = sum(n for n in sizes if n > 0)
            samples.append((times[index], FileBatch(ffi.buffer(data + at, size)[:], sizes)))
            at += size
        return samples, cpu_ns[0]

    def close(self) -> None:
        for index, fd in enumerate(self._fds):
            if fd >= 0:
                os.close(fd)
                self._fds[index] = -9  # EBADF

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def cgroup_eventfd(control_fd: int, target_fd: int, args: str = "") -> int:
    """cgroup v1: an eventfd registered through cgroup.event_control (Documentation/admin-guide/cgroup-v1)."""
    return _check(lib.oh_cgroup_eventfd(control_fd, target_fd, args.encode()))


def namespaces(proc_fd: int) -> dict[str, tuple[int, int] | None]:
    """{kind: (device, inode)} of all namespaces of the process whose /proc directory is `proc_fd`.

    None: this kernel has no such namespace.
    """
    dev = ffi.new("uint64_t[]", len(NAMESPACES))
    ino = ffi.new("uint64_t[]", len(NAMESPACES))
    _check(lib.oh_namespaces(proc_fd, dev, ino))
    return {kind: (dev[i], ino[i]) if ino[i] else None for i, kind in enumerate(NAMESPACES)}


def ns_type(fd: int) -> str:
    """Kind of a namespace: cgroup, ipc, mnt, net, pid, time, user or uts (ioctl_ns(2))."""
    flag = _check(lib.oh_ns_type(fd))
    return next(kind for kind, value in CLONE_FLAGS.items() if value == flag)


def ns_owner_uid(fd: int) -> int:
    return _check(lib.oh_ns_owner_uid(fd))


def ns_userns(fd: int) -> int:
    return _check(lib.oh_ns_userns(fd))


def ns_parent(fd: int) -> int:
    return _check(lib.oh_ns_parent(fd))


def setns(fd: int, flags: int) -> None:
    _check(lib.oh_setns(fd, flags))


def unshare(flags: int) -> None:
    _check(lib.oh_unshare(flags))


def mount(source: str | None, target: str, fstype: str | None = None, flags: int = 0, data: str = "") -> None:
    """mount(2); acts on the mount namespace of the calling thread."""
    result = lib.oh_mount(
        ffi.NULL if source is None else _c_string(source),
        _c_string(target),
        ffi.NULL if fstype is None else _c_string(fstype),
        flags,
        _c_string(data) if data else ffi.NULL,
    )
    _check(result, target)


def umount(target: str, flags: int = 0) -> None:
    _check(lib.oh_umount(_c_string(target), flags), target)


def reflink(source_fd: int, target_fd: int) -> None:
    """Share the data blocks of two files (FICLONE). Raises OSError EOPNOTSUPP or EXDEV where that cannot be."""
    _check(lib.oh_reflink(source_fd, target_fd))


def syscall_number(name: str) -> int:
    """Raises OSError (ENOSYS) for a system call that native/namespaces.c has no number for on this architecture."""
    return _check(lib.oh_syscall_number(name.encode()), name)


def deny_syscalls(names: Sequence[str], error: int) -> None:
    """Let the named system calls fail with `error` for this thread and all that it starts; cannot be undone."""
    numbers = [syscall_number(name) for name in names]
    _check(lib.oh_deny_syscalls(numbers, len(numbers), error))
