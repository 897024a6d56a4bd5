"""Parse the text formats of cgroup files: bytes in, values out, no file is opened here.

A line is never dropped: whatever does not fit the format raises ParseError. Formats are those of
Documentation/admin-guide/cgroup-v2.rst ("Interface Files") and Documentation/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from msgspec import Struct

# No limit is the kernel's own word, kept as it is: a number, "max" and absent (None) stay three different things.
Limit: TypeAlias = int | Literal["max"]
MAX: Final = "max"

_INT: Final = re.compile(rb"-?[0-9]{1,20}")
_FLOAT: Final = re.compile(rb"[0-9]{1,9}\.[0-9]{1,6}")
_DEVICE: Final = re.compile(rb"[0-9]{1,10}:[0-9]{1,10}")
_PAGE_SIZE: Final = re.compile(r"([0-9]{1,12})(KB|MB|GB)")
_PAGE_UNITS: Final = {"KB": 1024, "MB": 1024**2, "GB": 1024**3}
_LONG_MAX: Final = 2**63 - 1
_HIGHEST_CPU: Final = 65535  # far above any NR_CPUS or MAX_NUMNODES; keeps a broken range from filling memory


class ParseError(ValueError):
    """A kernel file does not have the format it should: `path`, `line` (from 1) and the offending `text`."""

    def __init__(self, path: str, line: int, text: bytes, expected: str) -> None:
        self.path = path
        self.line = line
        self.text = text
        self.expected = expected
        super().__init__(f"{path}:{line}: {text[:80]!r} is not {expected}")


class PressureLine(Struct, frozen=True):
    """One line of a PSI file (Documentation/accounting/psi.rst): averages in percent, the total in microseconds."""

    avg10: float
    avg60: float
    avg300: float
    total_usec: int


def _lines(data: bytes) -> list[bytes]:
    """Lines without their newline; a missing last newline is fine, an empty file has no lines."""
    return data.removesuffix(b"\n").split(b"\n") if data else []


def _only_line(data: bytes, path: str, expected: str) -> bytes:
    lines = _lines(data)
    if len(lines) != 1:
        raise ParseError(path, min(len(lines), 2), lines[1] if lines else b"", expected)
    return lines[0]


def _text(raw: bytes, path: str, line: int) -> str:
    if not raw or not raw.isascii() or not raw.decode("ascii").isprintable():
        raise ParseError(path, line, raw, "a key")
    return raw.decode("ascii")


def _int(raw: bytes, path: str, line: int) -> int:
    if not _INT.fullmatch(raw):
        raise ParseError(path, line, raw, "an integer")
    return int(raw)


def _limit(raw: bytes, path: str, line: int) -> Limit:
    return MAX if raw == b"max" else _int(raw, path, line)


def parse_value(data: bytes, path: str) -> int:
    """`123` -> 123. The file has one line with one integer."""
    return _int(_only_line(data, path, "one integer"), path, 1)


def parse_bool(data: bytes, path: str) -> bool:
    """`0` or `1`."""
    value = parse_value(data, path)
    if value not in {0, 1}:
        raise ParseError(path, 1, data, "0 or 1")
    return value == 1


def parse_limit(data: bytes, path: str, *, granule_bytes: int = 65536) -> Limit:
    """An integer or `max`; "max" too for what cgroup v1 writes instead of it.

    That is -1 (cpu.cfs_quota_us), or LONG_MAX rounded down to a page: 9223372036854771712 with pages of 4 KiB
    (mm/memcontrol-v1.c, PAGE_COUNTER_MAX). `granule_bytes`: the largest unit it may be rounded to; hugetlb rounds
    to its page.
    """
    value = _limit(_only_line(data, path, "one integer or max"), path, 1)
    if value != MAX and (value == -1 or value > _LONG_MAX - granule_bytes):
        return MAX
    return value


def parse_cpu_max(data: bytes, path: str) -> tuple[Limit, int]:
    """v2 cpu.max, `max 100000` -> (quota in microseconds or "max", period in microseconds)."""
    line = _only_line(data, path, "a quota and a period")
    parts = line.split(b" ")
    if len(parts) != 2:
        raise ParseError(path, 1, line, "a quota and a period")
    return _limit(parts[0], path, 1), _int(parts[1], path, 1)


def parse_flat(data: bytes, path: str) -> dict[str, int]:
    """Flat keyed: `KEY VALUE` a line (memory.stat, cpu.stat, cgroup.events, memory.oom_control)."""
    found: dict[str, int] = {}
    for number, line in enumerate(_lines(data), 1):
        key, space, value = line.partition(b" ")
        name = _text(key, path, number)
        if not space or name in found:
            raise ParseError(path, number, line, "a new key with a value")
        found[name] = _int(value, path, number)
    return found


def parse_nested(data: bytes, path: str) -> dict[str, dict[str, Limit]]:
    """Nested keyed: `KEY SUB=VALUE SUB=VALUE ...` a line (io.stat, io.max, v2 memory.numa_stat); a value may be "max".

    Linux 5.13 to 5.15 prints the number of a device without statistics and no newline after it in io.stat, so a
    line may start with several devices: the values belong to the last of them, the others get an empty dict.
    """
    found: dict[str, dict[str, Limit]] = {}
    for number, line in enumerate(_lines(data), 1):
        parts = line.strip(b" ").split(b" ")
        keys = [parts.pop(0)]
        while parts and _DEVICE.fullmatch(keys[0]) and _DEVICE.fullmatch(parts[0]):
            keys.append(parts.pop(0))
        for key in keys:
            name = _text(key, path, number)
            if "=" in name or found.get(name):
                raise ParseError(path, number, line, "a new key with values")
            found[name] = {}
        for part in parts:
            sub, equals, value = part.partition(b"=")
            if not equals or _text(sub, path, number) in found[name]:
                raise ParseError(path, number, part, "SUB=VALUE")
            found[name][_text(sub, path, number)] = _limit(value, path, number)
    return found


def parse_numa_v1(data: bytes, path: str) -> dict[str, dict[str, int]]:
    """v1 memory.numa_stat, `KEY=TOTAL N0=PAGES N1=PAGES` a line -> {key: {"total": pages, "N0": pages, ...}}."""
    found: dict[str, dict[str, int]] = {}
    for number, line in enumerate(_lines(data), 1):
        values: dict[str, int] = {}
        first = ""
        for part in line.split(b" "):
            key, equals, value = part.partition(b"=")
            name = _text(key, path, number) if first else "total"
            first = first or _text(key, path, number)
            if not equals or name in values:
                raise ParseError(path, number, part, "KEY=VALUE")
            values[name] = _int(value, path, number)
        if first in found:
            raise ParseError(path, number, line, "a new key with values")
        found[first] = values
    return found


def parse_weight(data: bytes, path: str) -> int:
    """The group's own weight: `100` (v1 blkio.bfq.weight) or `default 100` before lines for devices (v2 io.weight)."""
    weight: int | None = None
    for number, line in enumerate(_lines(data), 1):
        key, space, value = line.partition(b" ")
        if not space or key == b"default":
            if weight is not None:
                raise ParseError(path, number, line, "one default weight")
            weight = _int(value if space else key, path, number)
        elif not _DEVICE.fullmatch(key) or not _INT.fullmatch(value):
            raise ParseError(path, number, line, "a weight of a device")
    if weight is None:
        raise ParseError(path, 1, data, "a weight")
    return weight


