"""One part of a config.json that belongs to the host that it was taken from."""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import Struct

Kind = Literal["file", "directory"]


class _Word:
    """A value that no JSON has."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


KEPT: Final = _Word("(kept)")  # nothing can take its place, or nothing need
REMOVED: Final = _Word("(removed)")


class HostPart(Struct, frozen=True):
    """One part of a config.json that belongs to another host, or cannot work on this one."""

    pointer: str  # into the config as it was given
    what: str
    why: str
    to: Any = KEPT  # what --portable puts there
    make: Kind | None = None  # `to` is a path in the bundle, and this has to be made there
