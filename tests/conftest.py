"""What every test may ask for: `require` names what a test needs; HARNESS_REQUIRE turns the skips into failures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes depends on the machine, and is no claim of any test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def _mounted(fstype: str) -> bool:
    return any(f" - {fstype} " in line for line in Path("/proc/self/mountinfo").read_text().splitlines())


PROBES: dict[str, Callable[[], bool]] = {
    "root": lambda: os.geteuid() == 0,
    "cgroup-v1": lambda: _mounted("cgroup"),
    "cgroup-v2": lambda: _mounted("cgroup2"),
    **{name: lambda name=name: shutil.which(name) is not None for name in ("runc", "crun", "runsc", "busybox")},
    "chromium": lambda: shutil.which("chromium") is not None,
    "containerd": lambda: all(shutil.which(name) for name in ("containerd", "ctr", "containerd-shim-runc-v2")),
}


def missing(*names: str) -> list[str]:
    return [name for name in names if not PROBES[name]()]


def require_all(*names: str) -> None:
    """Skip unless this host has all of `names`; fail when HARNESS_REQUIRE (a, b, ...) demands one that is absent."""
    absent = missing(*names)
    if not absent:
        return
    demanded = set(filter(None, os.environ.get("HARNESS_REQUIRE", "").split(",")))
    if demanded & set(absent):
        pytest.fail(f"HARNESS_REQUIRE demands {', '.join(sorted(demanded & set(absent)))}, not on this host")
    pytest.skip(f"needs {', '.join(absent)}")


@pytest.fixture
def require() -> Callable[..., None]:
    return require_all
