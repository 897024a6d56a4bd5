"""The differential oracle without a runtime: what is generated, what may be run, what counts as the same difference."""

from __future__ import annotations

import json
import tomllib
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compat.differential import bounds, known
from harness.compat.differential.bundled import Units, waiting
from harness.compat.differential.comparison import Difference, background_of, compare
from harness.compat.differential.edits import Document, Edit, apply, encode
from harness.compat.differential.finding import SCHEMA, load_recipe_file
from harness.compat.differential.generate import cases, curated, structural
from harness.compat.differential.known import load_knowledge
from harness.compat.differential.trial import Behaviour
from harness.diagnosis.oracle import Outcome
from harness.errors import InputError
from harness.oci.bundle import Bundle, recipe_config
from harness.oci.recipe import load_recipe

BASE = waiting(recipe_config(load_recipe("pause")).document)
HERE = Path("/nowhere/c/x")


def changed(*edits: Edit) -> Document:
    made = apply(BASE, edits)
    assert made is not None
    return made


def refused(*edits: Edit) -> str | None:
    return bounds.violation(changed(*edits), HERE)


# --- changes ---


def test_a_name_is_written_twice_and_the_first_value_comes_first() -> None:
    text = encode(changed(Edit("again", "/ociVersion", "9.9.9"))).decode()
    assert json.loads(text, object_pairs_hook=lambda pairs: pairs)[:2] == [
        ("ociVersion", "9.9.9"),
        ("ociVersion", BASE["ociVersion"]),
    ]


def test_a_change_with_nothing_to_act_upon_is_none() -> None:
    assert apply(BASE, [Edit("delete", "/linux"), Edit("set", "/linux/0/x", 1), Edit("delete", "/nope")]) is None
    assert apply(BASE, [Edit("again", "/nope", 1)]) is None


def test_the_document_itself_is_never_changed() -> None:
    before = encode(BASE)
    changed(Edit("delete", "/process/args/0"), Edit("set", "/mounts/-", {}), Edit("again", "/root/path", ""))
    assert encode(BASE) == before


def test_a_field_is_the_place_without_numbers_or_what_is_odd_in_the_value() -> None:
    assert Edit("delete", "/mounts/3/options/0").field == "/mounts/*/options/*"
    assert Edit("set", "/linux/devices/-", {}, "/linux/devices/*/type").field == "/linux/devices/*/type"
    assert Edit("again", "/root").field == "/root (name twice)"


