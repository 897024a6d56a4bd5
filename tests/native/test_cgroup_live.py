"""cgroups of our own on the running kernel: made, filled, watched, frozen, killed and removed."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.cgroup import events, groups
from harness.cgroup.files import CgroupFiles
from harness.cgroup.hierarchy import Hierarchy, Layout, cgroup_paths, detect
from harness.cgroup.parsers import MAX
from harness.cgroup.sampler import Sampler
from harness.errors import InputError
from harness.kernel import shim

NUMBERS = itertools.count()
Require = Callable[..., None]


@dataclass
class Group:
    """One cgroup of a test, in all hierarchies, and the children that it started."""

    layout: Layout
    path: str
    children: list[subprocess.Popen[str]]

    def child(self, code: str, hierarchies: tuple[Hierarchy, ...] | None = None) -> subprocess.Popen[str]:
        """A Python child that joined the cgroup, and then ran `code` up to its print()."""
        argv = [sys.executable, "-S", "-c", f"import os, sys; sys.stdin.readline()\n{code}"]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.children.append(child)
        for hierarchy in self.layout.hierarchies if hierarchies is None else hierarchies:
            Path(hierarchy.mount_point, self.path, "cgroup.procs").write_text(str(child.pid))
        tell(child)
        if "print(" in code:
            assert child.stdout is not None
            assert child.stdout.readline()
        return child

    def directory(self, controller: str) -> Path:
        hierarchy = self.layout.hierarchy(controller)
        assert hierarchy is not None
        return Path(hierarchy.mount_point, self.path)


def tell(child: subprocess.Popen[str]) -> None:
    """Let the child's next sys.stdin.readline() return."""
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


WAIT = "print('ready', flush=True); sys.stdin.readline()"


@pytest.fixture
def layout(require: Require) -> Layout:
    require("root")
    found = detect()
    if found.mode == "none":
        pytest.skip("no cgroup hierarchy is mounted")
    return found


@pytest.fixture
def group(layout: Layout) -> Iterator[Group]:
    """An empty cgroup in every hierarchy. Whatever a test leaves in it is killed; then nothing may be left."""
    before = descriptors()
    path = f"oci-harness-test-{os.getpid()}-{next(NUMBERS)}"
    created = groups.create(layout, path)
    made = Group(layout, path, [])
    try:
        yield made
    finally:
        groups.kill(layout, path)
        for child in made.children:
            child.communicate()
        groups.remove(layout, path, enabled=created.enabled)
    assert groups.find(layout, path) == []
    assert descriptors() == before


@pytest.fixture
def v1_memory(group: Group, require: Require) -> Group:
    require("cgroup-v1")
    if group.layout.version("memory") != 1:
        pytest.skip("the memory controller is not on v1")
    return group


@pytest.fixture
def v2(group: Group, require: Require) -> Group:
    require("cgroup-v2")
    return group


# --- layout and files -------------------------------------------------------------------------------------------


def test_layout_is_that_of_proc_cgroups(layout: Layout) -> None:
    """A controller is on v1 in our layout exactly if /proc/cgroups gives it a v1 hierarchy."""
    lines = [line.split() for line in Path("/proc/cgroups").read_text().splitlines()[1:]]
    known = {name: int(number) for name, number, _, _ in lines}
    versions = layout.versions(known)
    assert {name for name, number in known.items() if number} == {n for n, v in versions.items() if v == 1}


def test_own_cgroups(group: Group) -> None:
    """A process that joined a cgroup is found there, in every hierarchy that it joined."""
    child = group.child(WAIT)
    found = cgroup_paths(child.pid, group.layout)
    assert {path for _, path in found.values()} == {group.path}
    assert {h for h, _ in found.values()} == set(group.layout.hierarchies)
    assert groups.processes(group.layout, group.path) == {child.pid}
    child.kill()
    child.wait()
    with pytest.raises(ProcessLookupError):
        CgroupFiles.of_pid(group.layout, child.pid)


