"""Reading many files at once, and opening paths that must not lead out of a directory."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.kernel import shim


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def error_of(value: bytes | OSError) -> int | None:
    return value.errno if isinstance(value, OSError) else None


# --- open_beneath ---------------------------------------------------------------------------------------------

# (path, what comes of it: the file's content, or the names of the errnos that may tell of the refusal)
ATTEMPTS: list[tuple[str, str | tuple[str, ...]]] = [
    ("file", "in file"),
    ("./file", "in file"),
    ("sub/file", "in sub"),
    ("sub//file", "in sub"),
    ("sub/./file", "in sub"),
    ("sub/deep/file", "in deep"),
    ("nope", ("ENOENT",)),
    ("sub/nope/file", ("ENOENT",)),
    ("file/x", ("ENOTDIR",)),
    ("..", ("EXDEV",)),
    ("../secret", ("EXDEV",)),
    ("sub/../../secret", ("EXDEV",)),
    ("sub/deep/../../../secret", ("EXDEV",)),
    ("/etc/passwd", ("EXDEV",)),
    ("//etc/passwd", ("EXDEV",)),
    ("absolute-link", ("ELOOP",)),
    ("relative-link", ("ELOOP",)),
    ("inner-link", ("ELOOP",)),
    ("dangling", ("ELOOP",)),
    ("out/secret", ("ELOOP",)),
    ("out-absolute/passwd", ("ELOOP",)),
    ("sub-link/file", ("ELOOP",)),
    ("loop/x", ("ELOOP",)),
    ("n" * 255, ("ENOENT",)),
    ("n" * 256, ("ENAMETOOLONG",)),
    ("sub/" + "n" * 256 + "/x", ("ENAMETOOLONG",)),
]

TRY = """
import errno, json, os, sys
from harness.kernel import shim
where, denied = sys.argv[1:]
if denied:
    shim.deny_syscalls(['openat2'], getattr(errno, denied))
dirfd = os.open(where, os.O_RDONLY)
proc = os.open('/proc', os.O_RDONLY)
before = len(os.listdir('/proc/self/fd'))
results = []
def attempt(directory, path, flags):
    try:
        fd = shim.open_beneath(directory, path, flags)
    except OSError as error:
        assert error.filename == path
        return [errno.errorcode[error.errno]]
    try:
        assert not os.get_inheritable(fd)
        return os.read(fd, 100).decode() if not flags & shim.O_PATH else 'opened'
    finally:
        os.close(fd)
for path in json.load(sys.stdin):
    results.append([attempt(dirfd, path, os.O_RDONLY), attempt(dirfd, path, shim.O_PATH)])
