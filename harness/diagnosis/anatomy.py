"""A config.json taken apart against the skeleton: what differs, in what order it nests, and any subset put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct, field

from harness.diagnosis.skeleton import (
    ATOMIC,
    BIND,
    CAPABILITY_NEEDS,
    FILE_SYSTEMS,
    LACK,
    NEEDS,
    REQUIRED,
    SPINE,
    STAND_IN,
    Document,
    destination,
    is_proc,
    like,
    matches,
)
from harness.oci import pointer as json_pointer
from harness.oci.document import copied
from harness.oci.rules_linux import NEEDS_NAMESPACE, SYSCTL_NAMESPACES
from harness.oci.version import minimum_version

State = frozenset[str]  # pointers of the nodes that are in, ancestors included
Need = Callable[..., None]  # (pointer, *others that it needs); None and what is not there are passed over
NAMED: Final = 3  # places of one unit are named one by one, not more


class Node(Struct):
    """One place of the document. A leaf's value goes with it whole, also where that is an object or an array."""

    pointer: str
    value: Any
    parent: str | None
    optional: bool  # inside a unit: may go while the rest of it stays
    children: list[str] = field(default_factory=list)


class Anatomy:
    """A config.json taken apart against the skeleton. Pointers are those of the original document."""

    def __init__(self, document: Document, *, own_rootfs: bool = True) -> None:
        """`own_rootfs`: its root.path leads to a directory, so to keep that means to use the directory as it is."""
        self._own_rootfs = own_rootfs
        self.document = document
        self.nodes: dict[str, Node] = {}
        self.units: list[str] = []  # in document order, then what it lacks
        self._spine: list[str] = []  # containers of units, parents first
        self._arrays: dict[str, None] = {}  # inside of units, or units; parents first
        self._given: set[str] = set()  # what it has in common with the skeleton
        self._walk((), document, None, in_unit=False, optional=False)
        self._lacks()
        self._units = frozenset(self.units)
        self._places = {pointer: number for number, pointer in enumerate(self.nodes)}
        self._needs = self._all_needs()

    # --- taking apart ---

    def _walk(self, tokens: tuple[str, ...], value: Any, parent: str | None, *, in_unit: bool, optional: bool) -> None:
        pointer = json_pointer.build(tokens)
        self.nodes[pointer] = Node(pointer, value, parent, optional)
        if parent is not None:
            self.nodes[parent].children.append(pointer)
        if not in_unit:
            if self._is_given(pointer, value):
                self._given.add(pointer)
                return
            in_unit = not self._is_spine(pointer, value)
            (self.units if in_unit else self._spine).append(pointer)
        if not value or not isinstance(value, dict | list) or matches(pointer, ATOMIC):
            return
        if in_unit and isinstance(value, list):
            self._arrays[pointer] = None
        required = self._required(pointer, value)
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            self._walk((*tokens, str(key)), child, pointer, in_unit=in_unit, optional=key not in required)

    def _is_spine(self, pointer: str, value: Any) -> bool:
        if not value:
            return False
        if any(isinstance(value, kind) and like(pointer, pattern) for pattern, kind in SPINE):
            return True
        return is_proc(pointer, value)

    def _is_given(self, pointer: str, value: Any) -> bool:
        """Whether the skeleton has it as well."""
        if like(pointer, "/linux/namespaces/*"):
            same = [place for place in self._given if like(place, "/linux/namespaces/*")]
            twice = any(self.nodes[place].value == value for place in same)
            return value in STAND_IN["linux"]["namespaces"] and not twice
        mount, _, member = pointer.rpartition("/")
        if member in ("destination", "type", "source") and like(mount, "/mounts/*"):
            return is_proc(mount, self.nodes[mount].value)
        if pointer == "/process/user" and isinstance(value, dict):
            return {key: each for key, each in value.items() if each not in (None, [])} == {"uid": 0, "gid": 0}
        return pointer == "/process/cwd" and value == STAND_IN["process"]["cwd"]

    @staticmethod
    def _required(pointer: str, value: Any) -> set[str | int]:
        found: set[str | int] = set()
        for pattern, names in REQUIRED:
            if like(pointer, pattern):
                found |= names
        if isinstance(value, list) and like(pointer, "/mounts/*/options"):
            found |= {index for index, option in enumerate(value) if option in BIND}
        if isinstance(value, dict) and like(pointer, "/mounts/*"):
            options = value.get("options")
            if isinstance(options, list) and any(option in BIND for option in options):
                found.add("options")
        return found

    def _lacks(self) -> None:
        """What the skeleton has and the document does not: to be without it may be the fault."""

        def look(pointer: str, stand_in: Any, value: Any) -> None:
            for key, each in stand_in.items():
                place = f"{pointer}/{key}"
                if key not in value:
                    self._lack(place)
                elif isinstance(each, dict) and isinstance(value[key], dict):
                    look(place, each, value[key])

        look("", STAND_IN, self.document)
        entries = json_pointer.one(self.document, "/linux/namespaces", list)
        if entries is not None:
            types = {json_pointer.one(entry, "/type", str) for entry in entries}
            for kind in {"pid", "mount"} - types:
                self._lack(f"/linux/namespaces={kind}")
        mounts = json_pointer.one(self.document, "/mounts", list)
        if mounts is not None and not any(destination(mount) == "/proc" for mount in mounts):
            self._lack("/mounts=/proc")

    def _lack(self, place: str) -> None:
        name = LACK + place
        self.nodes[name] = Node(name, None, None, optional=False)
        self.units.append(name)

    # --- what needs what ---

    def _all_needs(self) -> dict[str, set[str]]:
        needs: dict[str, set[str]] = {}

        def need(pointer: str | None, *others: str | None) -> None:
            if pointer is None:
                return
            found = {other for other in others if other is not None and other in self.nodes and other != pointer}
            if pointer in self.nodes and found:
                needs.setdefault(pointer, set()).update(found)

        spaces = self._namespaces()
        for place, kind in NEEDS_NAMESPACE:
            need(place, spaces.get(kind))
        need(spaces.get("user"), "/linux/uidMappings", "/linux/gidMappings")
        for place, _ in json_pointer.select(self.document, "/linux/sysctl/*", str):
            name = place.removeprefix("/linux/sysctl/").replace("~1", ".")
            kinds = [kind for known, kind in SYSCTL_NAMESPACES if _is_or_below(name, known)]
            need(place, *(spaces.get(kind) for kind in kinds[:1]))
        for place, mount in json_pointer.select(self.document, "/mounts/*", dict):
            need(place, spaces.get(FILE_SYSTEMS.get(str(mount.get("type")), "")))
            for option, text in json_pointer.select(mount, "/options/*", str):
                if text in ("idmap", "ridmap"):
                    need(place + option, f"{place}/uidMappings", f"{place}/gidMappings")
        for place, other in NEEDS:
            need(place, other)
        self._command_needs(need)
        for name, others in CAPABILITY_NEEDS:
            for place, capability in json_pointer.select(self.document, f"/process/capabilities/{name}/*", str):
                for other in others:
                    pattern = f"/process/capabilities/{other}/*"
                    same = [at for at, each in json_pointer.select(self.document, pattern, str) if each == capability]
                    need(place, *same)
        if self._own_rootfs:  # the skeleton's program is not in it
            need("/root/path", "/process/args", LACK + "/process/args")
        self._rules_that_allow(need)
        return needs

    def _command_needs(self, need: Need) -> None:
        """A name without a slash is looked up in $PATH."""
        command = json_pointer.get(self.document, "/process/args/0", None)
        if isinstance(command, str) and command and "/" not in command:
            for place, entry in json_pointer.select(self.document, "/process/env/*", str):
                if entry.startswith("PATH="):
                    need("/process/args", place)

    def _rules_that_allow(self, need: Need) -> None:
        """Of a filter that denies what its rules do not allow, fewer make a stricter filter, not a smaller one."""
        action = json_pointer.one(self.document, "/linux/seccomp/defaultAction", str)
        if action not in (None, "SCMP_ACT_ALLOW", "SCMP_ACT_LOG"):
            need("/linux/seccomp/defaultAction", *self._children("/linux/seccomp/syscalls"))

    def _children(self, pointer: str) -> list[str]:
        return self.nodes[pointer].children if pointer in self.nodes else []

    def _namespaces(self) -> dict[str, str]:
        """{type: pointer}, without those that the skeleton has anyway."""
        found: dict[str, str] = {}
        for place, kind in json_pointer.select(self.document, "/linux/namespaces/*/type", str):
            found.setdefault(kind, place.rpartition("/")[0])
        return {kind: place for kind, place in found.items() if place not in self._given}

    def needs(self, pointer: str) -> set[str]:
        """What `pointer` is another thing without."""
        return self._needs.get(pointer, set())

    # --- states ---

    def subtree(self, pointer: str) -> set[str]:
        found, waiting = set(), [pointer]
        while waiting:
            at = waiting.pop()
            found.add(at)
            waiting += self.nodes[at].children
        return found

    def unit_of(self, pointer: str) -> str:
        """The unit that a node is part of; itself outside of units."""
        return next((each for each in (pointer, *self._above(pointer)) if each in self._units), pointer)

    def whole(self, pointers: list[str]) -> State:
        """These with all that is in them, all that they need, and what the skeleton has anyway."""
        return self.closed(set().union(*(self.subtree(each) for each in pointers)))

    def without(self, state: State, pointers: list[str]) -> State:
        """`state` without these and what is in them; but what others need comes back."""
        return self.closed(self._trimmed(set(state).difference(*(self.subtree(each) for each in pointers))))

    def bare(self, state: State, pointer: str) -> State:
        """`state` without one place, whatever else needs it: for the counterfactual."""
        return frozenset(self._trimmed(set(state) - self.subtree(pointer)))

    def _trimmed(self, state: set[str]) -> set[str]:
        """Without what has become empty: containers of units, and arrays that may go.

        An array without elements is not a smaller one but another setting: no mapping, no name. One that is required
        takes along what requires it.
        """
        for each in reversed(self._arrays):
            node = self.nodes[each]
            if each in state and not any(child in state for child in node.children):
                gone = each if node.optional or node.parent is None else node.parent
                state -= self.subtree(gone) if self.nodes[gone].optional else set()
        for each in reversed(self._spine):
            if each in state and not any(child in state for child in self.nodes[each].children):
                state.discard(each)
        return state

    def closed(self, pointers: set[str]) -> State:
        state: set[str] = set()
        waiting = [*pointers, *self._given]
        while waiting:
            at = waiting.pop()
            if at in state:
                continue
            state.add(at)
            parent = self.nodes[at].parent
            waiting += [] if parent is None else [parent]
            waiting += [each for need in self.needs(at) - pointers if need not in state for each in self.subtree(need)]
            waiting += [each for each in self.nodes[at].children if not self.nodes[each].optional]
        return frozenset(state)

    def chosen(self, state: State) -> list[str]:
        """The units of a state, in document order."""
        return [unit for unit in self.units if unit in state]

    def kept(self, state: State) -> list[str]:
        """What to name: of each unit the optional places that are still in it, else the unit; document order.

        Many of one unit are named by what holds them.
        """
        found: list[str] = []
        for unit in self.chosen(state):
            inside = {each for each in self.subtree(unit) & state if self.nodes[each].optional} - {unit}
            inside -= self._last(inside, state)
            named = inside - {above for each in inside for above in self._above(each)}
            while len(named) > NAMED:
                depth = max(each.count("/") for each in named)
                named = {(self.nodes[each].parent or unit) if each.count("/") == depth else each for each in named}
                named = {each for each in named if named.isdisjoint(self._above(each))}
            found += sorted(named, key=self._places.__getitem__) or [unit]
        return found

    def _last(self, places: set[str], state: State) -> set[str]:
        """Those that are the only element left of an array that must be there: they go with what holds that."""
        arrays = {self.nodes[each].parent for each in places} & self._arrays.keys()
        left = [[child for child in self.nodes[each].children if child in state] for each in arrays if each is not None]
        return {
            each[0] for each in left if len(each) == 1 and not self.nodes[self.nodes[each[0]].parent or ""].optional
        }

    def _above(self, pointer: str) -> list[str]:
        found = []
        at = self.nodes[pointer].parent
        while at is not None:
            found.append(at)
            at = self.nodes[at].parent
        return found

    def needed(self, state: State) -> set[str]:
        """What some part of a state needs."""
        return set().union(*(self.needs(each) for each in state))

    def values(self, state: State) -> int:
        """How many single values of the original are in."""
        return sum(
            _count(self.nodes[each].value) for each in state if not self.nodes[each].children and each[:1] != LACK
        )

    def total(self) -> int:
        return _count(self.document)

    # --- putting together ---

    def compose(self, state: State) -> tuple[Document, dict[str, str]]:
        """The config.json of a state, without cgroupsPath unless kept; and where the kept places are in it."""
        places: dict[str, str] = {}
        lacks = {each.removeprefix(LACK) for each in state if each.startswith(LACK)}
        shift = 0 if "/mounts=/proc" in lacks or "/mounts" in lacks or self._has_proc(state) else 1
        made = self._prune("", "", state, places, shift)
        document: Document = made if isinstance(made, dict) else {}
        _fill(document, STAND_IN, "", lacks)
        if "/mounts" not in lacks and shift and isinstance(mounts := document.setdefault("mounts", []), list):
            mounts.insert(0, copied(STAND_IN["mounts"][0]))
        seccomp = json_pointer.one(document, "/linux/seccomp", dict)
        if seccomp is not None and "/linux/seccomp/defaultAction" in self.nodes:
            # what allows all, and yet does not make a rule that allows superfluous: runtimes pass over such a rule
            allows = self.nodes["/linux/seccomp/defaultAction"].value == "SCMP_ACT_ALLOW"
            seccomp.setdefault("defaultAction", "SCMP_ACT_ALLOW" if allows else "SCMP_ACT_LOG")
        linux = document.get("linux")
        if isinstance(linux, dict) and not {"/linux", "/linux/namespaces"} & lacks:
            entries = linux.setdefault("namespaces", [])
            if isinstance(entries, list):
                types = {json_pointer.one(entry, "/type", str) for entry in entries}
                entries += [
                    copied(entry)
                    for entry in STAND_IN["linux"]["namespaces"]
                    if entry["type"] not in types and f"/linux/namespaces={entry['type']}" not in lacks
                ]
        if document.get("ociVersion") == "" and "/ociVersion" not in state:
            document["ociVersion"] = minimum_version(document)
        return document, places

    def _has_proc(self, state: State) -> bool:
        return any(
            each in state and destination(self.nodes[each].value) == "/proc" for each in self._children("/mounts")
        ) or ("/mounts" in state and not isinstance(self.nodes["/mounts"].value, list))

    def _prune(self, pointer: str, new: str, state: State, places: dict[str, str], shift: int) -> Any:
        node = self.nodes[pointer]
        places[pointer] = new
        if not node.children:
            return copied(node.value)
        kept = [child for child in node.children if child in state]
        if isinstance(node.value, list):
            first = shift if pointer == "/mounts" else 0
            return [self._prune(each, f"{new}/{first + at}", state, places, shift) for at, each in enumerate(kept)]
        names = [(each, each.rpartition("/")[2]) for each in kept]
        return {
            json_pointer.parse(f"/{name}")[0]: self._prune(each, f"{new}/{name}", state, places, shift)
            for each, name in names
        }


def shown(pointer: str) -> tuple[str, str | None]:
    """(JSON pointer, what is missing there) of a node's name."""
    if not pointer.startswith(LACK):
        return pointer, None
    place, _, entry = pointer.removeprefix(LACK).partition("=")
    return place, f"no entry {entry}" if entry else "missing"


def _fill(document: Document, stand_in: Document, pointer: str, lacks: set[str]) -> None:
    """Put in what the skeleton has and `document` has not; arrays are filled by compose()."""
    for key, each in stand_in.items():
        place = f"{pointer}/{key}"
        if place in lacks or (isinstance(each, list) and key != "args"):
            continue
        if key not in document:
            document[key] = {} if isinstance(each, dict) else copied(each)
        if isinstance(each, dict) and isinstance(document[key], dict):
            _fill(document[key], each, place, lacks)


def _count(value: Any) -> int:
    """Single values: an empty object or array counts as one."""
    if isinstance(value, dict | list) and value:
        return sum(map(_count, value.values() if isinstance(value, dict) else value))
    return 1


def _is_or_below(name: str, known: str) -> bool:
    return name.startswith(known) if known.endswith(".") else name == known
