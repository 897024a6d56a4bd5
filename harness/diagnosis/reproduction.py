"""From a diagnosed text to a run that shows the same: pick the fault, put in the text's own values, compare."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct, field

from harness.diagnosis.diagnosis import Diagnosis, diagnose
from harness.diagnosis.explain import faults_of
from harness.errors import InputError
from harness.faults.catalogue import Entry, load_causes, load_fault, parse_fault
from harness.faults.reproduce import reproduce
from harness.faults.verdict import Verdict
from harness.runtime.discovery import Runtime
from harness.runtime.session import Session

TRIED = 12  # faults of the cause, before the nearest is taken
WORK = "/work-dir/"  # what ${work} ends in
# Fields that say what went wrong, not with what; and what is not the container's own and so never taken from a text.
_KEPT = frozenset({"errno", "cgroup_file", "sysctl", "code", "pid", "fd", "index", "line", "stderr", "reason", "text"})
_REGEX_KEYS = frozenset({"clause", "stderr", "log"})


class Reproduction(Struct, frozen=True):
    """What was run for a text on one runtime, and whether it is the same failure."""

    runtime: str
    verdict: Verdict | None  # None: no fault of the catalogue could be run here
    seen: Diagnosis | None  # of the text that the run gave
    instantiated: dict[str, tuple[str, str]]  # field: the catalogue's own value, the text's
    same_cause: bool
    same_clause: bool
    differences: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return self.same_cause and self.same_clause

    @property
    def nearness(self) -> tuple[bool, bool, int]:
        """Of two runs the one with the greater value is more like the text."""
        return self.same, self.same_cause, -len(self.differences)

    def to_json(self) -> dict[str, Any]:
        return {
            "runtime": self.runtime,
            "same_cause": self.same_cause,
            "same_clause": self.same_clause,
            "differences": self.differences,
            "instantiated": {name: {"from": old, "to": new} for name, (old, new) in self.instantiated.items()},
            "decisive": self.seen.decisive if self.seen else None,
            "verdict": self.verdict.to_json() if self.verdict else None,
        }


def reproduce_text(
    session: Session,
    diagnosis: Diagnosis,
    runtimes: list[Runtime],
    on_verdict: Callable[[Verdict], None] = lambda _: None,
) -> Iterator[Reproduction]:
    """The failure of `diagnosis` on every runtime. Raises InputError if the catalogue has no fault for it."""
    entries = [load_fault(slug) for slug in faults_of(diagnosis)]
    if not entries:
        raise InputError(f"no fault of the catalogue shows {diagnosis.cause or 'a text that no rule knows'}")
    for runtime in runtimes:
        yield _on(session, diagnosis, entries, runtime, on_verdict)


def _on(
    session: Session,
    wanted: Diagnosis,
    entries: list[Entry],
    runtime: Runtime,
    on_verdict: Callable[[Verdict], None],
) -> Reproduction:
    nearest: Reproduction | None = None
    reasons = []
    able = [entry for entry in entries if any(each.runtime == runtime.dialect.name for each in entry.fault.expect)]
    for entry in able[:TRIED]:
        verdict, seen = _run(session, entry, runtime, on_verdict)
        if verdict.verdict != "reproduced":
            reasons.append(f"{entry.slug}: {verdict.verdict}" + (f", {verdict.reason}" if verdict.reason else ""))
            continue
        here = compare(wanted, seen, runtime.name, verdict, {})
        if here.same:
            here = _with_own_values(session, wanted, entry, here, runtime, on_verdict)
            if not here.differences:
                return here
        if nearest is None or here.nearness > nearest.nearness:
            nearest = here
    return nearest or Reproduction(runtime.name, None, None, {}, False, False, reasons)


def _run(
    session: Session, entry: Entry, runtime: Runtime, on_verdict: Callable[[Verdict], None]
) -> tuple[Verdict, Diagnosis | None]:
    (verdict,) = reproduce(session, [entry], [runtime], on_verdict)
    return verdict, diagnose(verdict.text).primary


def _with_own_values(
    session: Session,
    wanted: Diagnosis,
    entry: Entry,
    plain: Reproduction,
    runtime: Runtime,
    on_verdict: Callable[[Verdict], None],
) -> Reproduction:
    """Once more with the text's own values in the fault, if it has any that can be put in."""
    assert plain.seen is not None
    instance, replaced = instantiate(entry, plain.seen.fields, wanted.fields)
    if not replaced:
        return plain
    verdict, seen = _run(session, instance, runtime, on_verdict)
    if verdict.verdict == "reproduced":
        return compare(wanted, seen, runtime.name, verdict, replaced)
    values = ", ".join(f"{name} {new}" for name, (_, new) in replaced.items())
    because = verdict.reason or verdict.text or f"it ends well: {verdict.verdict}"
    plain.differences.append(f"not with the text's own {values}: {because}")
    return plain


