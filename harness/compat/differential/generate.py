"""Configs that are valid, or nearly so: cards with one change each, drawn from a deck that a seed shuffles.

What single values may be comes from the tables that validation uses (harness.oci.vocabulary), what fields there are
from the typed runtime-spec (harness.oci.spec), what has proven to be odd from values.py. A case is one card or a few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any, Final

import msgspec

from harness.compat.differential.edits import Document, Edit, generalized
from harness.compat.differential.values import ODD_NUMBERS, ODD_TEXTS, TEMPLATES, VALUES
from harness.oci import pointer as json_pointer
from harness.oci.document import copied
from harness.oci.spec import Spec
from harness.oci.vocabulary import RANGES, WORDS

Case = tuple[Edit, ...]
# Of ten cases so many have one change, two and three: a failure hides what other changes would have shown.
_CHANGES: Final = (1, 1, 1, 1, 1, 1, 2, 2, 2, 3)
# Not worth a card for each of their elements.
_LONG: Final = ("/process/capabilities/", "/linux/maskedPaths/", "/linux/readonlyPaths/")
_ODD_TYPES: Final[tuple[Any, ...]] = (None, True, 7, "7", [], {}, ["x"], {"x": "y"})
_ODD_MEMBERS: Final[tuple[Any, ...]] = ("", 5, [], {})
_WRONG: Final[tuple[tuple[type, Any], ...]] = ((bool, "true"), (int, "1"), (str, 5), (list, {}), (dict, []))
_NO_TABLE: Final = frozenset({"solaris", "windows", "vm", "zos", "freebsd", "intelRdt"})


def cases(document: Document, seed: int) -> Iterator[Case]:
    """Without end, the same for the same seed and document: first every card of the decks once, as they are dealt.

    Every other change is drawn from the deck of curated values.
    """
    random = Random(seed)
    decks = [curated(), structural(document)]
    hands: list[list[Edit]] = [[], []]

    def draw(which: int) -> Edit:
        if not hands[which]:
            hands[which] = _dealt(decks[which], random)
        return hands[which].pop()

    number = 0
    while True:
        chosen: dict[str, Edit] = {}
        for _ in range(random.choice(_CHANGES)):
            edit = draw(number % 2)
            chosen.setdefault(edit.pointer, edit)
            number += 1
        yield tuple(chosen.values())


def _dealt(deck: list[Edit], random: Random) -> list[Edit]:
    """To be drawn from the end: in rounds, each with one change of every field, in the order of the deck.

    So a short run meets every field, with what is likeliest to show a difference there.
    """
    rounds: Counter[str] = Counter()
    numbered = []
    for edit in deck:
        rounds[edit.field] += 1
        numbered.append((-rounds[edit.field], random.random(), edit))
    return [edit for _, _, edit in sorted(numbered, key=lambda each: each[:2])]


def curated() -> list[Edit]:
    """Values that are worth a try in their place, and objects with one odd member."""
    found = [Edit("set", pointer, value) for pointer, values in VALUES.items() for value in values]
    for pointer, template in TEMPLATES.items():
        found += _of_template(pointer, template)
    return _distinct(found)


def _of_template(pointer: str, template: Any) -> Iterator[Edit]:
    """An object that is sound, and each of its members gone, of another value, or of another type."""
    yield Edit("set", pointer, template)
    if pointer.endswith("/-") and pointer != "/mounts/-":  # those of the document must stay
        yield Edit("set", pointer.removesuffix("/-"), [template, template], f"{generalized(pointer)} (twice)")
    for place, value in _leaves(template):
        about = generalized(pointer + place)
        made = copied(template)
        json_pointer.delete(made, place)
        yield Edit("set", pointer, made, about)
        for other in _others(about, value):
            made = copied(template)
            json_pointer.set(made, place, other)
            yield Edit("set", pointer, made, about)


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _leaves(each, place + json_pointer.build([name]))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from _leaves(value[0], f"{place}/0")
    elif place:
        yield place, value


def _others(field: str, value: Any) -> list[Any]:
    """Values of a field: what its tables allow and what lies next to that, then another type."""
    found: list[Any] = []
    for words in WORDS:
        if words.pattern == field:
            found += ["z", "", words.allowed[0].swapcase(), words.allowed[0] + " ", *words.allowed[:6]]
    for span in RANGES:
        if span.pattern == field:
            ends = [span.low - 1, span.low, *([] if span.high is None else [span.high, span.high + 1])]
            found += [*ends, *span.special]
    if not found:
        found = list(ODD_NUMBERS if isinstance(value, int) and not isinstance(value, bool) else ())
        found = list(ODD_TEXTS) if isinstance(value, str) else found
    wrong = next((each for kind, each in _WRONG if type(value) is kind), 5)
    return [*found, wrong, *([not value] if isinstance(value, bool) else [])]


def structural(document: Document) -> list[Edit]:
    """What can be done to any document: a member dropped, doubled, of another type, empty; arrays turned round."""
    found: list[Edit] = []
    for pointer, value in _places(document):
        name = pointer.rpartition("/")[2]
        found.append(Edit("delete", pointer))
        found += [Edit("set", pointer, other) for other in _ODD_TYPES if type(other) is not type(value)][:3]
        if not name.isdigit():
            found.append(Edit("again", pointer, _another(value)))
        if isinstance(value, list) and value:
            found.append(Edit("set", pointer, [*value, value[0]], f"{generalized(pointer)} (twice)"))
            found.append(Edit("set", pointer, value[::-1], f"{generalized(pointer)} (reversed)"))
            found.append(Edit("set", pointer, []))
        elif isinstance(value, dict):
            found.append(Edit("set", pointer, dict(reversed(value.items())), f"{generalized(pointer)} (reversed)"))
            found.append(Edit("set", pointer, {**value, "nope": {"a": 1}}, f"{generalized(pointer)}/nope"))
        elif isinstance(value, str):
            found += [Edit("set", pointer, odd) for odd in ("", value + " ", value.upper(), value + "\u00e9\u200b")]
        else:
            found += [Edit("set", pointer, other) for other in _others(generalized(pointer), value)]
    for pointer in _absent_fields(document):
        found += [Edit("set", pointer, value) for value in _ODD_MEMBERS]
    return _distinct(found)


def _places(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    members: Iterable[tuple[Any, Any]] = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, each in members:
        place = pointer + json_pointer.build([str(name)])
        if place.startswith(_LONG) and isinstance(value, list) and int(name) > 1:
            continue
        yield place, each
        yield from _places(each, place)


def _another(value: Any) -> Any:
    """A value of the same type that means something else."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return "" if isinstance(value, str) else type(value)()


def _absent_fields(document: Document) -> Iterator[str]:
    """Members that the spec knows and the document does not have."""
    for pointer, shape in (
        ("", Spec),
        ("/process", _shape(Spec, "process")),
        ("/linux", _shape(Spec, "linux")),
        ("/linux/resources", _shape(_shape(Spec, "linux"), "resources")),
    ):
        known = json_pointer.get(document, pointer, None)
        for each in msgspec.structs.fields(shape):
            if isinstance(known, dict) and each.encode_name not in known and each.encode_name not in _NO_TABLE:
                yield f"{pointer}/{each.encode_name}"


def _shape(struct: Any, name: str) -> Any:
    """The struct of a member."""
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    kind = next(each.type for each in info.fields if each.name == name)
    kinds = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    return next(each.cls for each in kinds if isinstance(each, msgspec.inspect.StructType))


def _distinct(edits: list[Edit]) -> list[Edit]:
    return list({edit.key: edit for edit in edits}.values())
