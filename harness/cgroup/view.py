"""The cgroup layouts a runtime can be shown: made by mounts in a private mount namespace, for nobody else."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from harness.cgroup.hierarchy import COMMON_ROOT, Layout, detect
from harness.errors import HostError, InputError
from harness.kernel import shim
from harness.kernel.mounts import MountNamespace

View = Literal["host", "legacy", "hybrid", "unified"]
VIEWS: Final[tuple[View, ...]] = ("host", "legacy", "hybrid", "unified")

# What `auto` tries after the host's own layout. Only views that change nothing for anybody else: showing v1 on a
# unified host would take the controllers away from v2 (kernel/cgroup/cgroup.c
# rebind_subsystems), so that must be asked for.
NEAREST: Final[dict[str, tuple[View, ...]]] = {
    "legacy": ("host", "hybrid", "unified"),
    "hybrid": ("host", "legacy", "unified"),
    "unified": ("host",),
    "none": ("host",),
}


def checked_view(name: str) -> View:
    """The view of that name. Raises InputError."""
    for view in VIEWS:
        if view == name:
            return view
    raise InputError(f"view {name!r}: there are {', '.join(VIEWS)} and auto")


class Step(Struct, frozen=True):
    """One mount or umount, as a person would type it."""

    action: Literal["umount", "mount", "mkdir"]
    target: str
    fstype: str = ""
    options: str = ""

    def __str__(self) -> str:
        if self.action == "mount":
            options = f" -o {self.options}" if self.options else ""
            return f"mount -t {self.fstype}{options} none {self.target}"
        return f"umount -l {self.target}" if self.action == "umount" else f"mkdir {self.target}"

    def apply(self) -> None:
        if self.action == "umount":
            shim.umount(self.target, shim.MNT_DETACH)
        elif self.action == "mkdir":
            Path(self.target).mkdir()
        else:
            flags = shim.MS_NOSUID | shim.MS_NODEV | shim.MS_NOEXEC
            shim.mount("none", self.target, self.fstype, flags, self.options)


def _v1_mounts(keys: list[str]) -> list[Step]:
    steps = []
    for key in keys:
        # a controller set that is mounted together is one directory, as systemd does it
        name = key.removeprefix("name=")
        options = f"none,{key}" if key.startswith("name=") else key
        steps += [Step("mkdir", f"{COMMON_ROOT}/{name}"), Step("mount", f"{COMMON_ROOT}/{name}", "cgroup", options)]
    return steps


def view_steps(view: View, layout: Layout, free_controllers: tuple[str, ...]) -> list[Step]:
    """The mounts that turn `layout` into `view`; none when it is that already.

    `free_controllers`: enabled, and on no v1 hierarchy (/proc/cgroups). Raises HostError when it cannot be.
    """
    if view in ("host", layout.mode):
        return []
    unified = [h.mount_point for h in layout.hierarchies if h.version == 2]
    v1 = [h.key for h in layout.hierarchies if h.version == 1]
    has_controllers = any(h.version == 1 and h.controllers for h in layout.hierarchies)
    clear = [Step("umount", COMMON_ROOT)]
    if view == "unified":
        return [*clear, Step("mount", COMMON_ROOT, "cgroup2")]
    if view == "legacy" and has_controllers:
        # covered, for crun makes the container's cgroup there all the same, and what lies below is the host's own tmpfs
        covers = [(Step("umount", where), Step("mount", where, "tmpfs", "mode=755")) for where in unified]
        return [step for cover in covers for step in cover]
    keys = v1 if has_controllers else [*v1, *free_controllers]
    if not keys:
        raise HostError(f"this kernel has no cgroup v1 controller to show, so the {view} view cannot be made")
    steps = [*clear, Step("mount", COMMON_ROOT, "tmpfs", "mode=755"), *_v1_mounts(keys)]
    if view == "hybrid":
        steps += [Step("mkdir", f"{COMMON_ROOT}/unified"), Step("mount", f"{COMMON_ROOT}/unified", "cgroup2")]
    return steps


def _free_controllers() -> tuple[str, ...]:
    """v1-capable controllers that no v1 hierarchy has (/proc/cgroups: hierarchy 0, enabled)."""
    found = []
    for line in Path("/proc/cgroups").read_text().splitlines():
        fields = line.split()
        if not line.startswith("#") and len(fields) == 4 and fields[1] == "0" and fields[3] == "1":
            found.append(fields[0])
    return tuple(found)


def _apply(view: View) -> tuple[list[Step], Layout]:
    done: list[Step] = []
    for step in view_steps(view, detect(), _free_controllers()):
        try:
            step.apply()
        except OSError as error:
            made = Step("mkdir", step.target)
            if error.errno == errno.EINVAL and step.fstype == "cgroup" and made in done:
                # /proc/cgroups lists it all the same, but it is there for v2 only (CONFIG_MEMCG_V1, CONFIG_CPUSETS_V1
                # are off; since Linux 6.12): a node that boots with v1 has nothing there either
                Path(step.target).rmdir()
                done.remove(made)
                continue
            hint = "; the controller is in use by cgroup v2" if error.errno == errno.EBUSY else ""
            raise HostError(f"the {view} view cannot be made here: {step}: {error.strerror}{hint}") from None
        done.append(step)
    return done, detect()


def show(namespace: MountNamespace, view: View) -> tuple[list[Step], Layout]:
    """Make `view` in a private mount namespace; returns what was done and the layout seen there.

    Raises HostError where this host cannot show it.
    """
    return namespace.call(_apply, view)
