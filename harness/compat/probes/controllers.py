"""Which cgroup controllers really work: a cgroup is made, a limit written and read back, a process started in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from harness.cgroup import groups
from harness.cgroup.hierarchy import Hierarchy, Layout
from harness.errors import HarnessError
from harness.oci.rootfs import payload_binary
from harness.process.command import Place, run

MEMBER_TIMEOUT_S = 2.0


class Controller(Struct, frozen=True):
    """`tried` is the file that was written and the value; None: this controller has none that could be tried here."""

    name: str
    version: int | None
    path: str | None  # mount point of its hierarchy
    usable: bool | None  # None: not tried
    reason: str | None  # why not usable, or not tried
    tried: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "path": self.path,
            "usable": self.usable,
            "reason": self.reason,
            "tried": self.tried,
        }


class Limit(Struct, frozen=True):
    """A limit that harms nobody: {file} gets `value`, and then `shown` must be in what {file} or `read` holds."""

    file: str
    value: str
    shown: str
    read: str | None = None


def _first_cpu(directory: Path) -> str:
    """The first CPU that the parent of `directory` has."""
    for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
        file = directory.parent / name
        if file.exists() and (text := file.read_text().strip()):
            return text.split(",")[0].split("-")[0]
    return "0"


def _disk(_directory: Path) -> str | None:
    """MAJOR:MINOR of a disk of this host."""
    for entry in sorted(Path("/sys/block").glob("*")):
        number = (entry / "dev").read_text().strip()
        if not entry.name.startswith(("loop", "ram")) and number.split(":")[0] not in ("7", "1"):
            return number
    return None


def _limit(controller: str, version: int, directory: Path) -> Limit | None:
    """What is written to try a controller."""
    disk = _disk(directory) if controller in ("io", "blkio") else None
    if controller == "cpuset":
        cpu = _first_cpu(directory)
        return Limit("cpuset.cpus", cpu, cpu)
    if controller == "hugetlb":
        file = next(iter(sorted(directory.glob("hugetlb.*.limit_in_bytes" if version == 1 else "hugetlb.*.max"))), None)
        return Limit(file.name, "0", "0") if file else None
    if disk is not None:
        v1 = Limit("blkio.throttle.read_bps_device", f"{disk} 1048576", f"{disk} 1048576")
        return v1 if version == 1 else Limit("io.max", f"{disk} rbps=1048576", "rbps=1048576")
    return _PLAIN.get((controller, version))


_PLAIN: Final = {
    ("memory", 1): Limit("memory.limit_in_bytes", "67108864", "67108864"),
    ("memory", 2): Limit("memory.max", "67108864", "67108864"),
    ("cpu", 1): Limit("cpu.cfs_quota_us", "50000", "50000"),
    ("cpu", 2): Limit("cpu.max", "50000 100000", "50000 100000"),
    ("pids", 1): Limit("pids.max", "64", "64"),
    ("pids", 2): Limit("pids.max", "64", "64"),
    ("freezer", 1): Limit("freezer.state", "FROZEN", "FR", "freezer.state"),
    ("net_cls", 1): Limit("net_cls.classid", "1048577", "1048577"),
    # "a" stands for every device: afterwards the list is empty but for what is allowed
    ("devices", 1): Limit("devices.allow", "c 1:3 rwm", "c 1:3 rwm", "devices.list"),
}


def _try_limit(controller: str, version: int, directory: Path) -> tuple[str | None, str | None]:
    """(what was tried, why it does not work)."""
    limit = _limit(controller, version, directory)
    if limit is None:
        return None, None
    tried = f"{limit.file} = {limit.value}"
    try:
        if controller == "devices":
            (directory / "devices.deny").write_text("a")
        (directory / limit.file).write_text(limit.value)
        shown = (directory / (limit.read or limit.file)).read_text()
        if controller == "freezer":
            (directory / limit.file).write_text("THAWED")
    except OSError as error:
        return tried, f"{limit.file}: writing {limit.value!r}: {error.strerror}"
    return tried, None if limit.shown in shown else f"{limit.file}: {limit.value!r} was written, {shown.strip()!r} read"


def _try_member(hierarchy: Hierarchy, directory: Path) -> str | None:
    """Whether a process can be started in the cgroup."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = Place(cgroup_fd=fd) if hierarchy.version == 2 else Place(join_fds=(fd,))
        done = run("probe", [str(payload_binary())], place=place, timeout_s=MEMBER_TIMEOUT_S)
    except (OSError, HarnessError) as error:
        return f"no process can be put into a child: {getattr(error, 'strerror', None) or error}"
    finally:
        os.close(fd)
    return None if done.exit_status == 0 else f"a process in a child ended with status {done.exit_status}"


def _try_hierarchy(layout: Layout, hierarchy: Hierarchy, path: str) -> dict[str, Controller]:
    names = hierarchy.controllers
    keys = {*names, hierarchy.key}
    try:
        made = groups.create(layout, path, keys)
    except (OSError, HarnessError) as error:
        reason = f"no child can be made: {getattr(error, 'strerror', None) or error}"
        return {name: _controller(name, hierarchy, False, reason, None) for name in names}
    directory = Path(hierarchy.mount_point) / path
    try:
        found = {}
        for name in names:
            refused = made.not_enabled.get(name)
            tried, wrong = (
                (None, f"not for children: {refused}") if refused else (_try_limit(name, hierarchy.version, directory))
            )
            found[name] = _controller(name, hierarchy, wrong is None, wrong, tried)
        unpopulated = _try_member(hierarchy, directory)
        if unpopulated is not None:
            found = {
                name: _controller(name, hierarchy, False, each.reason or unpopulated, each.tried)
                for name, each in found.items()
            }
        return found
    finally:
        groups.remove(layout, path, enabled=made.enabled)


def _controller(name: str, hierarchy: Hierarchy, usable: bool, reason: str | None, tried: str | None) -> Controller:
    return Controller(name, hierarchy.version, hierarchy.mount_point, usable, reason, tried)


def try_controllers(
    layout: Layout, path: str, known: list[str], failed: Callable[[str], None] = lambda _: None
) -> dict[str, Controller]:
    """{name: Controller} of all that are mounted or in `known`; works in cgroups of the name `path`, removed again.

    `failed` gets a line for what could not be removed.
    """
    found: dict[str, Controller] = {}
    for hierarchy in layout.hierarchies:
        try:
            found |= _try_hierarchy(layout, hierarchy, path)
        except OSError as error:
            failed(f"{hierarchy.mount_point}/{path}: {error}")
    for name, version in layout.versions(known).items():
        if name not in found:
            found[name] = Controller(name, version, None, None, "on no mounted hierarchy")
    return dict(sorted(found.items()))
