"""config.md, Mounts: their order, destinations and sources, and each option of the table."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from harness.compat.conformance.claims import claim
from harness.compat.conformance.lab import MOUNTS, PROC, Lab, Running, opened, read
from harness.kernel import shim
from harness.runtime.container import Container

SECTION = "config.md#configMounts"
OPTIONS = "config.md#configLinuxMountOptions"
TMPFS: dict[str, Any] = {"type": "tmpfs", "source": "tmpfs"}
MS_NOATIME, MS_SHARED = 1 << 10, 1 << 20  # mount(2)


def mounted(lab: Lab, *mounts: dict[str, Any]) -> Running:
    return lab.run({"mounts": [PROC, *mounts]}, MOUNTS)


@claim(SECTION, "The runtime MUST mount entries in the listed order.", "/mounts/destination=~1m~1a", "reverse:/mounts")
def test_mounts_in_listed_order(lab: Lab) -> None:
    """The second is mounted in the first: the other way round it would be hidden."""
    running = mounted(
        lab,
        {"destination": "/m", **TMPFS, "options": ["size=64k"]},
        {"destination": "/m/a", **TMPFS, "options": ["size=128k"]},
    )
    first, second = running.mount("/m"), running.mount("/m/a")
    assert second.parent_id == first.mount_id
    assert "size=128k" in second.super_options


@claim(
    SECTION,
    "Destination of mount point: path inside container.",
    "/mounts/destination=~1not~1there~1yet",
)
def test_mount_where_nothing_is(lab: Lab) -> None:
    assert mounted(lab, {"destination": "/not/there/yet", **TMPFS}).mount("/not/there/yet").fstype == "tmpfs"


@claim(
    SECTION,
    'it MAY be a relative path, in which case it MUST be interpreted as relative to "/".',
    "/mounts/destination=m~1a",
)
def test_mount_relative_destination(lab: Lab) -> None:
    assert mounted(lab, {"destination": "m/a", **TMPFS}).mount("/m/a").fstype == "tmpfs"


@claim(
    SECTION,
    "Path values for bind mounts are either absolute or relative to the bundle.",
    "/mounts/destination=~1m~1a",
)
@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_bind_source(lab: Lab, kind: str) -> None:
    question = read("/m/a/which")
    mount = {"destination": "/m/a", "type": "none", "source": "volume", "options": ["bind"]}

    def prepare(container: Container) -> None:
        volume = container.bundle.path / "volume"
        volume.mkdir()
        volume.chmod(0o755)
        (volume / "which").write_text(kind)
        if kind == "absolute":
            lab.rewrite(container, {"mounts": [PROC, {**mount, "source": str(volume)}]})

    assert lab.run({"mounts": [PROC, mount]}, question, prepare=prepare).text(question) == kind


@claim(
    SECTION,
    "A mount is a bind mount if it has either `bind` or `rbind` in the options.",
    "/mounts/destination=~1m~1a/options/={option}",
)
@pytest.mark.parametrize("option", ["bind", "rbind"])
def test_bind_by_option_alone(lab: Lab, option: str) -> None:
    """The type of a bind mount is a dummy, and may say anything."""
    question = read("/m/a/inner")
    tree = _tree(lab)
    mount = {"destination": "/m/a", "type": "dummy", "source": str(tree), "options": [option]}
    assert lab.run({"mounts": [PROC, mount]}, question).text(question) == "inner\n"


def _tree(lab: Lab) -> Path:
    """A directory with a file, and a tmpfs of the session in it."""
    tree = lab.session.workspace.path / "rootfs" / "tree"
    if not tree.exists():
        (tree / "below").mkdir(parents=True)
        (tree / "inner").write_text("inner\n")
        lab.session.namespace.call(shim.mount, "none", str(tree / "below"), "tmpfs", 0, "mode=755,size=4k")
    return tree


@claim(OPTIONS, "`bind` | MUST |", "other:/mounts/destination=~1m~1a/options/=bind")
def test_bind_is_not_recursive(lab: Lab) -> None:
    mount = {"destination": "/m/a", "type": "none", "source": str(_tree(lab)), "options": ["bind"]}
    places = [mount.mount_point for mount in mounted(lab, mount).mounts()]
    assert "/m/a" in places
    assert "/m/a/below" not in places


@claim(OPTIONS, "`rbind` | MUST |", "other:/mounts/destination=~1m~1a/options/=rbind")
def test_rbind_is_recursive(lab: Lab) -> None:
    mount = {"destination": "/m/a", "type": "none", "source": str(_tree(lab)), "options": ["rbind"]}
    assert mounted(lab, mount).mount("/m/a/below").fstype == "tmpfs"


FLAGS = {
    "ro": "ro",
    "nosuid": "nosuid",
    "nodev": "nodev",
    "noexec": "noexec",
    "noatime": "noatime",
    "nodiratime": "nodiratime",
}


@claim(OPTIONS, "`{option}` | MUST |", "/mounts/destination=~1m~1a/options/={option}")
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
@pytest.mark.parametrize("option", list(FLAGS))
def test_mount_option(lab: Lab, option: str, kind: str) -> None:
    assert FLAGS[option] in _with_options(lab, kind, option).mount("/m/a").options


def _with_options(lab: Lab, kind: str, *options: str) -> Running:
    if kind == "tmpfs":
        return mounted(lab, {"destination": "/m/a", **TMPFS, "options": list(options)})
    source = str(_tree(lab))
    return mounted(lab, {"destination": "/m/a", "type": "none", "source": source, "options": ["bind", *options]})


@claim(OPTIONS, "`{option}` | MUST |", "/mounts/destination=~1m~1a/options/={option}")
@pytest.mark.parametrize("option", ["sync", "dirsync", "lazytime"])
def test_mount_option_of_superblock(lab: Lab, option: str) -> None:
    assert option in _with_options(lab, "tmpfs", option).mount("/m/a").super_options


# Each takes back what another one before it says; the last one counts, as with mount(8).
OPPOSITES = {
    "rw": "ro",
    "suid": "nosuid",
    "dev": "nodev",
    "exec": "noexec",
    "diratime": "nodiratime",
    "async": "sync",
    "nolazytime": "lazytime",
}


@claim(OPTIONS, "`{option}` | MUST |", "/mounts/destination=~1m~1a/options/={option}")
@pytest.mark.parametrize("option", list(OPPOSITES))
def test_mount_option_takes_back(lab: Lab, option: str) -> None:
    found = _with_options(lab, "tmpfs", OPPOSITES[option], option).mount("/m/a")
    assert OPPOSITES[option] not in (*found.options, *found.super_options)


@claim(OPTIONS, "`{option}` | MUST |", "refuse:/mounts/destination=~1m~1a/options/={option}")
@pytest.mark.parametrize(
    "option", ["defaults", "silent", "loud", "iversion", "noiversion", "norelatime", "nostrictatime"]
)
def test_mount_option_is_known(lab: Lab, option: str) -> None:
    """tmpfs refuses what it does not know, so an option that is handed on to it as a word fails."""
    assert _with_options(lab, "tmpfs", option).mount("/m/a").fstype == "tmpfs"


@claim(OPTIONS, "`{option}` | MUST |", "/mounts/destination=~1m~1a/options/={option}")
@pytest.mark.parametrize("option", ["relatime", "strictatime", "atime"])
def test_mount_option_of_access_times(lab: Lab, option: str) -> None:
    """strictatime is what is neither noatime nor relatime; relatime is the default, but for the bind mount of "
    "another."""
    if option == "relatime":
        mount = {"destination": "/m/a", "type": "none", "source": _source(lab, "noatime"), "options": ["bind", option]}
        found = mounted(lab, mount).mount("/m/a").options
    else:
        found = _with_options(lab, "tmpfs", "noatime", option).mount("/m/a").options
    assert "noatime" not in found
    assert ("relatime" in found) is (option != "strictatime")


