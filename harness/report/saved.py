"""Saved results: read from files, told apart by their schema, typed as far as comparisons and reports need them.

What is not needed is skipped while reading, so that fields may come and go, and 100,000 samples fit into memory.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Struct

from harness.compat.cells import Cell
from harness.compat.cells import Matrix as CellTable
from harness.errors import InputError

STAGES: Final = {
    "create_ns": "create",
    "start_ns": "start",
    "first_instruction_ns": "first instruction",
    "kill_ns": "kill",
    "exit_ns": "exit",
    "delete_ns": "delete",
    "whole_ns": "whole",
}
LARGEST: Final = 1 << 31  # bytes of JSON; a small file may unpack to more
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Times = dict[str, Count | None]
Pair = tuple[float, float]


class Sample(msgspec.Struct, gc=False):
    """One lifecycle, of harness/bench/lifecycle.py. Nanoseconds."""

    runtime: str
    index: int
    stages: Times
    order: int = 0
    first_instruction_ns: Count | None = None
    start_to_first_instruction_ns: Count | None = None
    harness_ns: Count | None = None
    exit_status: int | None = None
    error: str | None = None
    failed_stage: str | None = None

    def value(self, stage: str) -> int | None:
        return self.first_instruction_ns if stage == "first_instruction_ns" else self.stages.get(stage)


class FullSample(Sample, gc=False):
    """With what only an export needs; as text, which keeps the file in memory."""

    usage: msgspec.Raw = msgspec.Raw(b"{}")
    disturbance: msgspec.Raw = msgspec.Raw(b"{}")


class Summary(msgspec.Struct):
    """One stage of one runtime, of harness/bench/figures.py."""

    n: Count
    median_ns: float
    p95_ns: float
    p99_ns: float
    ci95_ns: Pair


class Compared(msgspec.Struct):
    """Two runtimes at one stage, of harness/bench/figures.py."""

    a: str
    b: str
    stage: str
    ratio: float
    ci95: Pair
    verdict: str
    n: Count = 0
    minimum_detectable: float | None = None


class Note(msgspec.Struct):
    """A caveat."""

    id: str
    message: str


class Difference(msgspec.Struct):
    """What was unusual beside an outlier."""

    what: str
    value: float
    usual: float


class Outlier(msgspec.Struct):
    """A sample far from its runtime's others."""

    runtime: str
    order: int
    whole_ns: float
    times_usual: float
    different: list[Difference] = []


class Footprint(msgspec.Struct):
    """Peak memory of a runtime; None and the reason where it cannot be told."""

    peak_memory_bytes: Count | None = None
    method: str | None = None
    reason: str | None = None
    samples: list[Count] = []


class Circumstances(msgspec.Struct, kw_only=True):
    """What every result of an experiment begins with."""

    settings: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    caveats: list[Note] = []
    interrupted: bool = False


class Bench(Circumstances, kw_only=True):
    """oci-harness/bench/1, of harness/bench/result.py."""

    samples: list[Sample]
    summary: dict[str, dict[str, Summary]]
    comparisons: list[Compared]
    outliers: list[Outlier] = []
    footprint: dict[str, Footprint] = {}

    @property
    def runtimes(self) -> list[str]:
        """In the order in which they were given."""
        return list(self.summary)

    def of(self, runtime: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.runtime == runtime]

    def values(self, runtime: str, stage: str) -> list[int]:
        """In the order in which they ran; failed lifecycles are left out."""
        return in_order(self.of(runtime), stage)


class FullBench(Bench, kw_only=True):
    """With all that the samples have."""

    samples: list[FullSample]  # type: ignore[assignment]  # read only, so a list of more specific ones will do


class SweepPoint(msgspec.Struct):
    point: dict[str, int | float | str]
    summary: dict[str, dict[str, Summary]]
    comparisons: list[Compared] = []


class Sweep(Circumstances, kw_only=True):
    """oci-harness/bench-sweep/1, of harness/bench/sweep.py."""

    points: list[SweepPoint]


class Cost(msgspec.Struct):
    part: str
    cost_ns: float
    ci95_ns: Pair
    ci95_together_ns: Pair | None = None  # of all parts at once
    stages: dict[str, float] = {}

    @property
    def found(self) -> bool:
        """Whether it can be told from none."""
        low, high = self.ci95_together_ns or self.ci95_ns
        return not low <= 0 <= high


