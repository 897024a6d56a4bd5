"""The io controller (v2) and blkio (v1): which files are read, and one shape for both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from harness.cgroup.contents import Contents
from harness.cgroup.parsers import (
    MAX,
    Limit,
    parse_blkio,
    parse_device_values,
    parse_nested,
    parse_weight,
)

_V1_BYTES: Final = "blkio.throttle.io_service_bytes_recursive"
_V1_OPS: Final = "blkio.throttle.io_serviced_recursive"
_V1_LIMITS: Final = {
    "rbps": "blkio.throttle.read_bps_device",
    "wbps": "blkio.throttle.write_bps_device",
    "riops": "blkio.throttle.read_iops_device",
    "wiops": "blkio.throttle.write_iops_device",
}
V1: Final = (_V1_BYTES, _V1_OPS, *_V1_LIMITS.values(), "blkio.bfq.weight")
V2: Final = ("io.stat", "io.max", "io.weight", "io.bfq.weight")


class IoDevice(Struct, frozen=True):
    """What was done on one block device; None: this kernel does not count it."""

    read_bytes: int | None
    write_bytes: int | None
    discard_bytes: int | None
    read_count: int | None
    write_count: int | None
    discard_count: int | None


class IoLimit(Struct, frozen=True):
    """Limits of one block device; "max" is no limit."""

    read_bytes_per_s: Limit
    write_bytes_per_s: Limit
    read_per_s: Limit
    write_per_s: Limit


class Io(Struct, frozen=True):
    """Block I/O of a cgroup and its descendants; devices are named "major:minor". A device never used is not listed.

    Source: Documentation/admin-guide/cgroup-v1/blkio-controller.rst, and cgroup-v2.rst "IO Interface Files".
    """

    version: int | None
    devices: Mapping[str, IoDevice] | None
    limits: Mapping[str, IoLimit] | None  # only devices that have one
    weight: int | None  # io.weight, or that of BFQ where only it is there
    absent: Mapping[str, str]


def decode(contents: Contents) -> Io:
    """Raises ParseError."""
    return _v1(contents) if contents.version == 1 else _v2(contents)


def _v1(c: Contents) -> Io:
    sizes = c.parse("devices", _V1_BYTES, parse_blkio)
    counts = c.parse("devices", _V1_OPS, parse_blkio)
    devices: dict[str, IoDevice] | None = None
    if sizes is not None and counts is not None:
        devices = {}
        for name in [*sizes, *(set(counts) - set(sizes))]:
            if name:
                size, count = sizes.get(name, {}), counts.get(name, {})
                devices[name] = IoDevice(
                    size.get("Read"),
                    size.get("Write"),
                    size.get("Discard"),
                    count.get("Read"),
                    count.get("Write"),
                    count.get("Discard"),
                )
    found: dict[str, dict[str, int]] | None = {}
    for kind, file in _V1_LIMITS.items():
        values = c.parse("limits", file, parse_device_values)
        if values is None:
            found = None
            break
        for device, value in values.items():
            assert found is not None
            found.setdefault(device, {})[kind] = value
    return Io(
        version=1,
        devices=devices,
        limits=None if found is None else {name: _limit(values) for name, values in found.items()},
        weight=c.parse("weight", "blkio.bfq.weight", parse_weight, "no BFQ"),
        absent=c.reasons(Io),
    )


def _limit(values: Mapping[str, Limit]) -> IoLimit:
    return IoLimit(values.get("rbps", MAX), values.get("wbps", MAX), values.get("riops", MAX), values.get("wiops", MAX))


def _count(value: Limit | None) -> int | None:
    return value if isinstance(value, int) else None


def _v2(c: Contents) -> Io:
    stat = c.parse("devices", "io.stat", parse_nested)
    limits = c.parse("limits", "io.max", parse_nested)
    weight = c.parse("weight", "io.weight", parse_weight)
    if weight is None:
        weight = c.parse("weight", "io.bfq.weight", parse_weight, "neither iocost nor BFQ")
    if weight is not None:
        c.absent.pop("weight", None)
    devices = None
    if stat is not None:
        keys = ("rbytes", "wbytes", "dbytes", "rios", "wios", "dios")
        devices = {name: IoDevice(*(_count(values.get(key)) for key in keys)) for name, values in stat.items()}
    return Io(
        version=2,
        devices=devices,
        limits=None if limits is None else {name: _limit(values) for name, values in limits.items()},
        weight=weight,
        absent=c.reasons(Io),
    )