@pytest.mark.parametrize(
    "edit", [Edit("set", "/a/0", {"b": [1]}, "/a/*/b"), Edit("delete", "/a~1b"), Edit("again", "/c", "")]
)
def test_a_change_survives_its_file(edit: Edit) -> None:
    read = Edit.from_json(json.loads(json.dumps(edit.to_json())), "x")
    assert read.key == edit.key
    assert read.field == edit.field


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[]", "/schema"),
        (json.dumps({"schema": SCHEMA, "base": "pause"}), "/edits"),
        (json.dumps({"schema": SCHEMA, "base": "pause", "edits": [{"op": "x"}]}), "/edits/0"),
        (json.dumps({"schema": SCHEMA, "base": "pause", "edits": [{"op": "set"}]}), "/edits/0/pointer"),
    ],
)
def test_a_file_that_is_no_kept_difference_is_refused_by_place(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        load_recipe_file(path)


# --- generation ---


def test_the_same_seed_gives_the_same_cases_and_another_one_others() -> None:
    def drawn(seed: int) -> list[list[str]]:
        return [[edit.key for edit in case] for case in islice(cases(BASE, seed), 60)]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_any_seed_meets_the_known_partings_within_a_short_run(seed: int) -> None:
    met = {(edit.field, json.dumps(edit.value)) for case in islice(cases(BASE, seed), 300) for edit in case}
    assert ("/linux/cgroupsPath", '"../../x"') in met
    assert ("/ociVersion", '"9.9.9"') in met
    assert any(field == "/linux/devices/*/type" and '"z"' in value for field, value in met)


def test_every_change_can_be_made_and_said_in_json() -> None:
    decks = [*curated(), *structural(BASE)]
    assert len(decks) > 1500
    for edit in decks:
        json.loads(encode(changed(edit)))


@given(st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_combined_changes_keep_within_the_bounds_or_are_refused(random: Random) -> None:
    """Whatever is combined: what passes names no path, device, hook, sysctl or namespace of the host."""
    decks = [*curated(), *structural(BASE)]
    document = apply(BASE, random.sample(decks, 4))
    if document is None or bounds.violation(document, HERE) is not None:
        return
    text = json.loads(encode(document))
    linux = text.get("linux") if isinstance(text.get("linux"), dict) else {}
    path = linux.get("cgroupsPath")
    if isinstance(path, str) and path != bounds.OWN_PATH:
        marked = bounds.marked_path(path, "oci-harness-x")
        assert marked is not None
        assert all(part in ("", ".", "..") or part.startswith("oci-harness-x-") for part in marked.split("/"))
    if text.get("hostname"):
        assert {"type": "uts"} in linux["namespaces"]
    for mount in text.get("mounts") or [] if isinstance(text.get("mounts"), list) else []:
        source = mount.get("source") if isinstance(mount, dict) else None
        assert not isinstance(source, str) or not source.startswith("/") or source == bounds.NOWHERE


# --- bounds ---


@pytest.mark.parametrize(
    "edits",
    [
        [Edit("set", "/linux/cgroupsPath", path)]
        for path in ("", "/", "..", "../..", "/x/..", "/x/../..", ".", "//", "a/../../b/..")
    ]
    + [
        [Edit("set", "/root/path", "/")],
        [Edit("set", "/root/path", "../../..")],
        [Edit("set", "/process/args", ["/bin/busybox", "reboot"])],
        [Edit("set", "/process/args", ["/bin/rm", "-rf", "/"])],
        [Edit("delete", "/linux/namespaces/3")],  # uts: the host name would be the host's
        [Edit("again", "/linux/namespaces", [])],  # a reader that takes the first
        [Edit("set", "/linux/namespaces/4/path", "/proc/1/ns/mnt")],
        [Edit("set", "/linux/namespaces/1", {"type": "network", "PATH": "/proc/1/ns/net"})],
        [Edit("set", "/linux/sysctl", {"kernel.panic": "1"})],
        [Edit("set", "/linux/sysctl", {"net.ipv4.ip_forward": "1"}), Edit("delete", "/linux/namespaces/1")],
        [Edit("set", "/linux/sysctl", {"net.ipv4.ip_forward": "1"}), Edit("set", "/linux/namespaces/1/type", "net")],
        [Edit("set", "/mounts/-", {"destination": "/d", "source": "/etc", "options": ["bind"]})],
        [Edit("set", "/mounts/-", {"destination": "/d", "source": "../../../../etc", "options": ["bind"]})],
        [Edit("set", "/mounts/-", {"destination": "/d", "Source": "/etc", "options": ["bind"]})],
        [Edit("set", "/mounts/-", {"destination": "/d", "type": "ext4", "source": "none"})],
        [Edit("set", "/mounts/-", {"destination": "/d", "type": "tmpfs", "options": ["lowerdir=/etc"]})],
        [Edit("set", "/linux/devices/-", {"path": "/dev/x", "type": "b", "major": 8, "minor": 0})],
        [Edit("set", "/hooks", {"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", "true"]}]})],
        [Edit("set", "/hooks", {"nope": {"x": [{"path": "/bin/sh"}]}})],
        [Edit("set", "/linux/seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x.sock"})],
        [Edit("set", "/linux/netDevices", {"eth0": {}})],
        [Edit("set", "/linux/resources/unified", {"../../cgroup.procs": "1"})],
        [Edit("set", "/linux/resources/unified", {"cgroup.kill": "1"})],
        [Edit("set", "/annotations", {"run.oci.handler": "krun"})],
    ],
    ids=lambda edits: " ".join(edit.describe() for edit in edits)[:60],
)
def test_what_could_reach_the_host_is_refused(edits: list[Edit]) -> None:
    assert refused(*edits) is not None


