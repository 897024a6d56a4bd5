"""config.json: the plain document, which is the truth and keeps unknown fields, and a typed view to read it by.

The structs are in spec_process and spec_linux. Source: runtime-spec config.md up to 1.3.0.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import msgspec

from harness.errors import BundleError, InputError
from harness.oci import document as json_document
from harness.oci import pointer as json_pointer
from harness.oci.shape import shape_problems
from harness.oci.spec_linux import Linux
from harness.oci.spec_process import Hooks, Mount, Process, Root
from harness.oci.version import minimum_version

__all__ = ["CONFIG_NAME", "Config", "Spec", "minimum_version"]

CONFIG_NAME = "config.json"
_MAX_BYTES = 64 * 1024 * 1024  # more is no config.json but a mistake, such as a disk image


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """The whole config.json. Platforms other than Linux stay plain dictionaries."""

    oci_version: str
    root: Root | None = None
    mounts: list[Mount] | None = None
    process: Process | None = None
    hostname: str | None = None
    domainname: str | None = None
    hooks: Hooks | None = None
    annotations: dict[str, str] | None = None
    linux: Linux | None = None
    solaris: dict[str, Any] | None = None
    windows: dict[str, Any] | None = None
    vm: dict[str, Any] | None = None
    zos: dict[str, Any] | None = None
    freebsd: dict[str, Any] | None = None


class Config:
    """One config.json. Change `document` through set() and delete(), so that `spec` follows."""

    __slots__ = ("_spec", "document", "source")

    def __init__(self, document: dict[str, Any], source: str = CONFIG_NAME) -> None:
        """`source` is the name for messages. The document is kept, not copied."""
        self.document = document
        self.source = source
        self._spec: Spec | None = None

    @classmethod
    def parse(cls, data: bytes | str, source: str = CONFIG_NAME) -> Self:
        """JSON text -> Config. Raises InputError, one line with `source`: no JSON, or no object at the top."""
        try:
            document = json_document.decode(data)
        except ValueError as error:
            raise InputError(f"{source}: not JSON: {error}") from None
        if not isinstance(document, dict):
            found = json_document.describe(document)
            raise InputError(f"{source}: the top level must be an object, not {found}")
        return cls(document, source)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a config.json, or the one in a bundle directory. Raises InputError, one line with the path."""
        path = Path(path)
        if path.is_dir():
            path = path / CONFIG_NAME
        try:
            with path.open("rb") as stream:
                data = stream.read(_MAX_BYTES + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        if len(data) > _MAX_BYTES:
            raise InputError(f"{path}: larger than {_MAX_BYTES} bytes, so no config.json")
        return cls.parse(data, str(path))

    @property
    def spec(self) -> Spec:
        """The typed view, made once. Raises BundleError with every type error of the document."""
        if self._spec is None:
            problems = shape_problems(self.document, Spec)
            if problems:
                raise BundleError(self.source, problems)
            self._spec = msgspec.convert(self.document, Spec)
        return self._spec

    def get(self, pointer: str, default: Any = json_pointer.ABSENT) -> Any:
        """The value at `pointer`, not a copy. Where there is none: `default` if given, else InputError."""
        return json_pointer.get(self.document, pointer, default)

    def set(self, pointer: str, value: Any) -> None:
        """Put a value, making missing parents; see pointer.set. Raises InputError and changes nothing."""
        json_pointer.set(self.document, pointer, value)
        self._spec = None

    def delete(self, pointer: str) -> None:
        """Take a place away. Raises InputError when it is not there."""
        json_pointer.delete(self.document, pointer)
        self._spec = None

    def copy(self) -> Self:
        """A deep copy: neither sees changes of the other."""
        return type(self)(json_document.copied(self.document), self.source)

    def encode(self) -> bytes:
        """JSON text, two spaces a level, keys in their order, unknown fields too. Raises InputError."""
        try:
            return json_document.encode(self.document)
        except ValueError as error:
            raise InputError(f"{self.source}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write to `path` whole or not at all, keeping the mode of a file that is there. Raises InputError.

        A symbolic link stays one. Not synced to disk: it survives a crash of this process, not of the host.
        """
        data = self.encode()
        target = Path(os.path.realpath(path))
        temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}")
        try:
            _write_beside(temporary, target, data)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.document == other.document

    __hash__ = None  # type: ignore[assignment]  # it changes, so it cannot be a key

    def __repr__(self) -> str:
        return f"Config(source={self.source!r}, keys={list(self.document)})"


def _write_beside(temporary: Path, target: Path, data: bytes) -> None:
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o7777)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
