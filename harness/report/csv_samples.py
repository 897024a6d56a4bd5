"""All samples of a benchmark as CSV (RFC 4180, with plain newlines): a row a lifecycle, failed ones too."""

from __future__ import annotations

import csv
import io
from typing import Final

import msgspec

from harness.report.saved import FullBench, FullSample

LEADING: Final = ("runtime", "index", "order")
TRAILING: Final = (
    "first_instruction_ns",
    "start_to_first_instruction_ns",
    "harness_ns",
    "exit_status",
    "error",
    "failed_stage",
)
_USAGE: Final = msgspec.json.Decoder(dict[str, dict[str, float | None]])
_DISTURBANCE: Final = msgspec.json.Decoder(dict[str, float | None])


def usage_of(sample: FullSample) -> dict[str, dict[str, float | None]]:
    """{operation: {user_us, system_us, maxrss_kib}}; empty where it is no such thing."""
    try:
        return _USAGE.decode(sample.usage)
    except msgspec.DecodeError:
        return {}


def _further(sample: FullSample) -> dict[str, float | None]:
    """`create.user_us`, `forks`, ...: what depends on the host and the way a container ends."""
    try:
        disturbance = _DISTURBANCE.decode(sample.disturbance)
    except msgspec.DecodeError:
        disturbance = {}
    return {f"{verb}.{name}": v for verb, used in usage_of(sample).items() for name, v in used.items()} | disturbance


def _number(value: float | None) -> str:
    """Absent is an empty field; whole numbers as such."""
    if value is None:
        return ""
    return str(int(value)) if value == int(value) else repr(value)


def csv_samples(bench: FullBench) -> str:
    """Times are in nanoseconds; what is absent is an empty field."""
    stages: dict[str, None] = {}
    further: dict[str, None] = {}
    for sample in bench.samples:
        stages |= dict.fromkeys(sample.stages)
        further |= dict.fromkeys(_further(sample))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*LEADING, *stages, *TRAILING, *further])
    for sample in bench.samples:
        own = _further(sample)
        writer.writerow(
            [getattr(sample, name) for name in LEADING]
            + [sample.stages.get(name) for name in stages]
            + [getattr(sample, name) for name in TRAILING]
            + [_number(own.get(name)) for name in further]
        )
    return text.getvalue()