def test_values_make_sense(group: Group) -> None:
    """32 MiB touched, half a CPU second burnt and one task show in the snapshot of the child's cgroup."""
    child = group.child(
        "import time\nkept = bytearray(b'x') * (32 << 20)\nwhile time.process_time() < 0.3: pass\n" + WAIT
    )
    with CgroupFiles.of_pid(group.layout, child.pid) as files:
        found = files.snapshot()
    if found.memory.version is not None:
        assert found.memory.current_bytes is not None
        assert 32 << 20 <= found.memory.current_bytes < 64 << 20
        assert found.memory.anon_bytes is not None
        assert found.memory.anon_bytes >= 32 << 20
        assert (found.memory.limit_bytes, found.memory.oom_kill_count) == (MAX, 0)
    assert found.cpu.usage_usec is not None
    assert 200_000 < found.cpu.usage_usec < 60_000_000
    if found.pids.version is not None:
        assert (found.pids.current, found.pids.limit) == (1, MAX)
    if found.cpuset.version is not None:
        assert set(os.sched_getaffinity(child.pid)) <= set(found.cpuset.effective_cpus or ())
    assert found.freezer.frozen is False


def test_limits_are_read_back(v1_memory: Group) -> None:
    """Limits written to the kernel come back in the units of the fields."""
    v1_memory.directory("memory").joinpath("memory.limit_in_bytes").write_text("33554432")
    v1_memory.directory("pids").joinpath("pids.max").write_text("17")
    v1_memory.directory("cpu").joinpath("cpu.cfs_quota_us").write_text("50000")
    with CgroupFiles.of_path(v1_memory.layout, v1_memory.path) as files:
        found = files.snapshot()
    assert (found.memory.limit_bytes, found.pids.limit) == (33554432, 17)
    assert (found.cpu.quota_usec, found.cpu.period_usec) == (50000, 100000)


def test_same_bytes_as_path_read(group: Group) -> None:
    """One-shot and kept-open snapshots hold what Path.read_bytes reads, for every file that is there."""
    with CgroupFiles.of_path(group.layout, group.path) as files, files.keep_open() as snapshotter:
        located = files.locations
        for found in (files.snapshot(), snapshotter.snapshot(), snapshotter.snapshot()):
            there = {name for name in files.names if Path(located[name], name).exists()}
            assert {name for name in files.names if isinstance(found.raw(name), bytes)} == there
            assert len(there) > 5
            for name in there:
                assert found.raw(name) == Path(located[name], name).read_bytes(), name


def test_kept_open_sees_changes(group: Group) -> None:
    """A kept-open snapshotter reads new values, not those of its first reading."""
    controller = "pids" if group.layout.version("pids") else ""
    with CgroupFiles.of_path(group.layout, group.path) as files, files.keep_open() as snapshotter:
        before = snapshotter.snapshot()
        child = group.child(WAIT)
        during = snapshotter.snapshot()
        child.kill()
        child.wait()
        after = snapshotter.snapshot()
    if controller:
        assert [s.pids.current for s in (before, during, after)] == [0, 1, 0]
    assert before.t_ns < during.t_ns < after.t_ns


def test_removed_cgroup_becomes_absent(layout: Layout) -> None:
    """A cgroup removed under an open CgroupFiles has no values but reasons."""
    path = f"oci-harness-test-{os.getpid()}-{next(NUMBERS)}"
    created = groups.create(layout, path)
    try:
        with CgroupFiles.of_path(layout, path) as files, files.keep_open() as snapshotter:
            groups.remove(layout, path, enabled=created.enabled)
            for found in (files.snapshot(), snapshotter.snapshot()):
                assert found.freezer.frozen is None
                assert "no such" in found.freezer.absent["frozen"]
    finally:
        groups.remove(layout, path)
    with pytest.raises(FileNotFoundError):
        CgroupFiles.of_path(layout, path)