def parse_pressure(data: bytes, path: str) -> dict[str, PressureLine]:
    """PSI: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and `full ...` -> {"some": line, "full": line}."""
    found: dict[str, PressureLine] = {}
    for number, line in enumerate(_lines(data), 1):
        parts = line.split(b" ")
        pairs = [part.partition(b"=") for part in parts[1:]]
        kind = _text(parts[0], path, number)
        if (
            kind not in {"some", "full"}
            or kind in found
            or [key for key, _, _ in pairs] != [b"avg10", b"avg60", b"avg300", b"total"]
            or not all(_FLOAT.fullmatch(value) for _, _, value in pairs[:3])
        ):
            raise ParseError(path, number, line, "a line of pressure")
        avg10, avg60, avg300 = (float(value) for _, _, value in pairs[:3])
        found[kind] = PressureLine(avg10, avg60, avg300, _int(pairs[3][2], path, number))
    return found


def parse_blkio(data: bytes, path: str) -> dict[str, dict[str, int]]:
    """v1 blkio statistics, `8:0 Read 123` a line and `Total 456` last -> {"8:0": {"Read": 123}, "": {"Total": 456}}."""
    found: dict[str, dict[str, int]] = {}
    for number, line in enumerate(_lines(data), 1):
        parts = line.split(b" ")
        device = parts.pop(0).decode("ascii") if _DEVICE.fullmatch(parts[0]) else ""
        if len(parts) != 2:
            raise ParseError(path, number, line, "DEVICE OPERATION COUNT")
        values = found.setdefault(device, {})
        operation = _text(parts[0], path, number)
        if operation in values:
            raise ParseError(path, number, line, "a new operation of this device")
        values[operation] = _int(parts[1], path, number)
    return found


