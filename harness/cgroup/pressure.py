"""Pressure stall information (PSI) of a v2 cgroup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from harness.cgroup.contents import Contents
from harness.cgroup.parsers import PressureLine, parse_pressure

FILES: Final = ("cpu.pressure", "memory.pressure", "io.pressure", "irq.pressure")


class Stalls(Struct, frozen=True):
    """One resource: `some` task waited, or all non-idle ones did (`full`)."""

    some: PressureLine | None  # None: the kernel writes no such line (irq has only full)
    full: PressureLine | None  # None: cpu before Linux 5.13


class Pressure(Struct, frozen=True):
    """PSI of a cgroup and its descendants; v1 has none. In a hybrid layout it is that of the process's v2 cgroup.

    Source: Documentation/accounting/psi.rst.
    """

    version: int | None
    cpu: Stalls | None
    memory: Stalls | None
    io: Stalls | None
    irq: Stalls | None
    absent: Mapping[str, str]


def decode(c: Contents) -> Pressure:
    """Raises ParseError."""
    return Pressure(
        version=c.version,
        cpu=_stalls(c, "cpu"),
        memory=_stalls(c, "memory"),
        io=_stalls(c, "io"),
        irq=_stalls(c, "irq"),
        absent=c.reasons(Pressure),
    )


def _stalls(c: Contents, resource: str) -> Stalls | None:
    note = "Linux before 6.1, or no irq time accounting" if resource == "irq" else "PSI is off"
    lines = c.parse(resource, f"{resource}.pressure", parse_pressure, note)
    return None if lines is None else Stalls(lines.get("some"), lines.get("full"))