@pytest.mark.parametrize("path", ["../x", "/sys/fs/cgroup", "{}/../..", "{}/../../../../proc", "/"])
def test_no_way_out_of_a_hierarchy(group: Group, path: str) -> None:
    """A path that leads out of the hierarchy is refused by the kernel, and no descriptor stays open."""
    before = descriptors()
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at below
        CgroupFiles.of_path(group.layout, path.format(group.path))
    assert caught.value.errno == errno.EXDEV
    assert descriptors() == before


def test_no_link_is_followed(tmp_path: Path) -> None:
    """open_beneath follows no link, neither inside of its directory nor out of it."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "link").symlink_to("inside")
    (tmp_path / "out").symlink_to("/sys")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        os.close(shim.open_beneath(fd, "inside", os.O_RDONLY))
        for path in ("link", "out", "out/fs"):
            with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at below
                shim.open_beneath(fd, path, os.O_RDONLY)
            assert caught.value.errno == errno.ELOOP
    finally:
        os.close(fd)


# --- groups -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/", "/x", "../x", "a/../b", "a//b", "a/", ".", "a\nb"])
def test_bad_paths(layout: Layout, path: str) -> None:
    """No function that changes cgroups takes a path that is not plain names."""
    for function in (groups.create, groups.remove, groups.kill, groups.freeze, groups.thaw, groups.processes):
        with pytest.raises(InputError):
            function(layout, path)


def test_created_in_every_hierarchy(group: Group) -> None:
    """The cgroup is there in every hierarchy, and a v1 cpuset has CPUs and memory nodes."""
    for hierarchy in group.layout.hierarchies:
        assert Path(hierarchy.mount_point, group.path, "cgroup.procs").exists()
    created = groups.create(group.layout, f"{group.path}/a/b")
    assert len(created.directories) == 2 * len(group.layout.hierarchies)
    if group.layout.version("cpuset") == 1:
        with CgroupFiles.of_path(group.layout, f"{group.path}/a/b") as files:
            found = files.snapshot().cpuset
        assert found.cpus
        assert found.mems


def test_create_undoes_itself(group: Group) -> None:
    """A create that fails in one hierarchy leaves nothing in the others; exist_ok takes what is there."""
    last = group.layout.hierarchies[-1]
    path = f"{group.path}/new/leaf"
    only = groups.create(group.layout, path, [last.key or ""])
    assert only.directories == (f"{last.mount_point}/{group.path}/new", f"{last.mount_point}/{path}")
    with pytest.raises(FileExistsError):
        groups.create(group.layout, path)
    for hierarchy in group.layout.hierarchies:
        assert Path(hierarchy.mount_point, group.path, "new").exists() == (hierarchy == last)
    again = groups.create(group.layout, path, exist_ok=True)
    assert len(again.directories) == 2 * (len(group.layout.hierarchies) - 1)


def test_controllers_of_v2(v2: Group) -> None:
    """v2 controllers reach the new cgroup or are reported, and removal takes them back from its parent."""
    unified = v2.layout.unified
    assert unified is not None
    if not unified.controllers:
        pytest.skip("v2 has no controllers here")
    created = groups.create(v2.layout, f"{v2.path}/leaf")
    control = v2.directory("") / "cgroup.subtree_control"
    there = set(v2.directory("").joinpath("leaf/cgroup.controllers").read_text().split())
    assert there | set(created.not_enabled) == set(unified.controllers)
    assert not there & set(created.not_enabled)
    assert {item.controller for item in created.enabled if item.path == v2.path} == there
    groups.remove(v2.layout, f"{v2.path}/leaf", enabled=created.enabled)
    assert control.read_text().split() == []


def test_remove_is_recursive(group: Group) -> None:
    """Descendants go with their ancestor, in every hierarchy, frozen or not; removing twice is fine."""
    for name in ("a/b/c", "a/d", "e"):
        groups.create(group.layout, f"{group.path}/{name}")
    groups.freeze(group.layout, f"{group.path}/a")
    groups.remove(group.layout, group.path)
    groups.remove(group.layout, group.path)
    for hierarchy in group.layout.hierarchies:
        assert not Path(hierarchy.mount_point, group.path).exists()


def test_remove_names_who_is_inside(group: Group) -> None:
    """A cgroup that stays busy until the deadline is reported with its process, which is left alone."""
    child = group.child(WAIT)
    with pytest.raises(TimeoutError, match=rf"{group.path} \(pids \[{child.pid}\]\)"):
        groups.remove(group.layout, group.path, timeout_s=0.05)
    assert child.poll() is None


@pytest.mark.parametrize("version", [1, 2])
def test_remove_waits_for_the_last_process(group: Group, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal that finds a cgroup busy goes on as soon as its process ends."""
    hierarchies = tuple(h for h in group.layout.hierarchies if h.version == version)
    if not hierarchies:
        pytest.skip(f"no cgroup v{version} here")
    child = group.child(WAIT, hierarchies)
    busy = 0
    original = groups._rmdir

    def rmdir(hierarchy: Hierarchy, path: str) -> None:
        nonlocal busy
        try:
            original(hierarchy, path)
        except OSError:
            busy += 1
            if busy == 1:
                tell(child)
            raise

    monkeypatch.setattr(groups, "_rmdir", rmdir)
    groups.remove(group.layout, group.path, timeout_s=10)
    assert busy >= 1
    assert child.wait(10) == 0