def parse_device_values(data: bytes, path: str) -> dict[str, int]:
    """`8:0 1048576` a line (v1 blkio.throttle.*_device) -> {"8:0": 1048576}."""
    found: dict[str, int] = {}
    for number, line in enumerate(_lines(data), 1):
        device, _, value = line.partition(b" ")
        name = device.decode("ascii") if _DEVICE.fullmatch(device) else ""
        if not name or name in found:
            raise ParseError(path, number, line, "a new device with a value")
        found[name] = _int(value, path, number)
    return found


def parse_pids(data: bytes, path: str) -> list[int]:
    """cgroup.procs, tasks: one number a line, in the kernel's order; 0 is a process of a pid namespace out of sight."""
    pids = [_int(line, path, number) for number, line in enumerate(_lines(data), 1)]
    if pids and min(pids) < 0:
        raise ParseError(path, pids.index(min(pids)) + 1, str(min(pids)).encode(), "a pid")
    return pids


def parse_cpu_list(data: bytes, path: str) -> tuple[int, ...]:
    """`0-3,5` -> (0, 1, 2, 3, 5); an empty line -> () (cpuset.cpus and cpuset.mems; the kernel's "%*pbl")."""
    line = _only_line(data, path, "a list of CPUs") if data else b""
    found: list[int] = []
    for part in line.split(b",") if line else []:
        first, dash, last = part.partition(b"-")
        low = _int(first, path, 1)
        high = _int(last, path, 1) if dash else low
        if not (found[-1] if found else -1) < low <= high <= _HIGHEST_CPU:
            raise ParseError(path, 1, part, "a rising list of CPUs")
        found.extend(range(low, high + 1))
    return tuple(found)


def parse_words(data: bytes, path: str) -> tuple[str, ...]:
    """Names between spaces on at most one line (cgroup.controllers, cgroup.subtree_control)."""
    if not data.strip(b"\n "):
        return ()
    line = _only_line(data, path, "names on one line").rstrip(b" ")
    return tuple(_text(part, path, 1) for part in line.split(b" "))


def parse_freezer_state(data: bytes, path: str) -> str:
    """v1 freezer.state: THAWED, FREEZING or FROZEN (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst)."""
    line = _only_line(data, path, "a state")
    if line not in {b"THAWED", b"FREEZING", b"FROZEN"}:
        raise ParseError(path, 1, line, "THAWED, FREEZING or FROZEN")
    return line.decode("ascii")


def hugetlb_size_name(kib: int) -> str:
    """2048 -> `2MB`: how hugetlb files name a page size (mm/hugetlb_cgroup.c, mem_fmt)."""
    if kib >= 1024**2:
        return f"{kib // 1024**2}GB"
    return f"{kib // 1024}MB" if kib >= 1024 else f"{kib}KB"


def hugetlb_size_bytes(name: str) -> int:
    """`2MB` -> 2097152. Raises ParseError."""
    match = _PAGE_SIZE.fullmatch(name)
    if match is None:
        raise ParseError("hugetlb", 1, name.encode(), "a page size such as 2MB")
    return int(match[1]) * _PAGE_UNITS[match[2]]
