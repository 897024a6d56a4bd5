"""Root file systems for bundles: the embedded default one, and how a bundle gets its own copy of one.

The default needs no network: the host's static busybox, and the project's own payload.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from msgspec import Struct

from harness.errors import HostError, InputError
from harness.kernel import shim
from harness.oci.recipe import data_root

Provision = Literal["overlay", "reflink", "copy"]

PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
GROUP = "root:x:0:\nnogroup:x:65534:\n"
DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "var")
# What a shell session and the recipes need; busybox itself offers the rest as `busybox NAME`.
APPLETS = (
    "ash",
    "cat",
    "chmod",
    "chown",
    "cp",
    "date",
    "dd",
    "df",
    "echo",
    "env",
    "false",
    "grep",
    "head",
    "hostname",
    "id",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mknod",
    "mount",
    "mv",
    "nc",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "sh",
    "sleep",
    "stat",
    "tail",
    "tee",
    "test",
    "touch",
    "true",
    "umount",
    "uname",
    "vi",
    "wc",
    "whoami",
    "xargs",
    "yes",
)


class Provided(Struct, frozen=True):
    """How a bundle got its rootfs, and why not in a better way."""

    how: Provision
    reason: str | None = None


def is_static(path: Path) -> bool:
    """Whether an ELF file needs no dynamic loader: it has program headers, and none is PT_INTERP (elf(5)).

    False for what is no 64-bit ELF file or is cut short. Raises OSError when it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] != b"\x7fELF" or len(head) < 64 or head[4] != 2:
            return False
        order = "<" if head[5] == 1 else ">"
        (table,) = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
        whole = os.fstat(file.fileno()).st_size
        if size < 4 or count == 0 or table + size * count > whole:
            return False
        file.seek(table)
        headers = file.read(size * count)
    return all(struct.unpack_from(order + "I", headers, i * size)[0] != 3 for i in range(count))


def find_busybox() -> Path | None:
    """A static busybox of this host, or None."""
    for candidate in ("/bin/busybox", shutil.which("busybox"), shutil.which("busybox.static")):
        if candidate and Path(candidate).is_file() and is_static(Path(candidate)):
            return Path(candidate)
    return None


def payload_binary() -> Path:
    """The compiled static payload. Raises HostError when the project was never built."""
    path = Path(str(data_root() / "payload" / "payload"))
    if not path.is_file():
        raise HostError(f"the payload is not built ({path}); run: pip install -e . in the checkout")
    return path


def build_default(target: Path, links: dict[str, str] | None = None) -> bool:
    """Fill an empty directory with the default root file system; `links` are further symlinks {path: target}.

    Returns whether busybox is in it; without one only the payload can run there.
    """
    for name in DIRECTORIES:
        (target / name).mkdir(parents=True, exist_ok=True)
    (target / "etc/passwd").write_text(PASSWD)
    (target / "etc/group").write_text(GROUP)
    (target / "etc/hosts").write_text("127.0.0.1 localhost\n")
    shutil.copyfile(payload_binary(), target / "payload")
    (target / "payload").chmod(0o755)
    busybox = find_busybox()
    if busybox is not None:
        copy_file(busybox, target / "bin/busybox")
        for applet in APPLETS:
            (target / "bin" / applet).symlink_to("busybox")
    for path, points_to in (links or {}).items():
        link = target / path.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(points_to)
    _open_to_all(target)
    return busybox is not None


def _open_to_all(target: Path) -> None:
    """Our umask is not the container's: its users must get into the directories and read the files in etc."""
    for directory, _, _ in os.walk(target):
        Path(directory).chmod(0o755)
    (target / "tmp").chmod(0o1777)
    for file in (target / "etc").iterdir():
        if not file.is_symlink():
            file.chmod(0o644)


def _like(source: Path, target: Path) -> None:
    """Owner and mode of a directory, as they are."""
    status = source.stat()
    os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode))


def copy_file(source: Path, target: Path) -> Provision:
    """Copy one file with its mode, sharing its blocks where the file system can (FICLONE)."""
    how: Provision = "copy"
    source_fd = os.open(source, os.O_RDONLY)
    try:
        target_fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            try:
                shim.reflink(source_fd, target_fd)
                how = "reflink"
            except OSError:  # EOPNOTSUPP, EXDEV, EINVAL: not this file system
                offset, left = 0, os.fstat(source_fd).st_size
                while left and (done := os.sendfile(target_fd, source_fd, offset, left)):
                    offset, left = offset + done, left - done
            mode = os.fstat(source_fd)
            os.fchown(target_fd, mode.st_uid, mode.st_gid)
            os.fchmod(target_fd, mode.st_mode & 0o7777)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)
    return how


def copy_tree(source: Path, target: Path) -> Provided:
    """Copy a rootfs into the existing, empty directory `target`; links, modes, owners and device nodes as they are."""
    if not source.is_dir():
        raise InputError(f"{source} is no directory, so it cannot be a rootfs")
    _like(source, target)
    hows: set[Provision] = set()
    for directory, names, files in os.walk(source):
        here = Path(directory)
        there = target / here.relative_to(source)
        for name in list(names):
            if (here / name).is_symlink():
                names.remove(name)
                files.append(name)
            else:
                (there / name).mkdir()
                shutil.copystat(here / name, there / name)
                os.chown(there / name, (here / name).stat().st_uid, (here / name).stat().st_gid)
        for name in files:
            status = (here / name).lstat()
            if (here / name).is_symlink():
                (there / name).symlink_to((here / name).readlink())
                os.lchown(there / name, status.st_uid, status.st_gid)
            elif (here / name).is_file():
                hows.add(copy_file(here / name, there / name))
            else:
                os.mknod(there / name, status.st_mode, status.st_rdev)
                os.chown(there / name, status.st_uid, status.st_gid)
                (there / name).chmod(stat.S_IMODE(status.st_mode))  # mknod(2) heeds the umask
    if hows == {"reflink"}:
        return Provided("reflink")
    return Provided("copy", "the file system shares no blocks between files (FICLONE)")


def mount_overlay(call: Callable[..., None], lower: Path, directory: Path) -> Provided:
    """Make directory/rootfs an overlay on `lower` with its upper layer beside it.

    `call` runs a function in the mount namespace that is meant (MountNamespace.call). Falls back to a copy where the
    kernel refuses an overlay, and says why.
    """
    rootfs, upper, work = (directory / name for name in ("rootfs", "upper", "work"))
    for path in (rootfs, upper, work):
        path.mkdir(exist_ok=True)
    _like(lower, upper)  # the upper directory is what the container's / shows of itself
    options = f"lowerdir={_escape(lower)},upperdir={_escape(upper)},workdir={_escape(work)}"
    try:
        call(shim.mount, "overlay", str(rootfs), "overlay", 0, options)
    except OSError as error:
        for path in (upper, work):
            shutil.rmtree(path)
        copied = copy_tree(lower, rootfs)
        return Provided(copied.how, f"overlay: {error.strerror}")
    return Provided("overlay")


def _escape(path: Path) -> str:
    """A path inside overlayfs's option string (Documentation/filesystems/overlayfs.rst: colons and commas)."""
    return str(path).replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")
