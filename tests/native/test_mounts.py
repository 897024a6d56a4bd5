"""MountNamespace: what happens in it is seen there and nowhere else."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.kernel import shim
from harness.kernel.mounts import MountNamespace

Require = Callable[..., None]


@pytest.fixture(autouse=True)
def _root(require: Require) -> None:
    require("root")


def counts() -> tuple[int, int]:
    """(open descriptors, Python's threads) of this process; numpy has threads of its own."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def settled(expected: tuple[int, int]) -> bool:
    """Whether the counts come to be `expected`: a thread that was joined is a moment later gone for the kernel."""
    end = time.monotonic() + 5
    while counts() != expected and time.monotonic() < end:
        os.sched_yield()
    return counts() == expected


def mount_namespace() -> str:
    return str(Path("/proc/thread-self/ns/mnt").readlink())


def test_mount_is_private(tmp_path: Path) -> None:
    """A mount made inside is seen inside only; ours, and the init process's, stay as they were."""
    tables = [Path(f"/proc/{pid}/mountinfo").read_text() for pid in ("self", 1)]
    own = mount_namespace()
    with MountNamespace() as namespace:
        namespace.call(shim.mount, "none", str(tmp_path), "tmpfs", shim.MS_NOSUID, "size=1m,mode=700")
        namespace.call((tmp_path / "file").write_text, "inside")
        assert namespace.call(lambda: f" {tmp_path} " in Path("/proc/thread-self/mountinfo").read_text())
        assert namespace.call((tmp_path / "file").read_text) == "inside"
        assert list(tmp_path.iterdir()) == []
        assert namespace.call(mount_namespace) != own
        assert mount_namespace() == own
        assert [Path(f"/proc/{pid}/mountinfo").read_text() for pid in ("self", 1)] == tables
        namespace.call(shim.umount, str(tmp_path))
        assert namespace.call(lambda: list(tmp_path.iterdir())) == []


def test_unmount_inside_is_private() -> None:
    """Unmounting /proc inside takes it from nobody else, and two namespaces do not see each other's mounts."""
    with MountNamespace() as one, MountNamespace() as two:
        one.call(shim.umount, "/proc", shim.MNT_DETACH)
        assert one.call(lambda: Path("/proc/self").exists()) is False
        assert two.call(lambda: Path("/proc/self").exists()) is True
        assert Path("/proc/self").exists()


def test_host_mounts_arrive_but_never_go_back(tmp_path: Path) -> None:
    """All mounts are slaves: nothing that is made inside propagates out, not even below a shared mount of ours."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom harness.kernel import shim\n"
        "from harness.kernel.mounts import MountNamespace\n"
        "shim.unshare(shim.CLONE_FLAGS['mnt'])\n"
        "shim.mount(None, '/', flags=shim.MS_REC | (1 << 20))\n"  # MS_SHARED
        "base = Path(sys.argv[1])\n"
        "with MountNamespace() as namespace:\n"
        "    (base / 'in').mkdir(); (base / 'out').mkdir()\n"
        "    namespace.call(shim.mount, 'none', str(base / 'in'), 'tmpfs')\n"
        "    shim.mount('none', str(base / 'out'), 'tmpfs')\n"
        "    table = lambda: Path('/proc/thread-self/mountinfo').read_text()\n"
        "    inside = namespace.call(table)\n"
        "    print([f' {base}/{name} ' in text for text in (table(), inside) for name in ('in', 'out')])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, True, True, True]"


def test_exceptions_propagate() -> None:
    """What a function raises inside is raised by call, whatever it is, and the namespace goes on working."""
    with MountNamespace() as namespace:
        with pytest.raises(ZeroDivisionError):
            namespace.call(lambda: 1 // 0)
        with pytest.raises(KeyboardInterrupt):
            namespace.call(_interrupt)
        with pytest.raises(SystemExit):
            namespace.call(sys.exit, 3)
        with pytest.raises(OSError, match="/nope") as caught:
            namespace.call(shim.mount, "none", "/nope", "tmpfs")
        assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "/nope")
        with pytest.raises(OSError, match=r"\[Errno 22\]"):
            namespace.call(shim.umount, "/etc")
        assert namespace.call(lambda a, b: a + b, 1, 2) == 3


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_close_twice() -> None:
    """close ends the thread and gives the descriptor back; a second close does nothing."""
    before = counts()
    namespace = MountNamespace()
    fd = namespace.fd
    assert settled((before[0] + 1, before[1] + 1))
    namespace.close()
    assert settled(before)
    taken = os.open("/dev/null", os.O_RDONLY)
    assert taken == fd  # a second close of the number would hit this one
    namespace.close()
    os.fstat(taken)
    os.close(taken)


def test_call_after_close_fails() -> None:
    """A closed namespace refuses a call at once, instead of waiting for a thread that has gone."""
    namespace = MountNamespace()
    namespace.close()
    result: list[BaseException] = []

    def ask() -> None:
        try:
            namespace.call(os.getpid)
        except ValueError as error:
            result.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(5.0)
    assert not thread.is_alive()
    assert "closed" in str(result[0])


def test_many() -> None:
    """A hundred namespaces, one after the other and ten at a time, leak no descriptor and no thread."""
    before = counts()
    for _ in range(100):
        with MountNamespace() as namespace:
            assert namespace.call(os.getpid) == os.getpid()
    several = [MountNamespace() for _ in range(10)]
    assert len({namespace.call(mount_namespace) for namespace in several}) == 10
    for namespace in several:
        namespace.close()
    assert settled(before)


def test_descriptor_is_not_inherited() -> None:
    """The namespace's descriptor is close-on-exec and names the namespace of the thread."""
    with MountNamespace() as namespace:
        assert os.get_inheritable(namespace.fd) is False
        assert shim.ns_type(namespace.fd) == "mnt"
        assert f"mnt:[{os.fstat(namespace.fd).st_ino}]" == namespace.call(mount_namespace)


def test_calls_from_many_threads() -> None:
    """Calls from several threads each get their own answer."""
    with MountNamespace() as namespace:
        wrong: list[int] = []

        def ask(number: int) -> None:
            wrong.extend(i for i in range(100) if namespace.call(lambda i=i: (number, i)) != (number, i))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_vanishes_on_sigkill(tmp_path: Path) -> None:
    """After a SIGKILL of its maker nothing of it is left: no process holds it, no mount is to be seen."""
    script = (
        "import sys\nfrom harness.kernel import shim\nfrom harness.kernel.mounts import MountNamespace\n"
        "namespace = MountNamespace()\n"
        "namespace.call(shim.mount, 'none', sys.argv[1], 'tmpfs')\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    before = Path("/proc/self/mountinfo").read_text()
    maker = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert maker.stdout is not None
    assert maker.stdout.readline() == "ready\n"
    maker.kill()
    maker.communicate()
    assert Path("/proc/self/mountinfo").read_text() == before
    tmp_path.rmdir()  # EBUSY if it were still mounted anywhere near us


def test_without_privilege() -> None:
    """Without CAP_SYS_ADMIN the constructor raises EPERM and leaves no thread."""
    script = (
        "import os, threading\nos.setresuid(65534, 65534, 65534)\n"
        "from harness.kernel.mounts import MountNamespace\n"
        "try:\n    MountNamespace()\nexcept OSError as error:\n    print(error.errno, threading.active_count())\n"
    )
    preload = f"import sys; sys.path[:0] = {sys.path!r}; import harness.kernel.mounts\n"
    done = subprocess.run([sys.executable, "-c", preload + script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EPERM), "1"]
