"""A run of the differential oracle: cases compared, each difference shrunk to its smallest change and named once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

from msgspec import Struct, field

from harness.compat.differential.bounds import SYSCTLS, own_namespace, violation
from harness.compat.differential.comparison import CAUSE, Difference, Pair, background_of, compare
from harness.compat.differential.edits import Document, Edit, apply
from harness.compat.differential.finding import Finding
from harness.compat.differential.generate import Case, cases
from harness.compat.differential.known import Knowledge, load_knowledge
from harness.compat.differential.sealing import mount_watch, seal
from harness.compat.differential.trial import Behaviour, Trial
from harness.diagnosis.reduction import shrink
from harness.errors import HostError, InputError
from harness.oci.rootfs import payload_binary
from harness.runtime.discovery import Runtime
from harness.runtime.session import Session

SEVERAL: Final = 6  # as many changes are looked at one by one
Change = Callable[[Document, Case], Document | None]
_HOST_NAMES: Final = ("kernel/hostname", "kernel/domainname")


class Progress(Struct, frozen=True):
    """After each case."""

    cases: int
    total: int | None  # None: until the time is over
    comparisons: int
    found: int


class Compared(Struct, frozen=True):
    """One document on both runtimes."""

    behaviours: tuple[Behaviour, Behaviour]
    differences: list[Difference]


class Result(Struct):
    """`findings` in the order in which they were found; `cases` are those that were drawn."""

    runtimes: tuple[Runtime, Runtime]
    view: str
    seed: int | None
    base: str
    findings: list[Finding] = field(default_factory=list)
    cases: int = 0
    comparisons: int = 0
    operations: int = 0
    refused: int = 0  # changed into what may not be run
    inapplicable: int = 0  # changes that exclude each other
    unstable: list[str] = field(default_factory=list)  # seen once, and not again
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def caveats(self) -> list[str]:
        """What could not be compared, and why."""
        found = []
        for runtime in self.runtimes:
            if not runtime.dialect.uses_host_cgroups:
                why = dict(runtime.dialect.lacks).get("host-cgroup", "its processes are in a sandbox")
                found.append(f"{runtime.name}: outcome and state only, not what the container got: {why}")
        return found

    @property
    def new(self) -> list[Finding]:
        return [each for each in self.findings if each.known is None]

    def to_json(self) -> dict[str, Any]:
        rate = self.comparisons / self.seconds if self.seconds else None
        return {
            "schema": "oci-harness/differences/1",
            "runtimes": [{"name": each.name, "version": each.version, "path": each.path} for each in self.runtimes],
            "view": self.view,
            "seed": self.seed,
            "base": self.base,
            "cases": self.cases,
            "comparisons": self.comparisons,
            "comparisons_per_s": None if rate is None else round(rate, 2),
            "operations": self.operations,
            "refused": self.refused,
            "inapplicable": self.inapplicable,
            "unstable": self.unstable,
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "caveats": self.caveats,
            "new": len(self.new),
            "differences": [each.to_json() for each in self.findings],
        }


class Campaign:
    """Compares changes of one sound document on two runtimes, in one session, which is sealed for it.

    Raises InputError where the document as it is does not run on both, HostError where the session cannot be sealed.
    """

    def __init__(
        self,
        session: Session,
        runtimes: tuple[Runtime, Runtime],
        document: Document,
        lower: Path,
        *,
        change: Change = apply,
        bounded: bool = True,
        source: Path | None = None,
    ) -> None:
        """`change` puts the changes of a case on `document`. Not `bounded`: what they ask for is the user's own, as it
        is with other commands that run a bundle; the host's files are read-only all the same."""
        self.session = session
        self._change = change
        self._bounded = bounded
        self.runtimes = runtimes
        self.document = document
        self.knowledge: Knowledge = load_knowledge()
        seal(session)
        self._restore = mount_watch(session)
        self._trial = Trial(session, lower, source)
        self._whole = all(runtime.dialect.uses_host_cgroups for runtime in runtimes)
        self._bundle = session.workspace.path / "c" / "x"  # any bundle of the run: what is inside of one is in all
        self._hooks = frozenset({str(payload_binary())})
        self._cache: dict[tuple[str, ...], Compared | None] = {}
        self._host = _host_settings()
        self.comparisons = self.refused = self.inapplicable = 0
        self.background: dict[str, Pair] = {}
        if bounded and (wrong := violation(document, self._bundle, self._hooks)) is not None:
            raise InputError(f"changes of this config may not be tried here: {wrong}")
        self.began = time.monotonic()
        first = self._run(document)
        for runtime, behaviour in zip(runtimes, first, strict=True):
            if behaviour.outcome.stage is not None:
                raise InputError(f"the unchanged config does not run on {runtime.name}: {behaviour.outcome.describe()}")
        self.background = background_of(*first, whole=self._whole)
        self._first = first

    @property
    def operations(self) -> int:
        return self._trial.operations

    def _run(self, document: Document) -> tuple[Behaviour, Behaviour]:
        a, b = (self._trial.run(runtime, document) for runtime in self.runtimes)
        self.comparisons += 1
        if not own_namespace(document.get("linux"), "mount"):
            self._restore()
        return a, b

    def compared(self, edits: Case, *, again: bool = False) -> Compared | None:
        """None: it cannot be made, or may not be run. `again`: also where the answer is known."""
        key = tuple(edit.key for edit in edits)
        if key in self._cache and not again:
            return self._cache[key]
        document = self._change(self.document, edits)
        if document is None:
            self.inapplicable += 1
            self._cache[key] = None
            return None
        if self._bounded and violation(document, self._bundle, self._hooks) is not None:
            self.refused += 1
            self._cache[key] = None
            return None
        behaviours = self._run(document)
        found = Compared(behaviours, compare(*behaviours, self.background, whole=self._whole))
        self._cache[key] = found
        return found

    def always(self) -> list[Finding]:
        """What differs for the unchanged config, one finding for each aspect."""
        return [self._finding((), each, self._first) for each in compare(*self._first, {}, whole=self._whole)]

    def smallest(self, edits: Case, difference: Difference) -> list[Case]:
        """Each single change with which the runtimes differ in the same way, as most do; else a small set of them."""

        def differs(subset: list[Edit]) -> bool:
            found = self.compared(self._ordered(edits, subset))
            return found is not None and any(each.same(difference) for each in found.differences)

        if len(edits) == 1:
            return [edits]
        few = len(edits) <= SEVERAL
        singles: list[Case] = [(edit,) for edit in edits if differs([edit])] if few else []
        return singles or [self._ordered(edits, shrink(list(edits), differs))]

    @staticmethod
    def _ordered(edits: Case, some: list[Edit]) -> Case:
        return tuple(edit for edit in edits if edit in some)

    def look_at(self, edits: Case) -> Iterator[tuple[Finding, bool]]:
        """(finding, whether it was seen again) of each difference of a case."""
        first = self.compared(edits)
        for difference in first.differences if first is not None else ():
            for small in self.smallest(edits, difference):
                if difference.aspect == CAUSE and len(small) > 1:
                    continue  # two faults, and each runtime comes upon another one first
                compared = self.compared(small)
                same = [each for each in compared.differences if each.same(difference)] if compared is not None else []
                if compared is not None and same:
                    yield self._finding(small, same[0], compared.behaviours), True
                elif first is not None:
                    yield self._finding(edits, difference, first.behaviours), False

    def _finding(self, edits: Case, difference: Difference, behaviours: tuple[Behaviour, Behaviour]) -> Finding:
        fields = tuple(dict.fromkeys(edit.field for edit in edits))
        words = {
            runtime.dialect.name: behaviour.outcome.text
            for runtime, behaviour in zip(self.runtimes, behaviours, strict=True)
        }
        return Finding(
            edits,
            fields,
            difference,
            (self.runtimes[0].name, self.runtimes[1].name),
            behaviours,
            self.knowledge.find(fields, difference, words),
            self.knowledge.text(fields),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def again(self, finding: Finding) -> bool:
        """Whether a difference shows once more."""
        found = self.compared(finding.edits, again=True)
        return found is not None and any(each.same(finding.difference) for each in found.differences)

    def close(self) -> None:
        """Raises HostError when a setting of the host is not as it was before the first case."""
        self._trial.close()
        now = _host_settings()
        changed = [
            f"{name} from {self._host[name]!r} to {now[name]!r}" for name in now if now[name] != self._host[name]
        ]
        if changed:
            raise HostError(f"settings of this host have changed while configs were tried: {'; '.join(changed)}")


def _host_settings() -> dict[str, str]:
    names = {*_HOST_NAMES, *(name.replace(".", "/") for name in SYSCTLS)}
    paths = {name: Path("/proc/sys", name) for name in sorted(names)}
    return {name: path.read_text() for name, path in paths.items() if path.is_file()}


def run(
    campaign: Campaign,
    result: Result,
    *,
    count: int | None,
    seed: int,
    max_time_s: float | None,
    tick: Callable[[Progress], None] = lambda _: None,
) -> Result:
    """Compare `count` generated cases, or as many as the time allows; a Ctrl-C ends it with what was found."""
    drawn = islice(cases(campaign.document, seed), count)
    return explore(campaign, result, drawn, total=count, max_time_s=max_time_s, tick=tick)


def explore(
    campaign: Campaign,
    result: Result,
    drawn: Iterator[Case],
    *,
    total: int | None,
    max_time_s: float | None,
    tick: Callable[[Progress], None] = lambda _: None,
) -> Result:
    """Compare cases that are given; see run()."""
    found: dict[tuple[str, ...], Finding] = {each.key: each for each in campaign.always()}
    result.findings = list(found.values())
    try:
        for case in drawn:
            if max_time_s is not None and time.monotonic() - campaign.began >= max_time_s:
                break
            result.cases += 1
            for finding, seen_again in campaign.look_at(case):
                earlier = found.get(finding.key)
                if earlier is not None:
                    earlier.add(finding)
                elif seen_again and (finding.known is not None or campaign.again(finding)):
                    found[finding.key] = finding
                    result.findings.append(finding)
                else:
                    result.unstable.append(finding.title)
            tick(Progress(result.cases, total, campaign.comparisons, len(found)))
    except KeyboardInterrupt:
        result.interrupted = True
    result.seconds = time.monotonic() - campaign.began
    result.comparisons, result.operations = campaign.comparisons, campaign.operations
    result.refused, result.inapplicable = campaign.refused, campaign.inapplicable
    return result
