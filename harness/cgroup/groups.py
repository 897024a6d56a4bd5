"""Create, find, freeze, kill and remove cgroups of our own, in all hierarchies; it is spawn that puts a process in."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct

from harness.cgroup.events import wait_events
from harness.cgroup.hierarchy import Hierarchy, Layout
from harness.cgroup.parsers import parse_freezer_state, parse_pids, parse_words
from harness.errors import HostError, InputError
from harness.kernel import shim

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_BATCH = 256  # pidfds held at a time, well below the usual limit of 1024 descriptors
_RETRY_S = 0.002  # v1 tells nobody when a cgroup has become empty or frozen


class Enabled(Struct, frozen=True):
    """A controller that we added to a v2 cgroup.subtree_control."""

    path: str  # below the mount point, "" is the root
    controller: str


class Created(Struct, frozen=True):
    """What create() did. Give `enabled` to remove(), so that the parents get back their subtree_control."""

    path: str
    directories: tuple[str, ...]  # absolute, parents first; those that were there before are not listed
    enabled: tuple[Enabled, ...]
    not_enabled: dict[str, str]  # v2: {controller: reason}


def checked(path: str) -> str:
    """The path of a cgroup below a mount point: relative, at least one name, no `.` or `..`. Raises InputError."""
    parts = path.split("/")
    if any(part in {"", ".", ".."} or "\n" in part or "\0" in part for part in parts):
        raise InputError(f"cgroup path {path!r}: write names with / between them, without a leading / and without ..")
    return path


@contextmanager
def _opened(hierarchy: Hierarchy, path: str = "") -> Iterator[int]:
    """A descriptor of a cgroup's directory. Raises FileNotFoundError."""
    root = hierarchy.open()
    try:
        fd = shim.open_beneath(root, path, _DIRECTORY)
    finally:
        os.close(root)
    try:
        yield fd
    finally:
        os.close(fd)


def _read(fd: int, name: str) -> bytes:
    data = shim.read_files([fd], (name,))[0]
    if isinstance(data, OSError):
        raise data
    return data


def _write(fd: int, name: str, text: str) -> None:
    target = shim.open_beneath(fd, name, os.O_WRONLY)
    try:
        os.write(target, text.encode())
    finally:
        os.close(target)