class Fit(msgspec.Struct):
    bare_ns: float
    full_ns: float | None = None
    predicted_full_ns: float | None = None


class Part(msgspec.Struct):
    name: str
    about: str = ""


class Ablation(Circumstances, kw_only=True):
    """oci-harness/ablation/1, of harness/bench/ablation.py."""

    costs: dict[str, list[Cost]]
    fit: dict[str, Fit] = {}
    parts: list[Part] = []


class Attempt(msgspec.Struct):
    limit_bytes: Count
    tries: Count
    started: Count


class Edge(msgspec.Struct):
    limit_bytes: Count
    stage: str | None = None
    text: str | None = None
    cause: str | None = None


class Floor(msgspec.Struct):
    floor_bytes: Count | None = None
    reason: str | None = None
    attempts: list[Attempt] = []
    edge: Edge | None = None
    peak: Footprint = msgspec.field(default_factory=Footprint)


class MemoryFloor(Circumstances, kw_only=True):
    """oci-harness/memory-floor/1, of harness/bench/memory_floor.py."""

    floors: dict[str, Floor]


class Phase(msgspec.Struct):
    """Nanoseconds since the start of the lifecycle."""

    name: str
    start_ns: Count
    end_ns: Count

    @property
    def duration_ns(self) -> int:
        return max(0, self.end_ns - self.start_ns)


class OneTrace(msgspec.Struct):
    runtime: str
    whole_ns: Count
    phases: list[Phase]
    lost_events: int | None = None


class Trace(Circumstances, kw_only=True):
    """oci-harness/trace/1, of harness/trace/result.py."""

    traces: list[OneTrace]
    harness_own: list[str] = []
    notes: list[str] = []


class Kernel(msgspec.Struct):
    """What was named on the command line, and what that is: `6.1`, `6.1.0-56-amd64`."""

    name: str
    release: str


class Baseline(msgspec.Struct):
    kernel: str
    view: str


class Guest(msgspec.Struct):
    kernel: str
    view: str
    accelerator: str | None = None
    boot_s: float | None = None
    seconds: float | None = None


class Matrix(Circumstances, kw_only=True):
    """oci-harness/matrix/1, of harness/compat/cells.py."""

    cells: list[Cell]
    baseline: Baseline | None = None
    guests: list[Guest] = []

    @property
    def kernels(self) -> list[Kernel]:
        return msgspec.convert(self.environment.get("kernels", []), list[Kernel])

    @property
    def table(self) -> CellTable:
        table = CellTable(baseline=(self.baseline.kernel, self.baseline.view) if self.baseline else None)
        for cell in self.cells:
            table.add(cell)
        return table


KINDS: Final[dict[str, type[Circumstances]]] = {
    "oci-harness/bench/1": Bench,
    "oci-harness/bench-sweep/1": Sweep,
    "oci-harness/ablation/1": Ablation,
    "oci-harness/memory-floor/1": MemoryFloor,
    "oci-harness/trace/1": Trace,
    "oci-harness/matrix/1": Matrix,
}


class Saved(Struct, frozen=True):
    """A file and what it holds; `raw` is the JSON as it is in the file (unpacked, if that was packed), if kept."""

    path: Path
    schema: str
    raw: bytes
    value: Circumstances

    @property
    def name(self) -> str:
        return self.path.name


class _Head(msgspec.Struct):
    schema: str | None = None


def load(path: str | Path, kinds: Iterable[str] = tuple(KINDS), *, keep: bool = False) -> Saved:
    """A result of one of `kinds` (schemas), plain or gzipped JSON; `keep` its text.

    Raises InputError, one line that names the file.
    """
    raw = _read(Path(path))
    schema, value = _decode(path, raw, kinds, None)
    return Saved(Path(path), schema, raw if keep else b"", value)


def load_full(path: str | Path) -> FullBench:
    """A plain benchmark with all that its samples have. Raises InputError."""
    _, value = _decode(path, _read(Path(path)), ("oci-harness/bench/1",), FullBench)
    assert isinstance(value, FullBench)
    return value


