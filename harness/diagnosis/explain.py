"""What a diagnosis means for a person: what happened, why, how to check it, how to mend it, what shows it again."""

from __future__ import annotations

import re
import shlex
from functools import cache
from typing import Any

from msgspec import Struct

from harness.diagnosis.diagnosis import Diagnosis, Report
from harness.diagnosis.rules import SYMPTOM_ONLY
from harness.faults.catalogue import load_catalogue, load_causes, load_fault

SCHEMA = "oci-harness/diagnosis/1"
FAULTS_SHOWN = 5
_WORD = re.compile(r"[a-z]{2,}|\d+")
_COMMON = frozenset(("the", "of", "to", "in", "is", "error", "file", "or", "for", "and", "no", "by", "at", "as", "it"))
_FIELD = re.compile(r"\{([a-z_]+)\}")


class Explanation(Struct, frozen=True):
    """In words, with the text's own paths and values in them."""

    happened: str  # one sentence
    why: str  # the fact that the rule rests on
    check: list[str]  # on the node: commands, or how to tell the cause from others
    fix: str
    mistaken: str | None
    faults: list[str]  # of the catalogue: they print such a text; best first


def _fill(template: str, fields: dict[str, str], *, shell: bool = False) -> str | None:
    """None if the text did not hold all the fields that the template wants. `shell`: it is a command to paste."""
    names = _FIELD.findall(template)
    if not names:
        return template
    if not fields.keys() >= set(names):
        return None
    return _FIELD.sub(lambda name: shlex.quote(fields[name[1]]) if shell else fields[name[1]], template)


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower())) - _COMMON


@cache
def _words_of(slug: str) -> tuple[frozenset[str], frozenset[str]]:
    """The stages at which a fault shows, and its words: those of its title, its patches and the texts it expects."""
    fault = load_fault(slug).fault
    clauses = " ".join(f"{expect.clause or ''} {expect.stderr or ''}" for expect in fault.expect)
    pointers = " ".join(patch.pointer for patch in fault.break_.config)
    return frozenset(expect.stage for expect in fault.expect), _words(f"{slug} {fault.title} {pointers} {clauses}")


@cache
def _faults_of(cause: str, variant: str | None) -> tuple[str, ...]:
    of_cause = [entry for entry in load_catalogue().values() if entry.fault.cause == cause]
    nearest = sorted(of_cause, key=lambda entry: (entry.fault.variant != variant, entry.slug))
    return tuple(entry.slug for entry in nearest)


def faults_of(diagnosis: Diagnosis) -> list[str]:
    """The catalogue's faults that show this cause, those first whose own words are most of those in the text."""
    own = diagnosis.rule.faults if diagnosis.rule else []
    if diagnosis.cause is None or (diagnosis.cause == SYMPTOM_ONLY and not own):
        return own
    slugs = dict.fromkeys([*own, *_faults_of(diagnosis.cause, diagnosis.variant)])
    heard = _words(f"{diagnosis.decisive} {' '.join(diagnosis.fields.values())}")
    stage = diagnosis.stage or "create"

    def nearness(slug: str) -> tuple[bool, int]:
        stages, words = _words_of(slug)
        return stage in stages, len(heard & words)

    return sorted(slugs, key=nearness, reverse=True)


def explain(diagnosis: Diagnosis) -> Explanation:
    """Put a diagnosis into words."""
    if diagnosis.cause is None:
        return Explanation(
            happened="A runtime or a layer above it failed, but no rule knows what it says here.",
            why="Only the words of the layers around the text were recognised.",
            check=["read the clause above; the runtime's own log (--log FILE, or its caller's journal) may say more"],
            fix="",
            mistaken=None,
            faults=[],
        )
    rule, cause = diagnosis.rule, load_causes()[diagnosis.cause]
    fields = diagnosis.fields
    happened = _fill(rule.happened, fields) if rule and rule.happened else None
    wanted = rule.check + rule.collect if rule else []
    commands = [filled for each in wanted if (filled := _fill(each, fields, shell=True))]
    return Explanation(
        happened=happened or cause.meaning,
        why=rule.because if rule else "The text holds no clause of a runtime, only the words of the layers around it.",
        check=commands or [cause.tell],
        fix=(rule.fix and _fill(rule.fix, fields)) or cause.fix if rule else cause.fix,
        mistaken=rule.mistaken if rule else None,
        faults=faults_of(diagnosis)[:FAULTS_SHOWN],
    )


def to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """One failure, in the form of the contract; `decisive` is input[span[0]:span[1]], offsets in characters."""
    told = explain(diagnosis)
    return {
        "cause": diagnosis.cause,
        "variant": diagnosis.variant,
        "side": diagnosis.side,
        "sides": diagnosis.sides,
        "decisive": diagnosis.decisive,
        "span": list(diagnosis.span),
        "wrappers": diagnosis.wrappers,
        "layer": diagnosis.layer,
        "runtime": diagnosis.runtime,
        "stage": diagnosis.stage,
        "fields": diagnosis.fields,
        "confidence": diagnosis.confidence,
        "explanation": told.happened,
        "why": told.why,
        "check": told.check,
        "fix": told.fix,
        "mistaken": told.mistaken,
        "faults": told.faults,
        "alternatives": [
            {"cause": each.cause, "side": each.side, "rule": each.rule} for each in diagnosis.alternatives
        ],
        "rule": diagnosis.rule.id if diagnosis.rule else None,
        "cut": diagnosis.cut,
        "count": diagnosis.count,
    }


def report_to_json(report: Report) -> dict[str, Any]:
    """The most telling failure's fields, and under `others` the further ones; `cause` is None if there is none."""
    if report.primary is None:
        nothing = {
            "cause": None,
            "side": None,
            "decisive": "",
            "span": [0, 0],
            "explanation": "No failure was found in the text.",
        }
        return {"schema": SCHEMA, **nothing, "count": 0, "others": []}
    first, *rest = report.failures
    return {"schema": SCHEMA, **to_json(first), "others": [to_json(each) for each in rest], "unlisted": report.others}