def _children(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _tree(hierarchy: Hierarchy, path: str) -> list[str]:
    """`path` and all below it, parents first; [] when it is not there."""
    found: list[str] = []
    waiting = [path]
    while waiting:
        at = waiting.pop()
        with suppress(FileNotFoundError), _opened(hierarchy, at) as fd:
            found.append(at)
            waiting.extend(f"{at}/{name}" if at else name for name in _children(fd))
    return found


def create(layout: Layout, path: str, controllers: Collection[str] | None = None, *, exist_ok: bool = False) -> Created:
    """Make a cgroup, and parents that are missing, in every hierarchy (mkdir -p).

    `controllers`: only in hierarchies that have one of these ("" is v2 itself, `name=...` a v1 hierarchy with only
    a name), and in v2 enable only these. In v2 the controllers are enabled in every cgroup above it, as far as that
    can be; what could not is in `not_enabled`. In v1 a cpuset without CPUs or memory nodes gets its parent's: no
    task can join it before.
    Raises InputError, FileExistsError unless `exist_ok`, OSError; then nothing is left behind.
    """
    parts = checked(path).split("/")
    made: list[tuple[Hierarchy, str]] = []
    enabled: list[Enabled] = []
    not_enabled: dict[str, str] = {}
    try:
        for hierarchy in layout.hierarchies:
            wanted = _wanted(hierarchy, controllers)
            if wanted is None:
                continue
            at = ""
            for part in parts:
                with _opened(hierarchy, at) as parent:
                    if hierarchy.version == 2:
                        _enable(parent, at, wanted, enabled, not_enabled)
                    child = f"{at}/{part}" if at else part
                    try:
                        os.mkdir(part, 0o755, dir_fd=parent)
                        made.append((hierarchy, child))
                    except FileExistsError:
                        if child == path and not exist_ok:
                            raise FileExistsError(
                                errno.EEXIST, os.strerror(errno.EEXIST), f"{hierarchy.mount_point}/{path}"
                            ) from None
                    if hierarchy.version == 1 and "cpuset" in hierarchy.controllers:
                        _inherit_cpuset(hierarchy, parent, child)
                at = child
    except BaseException:
        for hierarchy, child in reversed(made):
            with suppress(OSError):
                _rmdir(hierarchy, child)
        _disable(layout, enabled)
        raise
    directories = tuple(f"{h.mount_point}/{child}" for h, child in made)
    return Created(path, directories, tuple(enabled), not_enabled)


def _wanted(hierarchy: Hierarchy, controllers: Collection[str] | None) -> list[str] | None:
    """Which controllers of a hierarchy are asked for; None: it is not wanted at all."""
    if controllers is None:
        return list(hierarchy.controllers)
    found = [name for name in hierarchy.controllers if name in controllers]
    return found if found or hierarchy.key in controllers else None


def _enable(fd: int, at: str, wanted: list[str], enabled: list[Enabled], refused: dict[str, str]) -> None:
    available = parse_words(_read(fd, "cgroup.controllers"), "cgroup.controllers")
    active = parse_words(_read(fd, "cgroup.subtree_control"), "cgroup.subtree_control")
    for controller in wanted:
        if controller in active or controller in refused:
            continue
        if controller not in available:
            refused[controller] = f"/{at}: not in cgroup.controllers"
            continue
        try:
            _write(fd, "cgroup.subtree_control", f"+{controller}")
        except OSError as error:
            refused[controller] = f"/{at}: cgroup.subtree_control: {error.strerror}"
        else:
            enabled.append(Enabled(at, controller))


def _disable(layout: Layout, enabled: Collection[Enabled]) -> None:
    """Take controllers away again, deepest first, where no children are left: others may use them by now."""
    hierarchy = layout.unified
    if hierarchy is None:
        return
    for item in sorted(enabled, key=lambda item: -len(item.path)):
        with suppress(OSError), _opened(hierarchy, item.path) as fd:
            if not _children(fd):
                _write(fd, "cgroup.subtree_control", f"-{item.controller}")


def subtree_control(layout: Layout) -> tuple[str, ...]:
    """Controllers that the root of the v2 hierarchy has handed to its children; () where no v2 is mounted."""
    if layout.unified is None:
        return ()
    with _opened(layout.unified) as fd:
        return tuple(parse_words(_read(fd, "cgroup.subtree_control"), "cgroup.subtree_control"))


def restore_subtree_control(layout: Layout, before: Collection[str]) -> None:
    """Take back what a runtime has enabled at the root since `before`; left alone while the root has any child."""
    _disable(layout, [Enabled("", controller) for controller in subtree_control(layout) if controller not in before])


def _inherit_cpuset(hierarchy: Hierarchy, parent: int, child: str) -> None:
    with _opened(hierarchy, child) as fd:
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not _read(fd, name).strip():
                _write(fd, name, _read(parent, name).decode().strip())


def _rmdir(hierarchy: Hierarchy, path: str) -> None:
    above, _, name = path.rpartition("/")
    with _opened(hierarchy, above) as parent:
        os.rmdir(name, dir_fd=parent)


def remove(layout: Layout, path: str, *, timeout_s: float = 5.0, enabled: Collection[Enabled] = ()) -> None:
    """Remove a cgroup and all below it from every hierarchy; one that is not there is fine.

    Frozen ones are thawed first, so that processes killed before can end; none is killed here. A busy cgroup is
    waited for: in v2 by its cgroup.events, in v1 by trying again. `enabled` is that of Created. Raises InputError,
    TimeoutError (naming the cgroups and the processes in them; then all others are gone), OSError.
    """
    checked(path)
    deadline = time.monotonic() + timeout_s
    thaw(layout, path)
    busy = []
    for hierarchy in layout.hierarchies:
        for at in sorted(_tree(hierarchy, path), key=lambda at: -at.count("/")):
            if not _remove_one(hierarchy, at, deadline):
                busy.append(f"{hierarchy.mount_point}/{at} (pids {sorted(_processes(hierarchy, at)) or 'none'})")
    _disable(layout, enabled)
    if busy:
        raise TimeoutError(errno.EBUSY, f"still busy after {timeout_s} s: {', '.join(busy)}")


def _remove_one(hierarchy: Hierarchy, path: str, deadline: float) -> bool:
    while True:
        try:
            _rmdir(hierarchy, path)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        else:
            return True
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return False
        if hierarchy.version == 2:
            with suppress(OSError), _opened(hierarchy, path) as fd:  # timed out, or removed by another
                wait_events(fd, lambda events: not events.get("populated"), timeout_s=left_s)
        time.sleep(min(_RETRY_S, left_s))


def _processes(hierarchy: Hierarchy, path: str) -> set[int]:
    found: set[int] = set()
    for at in _tree(hierarchy, path):
        try:
            with _opened(hierarchy, at) as fd:
                found.update(parse_pids(_read(fd, "cgroup.procs"), f"{hierarchy.mount_point}/{at}/cgroup.procs"))
        except OSError as error:
            # Removed meanwhile; or a threaded cgroup of v2, whose processes its domain lists (cgroup-v2.rst,
            # "Threads").
            if error.errno not in {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP}:
                raise
    return found


def processes(layout: Layout, path: str) -> set[int]:
    """Processes in a cgroup or below it, in any hierarchy; none when it is not there.

    0 stands for those of a pid namespace that this one does not see. Zombies are not listed. Raises InputError,
    OSError.
    """
    checked(path)
    return set().union(*(_processes(hierarchy, path) for hierarchy in layout.hierarchies))


def kill(layout: Layout, path: str, *, timeout_s: float = 5.0) -> set[int]:
    """SIGKILL all processes of a cgroup and below, in any hierarchy, until it is empty; returns their pids.

    v2 has cgroup.kill for it (Linux 5.14). Else each process gets the signal through its pidfd, taken while the
    cgroup still lists it, so no stranger with a reused pid is hit; the v1 freezer keeps them from forking
    meanwhile, and is thawed then.
    Raises InputError (also when this process itself is in it), TimeoutError, OSError.
    """
    checked(path)
    if os.getpid() in processes(layout, path):
        raise InputError(f"cgroup {path}: this process itself is in it")
    deadline = time.monotonic() + timeout_s
    seen: set[int] = set()
    while pids := processes(layout, path):
        seen |= pids
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"cgroup {path}: still there after {timeout_s} s: pids {sorted(pids)}")
        unified = layout.unified
        if unified is not None:
            with suppress(OSError), _opened(unified, path) as fd:
                _write(fd, "cgroup.kill", "1")
        pidfds: dict[int, int] = {}
        try:
            _v1_freezer(layout, path, "FROZEN")
            try:
                _signal(layout, path, pids, pidfds)
            finally:
                thaw(layout, path)
            for pidfd in pidfds.values():
                with suppress(InterruptedError):
                    shim.poll(pidfd, shim.POLLIN, max(int((deadline - time.monotonic()) * 1e9), 0))
            if not pidfds:  # all gone already, or of a pid namespace out of sight
                time.sleep(_RETRY_S)
        finally:
            _close(pidfds)
    return seen


