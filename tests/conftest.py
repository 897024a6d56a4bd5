"""What every test may ask for: `require` names what a test needs; HARNESS_REQUIRE turns the skips into failures."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


# They change this host while they run (use up a user's keys, freeze, fill, remove what dead runs have left), or need
# all its cores. So one process runs all of them, one after the other; any file of the others may run beside them.
NEED_THE_HOST = re.compile(r"tests/(native|vm|runtime)/(?!test_report\.)")  # but for that one: it needs a browser only


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `pytest -n N`."""
    from xdist.scheduler import LoadScopeScheduling

    class ByHost(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "host" if NEED_THE_HOST.match(nodeid) else nodeid.partition("::")[0]

    return ByHost(config, log)


@pytest.fixture
def require() -> Callable[..., None]:
    return require_all
