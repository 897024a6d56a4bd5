"""A run's own directory: bundles, runtime state and logs, with a note of who owns it so that `gc` can find it.

    BASE/NAME/owner.json         who made it: pid, start time, boot
    BASE/NAME/subtree_control    what the root of cgroup v2 had enabled before
    BASE/NAME/root/RUNTIME/      --root of each runtime
    BASE/NAME/c/ID/              bundle, logs and pid file of one container
    BASE/NAME/rootfs/            shared lower directories

The cgroup of every container lies below /NAME in each hierarchy: NAME ("oci-harness-...") marks all that a run makes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

from msgspec import Struct

from harness.errors import HostError
from harness.kernel import procfs

PREFIX = "oci-harness-"
KEPT_PREFIX = f"{PREFIX}c-"  # containers made by hand, with their id behind it
DEFAULT_BASE = "/run/oci-harness"
SUBTREE_CONTROL = "subtree_control"


def base_directory() -> Path:
    """Where runs live: $OCI_HARNESS_DIR, else /run/oci-harness."""
    return Path(os.environ.get("OCI_HARNESS_DIR", DEFAULT_BASE)).absolute()


class Owner(Struct, frozen=True):
    """The process that a run belongs to, named so that a recycled pid is not mistaken for it."""

    pid: int
    start_ticks: int
    boot_id: str
    kept: bool = False  # handed over to the user: a container made by `create`, which outlives its maker

    @property
    def alive(self) -> bool:
        return self.boot_id == procfs.boot_id() and procfs.is_alive(self.pid, self.start_ticks)

    @classmethod
    def this_process(cls) -> Owner:
        own = procfs.process_stat(os.getpid())
        if own is None:
            raise HostError("/proc does not show this process; mount proc on /proc")
        return cls(own.pid, own.start_ticks, procfs.boot_id())

    @classmethod
    def parse(cls, text: bytes) -> Owner:
        """Raises ValueError."""
        value = json.loads(text)
        try:
            return cls(int(value["pid"]), int(value["start_ticks"]), str(value["boot_id"]), bool(value["kept"]))
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"no owner: {error}") from None

    def encode(self) -> bytes:
        return json.dumps(
            {"pid": self.pid, "start_ticks": self.start_ticks, "boot_id": self.boot_id, "kept": self.kept}
        ).encode()


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it; fine when it is not there."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        shutil.rmtree(path)


def remove_empty_base() -> None:
    """The last run takes the directory of all runs with it; one that the user has chosen stays."""
    if base_directory() == Path(DEFAULT_BASE):
        with contextlib.suppress(OSError):
            base_directory().rmdir()


class Workspace:
    """The directory of one run. Use as a context manager: it is removed at the end, unless `keep` was called."""

    def __init__(self, kind: str, name: str | None = None) -> None:
        """Raises HostError where the directory cannot be made, FileExistsError when the name is taken."""
        self.fresh = True  # made by this object, so it may remove it when something goes wrong
        self.name = name or f"{PREFIX}{kind}-{os.getpid()}-{os.urandom(3).hex()}"
        self.path = base_directory() / self.name
        try:
            for part in ("root", "c", "rootfs"):
                (self.path / part).mkdir(parents=True, mode=0o711)
            self._write_owner(Owner.this_process())
        except FileExistsError:
            raise
        except OSError as error:
            self.remove()
            raise HostError(
                f"cannot make the run's directory {self.path}: {error.strerror}; "
                "set OCI_HARNESS_DIR to a writable directory"
            ) from None

    @classmethod
    def reopen(cls, name: str) -> Workspace:
        """The directory of a run that another process made."""
        workspace = cls.__new__(cls)
        workspace.fresh = False
        workspace.name = name
        workspace.path = base_directory() / name
        return workspace

    def note_subtree_control(self, controllers: tuple[str, ...]) -> None:
        """Remember what the v2 root had enabled before this run, for whoever cleans up after it."""
        (self.path / SUBTREE_CONTROL).write_text(" ".join(controllers))

    def _write_owner(self, owner: Owner) -> None:
        new = self.path / "owner.json.new"
        new.write_bytes(owner.encode())
        new.rename(self.path / "owner.json")

    @property
    def cgroup(self) -> str:
        """Path of the run's cgroup, relative to the root of each hierarchy."""
        return self.name

    def root(self, runtime_name: str) -> Path:
        """--root of a runtime; made on first use."""
        path = self.path / "root" / runtime_name
        path.mkdir(mode=0o711, exist_ok=True)
        return path

    def container(self, container_id: str) -> Path:
        """The directory of one container; made here. Raises FileExistsError when the id is taken."""
        path = self.path / "c" / container_id
        path.mkdir(mode=0o711)
        return path

    def keep(self) -> None:
        """Hand the run over to the user: it outlives this process and `gc` lets it be."""
        own = Owner.this_process()
        self._write_owner(Owner(own.pid, own.start_ticks, own.boot_id, kept=True))

    def remove(self) -> None:
        remove_tree(self.path)
        remove_empty_base()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