@claim(OPTIONS, "`remount` | MUST |", "/mounts/source=again")
def test_mount_option_remount(lab: Lab) -> None:
    first = {"destination": "/m/a", **TMPFS, "options": ["size=64k"]}
    again = {"destination": "/m/a", **TMPFS, "source": "again", "options": ["remount", "size=128k"]}
    running = mounted(lab, first, again)
    assert len([mount for mount in running.mounts() if mount.mount_point == "/m/a"]) == 1
    assert "size=128k" in running.mount("/m/a").super_options


# What the optional fields of mountinfo must and must not have (proc_pid_mountinfo(5)); a mount that is shared may get
# events from another group as well.
PROPAGATION = {
    "private": ((), ("shared", "master", "unbindable")),
    "rprivate": ((), ("shared", "master", "unbindable")),
    "shared": (("shared",), ("unbindable",)),
    "rshared": (("shared",), ("unbindable",)),
    "slave": (("master",), ("shared", "unbindable")),
    "rslave": (("master",), ("shared", "unbindable")),
    "unbindable": (("unbindable",), ("shared", "master")),
    "runbindable": (("unbindable",), ("shared", "master")),
}


@claim(OPTIONS, "`{option}` | MUST |", "other:/mounts/destination=~1m~1a/options/={option}")
@pytest.mark.parametrize("option", list(PROPAGATION))
def test_mount_propagation(lab: Lab, option: str) -> None:
    """Of a source that is shared, in a root that is its slave, so that each of them makes a difference."""
    mount = {"destination": "/m/a", "type": "none", "source": _source(lab, "shared"), "options": ["bind", option]}
    running = lab.run({"mounts": [PROC, mount], "linux": {"rootfsPropagation": "slave"}}, MOUNTS)
    _propagates(running, option)