def compare(
    wanted: Diagnosis, seen: Diagnosis | None, runtime: str, verdict: Verdict, replaced: dict[str, tuple[str, str]]
) -> Reproduction:
    """Is what was seen the failure that was asked for?"""
    if seen is None or wanted.rule is None or seen.rule is None:
        return Reproduction(runtime, verdict, seen, replaced, False, False, ["what the run said could not be named"])
    same_cause = seen.cause == wanted.cause
    controllers = {each.fields.get("cgroup_file", "").partition(".")[0] for each in (seen, wanted)}
    same_clause = seen.rule.id == wanted.rule.id and len(controllers) == 1
    differences = []
    if not same_cause:
        differences.append(f"the run shows {seen.cause}, the text {wanted.cause}")
    elif not same_clause:
        said = " ".join(seen.decisive.split())
        differences.append(f"the same cause, but {runtime} {verdict.runtime_version} says: {said}")
    for name, value in wanted.fields.items():
        own = seen.fields.get(name)
        if same_clause and own is not None and own != value and not own.endswith(value):
            differences.append(f"{name}: {own} here, {value} in the text")
    return Reproduction(runtime, verdict, seen, replaced, same_cause, same_clause, differences)


def instantiate(entry: Entry, own: dict[str, str], wanted: dict[str, str]) -> tuple[Entry, dict[str, tuple[str, str]]]:
    """`entry` with the values of a text in place of its own; which fields were replaced by what.

    Only what lies in the container or in the run's own directory is replaced, never a path of the host.
    """
    document = msgspec.to_builtins(entry.fault)
    replaced: dict[str, tuple[str, str]] = {}
    for name, shown in own.items():
        old, new = shown, wanted.get(name, "")
        if name in _KEPT or not _acceptable(new) or new == old or old.endswith(new):
            continue
        before = ""
        if WORK in shown:
            before, old, new = "${work}", f"/{shown.rpartition(WORK)[2]}", f"/{new.lstrip('/')}"
        elif old.startswith("/") and any(old in step for step in _strings(document["break"].get("node", []))):
            continue
        keys = [key for key in ("break", "heal", "exec_command") if key in document]
        changed = {key: _replace(document[key], before + old, before + new) for key in keys}
        if old and len(new) > len(before and "/") and any(changed[key] != document[key] for key in keys):
            document.update(changed)
            document["expect"] = _replace(document["expect"], old, new)
            replaced[name] = old, new
    if not replaced:
        return entry, {}
    try:
        return parse_fault(entry.slug, document, f"{entry.slug} with values of the text", load_causes()), replaced
    except InputError:
        return entry, {}


def _acceptable(value: str) -> bool:
    return 0 < len(value) < 200 and value.isprintable() and ".." not in value.split("/") and "$" not in value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))


def _replace(value: Any, old: str, new: str, key: str = "") -> Any:
    if isinstance(value, str):
        before = "" if "/" in old else r"(?<![\w.-])" if old.isalpha() else r"(?<![\w./-])"
        escaped = key in _REGEX_KEYS
        spellings = {re.escape(old), re.escape(re.escape(old))} if escaped else {re.escape(old)}
        text = re.escape(new) if escaped else new
        return re.sub(rf"{before}(?:{'|'.join(sorted(spellings))})(?![\w-])", lambda _: text, value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(new) if str(value) == old and re.fullmatch(r"-?\d{1,18}", new) else value
    if isinstance(value, list):
        return [_replace(each, old, new, key) for each in value]
    if isinstance(value, dict):
        return {name: _replace(each, old, new, name) for name, each in value.items()}
    return value
