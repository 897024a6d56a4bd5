"""RFC 6901 JSON pointers on plain documents: read, write and delete one place, find all that match a pattern."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

from harness.errors import InputError
from harness.oci import document as json_document

T = TypeVar("T")

ANY: Final = "*"  # in a pattern for select(): every key of an object, every index of an array
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
_BAD_ESCAPE = re.compile(r"~(?![01])")
ABSENT: Final = object()  # "no default given"


def parse(pointer: str) -> list[str]:
    """`/a/b~1c` -> `["a", "b/c"]`; "" is the whole document. Raises InputError (RFC 6901 sections 3 and 4)."""
    if pointer == "":
        return []
    if not pointer.startswith("/"):
        raise InputError(f"{pointer!r} is no JSON pointer: it must start with /, as in /process/args")
    if _BAD_ESCAPE.search(pointer):
        raise InputError(f"{pointer!r} is no JSON pointer: write ~0 for ~ and ~1 for / inside a name")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/")]


def build(tokens: Sequence[str]) -> str:
    """`["a", "b/c"]` -> `/a/b~1c`; the reverse of parse()."""
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


def get(document: Any, pointer: str, default: Any = ABSENT) -> Any:
    """The value at `pointer`, not a copy. Where there is none: `default` if given, else InputError."""
    found, depth = _walk(document, tokens := parse(pointer))
    if depth == len(tokens):
        return found
    if default is not ABSENT:
        return default
    raise _missing(pointer, tokens, depth, found)


def set(document: Any, pointer: str, value: Any) -> None:  # noqa: A001 - always read as pointer.set
    """Put `value` at `pointer`, in place.

    Missing (or null) parents are made as objects. The last token of an array may be an index that exists, its
    length, or `-` for one past the end. Raises InputError and changes nothing when that cannot be.
    """
    tokens = parse(pointer)
    if not tokens:
        raise InputError("the pointer is empty: the whole document cannot be replaced, only places in it")
    parent, depth = _walk(document, tokens[:-1])
    while parent is None and depth > 0:  # null is as good as absent
        depth -= 1
        parent, _ = _walk(document, tokens[:depth])
    for token in reversed(tokens[depth + 1 :]):
        value = [value] if token == "-" else {token: value}
    token = tokens[depth]
    if isinstance(parent, dict):
        parent[token] = value
    elif isinstance(parent, list):
        index = len(parent) if token == "-" else _index(token)
        if index is None or index > len(parent):
            raise InputError(f"{pointer}: {token!r} is no index of an array of {len(parent)}; - appends")
        parent[index : index + 1] = [value]
    else:
        raise _missing(pointer, tokens, depth, parent)


def delete(document: Any, pointer: str) -> None:
    """Take the place away, in place. Raises InputError when there is nothing at `pointer`."""
    tokens = parse(pointer)
    if not tokens:
        raise InputError("the pointer is empty: the whole document cannot be deleted")
    found, depth = _walk(document, tokens)
    if depth < len(tokens):
        raise _missing(pointer, tokens, depth, found)
    parent, _ = _walk(document, tokens[:-1])
    del parent[int(tokens[-1]) if isinstance(parent, list) else tokens[-1]]


def select(document: Any, pattern: str, kind: type[T]) -> Iterator[tuple[str, T]]:
    """All (pointer, value) that match `pattern` and are exactly of type `kind`, in document order.

    A token `*` of the pattern is any key or index. `true` is no int here. Never raises for any document.
    """
    places: list[tuple[tuple[str, ...], Any]] = [((), document)]
    for token in parse(pattern):
        places = [((*path, key), child) for path, value in places for key, child in _step(value, token)]
    for path, value in places:
        if type(value) is kind:
            yield build(path), value


def one(document: Any, pointer: str, kind: type[T]) -> T | None:
    """The value at `pointer` if it is there and exactly of type `kind`, else None."""
    value = get(document, pointer, None)
    return value if type(value) is kind else None


def parse_assignment(text: str) -> tuple[str, Any]:
    """`/process/args=["sh"]` -> (pointer, value); what `--set POINTER=JSON` takes. Raises InputError.

    The first `=` ends the pointer, so a name that holds `=` cannot be set this way.
    """
    usage = """write --set POINTER=JSON, as in --set '/process/args=["sh"]' or --set '/hostname="a"'"""
    pointer, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text!r}: there is no =; {usage}")
    try:
        parse(pointer)
    except InputError as error:
        raise InputError(f"--set {text!r}: {error}") from None
    if not pointer:
        raise InputError(f"--set {text!r}: the pointer is empty; {usage}")
    try:
        return pointer, json_document.decode(value)
    except ValueError as error:
        raise InputError(
            f"--set {text!r}: the value is not JSON ({error}); a string needs double quotes; {usage}"
        ) from None


def _index(token: str) -> int | None:
    return int(token) if _INDEX.fullmatch(token) else None


def _step(value: Any, token: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        if token == ANY:
            yield from value.items()
        elif token in value:
            yield token, value[token]
    elif isinstance(value, list):
        if token == ANY:
            yield from ((str(index), child) for index, child in enumerate(value))
        elif (index := _index(token)) is not None and index < len(value):
            yield token, value[index]


def _walk(document: Any, tokens: Sequence[str]) -> tuple[Any, int]:
    """Follow tokens as far as they go -> (value reached, number of tokens used)."""
    value = document
    for depth, token in enumerate(tokens):
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and (index := _index(token)) is not None and index < len(value):
            value = value[index]
        else:
            return value, depth
    return value, len(tokens)


def _missing(pointer: str, tokens: Sequence[str], depth: int, reached: Any) -> InputError:
    where = build(tokens[:depth]) or "the document"
    token = tokens[depth]
    if isinstance(reached, dict):
        return InputError(f"{pointer}: {where} has no {token!r}")
    if isinstance(reached, list):
        return InputError(f"{pointer}: {where} is an array of {len(reached)} and has no index {token!r}")
    return InputError(f"{pointer}: {where} is {json_document.describe(reached)} and has nothing inside")
