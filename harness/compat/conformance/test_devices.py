"""config-linux.md: devices, default devices and the allowed device list; runtime-linux.md: symbolic links in /dev."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

import pytest

from harness.compat.conformance.claims import claim
from harness.compat.conformance.lab import DEV, PROC, Lab, Running, link, opened

SECTION = "config-linux.md#configLinuxDevices"
DEFAULT = "config-linux.md#configLinuxDefaultDevices"
ALLOWED = "config-linux.md#configLinuxDeviceAllowedlist"
DEVICE: dict[str, Any] = {
    "type": "c",
    "path": "/dev/like-zero",
    "major": 1,
    "minor": 5,
    "fileMode": 0o640,
    "uid": 1001,
    "gid": 1002,
}
# No driver has this number (devices.txt: for local use): open(2) says ENXIO, or EPERM where the cgroup forbids it.
MAJOR, MINOR = 240, 99


def with_devices(lab: Lab, *devices: dict[str, Any]) -> Running:
    return lab.run({"linux": {"devices": list(devices)}})


@claim(
    SECTION, "lists devices that MUST be available in the container.", "/linux/devices/type=c", needs=("host-process:",)
)
@pytest.mark.parametrize("path", ["/dev/like-zero", "/outside/of/dev"])
def test_device(lab: Lab, path: str) -> None:
    found = with_devices(lab, {**DEVICE, "path": path}).stat(path)
    assert stat.S_ISCHR(found.st_mode)
    assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == (1, 5)


@claim(SECTION, "type of device: `c`, `b`, `u` or `p`.", "/linux/devices/type={kind}", needs=("host-process:",))
@pytest.mark.parametrize("kind", ["c", "b", "u", "p"])
def test_device_type(lab: Lab, kind: str) -> None:
    """u is an unbuffered character device (mknod(1)), and Linux has no others."""
    numbers = {} if kind == "p" else {"major": MAJOR, "minor": MINOR}
    found = with_devices(lab, {"type": kind, "path": "/dev/x", **numbers}).stat("/dev/x")
    assert stat.S_IFMT(found.st_mode) == {"p": stat.S_IFIFO, "b": stat.S_IFBLK}.get(kind, stat.S_IFCHR)


@claim(SECTION, "file mode for the device.", "/linux/devices/type=c/fileMode", needs=("host-process:",))
def test_device_mode(lab: Lab) -> None:
    assert stat.S_IMODE(with_devices(lab, DEVICE).stat("/dev/like-zero").st_mode) == 0o640


@claim(SECTION, "id of device owner in the container namespace.", "/linux/devices/type=c/uid", needs=("host-process:",))
def test_device_owner(lab: Lab) -> None:
    assert with_devices(lab, DEVICE).stat("/dev/like-zero").st_uid == 1001


@claim(SECTION, "id of device group in the container namespace.", "/linux/devices/type=c/gid", needs=("host-process:",))
def test_device_group(lab: Lab) -> None:
    assert with_devices(lab, DEVICE).stat("/dev/like-zero").st_gid == 1002


@claim(
    SECTION,
    "If a file already exists at `path` that does not match the requested device, the runtime MUST generate an error.",
    "/linux/devices",
)
def test_device_where_a_file_is(lab: Lab) -> None:
    lab.refused({"linux": {"devices": [{**DEVICE, "path": "/secret"}]}})


NUMBERS = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


@claim(DEFAULT, "`/dev/{name}`", "hide:/dev/{name}", needs=("host-process:",))
@pytest.mark.parametrize("name", list(NUMBERS))
def test_default_device(lab: Lab, name: str) -> None:
    found = lab.share({"mounts": [PROC, *DEV]}).stat(f"/dev/{name}")
    assert stat.S_ISCHR(found.st_mode)
    assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == NUMBERS[name]


@claim(
    DEFAULT,
    "A bind-mount or symlink of the container's `/dev/pts/ptmx`.",
    "hide:/dev/pts/ptmx",
    needs=("host-process:",),
)
def test_default_device_ptmx(lab: Lab) -> None:
    running = lab.share({"mounts": [PROC, *DEV]})
    root = f"/proc/{running.pid}/root/dev"
    assert os.path.samestat(os.stat(f"{root}/ptmx"), os.stat(f"{root}/pts/ptmx"))
    assert os.major(os.stat(f"{root}/ptmx").st_rdev) == 5


LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}


@claim(
    "runtime-linux.md#runtimeLinuxDevSymbolicLinks",
    "runtimes MUST create the following symlinks if the source file exists after processing `mounts`:",
    "hide:/dev",
)
@pytest.mark.parametrize("name", list(LINKS))
def test_symbolic_link(lab: Lab, name: str) -> None:
    questions = [link(f"/dev/{each}") for each in LINKS]
    assert lab.share({"mounts": [PROC, *DEV]}, *questions).text(link(f"/dev/{name}")) == LINKS[name]


# the allowed device list


def opens(lab: Lab, *rules: dict[str, Any]) -> dict[str, int]:
    """errno of an open(2) for reading and for writing of our device."""
    questions = {"r": opened("/dev/x"), "w": opened("/dev/x", os.O_WRONLY)}
    devices = [{"type": "c", "path": "/dev/x", "major": MAJOR, "minor": MINOR, "fileMode": 0o666}]
    running = lab.run({"linux": {"devices": devices, "resources": {"devices": list(rules)}}}, *questions.values())
    return {access: -running.result(question) for access, question in questions.items()}


DENY_ALL: dict[str, Any] = {"allow": False, "access": "rwm"}
ALLOW: dict[str, Any] = {"allow": True, "type": "c", "major": MAJOR, "minor": MINOR, "access": "rw"}


@claim(ALLOWED, "whether the entry is allowed or denied.", "/linux/resources/devices", needs=("host-process:",))
def test_device_denied(lab: Lab) -> None:
    assert opens(lab, {**ALLOW, "allow": False}) == {"r": errno.EPERM, "w": errno.EPERM}


@claim(ALLOWED, 'Unset values mean "all", mapping to `a`.', "/linux/resources/devices", needs=("host-process:",))
def test_device_denied_with_all(lab: Lab) -> None:
    assert opens(lab, DENY_ALL) == {"r": errno.EPERM, "w": errno.EPERM}


@claim(ALLOWED, "whether the entry is allowed or denied.", "/linux/resources/devices/1", needs=("host-process:",))
def test_device_allowed(lab: Lab) -> None:
    assert opens(lab, DENY_ALL, ALLOW) == {"r": errno.ENXIO, "w": errno.ENXIO}


@claim(
    ALLOWED,
    "A composition of `r` (read), `w` (write), and `m` (mknod).",
    "/linux/resources/devices/1/access",
    needs=("host-process:",),
)
def test_device_allowed_to_read(lab: Lab) -> None:
    assert opens(lab, DENY_ALL, {**ALLOW, "access": "r"}) == {"r": errno.ENXIO, "w": errno.EPERM}


@claim(
    ALLOWED,
    "The runtime MUST apply entries in the listed order.",
    "reverse:/linux/resources/devices",
    needs=("host-process:",),
)
def test_device_rules_in_order(lab: Lab) -> None:
    assert opens(lab, DENY_ALL, ALLOW, {**ALLOW, "allow": False, "access": "w"}) == {"r": errno.ENXIO, "w": errno.EPERM}
