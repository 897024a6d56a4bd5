"""The hugetlb controller: which files are read for each page size, and one shape for v1 and v2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from harness.cgroup.contents import Contents
from harness.cgroup.parsers import (
    Limit,
    hugetlb_size_bytes,
    hugetlb_size_name,
    parse_limit,
)


class HugetlbPages(Struct, frozen=True):
    """Huge pages of one size. Source: Documentation/admin-guide/cgroup-v1/hugetlb.rst, cgroup-v2.rst "HugeTLB"."""

    current_bytes: int | None
    peak_bytes: int | None  # v1
    limit_bytes: Limit | None
    limit_hit_count: int | None
    rsvd_current_bytes: int | None  # reserved by mmap, faulted in or not
    rsvd_limit_bytes: Limit | None


class Hugetlb(Struct, frozen=True):
    """`pages` by the kernel's name of the size ("2MB"); the keys of `absent` are then "2MB.peak_bytes"."""

    version: int | None
    pages: Mapping[str, HugetlbPages] | None
    absent: Mapping[str, str]


@lru_cache(maxsize=1)
def page_sizes(directory: str = "/sys/kernel/mm/hugepages") -> tuple[str, ...]:
    """Names of this kernel's huge page sizes, smallest first: ("2MB", "1GB"); () without hugetlb."""
    try:
        names = [entry.name for entry in Path(directory).iterdir()]
    except OSError:
        return ()
    sizes = [name.removeprefix("hugepages-").removesuffix("kB") for name in names]
    return tuple(hugetlb_size_name(kib) for kib in sorted(int(size) for size in sizes if size.isdecimal()))


def files(version: int, sizes: Iterable[str]) -> tuple[str, ...]:
    v1 = (
        "usage_in_bytes",
        "max_usage_in_bytes",
        "limit_in_bytes",
        "failcnt",
        "rsvd.usage_in_bytes",
        "rsvd.limit_in_bytes",
    )
    v2 = ("current", "max", "events", "rsvd.current", "rsvd.max")
    return tuple(f"hugetlb.{size}.{name}" for size in sizes for name in (v1 if version == 1 else v2))


def decode(c: Contents, sizes: Iterable[str]) -> Hugetlb:
    """Raises ParseError."""
    build = _v1 if c.version == 1 else _v2
    pages = {size: build(c, size) for size in sizes}
    if not pages:
        c.absent["pages"] = "/sys/kernel/mm/hugepages: this kernel has no huge pages"
    wanted = {name: reason for name, reason in c.absent.items() if not name.startswith("hugetlb.")}
    return Hugetlb(c.version, pages or None, wanted)


def _limit(c: Contents, field: str, file: str, size: str) -> Limit | None:
    granule = hugetlb_size_bytes(size)
    return c.parse(field, file, lambda data, path: parse_limit(data, path, granule_bytes=granule))


def _v1(c: Contents, size: str) -> HugetlbPages:
    base = f"hugetlb.{size}"
    return HugetlbPages(
        current_bytes=c.value(f"{size}.current_bytes", f"{base}.usage_in_bytes"),
        peak_bytes=c.value(f"{size}.peak_bytes", f"{base}.max_usage_in_bytes"),
        limit_bytes=_limit(c, f"{size}.limit_bytes", f"{base}.limit_in_bytes", size),
        limit_hit_count=c.value(f"{size}.limit_hit_count", f"{base}.failcnt"),
        rsvd_current_bytes=c.value(f"{size}.rsvd_current_bytes", f"{base}.rsvd.usage_in_bytes", "Linux before 5.7"),
        rsvd_limit_bytes=_limit(c, f"{size}.rsvd_limit_bytes", f"{base}.rsvd.limit_in_bytes", size),
    )


def _v2(c: Contents, size: str) -> HugetlbPages:
    base = f"hugetlb.{size}"
    events = c.flat(f"{base}.events")
    c.absent[f"{size}.peak_bytes"] = f"{base}.max_usage_in_bytes: v2 has no such file"
    return HugetlbPages(
        current_bytes=c.value(f"{size}.current_bytes", f"{base}.current"),
        peak_bytes=None,
        limit_bytes=_limit(c, f"{size}.limit_bytes", f"{base}.max", size),
        limit_hit_count=c.key(f"{size}.limit_hit_count", f"{base}.events", events, "max"),
        rsvd_current_bytes=c.value(f"{size}.rsvd_current_bytes", f"{base}.rsvd.current", "Linux before 5.7"),
        rsvd_limit_bytes=_limit(c, f"{size}.rsvd_limit_bytes", f"{base}.rsvd.max", size),
    )