@pytest.mark.parametrize(
    "edit",
    [
        Edit("set", "/linux/cgroupsPath", "../../x"),
        Edit("delete", "/linux/cgroupsPath"),
        Edit("set", "/linux/sysctl", {"net.ipv4.ip_forward": "1"}),
        Edit("set", "/linux/devices/-", {"path": "/dev/x", "type": "z", "major": 1, "minor": 3}),
        Edit("set", "/mounts/-", {"destination": "/d", "source": "rootfs/etc", "options": ["bind"]}),
        Edit("set", "/hooks", {"prestart": [{"path": bounds.NOWHERE}]}),
    ],
    ids=lambda edit: edit.describe()[:50],
)
def test_what_is_harmless_may_be_run(edit: Edit) -> None:
    assert refused(edit) is None


def test_a_link_in_the_bundle_does_not_lead_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/etc")
    (tmp_path / "in").mkdir()
    assert not bounds.inside(tmp_path, "out/passwd")
    assert not bounds.inside(tmp_path, "in/../..")
    assert bounds.inside(tmp_path, "in/x")


def test_every_name_of_a_cgroup_path_carries_the_mark() -> None:
    assert bounds.marked_path("../../x", "m") == "../../m-x"
    assert bounds.marked_path("/a/../b/", "m") == "/m-a/../m-b/"
    assert bounds.marked_path("/a/../..", "m") is None


# --- comparison ---


def runs(**facts: str) -> Behaviour:
    return Behaviour(Outcome(None), {name.replace("_", " "): value for name, value in facts.items()})


def test_what_always_differs_is_no_news_and_the_same_fact_in_another_way_is() -> None:
    background = background_of(runs(mount_x="a", mount_y="1"), runs(mount_x="b", mount_y="1"))
    assert compare(runs(mount_x="a"), runs(mount_x="b"), background) == []
    assert compare(runs(mount_x="a"), runs(mount_x="c"), background) == [Difference("mount", {"mount x": ("a", "c")})]


def test_a_fact_that_only_one_shows_counts_unless_one_of_them_shows_none() -> None:
    a, b = runs(process_x="1"), runs()
    assert compare(a, b, {}) == [Difference("process", {"process x": ("1", None)})]
    assert compare(a, b, {}, whole=False) == []


def test_two_failures_differ_by_stage_or_by_named_cause_and_not_by_words() -> None:
    fails = Behaviour(Outcome("create", "a", "mount"))
    assert compare(fails, Behaviour(Outcome("create", "b", "mount")), {}) == []
    assert compare(fails, Behaviour(Outcome("create", "b")), {}) == []
    assert [each.aspect for each in compare(fails, Behaviour(Outcome("create", "b", "cpuset")), {})] == ["cause"]
    assert [each.aspect for each in compare(fails, Behaviour(Outcome("start", "a", "mount")), {})] == ["outcome"]
    assert [each.aspect for each in compare(fails, runs(), {})] == ["outcome"]


def test_what_is_left_behind_is_a_difference_of_its_own() -> None:
    one = Behaviour(Outcome("create", "a"), leaks=("cgroup: RUN/ID",))
    assert [each.aspect for each in compare(one, Behaviour(Outcome("create", "a")), {})] == ["left behind"]


def test_the_same_difference_is_the_same_aspect_in_the_same_way() -> None:
    one = Difference("mount", {"mount /a": ("x", "y"), "mount /b": ("1", "2")})
    assert one.same(Difference("mount", {"mount /b": ("1", "2")}))
    assert not one.same(Difference("mount", {"mount /b": ("1", "3")}))
    assert not one.same(Difference("cgroup", {"mount /b": ("1", "2")}))


