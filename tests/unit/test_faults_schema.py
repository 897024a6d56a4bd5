"""The fault files: what is not in their form is refused with file, key and what is allowed; every file is in it."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.errors import HostError, InputError
from harness.faults import rootfs_steps, schema
from harness.faults.catalogue import Cause, Entry, find_faults, load_catalogue, load_causes, load_fault, parse_fault
from harness.faults.node import VARIABLES, expand, filtered_call
from harness.faults.preconditions import PROBES
from harness.faults.verdict import choose, match_clause

CAUSES = {"no-space": Cause("meaning", ["node"], "tell", "fix")}
GOOD = """
title = "t"
cause = "no-space"
side = "node"
summary = "s"

[[break.config]]
pointer = "/process/args"
value = ["/x"]

[[break.rootfs]]
do = "write"
path = "/x"

[[break.node]]
do = "cgroup"
path = "${run}/x"

[heal]
text = "h"
undo = ["node"]

[[expect]]
runtime = "runc"
clause = "c"
"""


def document() -> dict[str, Any]:
    return tomllib.loads(GOOD)


def refused(changed: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        parse_fault("slug", changed, "x/slug.toml", CAUSES)
    return str(caught.value)


def test_the_good_document_is_taken() -> None:
    entry = parse_fault("slug", document(), "x/slug.toml", CAUSES)
    assert entry.fault.break_.node == [schema.Cgroup(path="${run}/x")]
    assert entry.fault.expect[0].outcome == "fails"


# Where in the good document, the misspelt key, what must be named as allowed there.
TYPOS = [
    ((), "titel", "title"),
    ((), "brake", "break"),
    ((), "exepct", "expect"),
    ((), "need", "needs"),
    (("break",), "nod", "node"),
    (("break",), "raw", "raw_config"),
    (("break", "config", 0), "pointr", "pointer"),
    (("break", "config", 0), "remove", "delete"),
    (("break", "rootfs", 0), "pth", "path"),
    (("break", "rootfs", 0), "txt", "text"),
    (("break", "node", 0), "file", "files"),
    (("break", "node", 0), "freeze", "frozen"),
    (("heal",), "txt", "text"),
    (("heal",), "revert", "undo"),
    (("expect", 0), "claus", "clause"),
    (("expect", 0), "exit_code", "exit_status"),
    (("expect", 0), "leak", "leaks"),
]


@pytest.mark.parametrize(("where", "typo", "allowed"), TYPOS, ids=str)
def test_a_misspelt_key_is_named_with_file_place_and_the_keys_allowed_there(
    where: tuple[str | int, ...], typo: str, allowed: str
) -> None:
    changed = document()
    place: Any = changed
    for step in where:
        place = place[step]
    place[typo] = "x"
    said = refused(changed)
    assert said.startswith("x/slug.toml: ")
    assert typo in said
    assert re.search(rf"allowed there: .*\b{allowed}\b", said), said


# Where, the bad value, what must be named as allowed.
WRONG_VALUES = [
    (("side",), "nod", "node"),
    (("cause",), "no-spaec", "no-space"),
    (("heal", "undo", 0), "nodes", "node"),
    (("expect", 0, "stage"), "creat", "create"),
    (("expect", 0, "outcome"), "fail", "tolerates"),
    (("expect", 0, "leaks"), ["cgroups"], "cgroup"),
    (("break", "rootfs", 0, "do"), "writ", "write"),
    (("break", "node", 0, "do"), "cgrop", "cgroup"),
    (("break", "node", 0), {"do": "tmpfs", "path": "/x", "fill": "byte"}, "bytes"),
    (("break", "node", 0), {"do": "state-file", "change": "cut"}, "truncate"),
    (("break", "node", 0), {"do": "kill-init", "when": "before-start"}, "after-create"),
    (("break", "node", 0), {"do": "fake-runtime", "kind": "absent"}, "missing"),
    (("break", "node", 0), {"do": "deny-syscalls", "names": ["x"], "errno": "EPREM"}, "EPERM"),
]


@pytest.mark.parametrize(("where", "value", "allowed"), WRONG_VALUES, ids=str)
def test_a_value_that_is_none_of_the_choices_is_refused_with_the_choices(
    where: tuple[str | int, ...], value: Any, allowed: str
) -> None:
    changed = document()
    place: Any = changed
    for step in where[:-1]:
        place = place[step]
    place[where[-1]] = value
    said = refused(changed)
    assert said.startswith("x/slug.toml: ")
    assert re.search(rf"allowed there: .*\b{allowed}\b", said), said


@pytest.mark.parametrize("key", ["title", "cause", "side", "summary", "break", "heal", "expect"])
def test_a_missing_key_is_named(key: str) -> None:
    changed = document()
    del changed[key]
    assert f"`{key}`" in refused(changed)


def test_what_makes_no_sense_is_refused_in_words() -> None:
    """A pattern that is none, a failure of which nothing is seen, a heal that mends nothing, half a patch."""
    for change, said in (
        ({"expect": [{"runtime": "runc", "clause": "("}]}, "no regular expression"),
        ({"expect": [{"runtime": "runc"}]}, "say what is seen"),
        ({"heal": {"text": "h"}}, "mends nothing"),
        ({"break": {"config": [{"pointer": "/x"}]}}, "needs either value or delete"),
        ({"break": {"config": [{"pointer": "/x", "value": 1, "delete": True}]}}, "needs either value or delete"),
    ):
        assert said in refused(copy.deepcopy(document()) | change)


def test_a_clause_is_matched_whole_behind_any_wrappers() -> None:
    assert match_clause("b: c", "a: b: c") == "b: c"
    assert match_clause("c", "runc create failed: a; nsexec-1[7]: c") == "c"
    assert match_clause("b", "a: b: c") is None
    assert match_clause("c", "abc") is None
    assert match_clause("", "") == ""
    assert match_clause("", "something") is None


def test_the_first_expectation_whose_conditions_hold_counts() -> None:
    def expect(**conditions: Any) -> schema.Expect:
        return schema.Expect(runtime="runc", clause="c", **conditions)

    old, new, two = expect(before="1.2"), expect(since="1.2", cgroup=1), expect(cgroup=2)
    fault = parse_fault("slug", document(), "x", CAUSES).fault
    fault = msgspec.structs.replace(fault, expect=[old, new, two])
    assert choose(fault, "runc", "1.1.5+ds1", 1) is old
    assert choose(fault, "runc", "1.2.0", 1) is new
    assert choose(fault, "runc", "1.10", 2) is two
    assert choose(fault, "crun", "1.8.1", 1) is None


def test_a_step_in_the_rootfs_never_follows_a_link_out_of_it(tmp_path: Path) -> None:
    outside = tmp_path / "host"
    outside.write_text("host")
    rootfs = tmp_path / "rootfs"
    rootfs.mkdir()
    (rootfs / "link").symlink_to(outside)
    (rootfs / "directory").symlink_to(tmp_path)
    for step in (
        schema.Write(path="/link", text="x"),
        schema.ChangeMode(path="/link", mode=0),
        schema.Write(path="/directory/host", text="x"),
        schema.Remove(path="/directory/host"),
        schema.Write(path="/../host", text="x"),
    ):
        with pytest.raises(HostError, match="leads out of the root file system"):
            rootfs_steps.apply(step, rootfs)
    rootfs_steps.apply(schema.Remove(path="/link"), rootfs)  # the link itself is the rootfs's
    assert outside.read_text() == "host"


def test_calls_of_a_filter_are_named_as_in_their_man_pages() -> None:
    assert filtered_call("unshare(CLONE_NEWUSER)") == f"{filtered_call('unshare')}&{0x10000000}"
    assert filtered_call("prctl(PR_SET_SECCOMP)").endswith("=22")
    with pytest.raises(InputError, match=r"allowed there: .*CLONE_NEWUSER"):
        filtered_call("unshare(CLONE_NEWUSR)")
    with pytest.raises(OSError, match="not implemented"):
        filtered_call("unshair")


# --- the catalogue itself


def entries() -> list[Entry]:
    return list(load_catalogue().values())


def steps(fault: schema.Fault) -> Iterator[schema.NodeStep]:
    yield from fault.break_.node
    yield from fault.heal.node


def strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from strings(each)
        case dict():
            for key, each in value.items():
                yield from strings(key)
                yield from strings(each)


def test_every_file_is_in_form_and_names_a_cause() -> None:
    """Forms, causes and patterns are checked on loading; what is left is that there are enough of them."""
    sides = [entry.fault.side for entry in entries()]
    assert len(sides) >= 100
    assert min(sides.count(side) for side in ("image", "config", "node", "kernel")) >= 8
    assert {entry.fault.cause for entry in entries()} <= set(load_causes())


def test_every_variable_is_known() -> None:
    known = dict.fromkeys(VARIABLES, "x")
    for entry in entries():
        for step in steps(entry.fault):
            extra = {"real": "x"} if isinstance(step, schema.FakeRuntime) else {}
            for text in strings(msgspec.to_builtins(step)):
                expand(text, known | extra)
        for patch in entry.fault.break_.config + entry.fault.heal.config:
            for text in strings(patch.value):
                if "${" in text:
                    expand(text, known)


def test_every_need_names_a_probe() -> None:
    assert {need.partition(":")[0] for entry in entries() for need in entry.fault.needs} <= set(PROBES)


def test_every_denied_call_has_a_number() -> None:
    for entry in entries():
        for step in steps(entry.fault):
            if isinstance(step, schema.DenySyscalls):
                assert all(filtered_call(name) for name in step.names)


def test_a_fault_that_hangs_says_how_long() -> None:
    """Without a deadline of its own an attempt would stand for ten seconds."""
    for entry in entries():
        if any(expect.timed_out for expect in entry.fault.expect):
            assert any(isinstance(step, schema.Deadline) and step.seconds <= 2 for step in steps(entry.fault)), (
                entry.slug
            )


@pytest.mark.parametrize(
    "text",
    [
        "permission denied",
        "Permission denied",
        "something else altogether: operation not permitted",
        "something else altogether: Operation not permitted",
        "something else altogether: no such file or directory",
        "something else altogether: No such file or directory",
        "something else altogether: invalid argument",
        "something else altogether: Invalid argument",
    ],
)
def test_no_clause_is_so_loose_that_a_bare_errno_would_do(text: str) -> None:
    loose = [
        f"{entry.slug}: {expect.clause}"
        for entry in entries()
        for expect in entry.fault.expect
        if expect.clause and match_clause(expect.clause, text) is not None
    ]
    assert loose == []


def test_one_fault_is_found_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, as in the whole; a name that is none, or a path, is none."""
    name = next(iter(load_catalogue()))
    assert load_fault(name) is load_catalogue()[name]
    for other in ("no-such-fault", f"../faults/{name}", ""):
        with pytest.raises(KeyError):
            load_fault(other)
    monkeypatch.setattr("harness.faults.catalogue.load_catalogue", lambda: pytest.fail("all were read"))
    assert [entry.slug for entry in find_faults((name,))] == [name]
