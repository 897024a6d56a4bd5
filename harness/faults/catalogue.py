"""Load the fault catalogue and the taxonomy of causes, and refuse what is not in their form."""

from __future__ import annotations

import contextlib
import re
import tomllib
from functools import cache
from importlib.resources.abc import Traversable
from typing import Any

import msgspec
from msgspec import Struct, inspect

from harness.errors import InputError
from harness.faults.schema import Fault, Side
from harness.oci.recipe import data_root

SUFFIX = ".toml"


class Cause(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One slug of the taxonomy."""

    meaning: str
    sides: list[Side]  # the usual ones, likeliest first
    tell: str  # how to tell it from others, on the node
    fix: str


class Entry(Struct, frozen=True):
    """A fault with the slug that its file name gives."""

    slug: str
    fault: Fault


def _read(file: Traversable) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not TOML: {error}") from None


def _structs(kind: inspect.Type) -> list[inspect.StructType]:
    match kind:
        case inspect.StructType():
            return [kind]
        case inspect.UnionType():
            return [struct for each in kind.types for struct in _structs(each)]
        case inspect.ListType():
            return _structs(kind.item_type)
        case inspect.DictType():
            return _structs(kind.value_type)
        case _:
            return []


def _allowed(kind: type[Any], path: str, document: Any) -> str:
    """What may stand where msgspec's error path (`$.break.node[0]`) points to; "" when there is nothing to choose."""
    here: inspect.Type = inspect.type_info(kind)
    for name, index in re.findall(r"\.([A-Za-z_-]+)|\[(\d+|\.\.\.)\]", path):
        structs = _structs(here)
        if name == "do" and len(structs) > 1:
            return ", ".join(sorted(str(each.tag) for each in structs))
        if isinstance(document, dict) and len(structs) > 1:
            structs = [each for each in structs if each.tag == document.get("do")]
        if name:
            fields = {field.encode_name: field.type for each in structs for field in each.fields}
            if name not in fields:
                return ""
            here = fields[name]
            document = document.get(name) if isinstance(document, dict) else None
        elif isinstance(here, inspect.ListType):
            here = here.item_type
            document = document[int(index)] if index.isdigit() and isinstance(document, list) else None
    structs = _structs(here)
    if isinstance(here, inspect.LiteralType):
        return ", ".join(map(str, here.values))
    tags = [str(each.tag) for each in structs if each.tag is not None]
    if len(tags) > 1 and isinstance(document, dict):
        chosen = [each for each in structs if each.tag == document.get("do")]
        if not chosen:
            return "do = " + " | ".join(sorted(tags))
        structs = chosen
    names = [field.encode_name for each in structs for field in each.fields]
    return ", ".join([*(["do"] if tags else []), *names])


def convert(document: Any, kind: type[msgspec.Struct], source: str) -> Any:
    """A TOML document as `kind`. Raises InputError: file, key, what is wrong and what is allowed there."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).rpartition(" - at `")
        path = path.rstrip("`") if text else "$"
        allowed = _allowed(kind, path, document)
        where = path.removeprefix("$").lstrip(".") or "(top)"
        hint = f"; allowed there: {allowed}" if allowed else ""
        raise InputError(f"{source}: {where}: {text or error}{hint}") from None


def parse_fault(slug: str, document: dict[str, Any], source: str, causes: dict[str, Cause]) -> Entry:
    """Raises InputError where the form, a cause, a regular expression or a number of things healed is wrong."""
    fault: Fault = convert(document, Fault, source)
    if fault.cause not in causes:
        raise InputError(f"{source}: cause: there is no {fault.cause!r}; allowed there: {', '.join(sorted(causes))}")
    for index, expect in enumerate(fault.expect):
        for name in ("clause", "stderr", "log", "kernel_log"):
            pattern = getattr(expect, name)
            try:
                re.compile(pattern or "")
            except re.error as error:
                raise InputError(f"{source}: expect[{index}].{name}: no regular expression: {error}") from None
        fails = expect.outcome == "fails"
        shown = expect.clause or expect.stderr or expect.timed_out or expect.exit_status is not None
        if fails and not shown:
            raise InputError(f"{source}: expect[{index}]: say what is seen: clause, stderr, exit_status or timed_out")
    for patch in fault.break_.config + fault.heal.config:
        if patch.delete == (patch.value is not msgspec.UNSET):
            raise InputError(f"{source}: a patch of {patch.pointer} needs either value or delete = true")
    healed = fault.heal
    if not (healed.undo or healed.config or healed.rootfs or healed.node):
        raise InputError(f"{source}: heal: mends nothing; allowed there: undo, config, rootfs, node")
    return Entry(slug, fault)


@cache
def load_causes() -> dict[str, Cause]:
    """{slug: Cause} of bundles/causes.toml."""
    file = data_root() / "causes.toml"
    return {slug: convert(value, Cause, f"{file}: {slug}") for slug, value in _read(file).items()}


@cache
def load_fault(slug: str) -> Entry:
    """The one of this name, without reading the others. Raises KeyError when there is none, InputError for its form."""
    file = data_root() / "faults" / f"{slug}{SUFFIX}"
    if "/" in slug or not file.is_file():
        raise KeyError(slug)
    return parse_fault(slug, _read(file), str(file), load_causes())


@cache
def load_catalogue() -> dict[str, Entry]:
    """{slug: Entry} of all files of bundles/faults, sorted. Raises InputError for the first that is not in form."""
    names = sorted(file.name for file in (data_root() / "faults").iterdir() if file.name.endswith(SUFFIX))
    return {slug: load_fault(slug) for slug in (name.removesuffix(SUFFIX) for name in names)}


def find_faults(slugs: tuple[str, ...]) -> list[Entry]:
    """Those named (a cause's slug names all of its faults). Raises InputError for one that is not there."""
    import difflib

    found: list[Entry] = []
    for slug in slugs:
        with contextlib.suppress(KeyError):
            found.append(load_fault(slug))
            continue
        catalogue = load_catalogue()
        of_cause = [entry for entry in catalogue.values() if entry.fault.cause == slug]
        if not of_cause:
            near = difflib.get_close_matches(slug, [*catalogue, *load_causes()], 3)
            hint = f"; near it: {', '.join(near)}" if near else ""
            raise InputError(f"no fault {slug!r} in the catalogue{hint} (see oci-harness reproduce --list)")
        found += of_cause
    return list({entry.slug: entry for entry in found}.values())