def test_freeze_stops_and_thaw_goes_on(group: Group) -> None:
    """A frozen busy loop uses no CPU time, a thawed one does."""
    child = group.child("print('ready', flush=True)\nwhile True: pass")
    with CgroupFiles.of_path(group.layout, group.path) as files:

        def cpu_ticks() -> int:
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])

        groups.freeze(group.layout, group.path)
        assert files.snapshot().freezer.frozen is True
        ticks = cpu_ticks()
        with Sampler(files, 0.005) as sampler, pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.1)
        assert cpu_ticks() == ticks
        used = [sample.cpu_usage_usec for sample in sampler.samples]
        assert used[0] == used[-1] is not None
        groups.thaw(group.layout, group.path)
        assert files.snapshot().freezer.frozen is False
        while cpu_ticks() == ticks:
            os.sched_yield()


def test_freeze_in_v2(v2: Group) -> None:
    """A cgroup that is in v2 alone is frozen there, whether or not the host has a v1 freezer."""
    groups.create(v2.layout, f"{v2.path}/only", [""])
    groups.freeze(v2.layout, f"{v2.path}/only")
    events_file = v2.directory("") / "only/cgroup.events"
    assert "frozen 1" in events_file.read_text()
    groups.thaw(v2.layout, f"{v2.path}/only")
    assert events.wait_events(str(events_file.parent), lambda values: values["frozen"] == 0, timeout_s=5)
    with pytest.raises(FileNotFoundError):
        groups.freeze(v2.layout, f"{v2.path}/missing")


FORKS = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for i in range(5):
    if os.fork() == 0:
        if i % 2: os.setsid()
        while True: signal.pause()
print('ready', flush=True)
signal.pause()
"""


@pytest.mark.parametrize("where", ["all", "v1", "v1 without freezer", "v2"])
@pytest.mark.parametrize("frozen", [False, True])
def test_kill_empties(group: Group, where: str, frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process dies, children in sessions of their own too, whichever hierarchies know them, frozen or not."""
    monkeypatch.setattr(groups, "_BATCH", 4)  # so that six processes are more than one batch
    chosen = tuple(
        h
        for h in group.layout.hierarchies
        if where == "all"
        or (where == "v2" and h.version == 2)
        or (where.startswith("v1") and h.version == 1 and not (where != "v1" and "freezer" in h.controllers))
    )
    if not chosen:
        pytest.skip(f"no hierarchy for {where}")
    child = group.child(FORKS, chosen)
    inside = groups.processes(group.layout, group.path)
    assert len(inside) == 6
    if frozen:
        groups.freeze(group.layout, group.path)
    assert groups.kill(group.layout, group.path) >= inside
    assert groups.processes(group.layout, group.path) == set()
    assert child.wait(10) == -9
    assert groups.kill(group.layout, group.path) == set()


