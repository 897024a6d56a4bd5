"""Templates: an error text as its program prints it, with placeholders, matched in linear time."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.diagnosis import errnos
from harness.errors import InputError

if TYPE_CHECKING:
    import re2

# name of a placeholder: its kind, where the name is not the kind's own
_KINDS = {
    "path": ("path", "source", "target", "command", "file", "library", "device", "hook", "binary", "directory"),
    "text": ("text", "reason", "properties", "stderr", "any"),
    "word": (
        *(
            "word",
            "name",
            "value",
            "limit",
            "user",
            "group",
            "id",
            "unit",
            "sysctl",
            "capability",
            "syscall",
            "controller",
        ),
        *("type", "option", "profile", "label", "flag", "field", "version", "namespace", "status", "image", "signal"),
    ),
    "int": ("int", "pid", "uid", "gid", "code", "fd", "index", "rlimit", "line"),
    "cgroup": ("cgroup",),
    "errno": ("errno",),
}
KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}
_CGROUP_FILE = (
    r"(?:cgroup|cpu|cpuacct|cpuset|memory|pids|io|blkio|devices|freezer|hugetlb|net_cls|net_prio|perf_event|rdma|misc)"
    r"\.[\w.]*\w|tasks|notify_on_release|release_agent"
)
_QUOTED = r"\"+[^\"]+\"+|`[^`']+[`']|'[^']+'"
# Bare: no white space; after a slash also single blanks, but never the ": " that ends a clause.
_BARE = r"(?:[a-z]:)?/(?:[^\":\s]|:[^\":\s]| [^\":\s])*?|[^\s\"'`:][^\s\"]*?"
_BARE_LAST = r"[^\s\"'`][^\s\"'`]*"
# kind: (the expression, the same at the end of a template, where nothing that follows says when to stop)
_EXPRESSIONS = {
    "path": (rf"{_QUOTED}|{_BARE}", rf"{_QUOTED}|{_BARE_LAST}"),
    "text": (r".*?", r".*"),
    "word": (r"[\"'`]*[\w.+@/:=~,?%*-]+?[\"'`]*", r"[\"'`]*[\w.+@/:=~,?%*-]+[\"'`]*"),
    "int": (r"[\"'`]?-?\d+[\"'`]?", r"[\"'`]?-?\d+[\"'`]?"),
    "cgroup": (rf"[\"'`]?(?:[^\s\"'`]*/)?(?:{_CGROUP_FILE})[\"'`]?",) * 2,
}
_OPENING = ('"', "'", "`")
SHORTEST = 3  # literal characters in a row that a template must have
_END = r"[\s\"'`.,;:!)\]}]*$"  # {$}: nothing follows
_TOKEN = re.compile(r"\\(?P<plain>.)|\{(?P<field>[^{}]+)\}|<(?P<choice>[^<>]*)>|(?P<literal>[^\\{}<>]+)")


class Match(Struct, frozen=True):
    """Where a template was found in a reading's text, and what its placeholders stand for."""

    start: int
    end: int
    fields: dict[str, str]


