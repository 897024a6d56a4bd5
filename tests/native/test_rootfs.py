"""Root file systems: what is static, what the default one holds, exact copies, overlays and their fallback."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.kernel import shim
from harness.kernel.mounts import MountNamespace
from harness.oci import rootfs
from harness.oci.bundle import create_bundle
from harness.oci.rootfs import (
    APPLETS,
    Provided,
    build_default,
    copy_file,
    copy_tree,
    find_busybox,
    is_static,
    mount_overlay,
    payload_binary,
)

Require = Callable[..., None]


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def described(root: Path) -> dict[str, tuple[Any, ...]]:
    """{path: what a copy must keep}: type and mode, owner, device number, content or target."""
    found: dict[str, tuple[Any, ...]] = {}
    for directory, names, files in os.walk(root):
        for name in [*names, *files, *([""] if directory == str(root) else [])]:
            path = Path(directory) / name
            status = path.lstat()
            content: Any = None
            if stat.S_ISLNK(status.st_mode):
                content = path.readlink()
            elif stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            key = str(path.relative_to(root))
            found[key] = (oct(status.st_mode), status.st_uid, status.st_gid, status.st_rdev, content)
    return found


# --- is_static ------------------------------------------------------------------------------------------------


def elf(*types: int, order: str = "<", size: int = 56, table: int = 64, count: int | None = None) -> bytes:
    """A 64-bit ELF file with program headers of these types."""
    head = b"\x7fELF" + bytes([2, 1 if order == "<" else 2, 1]) + bytes(9)
    head += struct.pack(
        order + "HHIQQQIHHHHHH", 2, 62, 1, 0, table, 0, 0, 64, size, len(types) if count is None else count, 0, 0, 0
    )
    return head + b"".join(struct.pack(order + "I", kind).ljust(size, b"\0") for kind in types)


def verdict(data: bytes) -> bool:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return is_static(Path(file.name))


def test_real_binaries(require: Require) -> None:
    """Our payload and a static busybox are static; Python and a shared library's user are not."""
    assert is_static(payload_binary())
    assert not is_static(Path(sys.executable).resolve())
    assert not is_static(Path("/bin/true").resolve())
    busybox = find_busybox()
    if busybox is None:
        require("busybox")
        pytest.skip("the busybox here is not static")
    assert is_static(busybox)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (elf(1), True),
        (elf(1, 6, 2), True),
        (elf(1, 3), False),
        (elf(6, 3, 1), False),
        (elf(1, order=">"), True),
        (elf(1, 3, order=">"), False),
        (elf(1, size=64), True),
        (b"", False),
        (b"#!/bin/sh\necho\n", False),
        (b"\x7fELF", False),
        (elf(1)[:63], False),
        (elf(), False),
        (elf(1, 3)[:64], False),
        (elf(1, 1)[:-1], False),
        (elf(1, count=2), False),
        (elf(1, count=65535), False),
        (elf(1, size=0), False),
        (elf(1, size=3), False),
        (elf(1, table=2**64 - 1), False),
        (elf(1, table=2**63), False),
        (elf(1, table=2**62), False),
        (elf(1).replace(b"\x7fELF\x02", b"\x7fELF\x01"), False),
    ],
)
def test_made_up_binaries(data: bytes, expected: bool) -> None:
    """An ELF file without PT_INTERP is static in either byte order; one that is cut short or senseless is not."""
    assert verdict(data) is expected


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(lambda data: b"\x7fELF\x02\x01" + data),
        st.builds(
            lambda base, changes, end: bytes(
                {**dict(enumerate(base)), **changes}[i] for i in range(min(end, len(base)))
            ),
            st.sampled_from([elf(1), elf(1, 3), elf(1, order=">"), elf(1, 2, 6)]),
            st.dictionaries(st.integers(4, 100), st.integers(0, 255), max_size=4),
            st.integers(0, 300),
        ),
    )
)
def test_never_raises(data: bytes) -> None:
    """Whatever the bytes are, the answer is yes or no."""
    assert verdict(data) in (True, False)


