"""Formatting of nanoseconds and bytes for people; values themselves stay plain integers."""

from __future__ import annotations

NANOSECONDS_PER_SECOND = 1_000_000_000


def format_ns(value: float | None) -> str:
    """`12_345_678` -> `12.35 ms`; None -> `-`."""
    if value is None:
        return "-"
    size = abs(value)
    # each limit is where the unit's own rounding would reach 1000
    if size < 999.5:
        return f"{value:.0f} ns"
    if size < 999_950:
        return f"{value / 1_000:.1f} us"
    if size < 999_995_000:
        return f"{value / 1_000_000:.2f} ms"
    return f"{value / NANOSECONDS_PER_SECOND:.2f} s"


def format_bytes(value: float | None) -> str:
    """`4_194_304` -> `4.0 MiB`; None -> `-`."""
    if value is None:
        return "-"
    size = float(value)
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < (1023.5 if unit == "B" else 1023.95):
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def parse_duration_s(text: str) -> float:
    """`250ms`, `5s`, `2m` or a bare number of seconds -> seconds. Raises ValueError with what is allowed."""
    scales = {"ms": 1e-3, "us": 1e-6, "s": 1.0, "m": 60.0, "h": 3600.0}
    suffix = next((known for known in scales if text.endswith(known)), "")
    try:
        value = float(text.removesuffix(suffix)) * scales.get(suffix, 1.0)
    except ValueError:
        raise ValueError(f"{text!r} is no duration; write 250ms, 5s or 2m") from None
    if not 0 <= value < float("inf"):
        raise ValueError(f"{text!r} is no duration; write 250ms, 5s or 2m")
    return value