def _signal(layout: Layout, path: str, pids: Collection[int], pidfds: dict[int, int]) -> None:
    """SIGKILL to `pids`, as far as they are still in the cgroup; leaves the pidfds of the last ones in `pidfds`."""
    ordered = sorted(pid for pid in pids if pid > 0)
    for at in range(0, len(ordered), _BATCH):
        _close(pidfds)
        for pid in ordered[at : at + _BATCH]:
            with suppress(ProcessLookupError):
                pidfds[pid] = shim.pidfd_open(pid)
        for pid in processes(layout, path) & set(pidfds):
            with suppress(ProcessLookupError):
                shim.pidfd_send_signal(pidfds[pid])


def _close(pidfds: dict[int, int]) -> None:
    while pidfds:
        os.close(pidfds.popitem()[1])


def _v1_freezer(layout: Layout, path: str, state: str) -> bool:
    """Ask for FROZEN or THAWED; False when there is no such cgroup in a v1 freezer."""
    hierarchy = layout.hierarchy("freezer")
    if hierarchy is None or hierarchy.version != 1:
        return False
    with suppress(FileNotFoundError), _opened(hierarchy, path) as fd:
        _write(fd, "freezer.state", state)
        return True
    return False


def freeze(layout: Layout, path: str, *, timeout_s: float = 5.0) -> None:
    """Freeze a cgroup and wait until all tasks have stopped; by the v1 freezer where it is in that, else in v2.

    Raises InputError, HostError when there is no freezer, TimeoutError (then it is thawed again), FileNotFoundError.
    Source: Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst; cgroup-v2.rst, cgroup.freeze.
    """
    checked(path)
    if layout.version("freezer") is None and layout.unified is None:
        raise HostError("no freezer: neither the v1 freezer nor cgroup v2 is mounted")
    deadline = time.monotonic() + timeout_s
    try:
        if _v1_freezer(layout, path, "FROZEN"):
            _until(lambda: _v1_state(layout, path) == "FROZEN", path, deadline)
            return
        if layout.unified is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        with _opened(layout.unified, path) as fd:
            _write(fd, "cgroup.freeze", "1")
            wait_events(fd, lambda events: events.get("frozen") == 1, timeout_s=timeout_s)
    except TimeoutError:
        thaw(layout, path)
        raise