def _decode(
    path: str | Path, raw: bytes, kinds: Iterable[str], wanted: type[Circumstances] | None
) -> tuple[str, Circumstances]:
    try:
        schema = msgspec.json.decode(raw, type=_Head).schema
        if schema is None or schema not in set(kinds):
            raise InputError(f"{path}: {_foreign(schema, kinds)}")
        value = msgspec.json.decode(raw, type=wanted or KINDS[schema])
    except RecursionError:
        raise InputError(f"{path}: not a result of oci-harness: it nests too deep") from None
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: not a result of oci-harness: {_plain(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON, or cut off: {_plain(error)}") from None
    _check(Path(path), value)
    return schema, value


def _read(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        if raw.startswith(b"\x1f\x8b"):
            raw = gzip.GzipFile(fileobj=io.BytesIO(raw)).read(LARGEST + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: a gzip file that is cut off or damaged: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if len(raw) > LARGEST:
        raise InputError(f"{path}: more than {LARGEST >> 30} GiB of JSON")
    if not raw.strip():
        raise InputError(f"{path}: it is empty")
    return raw


def _plain(error: Exception) -> str:
    return " ".join(str(error).split())


def _foreign(schema: str | None, kinds: Iterable[str]) -> str:
    if schema is None:
        return 'not a result of oci-harness: there is no "schema"'
    known = {name.rpartition("/")[0] for name in kinds}
    if schema.rpartition("/")[0] in known:
        return f"schema {schema[:80]!r} is of another version of oci-harness than this one"
    return f"schema {schema[:80]!r} cannot be used here; what can: {', '.join(kinds)}"


def _check(path: Path, value: Circumstances) -> None:
    """What the types do not say. Raises InputError."""
    strange = next((name for name in runtimes_of(value) if not name.isprintable() or not name), None)
    if strange is not None:
        raise InputError(f"{path}: a runtime's name cannot be printed: {strange[:60]!r}")
    if isinstance(value, Bench):
        unknown = {sample.runtime for sample in value.samples} - set(value.summary)
        unknown = {name for name in unknown if not name.endswith("~again")}
        if unknown and not all(sample.error for sample in value.samples if sample.runtime in unknown):
            raise InputError(f"{path}: /summary: runtime {min(unknown)!r} of the samples is not there")
        numbers = [
            (f"/summary/{name}/{stage}", each.median_ns)
            for name, stages in value.summary.items()
            for stage, each in stages.items()
        ]
        wrong = [place for place, number in numbers if not 0 <= number < math.inf]
        if wrong:
            raise InputError(f"{path}: {wrong[0]}: no time")


def in_order(samples: Iterable[Sample], stage: str) -> list[int]:
    """The times of the good ones in the order in which they ran."""
    found = [(s.order, value) for s in samples if s.error is None and (value := s.value(stage)) is not None]
    return [value for _, value in sorted(found, key=lambda pair: pair[0])]


def label(stage: str) -> str:
    """`create_ns` -> `create`."""
    return STAGES.get(stage, stage.removesuffix("_ns").replace("_", " "))


def runtimes_of(value: Circumstances) -> list[str]:
    """In the order in which they were given."""
    if isinstance(value, Bench):
        return value.runtimes
    if isinstance(value, Trace):
        return list(dict.fromkeys(each.runtime for each in value.traces))
    if isinstance(value, Ablation):
        return list(value.costs)
    if isinstance(value, MemoryFloor):
        return list(value.floors)
    if isinstance(value, Matrix):
        return list(dict.fromkeys(cell.runtime for cell in value.cells))
    points = value.points if isinstance(value, Sweep) else []
    return list(dict.fromkeys(name for point in points for name in point.summary))


def stages_named(asked: Iterable[str]) -> list[str]:
    """`first-instruction` -> `first_instruction_ns`; all for none. Raises InputError."""
    by_label = {name: stage for stage, name in STAGES.items()}
    found = []
    for text in asked:
        stage = by_label.get(text.replace("-", " "), text)
        if stage not in STAGES:
            raise InputError(f"--stage {text}: there is {', '.join(name.replace(' ', '-') for name in by_label)}")
        found.append(stage)
    return list(dict.fromkeys(found)) or list(STAGES)


def fact(environment: Any, path: str) -> Any:
    """`cpu/model` of an environment; None where it is not there."""
    for name in path.split("/"):
        environment = environment.get(name) if isinstance(environment, dict) else None
    return environment


def runtime_fact(environment: dict[str, Any], runtime: str, path: str) -> Any:
    """A field of one runtime: `version`, `binary/sha256`."""
    listed = fact(environment, "runtimes")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and entry.get("name") == runtime:
            return fact(entry, path)
    return None
