"""Containers that outlive the command that made them: `create` records one here, the other verbs find it by its id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from harness.cgroup.view import View
from harness.errors import InputError
from harness.oci.bundle import Bundle, check_container_id
from harness.runtime.client import Client
from harness.runtime.container import Container
from harness.runtime.discovery import find_runtime
from harness.runtime.session import Session
from harness.runtime.workspace import KEPT_PREFIX, Workspace, base_directory

RECORD = "container.json"


class Record(Struct, frozen=True):
    """What is needed to go on with a container in another process."""

    id: str
    runtime_name: str
    runtime_path: str
    view: View
    bundle: str
    pid: int | None  # of init, as the runtime wrote it


def workspace_name(container_id: str) -> str:
    return KEPT_PREFIX + check_container_id(container_id)


def new_workspace(container_id: str) -> Workspace:
    """Raises InputError when a container of that id is there already."""
    try:
        return Workspace("c", workspace_name(container_id))
    except FileExistsError:
        raise InputError(
            f"container id {container_id!r} is taken; delete it (oci-harness delete {container_id}) or use another"
        ) from None


def write_record(workspace: Workspace, record: Record) -> None:
    (workspace.path / RECORD).write_text(json.dumps(asdict(record)))


def read_record(container_id: str) -> Record:
    """Raises InputError when there is no such container."""
    path = base_directory() / workspace_name(container_id) / RECORD
    try:
        return Record(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        known = ", ".join(sorted(record.id for record in records())) or "there is none"
        raise InputError(f"no container {container_id!r} (known: {known}); make one with oci-harness create") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a container's record ({error}); remove {path.parent} or run gc") from None


def records() -> Iterator[Record]:
    """All containers that were kept; unreadable records are left out."""
    for path in sorted(base_directory().glob(f"{KEPT_PREFIX}*/{RECORD}")):
        try:
            yield Record(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            continue


class Kept:
    """A kept container, opened again: its session (same view) and its client. A context manager that keeps it."""

    def __init__(self, container_id: str, timeout_s: float | None = 30.0) -> None:
        self.record = read_record(container_id)
        self.runtime = find_runtime(f"{self.record.runtime_name}={self.record.runtime_path}")
        self.session = Session(
            self.record.view, workspace=Workspace.reopen(workspace_name(container_id)), timeout_s=timeout_s
        )

    @property
    def directory(self) -> Path:
        return self.session.workspace.path / "c" / self.record.id

    @property
    def client(self) -> Client:
        return self.session.client(self.runtime, self.directory)

    def container(self) -> Container:
        return Container(self.client, Bundle.load(Path(self.record.bundle)), self.record.id)

    def remove(self) -> None:
        """Take away all that is left of it: processes, cgroups, directory."""
        self.session.close()

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.detach()
