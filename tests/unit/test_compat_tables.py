"""The tables of features and system calls are in their form, and can be used as they are."""

from __future__ import annotations

import os

import pytest

from harness.compat.deny import OLDEST, chosen_calls, load_calls
from harness.compat.feature_cases import Hook, load_features, substituted
from harness.compat.features import _set, chosen_features, is_declared
from harness.errors import InputError
from harness.oci.vocabulary import CAPABILITIES, NAMESPACES, RLIMITS

SPEC_HOOKS = {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}


def test_every_row_is_its_own() -> None:
    """No two rows have the same group and name, and no word of the table is left unreplaced but those of a run."""
    features = load_features()
    keys = [feature.key for feature in features]
    assert len(set(keys)) == len(keys)
    assert not [key for key in keys if "$" in key]
    assert not [feature.key for feature in features if "${each}" in str(feature)]


def test_whole_families_are_there() -> None:
    """Every namespace, capability, rlimit, hook and seccomp action of the runtime-spec has its row."""
    names: dict[str, set[str]] = {}
    for feature in load_features():
        names.setdefault(feature.group, set()).add(feature.name)
    assert names["namespace"] == set(NAMESPACES)
    assert names["capabilities"] >= set(CAPABILITIES)
    assert names["rlimit"] == set(RLIMITS)
    assert names["hook"] == SPEC_HOOKS
    actions = ("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY")
    assert names["seccomp"] >= {f"SCMP_ACT_{name}" for name in actions}


def test_substitution() -> None:
    """A string that is only a word becomes the word's own value, of its own type; others get its text."""
    assert substituted({"${a}": ["${a}", "x${a}", "${b}"]}, {"a": 1}) == {"1": [1, "x1", "${b}"]}


def test_parents_are_made() -> None:
    """A setting makes the objects and arrays above it."""
    document: dict[str, object] = {"linux": {"seccomp": None}}
    _set(document, "/linux/seccomp/syscalls/-", {"names": ["sync"]})
    _set(document, "/hooks/prestart/-", 1)
    assert document == {"linux": {"seccomp": {"syscalls": [{"names": ["sync"]}]}}, "hooks": {"prestart": [1]}}


def test_declared() -> None:
    """In the list, not in the list, and no word for it are three answers."""
    (feature,) = (f for f in load_features() if f.see == (Hook(of="prestart"),))
    assert is_declared(feature, {"hooks": ["prestart"]}) is True
    assert is_declared(feature, {"hooks": []}) is False
    assert is_declared(feature, {}) is None
    assert is_declared(feature, None) is None


def test_groups() -> None:
    """A group that is not there is refused with those that are."""
    assert {feature.group for feature in chosen_features(["hook"])} == {"hook"}
    with pytest.raises(InputError, match="there are namespace, mount"):
        chosen_features(["hooks"])


def test_system_calls() -> None:
    """All are younger than the floor, oldest first, with numbers that are not used twice."""
    calls = list(load_calls().values())
    assert [call.release for call in calls] == sorted(call.release for call in calls)
    assert calls[0].release > tuple(map(int, OLDEST.split(".")))
    assert len({call.number for call in calls}) == len(calls)
    if os.uname().machine == "x86_64":  # from asm/unistd_64.h
        assert (load_calls()["seccomp"].number, load_calls()["openat2"].number) == (317, 437)


def test_chosen_calls() -> None:
    """Names are taken once, in the order given; an unknown or an old one is refused with a line."""
    assert [call.name for call in chosen_calls("openat2, clone3,openat2")] == ["openat2", "clone3"]
    assert len(chosen_calls(None)) == len(load_calls())
    for text in ("mount", "frobnicate", " ,"):
        with pytest.raises(InputError, match="--deny"):
            chosen_calls(text)
