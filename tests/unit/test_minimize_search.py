"""The minimizer without a runtime: the search, what it knows of config.json, where it looks first, what it writes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.diagnosis.anatomy import Anatomy, State
from harness.diagnosis.oracle import Outcome
from harness.diagnosis.reduced import Result, check_directory, default_directory, write_bundle
from harness.diagnosis.reduction import shrink
from harness.diagnosis.suspects import Suspicion
from harness.errors import InputError
from harness.oci import pointer
from harness.oci.recipe import load_recipe
from harness.oci.spec import Config
from harness.oci.validate import validate

# --- the search ---


class Counted:
    """Fails where all of `culprits` are in; counts."""

    def __init__(self, *culprits: int) -> None:
        self.culprits = set(culprits)
        self.tests = 0

    def __call__(self, subset: list[int]) -> bool:
        self.tests += 1
        return self.culprits <= set(subset)


@given(st.integers(1, 60), st.data())
@settings(max_examples=200, deadline=None)
def test_the_search_finds_exactly_the_culprits(size: int, data: st.DataObject) -> None:
    """Wherever they are and however many, in about k log n tests."""
    culprits = data.draw(st.sets(st.integers(0, size - 1), max_size=5))
    fails = Counted(*culprits)
    found = shrink(list(range(size)), fails, likely=data.draw(st.integers(0, 3)))
    assert sorted(found) == sorted(culprits)
    assert fails.tests <= (len(culprits) + 1) * (2 * math.log2(size + 1) + 3)


def test_a_right_guess_costs_two_tests() -> None:
    """With the first suspect alone it fails, and with nothing it does not."""
    fails = Counted(7)
    assert shrink([7, *range(7)], fails, likely=1) == [7]
    assert fails.tests == 2


def test_nothing_needed_costs_one_test() -> None:
    fails = Counted()
    assert shrink(list(range(50)), fails) == []
    assert fails.tests == 1


@given(st.integers(1, 12), st.sets(st.integers(0, 29), max_size=6))
def test_the_limit_is_kept_and_the_answer_still_fails(limit: int, culprits: set[int]) -> None:
    """Cut short, it may hold too much, but never too little."""
    fails = Counted(*culprits)
    found = shrink(list(range(30)), fails, limit=limit)
    assert fails.tests <= limit
    assert culprits <= set(found)


def test_what_fails_otherwise_with_more_does_not_mislead() -> None:
    """Not monotone: 3 masks the failure unless 4 is there; the answer is a set that was seen to fail."""
    seen: list[set[int]] = []

    def fails(subset: list[int]) -> bool:
        some = set(subset)
        answer = 5 in some and (3 not in some or 4 in some)
        if answer:
            seen.append(some)
        return answer

    assert set(shrink(list(range(8)), fails)) in seen


# --- what it knows of config.json ---


def document(*changes: tuple[str, Any], recipe: str = "kubernetes") -> dict[str, Any]:
    config = Config(load_recipe(recipe).config).copy()
    for place, value in changes:
        config.set(place, value)
    return config.document


def composed(anatomy: Anatomy, *units: str) -> dict[str, Any]:
    return anatomy.compose(anatomy.whole(list(units)))[0]


def test_the_skeleton_is_a_valid_config_that_needs_nothing_of_the_original(tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    made = composed(Anatomy(document()))
    (tmp_path / "config.json").write_text(json.dumps(made))
    assert [found for found in validate(tmp_path) if found.severity == "error"] == []
    assert pointer.get(made, "/process/args") == ["/payload"]
    assert [each["type"] for each in made["linux"]["namespaces"]] == ["pid", "mount"]
    assert [each["destination"] for each in made["mounts"]] == ["/proc"]
    assert set(made) == {"ociVersion", "root", "process", "mounts", "linux"}


@pytest.mark.parametrize("recipe", ["default", "kubernetes", "minimal", "shell"])
def test_all_units_together_are_the_original(recipe: str) -> None:
    original = document(("/ociVersion", "1.0.2"), recipe=recipe)
    anatomy = Anatomy(original)
    assert composed(anatomy, *anatomy.units) == original
    assert anatomy.values(anatomy.whole(anatomy.units)) == anatomy.total()


@pytest.mark.parametrize(
    ("unit", "comes_too"),
    [
        ("/hostname", "/linux/namespaces/2"),
        ("/mounts/4", "/linux/namespaces/1"),  # mqueue and ipc
        ("/mounts/5", "/linux/namespaces/4"),  # sysfs and network
        ("/mounts/6", "/linux/namespaces/5"),  # cgroup
        ("/linux/sysctl/net.core.somaxconn", "/linux/namespaces/4"),
        ("/linux/sysctl/kernel.msgmax", "/linux/namespaces/1"),
        ("/linux/resources/memory/swap", "/linux/resources/memory/limit"),
        ("/linux/uidMappings", "/linux/namespaces/6"),
        ("/linux/uidMappings", "/linux/gidMappings"),
        ("/linux/namespaces/6", "/linux/uidMappings"),
        ("/process/args", "/process/env/0"),  # a name that is looked up in $PATH
    ],
)
def test_what_needs_another_thing_brings_it(unit: str, comes_too: str) -> None:
    mapping = [{"containerID": 0, "hostID": 1000, "size": 10}]
    original = document(
        ("/linux/sysctl", {"net.core.somaxconn": "100", "kernel.msgmax": "100"}),
        ("/linux/resources/memory/swap", 2**30),
        ("/linux/namespaces/-", {"type": "user"}),
        ("/linux/uidMappings", mapping),
        ("/linux/gidMappings", mapping),
        ("/process/args", ["sleep", "1"]),
    )
    anatomy = Anatomy(original)
    state = anatomy.whole([unit])
    assert unit in state
    assert comes_too in state
    # and it cannot be taken away from it but for the counterfactual
    assert comes_too in anatomy.without(state, [comes_too])
    assert comes_too not in anatomy.bare(state, comes_too)


def test_an_effective_capability_brings_the_permitted_one() -> None:
    anatomy = Anatomy(document())
    whole = anatomy.whole(["/process/capabilities"])
    places = [f"/process/capabilities/{name}/{index}" for name in ("bounding", "permitted") for index in range(14)]
    assert "/process/capabilities/permitted/3" in anatomy.without(whole, places)
    assert "/process/capabilities/bounding/3" not in anatomy.without(whole, places)


def test_the_members_of_a_mount_stay_together_and_its_options_may_go() -> None:
    mount = {"destination": "/data", "type": "bind", "source": "/srv", "options": ["ro", "rbind"]}
    anatomy = Anatomy(document(("/mounts/-", mount)))
    state = anatomy.without(anatomy.whole(["/mounts/7"]), ["/mounts/7/options/0"])
    made, places = anatomy.compose(state)
    assert made["mounts"][-1] == {**mount, "options": ["rbind"]}
    assert places["/mounts/7"] == "/mounts/1"  # behind the skeleton's /proc
    assert not anatomy.nodes["/mounts/7/source"].optional
    assert not anatomy.nodes["/mounts/7/options/1"].optional


def test_a_container_that_has_become_empty_goes_too() -> None:
    """Without its last part a config is the skeleton again, and so is known already."""
    anatomy = Anatomy(document(("/linux/resources", {"memory": {"limit": -5}})))
    state = anatomy.whole(["/linux/resources/memory/limit"])
    assert anatomy.compose(anatomy.bare(state, "/linux/resources/memory/limit"))[0] == composed(anatomy)


def test_a_denying_filter_without_its_default_allows_and_keeps_its_rules_effective() -> None:
    seccomp = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}
    anatomy = Anatomy(document(("/linux/seccomp", seccomp)))
    state = anatomy.without(anatomy.whole(["/linux/seccomp"]), ["/linux/seccomp/defaultAction"])
    assert anatomy.compose(state)[0]["linux"]["seccomp"] == {**seccomp, "defaultAction": "SCMP_ACT_LOG"}
    # and with its default all of its rules come
    bare = anatomy.without(anatomy.whole(["/linux/seccomp"]), ["/linux/seccomp/syscalls/0"])
    assert "/linux/seccomp/syscalls/0" in bare


def test_a_rule_without_names_goes_and_one_with_a_single_name_is_named_itself() -> None:
    """No runtime takes an empty list there, so the last name is no part of its own."""
    rule = {"names": ["read", "write"], "action": "SCMP_ACT_KILL"}
    anatomy = Anatomy(document(("/linux/seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})))
    names = [f"/linux/seccomp/syscalls/0/names/{index}" for index in range(2)]
    state = anatomy.without(anatomy.whole(["/linux/seccomp"]), ["/linux/seccomp/defaultAction", names[0]])
    assert anatomy.kept(state) == ["/linux/seccomp/syscalls/0"]
    bare = anatomy.compose(anatomy.without(state, [names[1]]))[0]
    assert bare["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("/process/args", "!/process/args"),
        ("/process", "!/process"),
        ("/root", "!/root"),
        ("/linux/namespaces/3", "!/linux/namespaces=mount"),
        ("/mounts/0", "!/mounts=/proc"),
    ],
)
def test_to_lack_what_the_skeleton_has_is_a_part_too(place: str, name: str) -> None:
    original = document()
    pointer.delete(original, place)
    anatomy = Anatomy(original)
    assert name in anatomy.units
    missing = composed(anatomy, name)
    whole = composed(anatomy)
    assert missing != whole
    assert len(json.dumps(missing)) < len(json.dumps(whole))
    assert anatomy.kept(anatomy.whole([name])) == [name]


@pytest.mark.parametrize(
    "wrong",
    [
        ("/process", []),
        ("/process/args", "sh"),
        ("/linux", None),
        ("/linux/namespaces", {}),
        ("/linux/namespaces/-", 5),
        ("/mounts", "none"),
        ("/mounts/-", None),
        ("/mounts/-", {"destination": 5, "options": [1, None]}),
        ("/hooks", {"prestart": {"path": 1}}),
        ("/linux/seccomp", {"syscalls": [None], "defaultAction": []}),
        ("/annotations", {"a/b": {"~": []}}),
    ],
)
def test_any_document_is_taken_apart_and_put_together(wrong: tuple[str, Any]) -> None:
    """Values of a wrong type are what a runtime may choke on, so they are parts like others."""
    original = document(("/ociVersion", "1.0.2"), wrong)
    anatomy = Anatomy(original)
    assert composed(anatomy, *anatomy.units) == original
    for unit in anatomy.units:
        state: State = anatomy.whole([unit])
        anatomy.compose(state)
        assert anatomy.kept(state)


def test_many_places_of_one_unit_are_named_by_what_holds_them() -> None:
    anatomy = Anatomy(document())
    assert anatomy.kept(anatomy.whole(["/linux/maskedPaths"])) == ["/linux/maskedPaths"]
    two = [f"/linux/maskedPaths/{index}" for index in range(2, 11)]
    state = anatomy.without(anatomy.whole(["/linux/maskedPaths"]), two)
    assert anatomy.kept(state) == ["/linux/maskedPaths/0", "/linux/maskedPaths/1"]


# --- where it looks first ---


@pytest.mark.parametrize(
    ("text", "cause", "change"),
    [
        ("write /x/memory.limit_in_bytes: invalid argument", None, ("/linux/resources/memory/limit", -5)),
        ("writing file `cpu.cfs_quota_us`: Invalid argument", None, ("/linux/resources/cpu/quota", 5)),
        ("sethostname: Invalid argument", "config-invalid", ("/hostname", "h" * 65)),
        ("open `/proc/sys/net/ipv4/nope`: No such file", None, ("/linux/sysctl/net.ipv4.nope", "1")),
        ("executable file `/app/run` not found in $PATH", "exec-not-found", ("/process/args", ["/app/run"])),
        ("error stat'ing file `/no/volume`", None, ("/mounts/7", {"destination": "/d", "source": "/no/volume"})),
        ("write file `oom_score_adj`: Permission denied", None, ("/process/oomScoreAdj", -999)),
        ("setrlimit `RLIMIT_CORE`: Invalid argument", None, ("/process/rlimits/0", {"type": "RLIMIT_CORE"})),
        ("get_seccomp_operator", "seccomp", ("/linux/seccomp", {"defaultAction": "x"})),
    ],
)
def test_the_words_of_a_failure_point_to_its_place(text: str, cause: str | None, change: tuple[str, Any]) -> None:
    place, value = change
    if place.endswith("/0"):
        place, value = place[:-2], [value]
    anatomy = Anatomy(document(("/linux/sysctl", {"net.ipv4.ip_forward": "0"}), (place, value)))
    ordered, likely = Suspicion(text, cause).order((unit, anatomy.nodes[unit].value) for unit in anatomy.units)
    assert ordered[0] == change[0]
    assert likely >= 1


def test_a_text_that_names_nothing_leaves_the_order() -> None:
    units = [("/a", 1), ("/b", {"c": "dd"})]
    assert Suspicion("failed", None).order(units) == (["/a", "/b"], 0)


def test_a_word_inside_of_another_is_no_hint() -> None:
    """/dev is not named by a text that speaks of /dev/mqueue."""
    suspicion = Suspicion("mount `mqueue` to `/dev/mqueue`: Operation not permitted", None)
    assert suspicion.score("/x", "/dev") == 0
    assert suspicion.score("/x", "/dev/mqueue") > 0


# --- the same failure ---


def test_the_same_cause_at_the_same_stage_is_the_same_failure_whatever_the_words() -> None:
    one = Outcome("create", "a", "cgroup-invalid-value", "memory", fields={"errno": "EINVAL", "value": "-5"})
    assert one.same(Outcome("create", "b", "cgroup-invalid-value", "memory", fields={"errno": "EINVAL"}))
    assert not Outcome("start", "a", "cgroup-invalid-value", "memory", fields={"errno": "EINVAL"}).same(one)
    assert not Outcome("create", "a", "cpuset", "memory", fields={"errno": "EINVAL"}).same(one)
    assert not Outcome("create", "a", "cgroup-invalid-value", "cpu", fields={"errno": "EINVAL"}).same(one)
    assert not Outcome("create", "a", "cgroup-invalid-value", "memory", fields={"errno": "EBUSY"}).same(one)
    assert not Outcome(None).same(Outcome(None))


def test_what_has_no_name_is_known_by_its_words_without_paths_and_numbers() -> None:
    one = Outcome("create", "frobnicate /run/oci-harness-x-1/c5/rootfs: code 17")
    assert Outcome("create", "frobnicate /run/oci-harness-x-1/c11/rootfs: code 4").same(one)
    assert not Outcome("create", "defrobnicate /run/oci-harness-x-1/c11/rootfs: code 4").same(one)
    symptom = Outcome("create", "broken pipe", "symptom-only")
    assert not Outcome("create", "connection reset by peer", "symptom-only").same(symptom)
    assert not Outcome("run", exit_status=2).same(Outcome("run", exit_status=1))


# --- what it writes ---


def result(document_: dict[str, Any], source: Path) -> Result:
    return Result(
        "minimized",
        source,
        "runc",
        "1",
        "host",
        Outcome("create"),
        [Outcome("create")],
        document=document_,
        rootfs="copied",
        lower=source,
    )


def test_a_reduced_bundle_has_a_copy_of_the_rootfs_and_what_its_sources_name(tmp_path: Path) -> None:
    source = tmp_path / "web"
    (source / "etc").mkdir(parents=True)
    (source / "etc/app.conf").write_text("x")
    (source / "volume").mkdir()
    mount = {"destination": "/d", "type": "bind", "source": "volume/a"}
    found = result({"root": {"path": "rootfs"}, "mounts": [mount]}, source)
    write_bundle(found, tmp_path / "small")
    assert found.bundle == tmp_path / "small"
    assert (tmp_path / "small/rootfs/etc/app.conf").read_text() == "x"
    assert (tmp_path / "small/volume").readlink() == source / "volume"
    assert Config.load(tmp_path / "small").get("/mounts/0/source") == "volume/a"


def test_a_directory_in_use_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small/mine").write_text("")
    with pytest.raises(InputError, match="is not an empty directory; name a new one with --keep"):
        write_bundle(result({}, tmp_path), tmp_path / "small")
    with pytest.raises(InputError, match="is no directory that can be written to"):
        check_directory(tmp_path / "small/mine/below")
    assert [each.name for each in (tmp_path / "small").iterdir()] == ["mine"]


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    found = result({}, tmp_path / "no rootfs here")
    with pytest.raises(InputError):
        write_bundle(found, tmp_path / "small")
    assert not (tmp_path / "small").exists()
    assert found.bundle is None


def test_the_default_directory_is_the_first_that_is_free(tmp_path: Path) -> None:
    bundle = tmp_path / "web"
    assert default_directory(bundle) == tmp_path / "web-minimal"
    (tmp_path / "web-minimal").mkdir()
    (tmp_path / "web-minimal-2").symlink_to("nowhere")
    assert default_directory(bundle) == tmp_path / "web-minimal-3"


def test_the_json_holds_the_contract() -> None:
    found = result({}, Path("/b")).to_json()
    assert found["schema"] == "oci-harness/minimize/1"
    wanted = {"cause", "kept", "removed_count", "tests_run", "seconds", "bundle", "runtime", "stage", "clause"}
    assert wanted | {"counterfactuals", "skeleton"} <= found.keys()
