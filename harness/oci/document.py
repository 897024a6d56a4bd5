"""Strict JSON text in and out; refuses what JSON has no word for (NaN, Infinity) and what nests too deep."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

MAX_DEPTH = 200  # levels; far above any config.json, far below Python's recursion limit


def decode(data: bytes | str) -> Any:
    """JSON text (RFC 8259, UTF-8) -> plain value.

    Raises ValueError with one line, with line and column (both from 1) where they are known.
    Of a key that is there twice the last one counts, as in Go and in crun's parser.
    """
    text = data if isinstance(data, str) else _decode_utf8(data)
    if not text.strip():
        raise ValueError("it is empty")
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        end = ", where the text ends" if not text[error.pos :].strip() else ""
        raise ValueError(f"line {error.lineno}, column {error.colno}{end}: {error.msg}") from None
    except RecursionError:
        raise ValueError(f"it nests deeper than {MAX_DEPTH} levels") from None
    _check_depth(value)
    return value


def encode(value: Any) -> bytes:
    """Plain value -> JSON text, two spaces a level, keys in their order, ASCII only, one newline at the end.

    Raises ValueError with one line when the value cannot be said in JSON.
    """
    try:
        # without an indent json.dumps runs in C, and msgspec only lays the text out
        return msgspec.json.format(json.dumps(value, allow_nan=False).encode("ascii"), indent=2) + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON value: {error}") from None


def copied(value: Any) -> Any:
    """A deep copy of a plain value; several times as fast as copy.deepcopy."""
    if isinstance(value, dict):
        return {key: copied(each) for key, each in value.items()}
    if isinstance(value, list):
        return [copied(each) for each in value]
    return value


def describe(value: Any) -> str:
    """What a plain value is, for a message: `number 5`, `string "sh"`, `an object`; long strings are cut."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"boolean {str(value).lower()}"
    if isinstance(value, str):
        shown = value if len(value) <= 40 else value[:37] + "..."
        return f"string {json.dumps(shown)}"
    if isinstance(value, int | float):
        return f"number {value}" if abs(value) < 10**30 else "a number of more than 30 digits"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    return f"a {type(value).__name__}, which JSON does not have"


def _decode_utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {text[:40]} is out of range")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise ValueError(f"it nests deeper than {MAX_DEPTH} levels")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