def _v1_state(layout: Layout, path: str) -> str:
    """freezer.state; reading it is what lets the kernel go from FREEZING to FROZEN."""
    hierarchy = layout.hierarchy("freezer")
    assert hierarchy is not None
    with _opened(hierarchy, path) as fd:
        return parse_freezer_state(_read(fd, "freezer.state"), f"{path}/freezer.state")


def _until(condition: Callable[[], bool], path: str, deadline: float) -> None:
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"cgroup {path}: not frozen by the deadline")
        time.sleep(_RETRY_S)


def thaw(layout: Layout, path: str) -> None:
    """Thaw a cgroup and all below it, in the v1 freezer and in v2; a missing one is fine. Raises as freeze does."""
    checked(path)
    freezer = layout.hierarchy("freezer")
    for hierarchy, file, text in ((freezer, "freezer.state", "THAWED"), (layout.unified, "cgroup.freeze", "0")):
        if hierarchy is None or (file == "freezer.state" and hierarchy.version != 1):
            continue
        for at in _tree(hierarchy, path):
            with suppress(FileNotFoundError), _opened(hierarchy, at) as fd:  # v2 before Linux 5.2
                _write(fd, file, text)


def find(layout: Layout, substring: str) -> list[str]:
    """Sorted paths of cgroups whose own name contains `substring`, in any hierarchy; not of those below such a one.

    For gc: remove() takes what is below along. Raises InputError for an empty substring, OSError.
    """
    if not substring or "/" in substring:
        raise InputError(f"{substring!r} is no part of a cgroup's name")
    found: set[str] = set()
    for hierarchy in layout.hierarchies:
        for at in _tree(hierarchy, ""):
            parts = at.split("/")
            depth = next((depth for depth, part in enumerate(parts, 1) if substring in part), None)
            if depth is not None:
                found.add("/".join(parts[:depth]))
    return sorted(found)