@claim(OPTIONS, "`{option}` | MUST |", "/mounts/destination=~1m~1a/options/={option}")
@pytest.mark.parametrize("option", ["shared", "unbindable"])
def test_mount_propagation_alone(lab: Lab, option: str) -> None:
    """Where nothing is said of the root's own propagation."""
    _propagates(_with_options(lab, "bind", option), option)


def _propagates(running: Running, option: str) -> None:
    found = {word.partition(":")[0] for word in running.mount("/m/a").optional}
    must, must_not = PROPAGATION[option]
    assert found >= set(must)
    assert not found & set(must_not)


def _source(lab: Lab, kind: str) -> str:
    """A tmpfs of the session that is mounted so."""
    source = lab.session.workspace.path / "rootfs" / kind
    if not source.exists():
        source.mkdir()
        flags = MS_NOATIME if kind == "noatime" else 0
        lab.session.namespace.call(shim.mount, "none", str(source), "tmpfs", flags, "mode=755,size=4k")
        if kind == "shared":
            lab.session.namespace.call(shim.mount, None, str(source), None, MS_SHARED)
    return str(source)


@claim(
    OPTIONS,
    "Runtimes SHOULD treat unknown options as filesystem-specific ones) and pass those as a comma-separated "
    "string to the "
    "fifth (`const void data`) argument of `mount(2)`.",
    "/mounts/destination=~1m~1a/options/=size=64k",
    "/mounts/destination=~1m~1a/options/=mode=711",
)
def test_mount_options_of_filesystem(lab: Lab) -> None:
    found = _with_options(lab, "tmpfs", "size=64k", "mode=711").mount("/m/a")
    assert {"size=64k", "mode=711"} <= set(found.super_options)


@claim(OPTIONS, "`ro` | MUST |", "/mounts/destination=~1m~1a/options/=ro")
def test_readonly_bind_refuses_writes(lab: Lab) -> None:
    question = opened("/m/a/inner", os.O_WRONLY)
    mount = {"destination": "/m/a", "type": "none", "source": str(_tree(lab)), "options": ["bind", "ro"]}
    assert lab.run({"mounts": [PROC, mount]}, question).result(question) == -errno.EROFS


@claim(
    "config.md#configPOSIXMounts",
    "(string, OPTIONAL) The type of the filesystem to be mounted.",
    "/mounts/destination=~1m~1a/type",
)
@pytest.mark.parametrize("kind", ["tmpfs", "mqueue"])
def test_mount_type(lab: Lab, kind: str) -> None:
    assert mounted(lab, {"destination": "/m/a", "type": kind, "source": kind}).mount("/m/a").fstype == kind
