"""Which sentence of the runtime-spec a case checks, what of a config.json it depends on, what it needs of a host."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from msgspec import Struct
from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Mapping

SPEC_VERSION = "1.3.0"  # the release that sections and sentences are quoted from
MARK = "claim"


class Claim(Struct, frozen=True):
    """`section`: file and anchor; `sentence`: its own words there, without the links.

    `fields`: a runtime that ignores just one of them fails the case. A JSON pointer into config.json, where a list's
    place may be a number, `=TEXT` (that string) or `KEY=TEXT` (the object that has it); or what a broken runtime does
    with a verb (`accept:start`) or a field (`refuse:/x`), see tests/runtime/mutant.py.
    `needs`: see needs.py. All may hold {NAME} of a parameter.
    """

    section: str
    sentence: str
    fields: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def filled(self, parameters: Mapping[str, object]) -> Claim:
        def fill(text: str) -> str:
            for name, value in parameters.items():
                text = text.replace(f"{{{name}}}", str(value))
            return text

        return replace(
            self,
            sentence=fill(self.sentence),
            fields=tuple(map(fill, self.fields)),
            needs=tuple(map(fill, self.needs)),
        )


def claim(section: str, sentence: str, *fields: str, needs: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Mark a case with its Claim."""
    return pytest.mark.claim(Claim(section, sentence, fields, needs))


def claim_of(item: pytest.Item) -> Claim:
    """Raises KeyError for a case that quotes nothing."""
    mark = item.get_closest_marker(MARK)
    if mark is None:
        raise KeyError(f"{item.nodeid} has no claim")
    found: Claim = mark.args[0]
    return found.filled(_parameters(item))


def sentence_digest(section: str, sentence: str) -> str:
    """What tests/data/spec-sentences.txt knows a quotation by; emphasis does not count."""
    return hashlib.sha256(f"{section} {sentence.replace('*', '')}".encode()).hexdigest()[:16]


def case_name(function: str) -> str:
    """`test_new_namespace` -> `new-namespace`."""
    return function.removeprefix("test_").replace("_", "-")


def name_of(item: pytest.Item) -> str:
    """`new-namespace[uts]`: the case without its runtime, unique in the suite."""
    function = getattr(item, "originalname", None) or item.name
    values = [str(value) for value in _parameters(item).values()]
    return case_name(function) + (f"[{','.join(values)}]" if values else "")


def _parameters(item: pytest.Item) -> dict[str, object]:
    callspec = getattr(item, "callspec", None)
    return {} if callspec is None else {key: value for key, value in callspec.params.items() if key != "runtime"}
