"""A node's file tree, live or a copy (a support bundle), read without hanging, leaving or changing it."""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from harness.cgroup.hierarchy import Mount, parse_mountinfo
from harness.diagnosis.node.finding import Unseen

FILE_BYTES = 4 * 1024 * 1024
LOG_BYTES = 64 * 1024 * 1024  # of a log, its end
PIECE_BYTES = 64 * 1024
HOPS = 40  # path_resolution(7)
# A server that is gone makes every access to these wait for ever, uninterruptibly at times; autofs would mount them.
REMOTE = {"afs", "autofs", "beegfs", "ceph", "cifs", "coda", "fuse", "gfs2", "glusterfs", "gpfs", "lustre"}
REMOTE |= {"ncpfs", "nfs", "nfs4", "ocfs2", "smb2", "smb3", "smbfs"}


def is_remote(mount: Mount) -> bool:
    """Whether looking at what is mounted there may wait for somebody else."""
    return mount.fstype.partition(".")[0] in REMOTE and mount.mount_point != "/"


class Tree:
    """All paths are absolute, as the node has them; links are followed as a process with that root would.

    What exists but cannot be read is noted in `unseen`, once, and then is as if it were not there.
    """

    def __init__(self, root: Path = Path("/"), *, live: bool) -> None:
        self.root = root
        self.live = live
        self.unseen: list[Unseen] = []
        self._remote: dict[str, Mount] = {}
        if live:
            text = os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
            self._remote = {mount.mount_point: mount for mount in parse_mountinfo(text) if is_remote(mount)}

    def miss(self, what: str, reason: str) -> None:
        """Note what could not be looked at."""
        note = Unseen(what, reason)
        if note not in self.unseen:
            self.unseen.append(note)

    def _missed(self, path: str, error: OSError) -> None:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESRCH):
            self.miss(path, error.strerror or str(error))

    def locate(self, path: str) -> Path | None:
        """Where a path of the node is here, all links followed; what is not there is appended as it is.

        None, with a note: it leads in circles, or onto a file system that may hang.
        """
        if "\0" in path:  # a name from a file of the tree; the kernel has no such
            return None
        pending = path.split("/")[::-1]
        place: list[str] = []
        hops = 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                place = place[:-1]
                continue
            mount = self._remote.get("/" + "/".join([*place, part]))
            if mount is not None:
                self.miss(path, f"{mount.mount_point} is a {mount.fstype} mount, which may hang; not touched")
                return None
            try:
                target = os.readlink(self.root.joinpath(*place, part))
            except OSError:
                place.append(part)
                continue
            hops += 1
            if hops > HOPS:
                self.miss(path, "too many symbolic links")
                return None
            if target.startswith("/"):
                place = []
            pending += target.split("/")[::-1]
        return self.root.joinpath(*place)

    def status(self, path: str) -> os.stat_result | None:
        """lstat(2) of what a path leads to; None: not there."""
        where = self.locate(path)
        try:
            return None if where is None else os.lstat(where)
        except OSError as error:
            self._missed(path, error)
            return None

    def exists(self, path: str) -> bool:
        return self.status(path) is not None

    def is_directory(self, path: str) -> bool:
        status = self.status(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def is_socket(self, path: str) -> bool:
        status = self.status(path)
        return status is not None and stat.S_ISSOCK(status.st_mode)

    def entries(self, path: str) -> list[str]:
        """Names in a directory, sorted; none if there is no such directory."""
        where = self.locate(path)
        try:
            return [] if where is None else sorted(os.listdir(where))  # noqa: PTH208 - names are wanted, not a Path for each
        except OSError as error:
            self._missed(path, error)
            return []

    def glob(self, pattern: str) -> list[str]:
        """Paths that match; * and ? within a component, and never a name that begins with a dot unless asked."""
        found = [""]
        for part in pattern.strip("/").split("/"):
            if not any(sign in part for sign in "*?["):
                found = [f"{base}/{part}" for base in found]
                continue
            found = [
                f"{base}/{name}"
                for base in found
                for name in self.entries(base or "/")
                if fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
            ]
        return [path for path in found if self.exists(path)]

    def _open(self, path: str) -> int | None:
        where = self.locate(path)
        if where is None:
            return None
        try:
            # O_NONBLOCK: a copied tree may hold FIFOs
            fd = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            self._missed(path, error)
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        self.miss(path, "no regular file")
        return None

    def read_bytes(self, path: str, limit: int = FILE_BYTES) -> bytes | None:
        """At most `limit` bytes of a regular file; None: not there, or not to be read."""
        fd = self._open(path)
        if fd is None:
            return None
        parts = []
        try:
            # in pieces: sysctls take a buffer of the size asked for, and refuse a large one (ENOMEM)
            while limit > 0 and (part := os.read(fd, min(limit, PIECE_BYTES))):
                parts.append(part)
                limit -= len(part)
        except OSError as error:
            self._missed(path, error)
            return None
        finally:
            os.close(fd)
        return b"".join(parts)

    def read(self, path: str, limit: int = FILE_BYTES) -> str | None:
        data = self.read_bytes(path, limit)
        return None if data is None else data.decode(errors="replace")

    def number(self, path: str) -> int | None:
        """The first number of a file such as a sysctl's; None: not there, or no number."""
        words = (self.read(path) or "").split()
        return int(words[0]) if words and words[0].isdecimal() else None

    def lines(self, path: str) -> Iterator[tuple[int, str]]:
        """(number, line) of a log; of one beyond LOG_BYTES only its end, and then numbers are those of that end."""
        fd = self._open(path)
        if fd is None:
            return
        try:
            with open(fd, "rb") as file:
                size = os.fstat(fd).st_size
                if size > LOG_BYTES:
                    self.miss(path, f"only its last {LOG_BYTES >> 20} MiB of {size >> 20} are looked at")
                    file.seek(size - LOG_BYTES)
                    file.readline()
                for number, line in enumerate(file, 1):
                    yield number, line.decode(errors="replace").rstrip("\r\n")
        except OSError as error:
            self._missed(path, error)
