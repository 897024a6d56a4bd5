"""The parts of a config.json that an ablation takes away: loaded from bundles/ablation.toml, checked, applied."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable
from functools import cache
from typing import Any, Final

import msgspec

from harness.errors import InputError
from harness.oci import document as json_document
from harness.oci import pointer
from harness.oci.recipe import data_root, load_recipe, merge_patch

FILE: Final = "ablation.toml"
RECIPE: Final = "kubernetes"
OVERLAY: Final = "rootfs:overlay"  # the one part that is no matter of config.json
_ENTRY: Final = re.compile(r"(?P<list>[^\[\]]+)\[(?P<key>\w+)=(?P<value>[^\]]+)\]")


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the head of bundles/ablation.toml."""

    name: str
    about: str
    drop: list[str]
    add: dict[str, Any] = {}
    needs: list[str] = []


@cache
def load_parts() -> tuple[Part, ...]:
    """In the order of the file: what a part needs stands before it. Raises InputError."""
    file = data_root() / FILE
    try:
        parts = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8"))["part"], list[Part])
    except (OSError, KeyError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InputError(f"{file}: not a list of parts: {error}") from None
    known: set[str] = set()
    for part in parts:
        if part.name in known or not known.issuperset(part.needs):
            raise InputError(f"{file}: part {part.name}: its name is there twice, or it needs a part that comes later")
        known.add(part.name)
    return tuple(parts)


def whole_config(parts: Iterable[Part]) -> dict[str, Any]:
    """The recipe with all parts in it."""
    document: dict[str, Any] = load_recipe(RECIPE).config
    for part in parts:
        document = merge_patch(document, part.add)
    return document


def closed(kept: Collection[str], parts: Iterable[Part]) -> frozenset[str]:
    """`kept` without the parts that need one that is not kept."""
    found: set[str] = set()
    for part in parts:
        if part.name in kept and found.issuperset(part.needs):
            found.add(part.name)
    return frozenset(found)


def config_with(whole: dict[str, Any], kept: frozenset[str], parts: Iterable[Part]) -> dict[str, Any]:
    """A copy of the whole config.json without the parts that are not kept."""
    document: dict[str, Any] = json_document.copied(whole)
    for part in parts:
        if part.name not in kept:
            for place in part.drop:
                _drop(document, place)
    return document


def _drop(document: dict[str, Any], place: str) -> None:
    """Take away one pointer or array entry; fine where it is not there."""
    entry = _ENTRY.fullmatch(place)
    if entry is None:
        if pointer.get(document, place, None) is not None:
            pointer.delete(document, place)
        return
    listed = pointer.get(document, entry["list"], None)
    if isinstance(listed, list):
        listed[:] = [
            each for each in listed if not (isinstance(each, dict) and each.get(entry["key"]) == entry["value"])
        ]