pid = os.getpid()
magic = [attempt(proc, f'{pid}/{name}', os.O_RDONLY) for name in ('exe', 'root/etc/passwd', 'cwd', 'fd/0')]
magic.append(attempt(proc, 'self/status', os.O_RDONLY))
assert len(os.listdir('/proc/self/fd')) == before
print(json.dumps([results, magic]))
"""


@pytest.mark.parametrize("denied", ["", "ENOSYS", "EPERM"], ids=["openat2", "no-openat2", "openat2-filtered"])
def test_no_way_out(denied: str, tmp_path: Path) -> None:
    """`..`, absolute paths, links and magic links are refused alike with openat2(2) and without, whatever the flags."""
    (tmp_path / "secret").write_text("secret")
    base = tmp_path / "base"
    (base / "sub/deep").mkdir(parents=True)
    for name, text in (("file", "in file"), ("sub/file", "in sub"), ("sub/deep/file", "in deep")):
        (base / name).write_text(text)
    for name, target in (
        ("absolute-link", "/etc/passwd"),
        ("relative-link", "../secret"),
        ("inner-link", "file"),
        ("dangling", "nowhere"),
        ("out", ".."),
        ("out-absolute", "/etc"),
        ("sub-link", "sub"),
        ("loop", "loop"),
    ):
        (base / name).symlink_to(target)
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(base), denied],
        input=json.dumps([path for path, _ in ATTEMPTS]),
        capture_output=True,
        text=True,
        check=True,
    )
    results, magic = json.loads(done.stdout)
    for (path, expected), (opened, located) in zip(ATTEMPTS, results, strict=True):
        if isinstance(expected, str):
            assert (path, opened, located) == (path, expected, "opened")
        else:
            assert opened[0] in expected, path
            assert located == opened, path
    assert magic == [["ELOOP"]] * 5


def test_open_beneath_flags(directory: int, tmp_path: Path) -> None:
    """ "" and "." are the directory itself; writing works when it is asked for."""
    (tmp_path / "file").write_text("old")
    for path in ("", "."):
        fd = shim.open_beneath(directory, path, os.O_RDONLY | os.O_DIRECTORY)
        assert os.path.samestat(os.fstat(fd), tmp_path.stat())
        os.close(fd)
    fd = shim.open_beneath(directory, "file", os.O_WRONLY | os.O_TRUNC)
    os.write(fd, b"new")
    os.close(fd)
    assert (tmp_path / "file").read_text() == "new"
    with pytest.raises(ValueError, match="null"):
        shim.open_beneath(directory, "file\0/../..")


# --- read_files -----------------------------------------------------------------------------------------------

CONTENT = st.one_of(
    st.just(b""),
    st.binary(max_size=300),
    # around the sizes at which the reader decides whether there is more to come, and its first buffer
    st.sampled_from([1, 2047, 2048, 2049, 4095, 4096, 4097, 65536, 262143, 262144, 262145, 300_000]),
)
FILES = st.lists(st.one_of(st.none(), CONTENT), max_size=12)


@settings(max_examples=120, deadline=None)
@given(drawn=FILES)
def test_same_as_plain_reads(drawn: list[bytes | int | None]) -> None:
    """For any set of files, missing, empty and larger than the buffer, the batch has what plain reads give."""
    files = [(b"0123456789abcdef" * (each // 16 + 1))[:each] if isinstance(each, int) else each for each in drawn]
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        for index, content in enumerate(files):
            if content is not None:
                (base / f"f{index}").write_bytes(content)
        fd = os.open(base, os.O_RDONLY)
        try:
            names = [f"f{index}" for index in range(len(files))]
            batch = shim.read_files([fd] * len(names), names)
            with shim.OpenFiles([fd] * len(names), names) as opened:
                again = [opened.read(), opened.read()]
        finally:
            os.close(fd)
    for got in (batch, *again):
        assert len(got) == len(files)
        for index in reversed(range(len(files))):
            value = got[index]
            assert files[index] == value if files[index] is not None else error_of(value) == errno.ENOENT


@pytest.mark.parametrize("free", [0, 1, 100, 2047, 2048])
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 2047, 2048, 5000])
def test_nearly_full_buffer(directory: int, tmp_path: Path, free: int, size: int) -> None:
    """A file that finds `free` bytes left in the first buffer is read whole all the same."""
    first, second = b"a" * (256 * 1024 - free), b"b" * size
    (tmp_path / "first").write_bytes(first)
    (tmp_path / "second").write_bytes(second)
    batch = shim.read_files([directory] * 2, ["first", "second"])
    assert (batch[0], batch[1]) == (first, second)
    with shim.OpenFiles([directory] * 2, ["first", "second"]) as opened:
        batch = opened.read()
    assert (batch[0], batch[1]) == (first, second)


def test_kernel_files(require: object) -> None:
    """Files of /proc, whose size is 0 in stat(2), come whole: short ones, and one of several pages."""
    fd = os.open("/proc/self", os.O_RDONLY)
    names = ["comm", "smaps", "cmdline", "nope", "limits"]
    batch = shim.read_files([fd] * len(names), names)
    os.close(fd)
    assert batch[0] == Path("/proc/self/comm").read_bytes()
    smaps = batch[1]
    assert isinstance(smaps, bytes)
    assert len(smaps) > 8192
    assert smaps.count(b"\nVmFlags:") == smaps.count(b"\nSize:")
    assert smaps.endswith(b"\n")
    assert batch[2] == Path("/proc/self/cmdline").read_bytes()
    assert error_of(batch[3]) == errno.ENOENT
    assert batch[4] == Path("/proc/self/limits").read_bytes()


def test_refused_names(directory: int, tmp_path: Path) -> None:
    """Names with a slash, links, directories and bad descriptors are errors of that file alone."""
    (tmp_path / "file").write_bytes(b"good")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/x").write_bytes(b"hidden")
    spare = os.dup(directory)
    os.close(spare)
    names = ["file", "sub/x", "../x", "/etc/passwd", "link", "sub", "", "file", "file"]
    dirfds = [directory] * 8 + [spare]
    batch = shim.read_files(dirfds, names)
    expected = [None, errno.EXDEV, errno.EXDEV, errno.EXDEV, errno.ELOOP, errno.EISDIR, errno.ENOENT, None, errno.EBADF]
    assert [error_of(batch[i]) for i in range(len(names))] == expected
    assert (batch[0], batch[7]) == (b"good", b"good")


def test_slash_is_refused_before_the_open(directory: int, tmp_path: Path) -> None:
    """A name with a slash is not even opened: a fifo behind it would block for ever."""
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "sub/fifo")
    done: list[int | None] = []
    thread = threading.Thread(
        target=lambda: done.append(error_of(shim.read_files([directory], ["sub/fifo"])[0])), daemon=True
    )
    thread.start()
    thread.join(5.0)
    if thread.is_alive():  # let it go
        os.close(os.open(tmp_path / "sub/fifo", os.O_WRONLY))
        thread.join()
        pytest.fail("the fifo was opened")
    assert done == [errno.EXDEV]


def test_bad_calls(directory: int) -> None:
    """Lists of different length and names with a NUL are refused before C sees them."""
    with pytest.raises(ValueError, match="length"):
        shim.read_files([directory], ["a", "b"])
    with pytest.raises(ValueError, match="null"):
        shim.read_files([directory], ["a\0b"])
    with pytest.raises(ValueError, match="longer"):
        shim.OpenFiles([directory], ["a", "b"])
    with pytest.raises(ValueError, match="null"):
        shim.OpenFiles([directory], ["a\0b"])


def test_nothing_to_read() -> None:
    """No files, no content."""
    assert len(shim.read_files([], [])) == 0
    with shim.OpenFiles([], []) as opened:
        assert len(opened.read()) == 0


def test_batch_is_lazy_but_fixed(directory: int, tmp_path: Path) -> None:
    """A batch keeps what was read, however the files change, and may be asked in any order and again."""
    for name in "abc":
        (tmp_path / name).write_text(f"{name} one")
    with shim.OpenFiles([directory] * 3, list("abc")) as opened:
        first = opened.read()
        (tmp_path / "b").write_text("b two, and longer")
        second = opened.read()
    assert [second[i] for i in (2, 0, 1, 1)] == [b"c one", b"a one", b"b two, and longer", b"b two, and longer"]
    assert [first[i] for i in (1, 2, 0)] == [b"b one", b"c one", b"a one"]
    with pytest.raises(IndexError):
        first[3]


def test_open_files_close(directory: int, tmp_path: Path) -> None:
    """close gives every descriptor back, twice does no harm, and reading afterwards tells EBADF."""
    (tmp_path / "a").write_text("a")
    before = len(list(Path("/proc/self/fd").iterdir()))
    opened = shim.OpenFiles([directory] * 3, ["a", "nope", "a"])
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2
    opened.close()
    opened.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert [error_of(opened.read()[i]) for i in range(3)] == [errno.EBADF, errno.ENOENT, errno.EBADF]


def test_too_large(directory: int, tmp_path: Path) -> None:
    """Files of more than 64 MiB are an error, not a memory hog."""
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    with pytest.raises(OSError, match="64 MiB"):
        shim.read_files([directory], ["huge"])


# --- sample ---------------------------------------------------------------------------------------------------


def test_sample_to_its_end(directory: int, tmp_path: Path) -> None:
    """max_samples are taken, a period apart, each with all files; CPU time is told."""
    (tmp_path / "a").write_text("one")
    never = os.eventfd(0)
    with shim.OpenFiles([directory] * 2, ["a", "nope"]) as opened:
        before = shim.monotonic_ns()
        samples, cpu_ns = opened.sample(2_000_000, never, 10)
        after = shim.monotonic_ns()
    os.close(never)
    assert len(samples) == 10
    times = [time for time, _ in samples]
    assert before <= times[0]
    assert times == sorted(times)
    assert times[-1] - times[0] >= 9 * 2_000_000 - 100_000
    assert all(batch[0] == b"one" and error_of(batch[1]) == errno.ENOENT for _, batch in samples)
    assert 0 < cpu_ns <= after - before


def test_sample_stops(directory: int, tmp_path: Path) -> None:
    """A readable stop_fd ends sampling: at once after the first sample, and in the middle of a long period."""
    (tmp_path / "a").write_text("one")
    stop = os.eventfd(1)
    with shim.OpenFiles([directory], ["a"]) as opened:
        samples, _ = opened.sample(60_000_000_000, stop, 1000)
        assert len(samples) == 1
        os.eventfd_read(stop)
        got: list[int] = []
        thread = threading.Thread(target=lambda: got.append(len(opened.sample(60_000_000_000, stop, 1000)[0])))
        thread.start()
        os.eventfd_write(stop, 1)
        thread.join(10.0)
        assert got == [1]
    os.close(stop)


def test_sample_sees_changes() -> None:
    """Samples are what the file held at that time: a value that only grows is seen to grow."""
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    stop = os.eventfd(0)
    with shim.OpenFiles([proc], ["uptime"]) as opened:
        samples, _ = opened.sample(2_000_000, stop, 150)
    os.close(stop)
    os.close(proc)
    seen = [float(batch[0].split()[0]) for _, batch in samples if isinstance(batch[0], bytes)]
    assert len(seen) == len(samples) == 150
    assert seen == sorted(seen)
    assert len(set(seen)) > 10  # hundredths of a second, over 0.3 s


def test_sample_buffer_full(directory: int, tmp_path: Path) -> None:
    """When the buffer is full sampling ends early with whole samples only."""
    content = b"x" * 5000
    (tmp_path / "a").write_bytes(content)
    never = os.eventfd(0)
    with shim.OpenFiles([directory], ["a"]) as opened:
        samples, _ = opened.sample(0, never, 500)
    os.close(never)
    assert len(samples) == max(256 * 1024, 500 * 512) // 5000
    assert all(batch[0] == content for _, batch in samples)


def test_fs_magic(directory: int) -> None:
    """The type of a file system is told by statfs(2)."""
    fd = os.open("/proc", os.O_RDONLY)
    assert shim.fs_magic(fd) == 0x9FA0
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        shim.fs_magic(999)
