"""The leak check itself: each kind of thing that may stay behind is seen."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import leaks
import pytest
from actors import until

from harness.cgroup import groups
from harness.cgroup.hierarchy import detect
from harness.kernel import shim
from harness.kernel.procfs import process_stat


@contextmanager
def process() -> Iterator[str]:
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        try:
            until(
                lambda: (stat := process_stat(child.pid)) is not None and (stat.comm, stat.state) == ("sleep", "S"),
                "sleep sleeps",
            )
            yield f"processes: {child.pid} (sleep, S) /bin/sleep 60"
        finally:
            child.kill()


@contextmanager
def zombie() -> Iterator[str]:
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    yield f"processes: {child} (true, Z) "
    os.waitpid(child, 0)


@contextmanager
def cgroup() -> Iterator[str]:
    layout = detect()
    name = f"oci-harness-test-{os.getpid()}-leak"
    groups.create(layout, name)
    yield f"cgroups: {layout.hierarchies[0].mount_point}/{name}"
    groups.remove(layout, name)


@contextmanager
def mount(directory: Path) -> Iterator[str]:
    shim.mount("none", str(directory), "tmpfs")
    yield f"mounts: / {directory} tmpfs none"
    shim.umount(str(directory))


@contextmanager
def run_directory() -> Iterator[str]:
    path = leaks.own_base() / "oci-harness-test-x"
    path.mkdir(parents=True)
    yield f"directories: {path}"
    path.rmdir()
    path.parent.rmdir()


@contextmanager
def temporary_file() -> Iterator[str]:
    path = Path(f"/tmp/oci-harness-{os.getpid()}")
    path.touch()
    yield f"directories: {path}"
    path.unlink()


@contextmanager
def descriptor() -> Iterator[str]:
    reader, writer = os.pipe()
    yield "descriptors: pipe (2 more)"
    os.close(reader)
    os.close(writer)


@contextmanager
def thread() -> Iterator[str]:
    end = threading.Event()
    waiting = threading.Thread(target=end.wait)
    waiting.start()
    yield f"threads: {Path('/proc/self/comm').read_text().strip()}"
    end.set()
    waiting.join()


@contextmanager
def network_namespace() -> Iterator[str]:
    with subprocess.Popen(["unshare", "-n", "/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdin.write(b"x")
        child.stdin.flush()
        child.stdout.read(1)
        yield f"network_namespaces: netns {Path(f'/proc/{child.pid}/ns/net').stat().st_ino}"
        child.stdin.close()


@pytest.mark.parametrize(
    "leak", [process, zombie, cgroup, run_directory, temporary_file, descriptor, thread, network_namespace]
)
def test_each_kind_is_seen(leak: Callable[[], AbstractContextManager[str]]) -> None:
    """What is more than before is told in a line of its own, and nothing is told once it is gone."""
    before = leaks.snapshot()
    with leak() as told:
        assert told in leaks.new_since(before)
    assert leaks.new_since(before) == []


def test_a_mount_is_seen(tmp_path: Path) -> None:
    """A mount that was made in our own namespace is told, and nothing once it is gone."""
    before = leaks.snapshot()
    with mount(tmp_path) as told:
        assert told in leaks.new_since(before)
    assert leaks.new_since(before) == []


def test_somebody_elses_run_is_none_of_ours() -> None:
    """A cgroup that carries the pid of a process that we did not start is left out."""
    layout = detect()
    before = leaks.snapshot()
    groups.create(layout, "oci-harness-test-1-foreign")
    seen = leaks.new_since(before)
    groups.remove(layout, "oci-harness-test-1-foreign")
    assert seen == []
