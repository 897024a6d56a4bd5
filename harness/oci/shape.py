"""Every type error of a plain document at once, by walking it along a msgspec type; no rule of meaning."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import inspect

from harness.errors import Problem
from harness.oci.document import describe
from harness.oci.pointer import build

# The integers of the spec's Go types. msgspec cannot hold a bound above int64, so uint64 carries it beside.
Uint16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Uint32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Uint64 = Annotated[int, msgspec.Meta(ge=0, extra={"le": 2**64 - 1})]


def shape_problems(value: Any, kind: Any, tokens: tuple[str, ...] = ()) -> list[Problem]:
    """All type errors and missing required fields of `value` against the type `kind`, in the type's order.

    Unknown fields are no problem. Never raises for plain JSON values. `kind` may be made of msgspec structs, str,
    int, bool, list, dict, None, Any and the bounded integers above; TypeError for another.
    """
    return list(_walk(value, _type_of(kind), tokens))


@cache
def _type_of(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _walk(value: Any, kind: inspect.Type, tokens: tuple[str, ...]) -> Iterator[Problem]:
    kind, highest = _without_extra(kind)
    match kind:
        case inspect.AnyType():
            return
        case inspect.UnionType():
            if value is not None:
                yield from _walk(value, _not_none(kind), tokens)
        case inspect.StructType() if isinstance(value, dict):
            yield from _walk_fields(value, kind, tokens)
        case inspect.DictType() if isinstance(value, dict):
            for key, child in value.items():
                yield from _walk(child, kind.value_type, (*tokens, key))
        case inspect.ListType() if isinstance(value, list):
            for index, child in enumerate(value):
                yield from _walk(child, kind.item_type, (*tokens, str(index)))
        case inspect.StrType() if isinstance(value, str):
            return
        case inspect.BoolType() if isinstance(value, bool):
            return
        case inspect.IntType() if type(value) is int and _fits(value, kind, highest):
            return
        case _:
            wanted = _expected(kind, highest)
            yield Problem(build(tokens), f"expected {wanted}, found {describe(value)}")


def _walk_fields(value: dict[str, Any], kind: inspect.StructType, tokens: tuple[str, ...]) -> Iterator[Problem]:
    for field in kind.fields:
        place = (*tokens, field.encode_name)
        if field.encode_name in value:
            yield from _walk(value[field.encode_name], field.type, place)
        elif field.required:
            yield Problem(build(place), f"missing; expected {_expected(*_without_extra(field.type))}")


def _without_extra(kind: inspect.Type) -> tuple[inspect.Type, int | None]:
    if isinstance(kind, inspect.Metadata):
        return kind.type, (kind.extra or {}).get("le")
    return kind, None


def _not_none(kind: inspect.UnionType) -> inspect.Type:
    (other,) = (each for each in kind.types if not isinstance(each, inspect.NoneType))
    return other


def _fits(value: int, kind: inspect.IntType, highest: int | None) -> bool:
    upper = kind.le if highest is None else highest
    return (kind.ge is None or value >= kind.ge) and (upper is None or value <= upper)


def _expected(kind: inspect.Type, highest: int | None) -> str:
    match kind:
        case inspect.StructType() | inspect.DictType():
            return "an object"
        case inspect.ListType():
            return "an array"
        case inspect.StrType():
            return "a string"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            upper = kind.le if highest is None else highest
            return "an integer" if upper is None else f"an integer from {kind.ge} to {upper}"
        case _:
            raise TypeError(f"shape_problems() does not know {kind!r}")
