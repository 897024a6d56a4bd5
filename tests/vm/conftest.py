"""What the tests with guests need: qemu, virtme-ng, Debian's kernels, and for some a root with systemd."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.compat import kernels, machine, systemd_root
from harness.compat.kernels import Kernel
from harness.errors import HarnessError
from harness.runtime.workspace import remove_tree

DEMANDED = set(filter(None, os.environ.get("HARNESS_REQUIRE", "").split(",")))


def lacking(what: str) -> None:
    """Skip, or fail where HARNESS_REQUIRE says that guests must be."""
    if "guests" in DEMANDED:
        pytest.fail(f"HARNESS_REQUIRE demands guests: {what}")
    pytest.skip(what)


@pytest.fixture(scope="session", autouse=True)
def guests() -> None:
    """Guests can be started here."""
    if os.geteuid() != 0:
        lacking("needs root")
    if lines := machine.missing():
        lacking("; ".join(lines))


@pytest.fixture(scope="session")
def cache(guests: None) -> Path:
    return kernels.cache_directory()


def fetched(name: str, cache: Path) -> Kernel:
    try:
        return kernels.find(name, cache)
    except HarnessError:
        try:
            return kernels.fetch(name, cache)
        except HarnessError as error:
            lacking(str(error))
            raise


@pytest.fixture(scope="session")
def old_kernel(cache: Path) -> Kernel:
    """Debian's 6.1, which has all of cgroup v1."""
    return fetched("6.1", cache)


@pytest.fixture(scope="session")
def new_kernel(cache: Path) -> Kernel:
    """Debian's 6.12, whose memory and cpuset controllers are of cgroup v2 only."""
    return fetched("6.12", cache)


@pytest.fixture(scope="session")
def root_with_systemd(cache: Path) -> Path:
    try:
        return systemd_root.make(cache)
    except HarnessError as error:
        lacking(str(error))
        raise


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory of this test alone, which must be empty at its end."""
    path = Path(f"/run/oci-harness-vm-tests-{os.getpid()}")
    monkeypatch.setenv("OCI_HARNESS_DIR", str(path))
    yield path
    left = sorted(map(str, path.rglob("*"))) if path.exists() else []
    remove_tree(path)
    assert not left, f"left in the state directory: {left[:20]}"


@pytest.fixture
def runtimes(require: Callable[..., None]) -> tuple[str, ...]:
    require("root", "runc", "crun", "busybox")
    return tuple(f"{name}={shutil.which(name)}" for name in ("runc", "crun"))
