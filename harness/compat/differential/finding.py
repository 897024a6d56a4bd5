"""One difference between two runtimes, with the smallest change of config.json that shows it: what is told and kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, field

from harness.compat.differential.comparison import Difference
from harness.compat.differential.edits import Edit
from harness.compat.differential.known import Known, Text
from harness.compat.differential.trial import Behaviour
from harness.errors import InputError
from harness.oci.document import decode

SCHEMA: Final = "oci-harness/difference/1"
_EXAMPLES: Final = 5
_SLUG: Final = re.compile(r"[^a-z0-9]+")
_LONG: Final = 80


def behaviour_json(behaviour: Behaviour) -> dict[str, Any]:
    """What a runtime made of it, in words: the outcome and the runtime's own text."""
    found = behaviour.outcome
    return {
        "outcome": behaviour.word,
        "stage": found.stage,
        "cause": found.cause,
        "text": found.text,
        "exit_status": found.exit_status,
        "left_behind": list(behaviour.leaks),
    }


class Finding(Struct):
    """`edits`: the smallest set of changes, none: it always differs; `count`: cases that have shown it."""

    edits: tuple[Edit, ...]
    fields: tuple[str, ...]
    difference: Difference
    runtimes: tuple[str, str]
    behaviours: tuple[Behaviour, Behaviour]
    known: Known | None
    text: Text | None
    count: int = 1
    also: list[str] = field(default_factory=list)  # other fields with the same known difference
    examples: list[tuple[Edit, ...]] = field(default_factory=list)  # other changes with the same difference

    @property
    def key(self) -> tuple[str, ...]:
        """What makes it another difference."""
        slug = self.known.id if self.known is not None else ""
        return (slug,) if slug else ("+".join(sorted(self.fields)), self.difference.aspect, self.difference.kind)

    @property
    def field(self) -> str:
        return " + ".join(self.fields) or "(any config)"

    @property
    def title(self) -> str:
        return f"{self.field}: {self.seen}"

    @property
    def seen(self) -> str:
        """The difference in one line."""
        name, pair = next(iter(self.difference.facts.items()))
        told = "; ".join(f"{runtime}: {_short(value)}" for runtime, value in zip(self.runtimes, pair, strict=True))
        more = f" (and {len(self.difference.facts) - 1} more)" if len(self.difference.facts) > 1 else ""
        return told if name == self.difference.aspect else f"{name}: {told}{more}"

    def add(self, other: Finding) -> None:
        """Another case of the same difference."""
        self.count += 1
        if other.field != self.field and other.field not in self.also:
            self.also.append(other.field)
        if other.edits != self.edits and other.edits not in self.examples and len(self.examples) < _EXAMPLES:
            self.examples.append(other.edits)

    def to_json(self) -> dict[str, Any]:
        known, text = self.known, self.text
        return {
            "known": None if known is None else known.id,
            "fields": list(self.fields),
            "also_fields": self.also,
            "aspect": self.difference.aspect,
            "facts": {
                name: dict(zip(self.runtimes, pair, strict=True)) for name, pair in self.difference.facts.items()
            },
            "edits": [edit.to_json() for edit in self.edits],
            "behaviours": {
                name: behaviour_json(each) for name, each in zip(self.runtimes, self.behaviours, strict=True)
            },
            "count": self.count,
            "examples": [[edit.to_json() for edit in edits] for edits in self.examples],
            "what": None if known is None else known.what,
            "right": None if known is None else known.right,
            "why": None if known is None else known.why,
            "spec": None if text is None else {"section": text.section, "says": text.says},
        }

    def recipe(self, base: str, versions: dict[str, str], view: str, kernel: str) -> dict[str, Any]:
        """What is kept: enough to show it again, here and with other versions."""
        return {
            "schema": SCHEMA,
            "base": base,
            "runtimes": versions,
            "view": view,
            "kernel": kernel,
            **self.to_json(),
        }

    @property
    def slug(self) -> str:
        words = _SLUG.sub("-", f"{'-'.join(self.fields)}-{self.difference.aspect}-{self.difference.kind}".lower())
        return (self.known.id if self.known else words.strip("-"))[:_LONG].strip("-") or "always"


def _short(value: str | None) -> str:
    if value is None:
        return "-"
    return value if len(value) <= _LONG else value[: _LONG - 3] + "..."


def load_recipe_file(path: Path) -> tuple[str, tuple[Edit, ...]]:
    """(base, edits) of a kept difference. Raises InputError naming the file and the place in it."""
    try:
        value = decode(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise InputError(f'{path}: /schema: expected "{SCHEMA}"; this is no kept difference')
    base, edits = value.get("base"), value.get("edits")
    if not isinstance(base, str) or not isinstance(edits, list):
        raise InputError(f"{path}: expected /base, the name of a recipe, and /edits, an array")
    return base, tuple(Edit.from_json(each, f"{path}: /edits/{index}") for index, each in enumerate(edits))


def keep(
    findings: list[Finding], directory: Path, base: str, versions: dict[str, str], view: str, kernel: str
) -> list[Path]:
    """Write each difference as a file of its own. Raises InputError."""
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for finding in findings:
            number, path = 2, directory / f"{finding.slug}.json"
            while path in written:
                number, path = number + 1, directory / f"{finding.slug}-{number}.json"
            made = finding.recipe(base, versions, view, kernel)
            path.write_text(json.dumps(made, indent=2, ensure_ascii=True) + "\n")
            written.append(path)
    except OSError as error:
        raise InputError(f"--keep {directory}: {error.strerror}") from None
    return written
