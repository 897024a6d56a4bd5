"""A config.json as a few changes of a sound one: what is generated, shrunk and kept are the changes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from msgspec import Struct

from harness.errors import InputError
from harness.oci import pointer as json_pointer
from harness.oci.document import copied

Document = dict[str, Any]
Op = Literal["set", "delete", "again"]

# Put before the name of a member, it stands for the same name once more: an object of JSON text may hold it twice.
TWIN: Final = "\0"
_INDEX = re.compile(r"/(?:\d+|-)(?=/|$)")


class Edit(Struct, frozen=True):
    """`set`: the value at a pointer, its parents made; `delete`: takes it away; `again`: its name a second time,
    before the first, with this value."""

    op: Op
    pointer: str
    value: Any = None
    about: str = ""  # the field that is odd in it; "": the one that the pointer leads to

    def __hash__(self) -> int:
        return hash(self.key)  # the value may be an object

    @property
    def field(self) -> str:
        """The field without the numbers of array elements: /mounts/*/destination."""
        return self.about or generalized(self.pointer) + (" (name twice)" if self.op == "again" else "")

    @property
    def key(self) -> str:
        """One text for one change."""
        return json.dumps([self.op, self.pointer, self.value], sort_keys=True)

    def describe(self) -> str:
        shown = json.dumps(self.value, ensure_ascii=True)
        shown = shown if len(shown) <= 90 else shown[:87] + "..."
        told = {"set": f"= {shown}", "delete": "deleted", "again": f"twice, first as {shown}"}
        return f"{self.pointer} {told[self.op]}"

    def to_json(self) -> dict[str, Any]:
        value = {} if self.op == "delete" else {"value": self.value}
        return {"op": self.op, "pointer": self.pointer, **value, "field": self.field}

    @classmethod
    def from_json(cls, value: Any, where: str) -> Edit:
        """Raises InputError, with `where`."""
        if not isinstance(value, dict) or value.get("op") not in ("set", "delete", "again"):
            raise InputError(f'{where}: expected an object with "op" set, delete or again')
        if not isinstance(value.get("pointer"), str):
            raise InputError(f'{where}/pointer: expected a JSON pointer such as "/linux/cgroupsPath"')
        json_pointer.parse(value["pointer"])
        return cls(value["op"], value["pointer"], value.get("value"), str(value.get("field", "")))


def generalized(pointer: str) -> str:
    """A pointer with every number of an array element as *."""
    return _INDEX.sub("/*", pointer)


def apply(document: Document, edits: Iterable[Edit]) -> Document | None:
    """A changed copy; None where a change has nothing to act upon, as after another one."""
    made: Document = copied(document)
    for edit in edits:
        try:
            if edit.op == "delete":
                json_pointer.delete(made, edit.pointer)
            elif edit.op == "set":
                json_pointer.set(made, edit.pointer, copied(edit.value))
            elif not _double(made, edit):
                return None
        except InputError:
            return None
    return made


def _double(document: Document, edit: Edit) -> bool:
    tokens = json_pointer.parse(edit.pointer)
    parent = json_pointer.get(document, json_pointer.build(tokens[:-1]), None)
    if not isinstance(parent, dict) or tokens[-1] not in parent:
        return False
    members = list(parent.items())
    parent.clear()
    for name, value in members:
        if name == tokens[-1]:
            parent[TWIN + name] = copied(edit.value)
        parent[name] = value
    return True


def encode(document: Mapping[str, Any]) -> bytes:
    """JSON text, ASCII only; twins get their name back."""
    return json.dumps(document, allow_nan=False).replace('"\\u0000', '"').encode("ascii")
