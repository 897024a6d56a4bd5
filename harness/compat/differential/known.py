"""Differences that are known, as data (bundles/differences.toml), and what the runtime-spec says of a field."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources.abc import Traversable
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from harness.compat.differential.comparison import Difference
from harness.errors import InputError
from harness.oci.recipe import data_root

Right = Literal["both", "neither", "unsaid"] | str  # a runtime's name: it does what the spec asks, the other does not
FILE: Final = "differences.toml"


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One difference. Patterns are those of fnmatch, where * stands for anything; a [ is itself."""

    id: str
    fields: list[str]  # of config.json, array elements as *; "" is any config: what always differs
    aspects: list[str]
    what: str  # one sentence
    says: dict[str, list[str]]  # runtime: patterns of what is seen there, any of them; a missing fact is "-"
    right: Right
    why: str  # what the spec's text says, and what follows
    facts: list[str] = msgspec.field(default_factory=lambda: ["*"])  # patterns of the facts that may differ
    text: dict[str, str] = msgspec.field(default_factory=dict)  # runtime: pattern of its own words, if it must fail so


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sentence of the runtime-spec on some fields."""

    fields: list[str]
    section: str  # file, heading
    says: str  # verbatim


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    spec: str  # the version of the runtime-spec that is quoted
    seen: dict[str, str]  # runtime: version that the known differences were seen with
    known: list[Known]
    text: list[Text]


class Knowledge(Struct, frozen=True):
    """All of the file."""

    spec: str
    seen: Mapping[str, str]
    known: tuple[Known, ...]
    texts: tuple[Text, ...]

    def find(self, fields: tuple[str, ...], difference: Difference, words: Mapping[str, str]) -> Known | None:
        """The entry that tells of this difference; the first that does. `words`: {dialect: what that runtime said}."""
        return next((each for each in self.known if _tells(each, fields, difference, words)), None)

    def text(self, fields: tuple[str, ...]) -> Text | None:
        """What the spec says of the first field that it says anything of; a longer pattern is the more exact one."""
        for field in fields:
            found = [(len(pattern), each) for each in self.texts for pattern in each.fields if _matches(field, pattern)]
            if found:
                return max(found, key=lambda pair: pair[0])[1]
        return None


def _matches(text: str, pattern: str) -> bool:
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def _tells(known: Known, fields: tuple[str, ...], difference: Difference, words: Mapping[str, str]) -> bool:
    if difference.aspect not in known.aspects or set(known.says) != set(words):
        return False
    if not all(any(_matches(field, pattern) for pattern in known.fields) for field in fields or ("",)):
        return False
    if not all(_matches(words[runtime], pattern) for runtime, pattern in known.text.items()):
        return False
    return all(
        any(_matches(name, pattern) for pattern in known.facts)
        and all(
            any(_matches("-" if seen is None else seen, pattern) for pattern in known.says[runtime])
            for runtime, seen in zip(words, pair, strict=True)
        )
        for name, pair in difference.facts.items()
    )


@cache
def load_knowledge(file: Traversable | None = None) -> Knowledge:
    """Raises InputError naming the file when it is not as it should be."""
    path = file or data_root() / FILE
    try:
        value: Any = tomllib.loads(path.read_text())
        loaded = msgspec.convert(value, _File)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InputError(f"{path}: {error}") from None
    ids = [each.id for each in loaded.known]
    twice = next((each for each in ids if ids.count(each) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: /known: {twice} is there twice")
    return Knowledge(loaded.spec, loaded.seen, tuple(loaded.known), tuple(loaded.text))