def test_unreadable(tmp_path: Path) -> None:
    """A file that is not there or a directory is an OSError."""
    with pytest.raises(FileNotFoundError):
        is_static(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        is_static(tmp_path)


# --- the default root file system -----------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_default(tmp_path: Path, mask: int) -> None:
    """Directories, accounts, payload and busybox with its applets, open to every user whatever our umask is."""
    with umask(mask):
        has_busybox = build_default(tmp_path, {"/var/run": "/run", "lib64/deep/link": "../nowhere"})
    assert has_busybox is (find_busybox() is not None)
    for name in rootfs.DIRECTORIES:
        expected = 0o1777 if name == "tmp" else 0o755
        assert (name, oct(stat.S_IMODE((tmp_path / name).stat().st_mode))) == (name, oct(expected))
    assert stat.S_IMODE((tmp_path / "usr").stat().st_mode) == 0o755
    for name in ("passwd", "group", "hosts"):
        assert stat.S_IMODE((tmp_path / "etc" / name).stat().st_mode) == 0o644
    assert (tmp_path / "etc/passwd").read_text().splitlines()[0].startswith("root:x:0:0:")
    assert "nogroup:x:65534:" in (tmp_path / "etc/group").read_text()
    assert (tmp_path / "payload").read_bytes() == payload_binary().read_bytes()
    assert stat.S_IMODE((tmp_path / "payload").stat().st_mode) == 0o755
    assert (tmp_path / "var/run").readlink() == Path("/run")
    assert (tmp_path / "lib64/deep/link").readlink() == Path("../nowhere")
    if has_busybox:
        assert os.access(tmp_path / "bin/busybox", os.X_OK)
        for applet in APPLETS:
            assert (tmp_path / "bin" / applet).readlink() == Path("busybox")


def test_default_without_busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a static busybox the payload is there all the same, and it is told."""
    monkeypatch.setattr(rootfs, "find_busybox", lambda: None)
    assert build_default(tmp_path) is False
    assert (tmp_path / "payload").is_file()
    assert list((tmp_path / "bin").iterdir()) == []


def test_applets_exist(tmp_path: Path, require: Require) -> None:
    """Every applet that is linked is one that this busybox has."""
    import subprocess

    busybox = find_busybox()
    if busybox is None:
        require("busybox")
        pytest.skip("the busybox here is not static")
    offered = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    assert set(APPLETS) <= set(offered)


# --- copies ---------------------------------------------------------------------------------------------------


def fill(base: Path) -> None:
    """One of everything that a root file system may hold."""
    base.mkdir(exist_ok=True)
    base.chmod(0o751)
    for name, mode in (("empty", 0o700), ("sticky", 0o1777), ("setgid", 0o2755), ("closed", 0o000), ("a/b/c", 0o755)):
        (base / name).mkdir(parents=True)
        (base / name).chmod(mode)
    for name, mode, content in (
        ("plain", 0o644, b"plain"),
        ("zero", 0o600, b""),
        ("setuid", 0o4755, b"#!"),
        ("setgid-file", 0o2711, b"x"),
        ("nobody-reads", 0o000, b"secret"),
        ("a/b/c/deep", 0o640, b"deep"),
        ("large", 0o644, os.urandom(3_000_001)),
    ):
        (base / name).write_bytes(content)
        os.chown(base / name, 1234, 5678) if name.startswith("set") else None
        (base / name).chmod(mode)
    os.chown(base / "empty", 65534, 65534)
    for name in (
        "blank name",
        "new\nline",
        "żółć",
        os.fsdecode(b"\xff\xfe"),
        "comma,colon:back\\slash",
        "-dash",
        "*?[",
        "n" * 255,
    ):
        (base / name).write_bytes(os.fsencode(name))
    for name, target in (
        ("dangling", "nowhere"),
        ("absolute", "/etc/passwd"),
        ("to-directory", "a/b"),
        ("to-itself", "to-itself"),
        ("upwards", "../../.."),
        ("a/relative", "b/c/deep"),
        ("odd-target", os.fsdecode(b"\xff,:")),
    ):
        (base / name).symlink_to(target)
    os.lchown(base / "dangling", 42, 43)
    os.mknod(base / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (base / "null").chmod(0o666)
    os.mknod(base / "block", stat.S_IFBLK | 0o660, os.makedev(7, 0))
    os.mknod(base / "fifo", stat.S_IFIFO | 0o622)
    (base / "fifo").chmod(0o622)
    os.mknod(base / "socket", stat.S_IFSOCK | 0o777)


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_copy_is_exact(tmp_path: Path, require: Require, mask: int) -> None:
    """Types, modes with setuid and sticky bits, owners, devices, links and odd names are all kept, under any umask."""
    require("root")
    source, target = tmp_path / "source", tmp_path / "target"
    fill(source)
    with umask(mask):
        target.mkdir()
        provided = copy_tree(source, target)
    ours, theirs = described(source), described(target)
    assert ours.keys() == theirs.keys()
    assert {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]} == {}
    assert provided.how in ("copy", "reflink")
    assert (provided.reason is None) is (provided.how == "reflink")


def test_copy_shares_nothing(tmp_path: Path) -> None:
    """A copy is one of its own: changing it leaves the source alone."""
    (tmp_path / "source/d").mkdir(parents=True)
    (tmp_path / "source/d/f").write_text("one")
    (tmp_path / "target").mkdir()
    copy_tree(tmp_path / "source", tmp_path / "target")
    (tmp_path / "target/d/f").write_text("two")
    assert (tmp_path / "source/d/f").read_text() == "one"


def test_copy_of_links_goes_nowhere(tmp_path: Path) -> None:
    """A link to a directory outside is copied as a link: nothing behind it is read or written."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/link").symlink_to(outside)
    (tmp_path / "target").mkdir()
    copy_tree(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target/link").readlink() == outside
    assert list(outside.iterdir()) == [outside / "file"]


def test_copy_of_no_directory(tmp_path: Path) -> None:
    """A source that is no directory is an InputError that names it."""
    (tmp_path / "target").mkdir()
    for source in (tmp_path / "none", Path("/etc/passwd")):
        with pytest.raises(InputError, match="is no directory") as caught:
            copy_tree(source, tmp_path / "target")
        assert str(source) in str(caught.value)


def test_copy_file(tmp_path: Path) -> None:
    """copy_file keeps content and mode, and does not write over a file that is there."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(100_000))
    source.chmod(0o4711)
    with umask(0o077):
        assert copy_file(source, tmp_path / "target") in ("copy", "reflink")
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o4711
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileExistsError):
        copy_file(source, tmp_path / "target")
    with pytest.raises(FileNotFoundError):
        copy_file(tmp_path / "none", tmp_path / "new")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_copy_of_a_sparse_file(tmp_path: Path) -> None:
    """A file with a hole has the same content afterwards."""
    with (tmp_path / "source").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    copy_file(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def test_bundle_rootfs_is_open_to_users(tmp_path: Path) -> None:
    """The rootfs of a bundle made under a strict umask can be entered by any user of the container."""
    with umask(0o077):
        bundle = create_bundle(tmp_path / "bundle", "default")
    assert stat.S_IMODE(bundle.rootfs.stat().st_mode) == 0o755


# --- overlays -------------------------------------------------------------------------------------------------


@pytest.fixture
def namespace(require: Require) -> Iterator[MountNamespace]:
    require("root")
    with MountNamespace() as made:
        yield made


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    base = tmp_path / "lower"
    (base / "etc").mkdir(parents=True)
    (base / "etc/name").write_text("lower")
    base.chmod(0o751)
    os.chown(base, 1000, 1001)
    return base


def overlay_here(namespace: MountNamespace, tmp_path: Path) -> None:
    """Skip where the kernel has no overlayfs."""
    probe = tmp_path / "probe"
    probe.mkdir()
    (probe / "lower").mkdir()
    if mount_overlay(namespace.call, probe / "lower", probe).how != "overlay":
        pytest.skip("no overlayfs for this directory")


@pytest.mark.parametrize(
    "name", ["plain", "co:lon", "com,ma", "back\\slash", "all,of:them\\:,", "blank here", "żółć", "eq=ual", "\\"]
)
def test_overlay(namespace: MountNamespace, tmp_path: Path, lower: Path, name: str) -> None:
    """The overlay shows the lower directory, takes writes into its upper one, and is seen in the namespace alone."""
    overlay_here(namespace, tmp_path)
    base = tmp_path / name
    base.mkdir()
    odd_lower = base / f"lower {name}"
    shutil.copytree(lower, odd_lower)
    directory = base / f"container {name}"
    directory.mkdir()
    assert mount_overlay(namespace.call, odd_lower, directory) == Provided("overlay")
    merged = directory / "rootfs"
    assert namespace.call((merged / "etc/name").read_text) == "lower"
    namespace.call((merged / "etc/name").write_text, "changed")
    assert (odd_lower / "etc/name").read_text() == "lower"
    assert (directory / "upper/etc/name").read_text() == "changed"
    assert list(merged.iterdir()) == []
    fd = namespace.call(os.open, merged, os.O_RDONLY)
    assert shim.fs_magic(fd) == shim.OVERLAYFS_SUPER_MAGIC
    os.close(fd)


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_overlay_root_directory(namespace: MountNamespace, tmp_path: Path, lower: Path, mask: int) -> None:
    """The root directory has the mode and owner of the lower one, whatever our umask is."""
    overlay_here(namespace, tmp_path)
    directory = tmp_path / "container"
    with umask(mask):
        directory.mkdir()
        mount_overlay(namespace.call, lower, directory)
    status = namespace.call((directory / "rootfs").stat)
    assert (oct(stat.S_IMODE(status.st_mode)), status.st_uid, status.st_gid) == ("0o751", 1000, 1001)


def test_overlay_on_overlay(namespace: MountNamespace, tmp_path: Path, lower: Path) -> None:
    """Where the directory is itself on an overlay the kernel refuses: a copy is made, and the reason told."""
    overlay_here(namespace, tmp_path)
    outer = tmp_path / "outer"
    outer.mkdir()
    mount_overlay(namespace.call, lower, outer)

    def inside() -> tuple[Provided, dict[str, tuple[Any, ...]]]:
        directory = outer / "rootfs" / "container"
        directory.mkdir()
        provided = mount_overlay(lambda function, *args: function(*args), lower, directory)
        assert sorted(path.name for path in directory.iterdir()) == ["rootfs"]
        return provided, described(directory / "rootfs")

    provided, content = namespace.call(inside)
    assert provided.how in ("copy", "reflink")
    assert provided.reason is not None
    assert provided.reason.startswith("overlay: ")
    assert content == described(lower)


@pytest.mark.parametrize("error", [1, 19, 22, 38])
def test_overlay_refused(tmp_path: Path, lower: Path, error: int) -> None:
    """Whatever errno the mount gives, a copy takes its place, with upper and work gone and the reason kept."""
    directory = tmp_path / "container"
    directory.mkdir()

    def call(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    provided = mount_overlay(call, lower, directory)
    assert provided == Provided(provided.how, f"overlay: {os.strerror(error)}")
    assert sorted(path.name for path in directory.iterdir()) == ["rootfs"]
    assert described(directory / "rootfs") == described(lower)


def test_overlay_vanishes_with_the_namespace(tmp_path: Path, lower: Path, require: Require) -> None:
    """When the namespace is closed the whole directory can be removed."""
    require("root")
    directory = tmp_path / "container"
    directory.mkdir()
    with MountNamespace() as namespace:
        mount_overlay(namespace.call, lower, directory)
    shutil.rmtree(directory)
    assert not directory.exists()
