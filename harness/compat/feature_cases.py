"""The table of features (bundles/features.toml): what to ask of a runtime, and where it shows that it was done."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from harness.errors import InputError
from harness.oci.recipe import data_root

# {name without RLIMIT_: (title in /proc/PID/limits, a value that harms no small process and needs no capability)}
RLIMITS: Final = {
    "AS": ("Max address space", 1 << 40),
    "CORE": ("Max core file size", 0),
    "CPU": ("Max cpu time", 3600),
    "DATA": ("Max data size", 1 << 39),
    "FSIZE": ("Max file size", 1 << 40),
    "LOCKS": ("Max file locks", 1000),
    "MEMLOCK": ("Max locked memory", 65536),
    "MSGQUEUE": ("Max msgqueue size", 800000),
    "NICE": ("Max nice priority", 0),
    "NOFILE": ("Max open files", 1000),
    "NPROC": ("Max processes", 5000),
    "RSS": ("Max resident set", 1 << 40),
    "RTPRIO": ("Max realtime priority", 0),
    "RTTIME": ("Max realtime timeout", 1000000),
    "SIGPENDING": ("Max pending signals", 5000),
    "STACK": ("Max stack size", 8388608),
}


class _See(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """One place to look at."""


class Namespace(_See, frozen=True, tag="namespace"):
    of: str


class Proc(_See, frozen=True, tag="proc"):
    file: str
    matches: str


class Link(_See, frozen=True, tag="link"):
    file: str
    matches: str


class Mount(_See, frozen=True, tag="mount"):
    at: str
    has: list[str] = []
    lacks: list[str] = []
    propagation: str | None = None


class Shell(_See, frozen=True, tag="shell"):
    run: str
    matches: str


class Cgroup(_See, frozen=True, tag="cgroup"):
    controller: str
    matches: str
    v1: str | None = None
    v2: str | None = None


class Hook(_See, frozen=True, tag="hook"):
    of: str


class Capability(_See, frozen=True, tag="capability"):
    set: str
    name: str


class Rlimit(_See, frozen=True, tag="rlimit"):
    of: str


class Listener(_See, frozen=True, tag="listener"):
    pass


See = Namespace | Proc | Link | Mount | Shell | Cgroup | Hook | Capability | Rlimit | Listener


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    group: str
    name: str
    each: list[str] = []
    declared: str | None = None
    value: str | None = None
    set: list[tuple[str, Any]] = []
    see: list[See] = []
    needs: list[str] = []
    alone: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    feature: list[dict[str, Any]]


class Feature(Struct, frozen=True):
    """One row. `declared`: (pointer into the features document, what the list there has; None: it is true)."""

    group: str
    name: str
    declared: tuple[str, str | None] | None
    settings: tuple[tuple[str, Any], ...]
    see: tuple[See, ...]
    needs: tuple[str, ...]
    alone: bool

    @property
    def key(self) -> str:
        return f"{self.group}: {self.name}"


def substituted(value: Any, words: dict[str, Any]) -> Any:
    """`value` with ${word} replaced in every string; a string that is nothing else becomes the word's own value."""
    if isinstance(value, str):
        whole = re.fullmatch(r"\$\{(\w+)\}", value)
        if whole and whole[1] in words:
            return words[whole[1]]
        return re.sub(r"\$\{(\w+)\}", lambda match: str(words.get(match[1], match[0])), value)
    if isinstance(value, list):
        return [substituted(each, words) for each in value]
    if isinstance(value, dict):
        return {str(substituted(key, words)): substituted(each, words) for key, each in value.items()}
    return value


@cache
def load_features() -> tuple[Feature, ...]:
    """All rows, `each` spelled out. Raises InputError for a file that is not in the form."""
    file = data_root() / "features.toml"
    try:
        entries = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), _File).feature
        return tuple(feature for entry in entries for feature in _spelled_out(entry))
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InputError(f"{file}: {error}") from None


def _spelled_out(entry: dict[str, Any]) -> list[Feature]:
    found = []
    for each in entry.get("each") or [None]:
        words = {} if each is None else {"each": each, **({"rlimit": RLIMITS[each][1]} if each in RLIMITS else {})}
        plain = {key: value for key, value in entry.items() if key != "each"}
        made = msgspec.convert(substituted(plain, words), _Entry)
        declared = None if made.declared is None else (made.declared, made.value)
        found.append(
            Feature(made.group, made.name, declared, tuple(made.set), tuple(made.see), tuple(made.needs), made.alone)
        )
    return found