# --- knowledge ---


def test_the_shipped_knowledge_is_sound() -> None:
    loaded = load_knowledge()
    assert len(loaded.known) > 40
    aspects = {each for entry in loaded.known for each in entry.aspects}
    assert aspects >= {"outcome", "cause", "cgroup", "mount", "left behind"}
    for entry in loaded.known:
        assert entry.right in {"both", "neither", "unsaid", *entry.says}, entry.id


def entry(**changes: Any) -> known.Known:
    values: dict[str, Any] = {
        "id": "x",
        "fields": ["/ociVersion"],
        "aspects": ["outcome"],
        "what": "",
        "says": {"runc": ["runs"], "crun": ["fails at *"]},
        "right": "crun",
        "why": "",
    }
    return known.Known(**{**values, **changes})


def finds(one: known.Known, field: str, pair: tuple[str, str], said: str = "") -> bool:
    knowledge = known.Knowledge("", {}, (one,), ())
    return knowledge.find((field,), Difference("outcome", {"outcome": pair}), {"runc": "", "crun": said}) is one


def test_a_known_difference_is_known_only_in_its_field_its_way_and_its_words() -> None:
    assert finds(entry(), "/ociVersion", ("runs", "fails at create"))
    assert not finds(entry(), "/ociVersion", ("fails at create", "runs"))
    assert not finds(entry(), "/hostname", ("runs", "fails at create"))
    assert not finds(entry(says={"runc": ["runs"], "runsc": ["*"]}), "/ociVersion", ("runs", "fails at create"))
    worded = entry(text={"crun": "unknown version*"})
    assert finds(worded, "/ociVersion", ("runs", "fails at create"), "unknown version specified")
    assert not finds(worded, "/ociVersion", ("runs", "fails at create"), "another text")


def test_the_spec_text_of_the_most_exact_field_is_told() -> None:
    knowledge = load_knowledge()
    version, other = knowledge.text(("/ociVersion",)), knowledge.text(("/linux/anything",))
    assert version is not None
    assert "SemVer" in version.says
    assert other is not None
    assert other.section == "config.md, Valid values"


def test_a_file_with_an_unknown_key_or_an_id_twice_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "differences.toml"
    whole = Path(str(known.data_root() / known.FILE)).read_text()
    assert tomllib.loads(whole)
    first = whole[whole.index('[[known]]\nid = "dev-core"') :]
    one = first[: first.index("\n\n[[") + 1]
    path.write_text(f"{whole}\n{one}")
    with pytest.raises(InputError, match="dev-core is there twice"):
        load_knowledge(path)
    path.write_text(whole.replace('id = "dev-core"', 'id = "dev-core"\nnope = 1'))
    with pytest.raises(InputError, match=r"differences\.toml.*nope"):
        load_knowledge(path)


# --- a bundle of the user's own ---


def test_a_bundle_is_the_skeleton_with_all_of_its_units(tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    config = recipe_config(load_recipe("default"), (("/process/args", ["/bin/true"]), ("/hostname", "h")))
    config.save(tmp_path / "config.json")
    units = Units(Bundle.load(tmp_path))
    looked_at, whole = units.cases()
    composed = units.apply({}, whole)
    assert composed is not None
    assert composed["process"]["args"] == ["/bin/true"]
    assert composed["hostname"] == "h"
    other = units.apply({}, looked_at)
    assert other is not None
    assert other["process"]["args"] == units.skeleton()["process"]["args"] == ["/payload", "pause"]
    assert composed["linux"]["cgroupsPath"] == bounds.OWN_PATH


def test_a_bundle_without_a_rootfs_is_bad_input(tmp_path: Path) -> None:
    recipe_config(load_recipe("default")).save(tmp_path / "config.json")
    with pytest.raises(InputError, match="/root/path"):
        Units(Bundle.load(tmp_path))
