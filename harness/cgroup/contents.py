"""The files of one controller in a raw batch: typed values, and the reason for each one that is absent."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from harness.cgroup.parsers import (
    Limit,
    parse_flat,
    parse_limit,
    parse_value,
)
from harness.kernel.shim import FileBatch

T = TypeVar("T")


class Contents:
    """Decodes files of `version` from a batch. Every method that finds nothing returns None and sets absent[field].

    All raise ParseError for a file that is there but not understood.
    """

    __slots__ = ("_batch", "_index", "_unread", "absent", "version")

    def __init__(
        self,
        version: Literal[1, 2],
        batch: FileBatch,
        index: Mapping[str, int],
        unread: Mapping[str, str] | None = None,
    ) -> None:
        """`index`: place of each file in the batch; `unread`: why a file was never asked for."""
        self.version = version
        self.absent: dict[str, str] = {}
        self._batch = batch
        self._index = index
        self._unread = unread or {}

    def raw(self, field: str, file: str, note: str = "") -> bytes | None:
        """The file's bytes; `note` tells why there may be no such file."""
        at = self._index.get(file)
        data = None if at is None else self._batch[at]
        if isinstance(data, bytes):
            return data
        if data is None:
            self.absent[field] = f"{file}: {self._unread.get(file, 'not read')}"
            return None
        if data.errno != errno.ENOENT:
            note = errno.errorcode.get(data.errno or 0, "")
        reason = (data.strerror or "").lower().replace(" or directory", "")
        self.absent[field] = f"{file}: {reason}" + (f" ({note})" if note else "")
        return None

    def parse(self, field: str, file: str, parser: Callable[[bytes, str], T], note: str = "") -> T | None:
        data = self.raw(field, file, note)
        return None if data is None else parser(data, file)

    def value(self, field: str, file: str, note: str = "") -> int | None:
        return self.parse(field, file, parse_value, note)

    def limit(self, field: str, file: str, note: str = "") -> Limit | None:
        return self.parse(field, file, parse_limit, note)

    def usec(self, field: str, file: str) -> int | None:
        """A file in nanoseconds, as microseconds."""
        value = self.value(field, file)
        return None if value is None else value // 1000

    def flat(self, file: str) -> Mapping[str, int] | None:
        """The whole file; when there is none the reason waits in absent[file] for `key` to pick it up."""
        return self.parse(file, file, parse_flat)

    def key(self, field: str, file: str, flat: Mapping[str, int] | None, key: str, note: str = "") -> int | None:
        """One key of a file that `flat` has read."""
        if flat is None:
            self.absent[field] = self.absent[file]
            return None
        if key not in flat:
            self.absent[field] = f"{file}: no key {key}" + (f" ({note})" if note else "")
            return None
        return flat[key]

    def reasons(self, shape: type[Any]) -> dict[str, str]:
        """`absent`, only for the fields of a struct."""
        return {name: reason for name, reason in self.absent.items() if name in shape.__struct_fields__}


def nothing(shape: type[T], reason: str) -> T:
    """A section of which nothing is there: every field None, for one reason."""
    section: Any = shape  # a struct, which its type cannot say
    names = [name for name in section.__struct_fields__ if name not in {"version", "absent"}]
    empty: T = section(version=None, absent=dict.fromkeys(names, reason), **dict.fromkeys(names))
    return empty