class Template:
    """One template. Compiled when it is first used: of a thousand, a message needs a few."""

    def __init__(self, source: str, where: str) -> None:
        """Raises InputError, naming `where`, if the template is not in its language."""
        self.source = source
        self.fields: list[tuple[str, str]] = []  # name and kind, in the order of the groups
        self.open_end = False  # it ends in a placeholder that takes all there is
        self.opening = ""  # the literal text that it begins with
        self.literal = 0  # characters that must be there as they are: how specific it is
        # literal texts of which one each is in every text that matches; the most telling group first
        self.required: list[frozenset[bytes]] = []
        self._parts: list[str] = []
        self._parse(where)

    def _parse(self, where: str) -> None:
        tokens = list(_TOKEN.finditer(self.source))
        if "".join(token[0] for token in tokens) != self.source or not tokens:
            raise InputError(f"{where}: {self.source!r} is no template: a <, >, {{ or }} without its other half")
        run = ""
        groups: list[list[str]] = []
        for token in tokens:
            last = token is tokens[-1]
            if token["field"] == "$":
                self._parts.append(_END)
            elif token["field"] is not None:
                self._parts.append(self._field(token["field"], last, where))
                if self.fields[-1][1] == "errno":
                    named = token["field"].split("|")
                    groups.append(errnos.spellings(tuple(named) if named[0] in errnos.WORDS else errnos.NAMES))
                self.open_end = last and self.fields[-1][1] == "text"
                if token is tokens[0] and self.fields[-1][1] == "text":
                    raise InputError(f"{where}: {self.source!r} begins with {token[0]}: begin with what is to be shown")
            elif token["choice"] is not None:
                choices = [each.lower() for each in token["choice"].split("|")]
                self._parts.append(f"(?:{'|'.join(map(re.escape, choices))})")
                self.literal += min(map(len, choices))
                groups.append(choices)
            else:
                literal = (token["plain"] or token["literal"]).lower()
                self._parts.append(re.escape(literal))
                self.literal += len(literal)
                run += literal
                if token is tokens[0]:
                    self.opening = literal
                continue
            groups.append([run])
            run = ""
        groups.append([run])
        telling = [group for group in groups if min(len(each.strip()) for each in group) >= SHORTEST]
        telling.sort(key=lambda group: (len(group) > 1, -min(map(len, group))))
        self.required = [frozenset(each.encode("ascii", "replace") for each in group) for group in telling]
        if not telling:
            raise InputError(f"{where}: {self.source!r} holds no three literal characters in a row to look for")

    def _field(self, text: str, last: bool, where: str) -> str:
        if text[0] == "E" and text.replace("|", "").isalnum() and text.isupper():
            names = tuple(text.split("|"))
            unknown = [name for name in names if name not in errnos.WORDS]
            if unknown:
                raise InputError(f"{where}: {self.source!r}: no error number is known as {unknown[0]}")
            self.fields.append(("errno", "errno"))
            self.literal += 8
            return f"({errnos.pattern(names)})"
        name, _, kind = text.partition(":")
        kind = kind or KIND_OF.get(name, "")
        if kind == "errno":
            self.fields.append((name, kind))
            self.literal += 4
            return f"({errnos.pattern()})"
        if kind not in _EXPRESSIONS:
            allowed = ", ".join([*_EXPRESSIONS, "errno"])
            raise InputError(
                f"{where}: {self.source!r}: {{{text}}} has no kind; write {{{name}:KIND}}, KIND being one of {allowed}"
            )
        self.fields.append((name, kind))
        return f"({_EXPRESSIONS[kind][last]})"

    @cached_property
    def _compiled(self) -> re2._Regexp:
        import re2

        options = re2.Options()
        options.dot_nl = True
        options.log_errors = False
        return re2.compile("".join(self._parts).encode(), options)

    def possible(self, hay: bytes) -> bool:
        """Whether the literal text that it must have is there: a cheap question before the dear one."""
        return all(any(each in hay for each in group) for group in self.required)

    def may_follow(self, hay: bytes, position: int) -> bool:
        """Whether its most telling literal text stands behind a place."""
        return any(hay.find(each, position) >= 0 for each in self.required[0])

    def find(self, text: str, hay: bytes, position: int = 0) -> Match | None:
        """The first place in `text` (`hay`: in lower case, a byte a character) that is as the template says."""
        found = self._compiled.search(hay, position)
        if found is None:
            return None
        fields: dict[str, str] = {}
        for group, (name, kind) in enumerate(self.fields, 1):
            start, end = found.span(group)
            if start < 0:
                continue
            value = text[start:end]
            if kind == "errno":
                value = errnos.name_of(value) or value
            elif kind == "text":
                value = value.strip()
                if value[:1] in _OPENING and value[-1:] == value[:1]:
                    value = value[1:-1]
            else:
                value = value.strip("\"'` ").rstrip(":,;")
                if kind == "cgroup":
                    fields.setdefault("cgroup_file", value.rpartition("/")[2])
                    if "/" in value:
                        fields.setdefault("path", value)
                    continue
            fields[name] = value
        start, end = found.span()
        while end > start and text[end - 1] in " .,;:\"'`":
            end -= 1
        return Match(start, max(end, start + 1), fields)
