"""The freezer: a controller of its own in v1, part of every cgroup but the root in v2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from harness.cgroup.contents import Contents
from harness.cgroup.parsers import parse_bool, parse_freezer_state

V1: Final = ("freezer.state", "freezer.self_freezing", "freezer.parent_freezing")
V2: Final = ("cgroup.freeze", "cgroup.events")


class Freezer(Struct, frozen=True):
    """Whether a cgroup is frozen, and who asked for it.

    Source: Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst, and cgroup-v2.rst, cgroup.freeze.
    """

    version: int | None
    frozen: bool | None  # all tasks have stopped; False while it is under way
    self_freezing: bool | None  # asked for in this cgroup
    parent_freezing: bool | None  # asked for in one above it
    absent: Mapping[str, str]


def decode(c: Contents) -> Freezer:
    """Raises ParseError."""
    if c.version == 1:
        state = c.parse("frozen", "freezer.state", parse_freezer_state, "the root cgroup cannot be frozen")
        return Freezer(
            version=1,
            frozen=None if state is None else state == "FROZEN",
            self_freezing=c.parse("self_freezing", "freezer.self_freezing", parse_bool),
            parent_freezing=c.parse("parent_freezing", "freezer.parent_freezing", parse_bool),
            absent=c.reasons(Freezer),
        )
    c.absent["parent_freezing"] = "freezer.parent_freezing: v2 has no such file"
    events = c.flat("cgroup.events")
    frozen = c.key("frozen", "cgroup.events", events, "frozen", "Linux before 5.2")
    return Freezer(
        version=2,
        frozen=None if frozen is None else frozen == 1,
        self_freezing=c.parse("self_freezing", "cgroup.freeze", parse_bool),
        parent_freezing=None,
        absent=c.reasons(Freezer),
    )