FORK_BOMB = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print('ready', flush=True)
while True:
    try: os.fork()
    except OSError: pass
"""


def test_kill_wins_against_a_fork_bomb(v1_memory: Group) -> None:
    """Processes that fork as fast as they can, known to v1 only, are all killed."""
    v1_memory.directory("pids").joinpath("pids.max").write_text("40")
    v1_memory.child(FORK_BOMB, tuple(h for h in v1_memory.layout.hierarchies if h.version == 1))
    assert len(groups.kill(v1_memory.layout, v1_memory.path, timeout_s=20)) >= 1
    assert groups.processes(v1_memory.layout, v1_memory.path) == set()


SUICIDE = """
from harness.cgroup import groups, hierarchy
from harness.errors import InputError
try:
    groups.kill(hierarchy.detect(), {path!r})
except InputError as error:
    print(error, flush=True)
"""


def test_kill_refuses_to_kill_its_caller(group: Group) -> None:
    """A process inside of the cgroup cannot kill it by mistake."""
    argv = [sys.executable, "-c", f"import sys; sys.stdin.readline()\n{SUICIDE.format(path=group.path)}"]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    group.children.append(child)
    for hierarchy in group.layout.hierarchies:
        Path(hierarchy.mount_point, group.path, "cgroup.procs").write_text(str(child.pid))
    tell(child)
    assert child.stdout is not None
    assert "this process itself is in it" in child.stdout.readline()
    assert child.wait(10) == 0


def test_find_lists_the_topmost(group: Group) -> None:
    """A name is found in whichever hierarchy it is, once, without what is below it."""
    first = group.layout.hierarchies[0].key
    groups.create(group.layout, f"{group.path}/needle-{os.getpid()}/deep-needle-{os.getpid()}", [first])
    assert groups.find(group.layout, f"needle-{os.getpid()}") == [f"{group.path}/needle-{os.getpid()}"]
    assert groups.find(group.layout, "no-cgroup-has-this-name") == []
    with pytest.raises(InputError):
        groups.find(group.layout, "")


# --- events -----------------------------------------------------------------------------------------------------


def test_populated_wakes_up(v2: Group) -> None:
    """The end of the last process, told to end after the first reading, ends the wait."""
    child = v2.child(WAIT)
    seen: list[int] = []

    def empty(values: Mapping[str, int]) -> bool:
        seen.append(values["populated"])
        if len(seen) == 1:
            tell(child)
        return values["populated"] == 0

    assert events.wait_events(str(v2.directory("")), empty, timeout_s=10)["populated"] == 0
    assert seen[0] == 1


def test_no_wake_up_is_lost(v2: Group) -> None:
    """An event that happens between the reading and the poll is not slept through."""
    child = v2.child(WAIT)
    calls = 0

    def empty(values: Mapping[str, int]) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            child.kill()
            child.wait()
        return calls > 1 and values["populated"] == 0

    fd = os.open(v2.directory(""), os.O_RDONLY)
    try:
        events.wait_events(fd, empty, timeout_s=10)
    finally:
        os.close(fd)
    assert calls == 2


def test_wait_events_ends_at_the_deadline(v2: Group) -> None:
    """Without an event there is a TimeoutError that says what the file still holds."""
    before = descriptors()
    with pytest.raises(TimeoutError, match=r"cgroup\.events is still .*'populated': 0"):
        events.wait_events(str(v2.directory("")), lambda values: values["populated"] == 1, timeout_s=0.02)
    assert descriptors() == before


def test_memory_threshold(v1_memory: Group) -> None:
    """v1: crossing a threshold of usage wakes the waiter, and nothing does before."""
    fd = os.open(v1_memory.directory("memory"), os.O_RDONLY)
    try:
        with events.memory_threshold(fd, 16 << 20) as counter:
            child = v1_memory.child(f"{WAIT}\nkept = bytearray(b'x') * (64 << 20)\n{WAIT}")
            with pytest.raises(TimeoutError):
                counter.wait(0.02)
            tell(child)
            assert counter.wait(10) >= 1
    finally:
        os.close(fd)


def test_memory_oom(v1_memory: Group) -> None:
    """v1: an OOM kill wakes the waiter, and shows in the snapshot."""
    directory = v1_memory.directory("memory")
    (directory / "memory.limit_in_bytes").write_text(str(8 << 20))
    # No limit on memsw: where the two are the same Linux 6.18 counts in neither failcnt.
    (directory / "memory.swappiness").write_text("0")
    fd = os.open(directory, os.O_RDONLY)
    try:
        with events.memory_oom(fd) as counter:
            child = v1_memory.child("kept = bytearray(b'x') * (64 << 20)")
            assert counter.wait(10) >= 1
            assert child.wait(10) == -9
    finally:
        os.close(fd)
    with CgroupFiles.of_path(v1_memory.layout, v1_memory.path) as files:
        found = files.snapshot().memory
    assert found.oom_kill_count == 1
    assert found.limit_hit_count


def test_registration_needs_the_file(v2: Group) -> None:
    """A v2 directory has no v1 events: the error names the file, and no descriptor stays open."""
    fd = os.open(v2.directory(""), os.O_RDONLY)
    try:
        before = descriptors()
        with pytest.raises(FileNotFoundError) as caught:
            events.memory_oom(fd)
        assert caught.value.filename == "cgroup.event_control"
        assert descriptors() == before
    finally:
        os.close(fd)


# --- sampler ----------------------------------------------------------------------------------------------------

BURN = "import time\nprint('ready', flush=True)\nwhile time.process_time() < 0.4: pass"


def test_sampler(group: Group) -> None:
    """While a child burns CPU, samples every millisecond follow its CPU time, in order, at little cost."""
    threads = threading.active_count()
    with CgroupFiles.of_path(group.layout, group.path) as files, Sampler(files, 0.001) as sampler:
        group.child(BURN).wait(30)
    samples = sampler.samples
    assert len(samples) > 100
    assert all(a.t_ns < b.t_ns for a, b in itertools.pairwise(samples))
    used = [sample.cpu_usage_usec for sample in samples if sample.cpu_usage_usec is not None]
    assert len(used) == len(samples)
    assert used == sorted(used)
    assert used[-1] - used[0] > 200_000
    if group.layout.version("pids"):
        assert {sample.pids_current for sample in samples} == {0, 1}
    assert sampler.cpu_share is not None
    assert 0 < sampler.cpu_share < 0.5
    assert threading.active_count() == threads


def test_sampler_goes_on_after_a_chunk(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling does not end when one call into C has taken all that it may."""
    monkeypatch.setattr("harness.cgroup.sampler._CHUNK", 10)
    with CgroupFiles.of_path(group.layout, group.path) as files, Sampler(files, 0.001) as sampler:
        group.child(BURN).wait(30)
    assert len(sampler.samples) > 100


def test_sampler_fields(group: Group) -> None:
    """Only the fields asked for are read; unknown ones are refused."""
    with CgroupFiles.of_path(group.layout, group.path) as files:
        sampler = Sampler(files, 0.001, ["cpu_usage_usec"])
        sampler.start()
        samples = sampler.stop()
        assert samples == sampler.stop()
        assert samples[0].cpu_usage_usec == 0
        assert samples[0].memory_current_bytes is None
        with pytest.raises(ValueError, match="memory_current_bytes"):
            Sampler(files, 0.001, ["memory.current"])
        with pytest.raises(RuntimeError):
            sampler.start()
