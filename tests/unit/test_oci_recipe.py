"""Recipes and merge patches."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.oci.recipe import data_root, load_recipe, merge_patch, recipe_names
from harness.oci.spec import Config
from harness.oci.validate import rule_problems, type_problems

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7396 appendix A, all of it
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_table_of_the_rfc_holds(target: Any, patch: Any, result: Any) -> None:
    """Each example of RFC 7396 appendix A gives its result."""
    assert merge_patch(target, patch) == result


@settings(max_examples=80, deadline=None, database=None)
@given(JSON, JSON)
def test_a_patch_put_on_twice_changes_nothing_more(target: Any, patch: Any) -> None:
    """Merging is idempotent, leaves its arguments alone, and {} changes no object."""
    before = copy.deepcopy((target, patch))
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
    assert (target, patch) == before
    assert merge_patch(once, {}) == (once if isinstance(once, dict) else {})


@settings(max_examples=60, deadline=None, database=None)
@given(JSON, st.dictionaries(st.sampled_from("abc"), JSON, max_size=3))
def test_a_patch_decides_each_key_that_it_names(target: Any, patch: dict[str, Any]) -> None:
    """null takes a key away; a value that is no object is there afterwards; other keys stay."""
    merged = merge_patch(target, patch)
    for key, value in patch.items():
        if value is None:
            assert key not in merged
        elif not isinstance(value, dict):
            assert merged[key] == value
    if isinstance(target, dict):
        assert {key: merged[key] for key in target if key not in patch} == {
            key: value for key, value in target.items() if key not in patch
        }


def test_merging_shares_nothing() -> None:
    """A change of the result reaches neither target nor patch."""
    target: dict[str, Any] = {"a": {"x": []}}
    patch: dict[str, Any] = {"b": {"y": []}}
    merged = merge_patch(target, patch)
    merged["a"]["x"].append(1)
    merged["b"]["y"].append(1)
    assert (target, patch) == ({"a": {"x": []}}, {"b": {"y": []}})


# the recipes of this package


@pytest.mark.parametrize("name", recipe_names())
def test_each_recipe_is_a_valid_config(name: str) -> None:
    """Every recipe in the package has a one-line description, no type problem and no finding."""
    recipe = load_recipe(name)
    config = Config(recipe.config)
    assert type_problems(config.document) == []
    assert rule_problems(config, None) == []
    assert recipe.name == name
    assert recipe.description
    assert "\n" not in recipe.description


def test_the_promised_recipes_are_there() -> None:
    """Commands name these, so they must not vanish."""
    assert {"default", "pause", "shell", "true", "minimal", "kubernetes"} <= set(recipe_names())


def test_what_the_recipes_promise() -> None:
    """The values that other parts rely on: arguments, namespaces, no cgroup mount, no rlimits."""
    default = Config(load_recipe("default").config).spec
    assert default.process is not None
    assert default.process.args == ["/payload"]
    assert default.process.rlimits is None
    assert default.mounts is not None
    assert "cgroup" not in {mount.type for mount in default.mounts}
    assert _namespaces("default") == {"pid", "ipc", "uts", "mount", "network"}
    assert _namespaces("minimal") == {"pid", "mount"}
    assert _namespaces("kubernetes") == {"pid", "ipc", "uts", "mount", "network", "cgroup"}
    assert Config(load_recipe("pause").config).get("/process/args") == ["/payload", "pause"]
    assert Config(load_recipe("kubernetes").config).get("/linux/resources/memory/limit") == 256 * 1024 * 1024
    minimal = load_recipe("minimal").config
    assert "hostname" not in minimal
    assert [mount["destination"] for mount in minimal["mounts"]] == ["/proc"]


def _namespaces(name: str) -> set[str]:
    return {each["type"] for each in load_recipe(name).config["linux"]["namespaces"]}


def test_the_data_of_the_checkout_is_found() -> None:
    """Without an installed package the bundles directory beside the harness package is used."""
    assert (data_root() / "recipes" / "default.json").is_file()


# recipe files that someone gets wrong


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "recipes").mkdir()
    _write(tmp_path, "ground", {"description": "d", "config": {"a": {"x": 1, "y": 2}}, "rootfs": {"links": {"l": "t"}}})
    return tmp_path


def _write(root: Path, name: str, value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    (root / "recipes" / f"{name}.json").write_text(text)


def test_bases_are_merged_from_the_ground_up(root: Path) -> None:
    """The named recipe wins over its base, and that over the base's base; rootfs merges too."""
    _write(root, "mid", {"description": "m", "base": "ground", "config": {"a": {"x": 5, "y": None}}})
    _write(root, "top", {"description": "t", "base": "mid", "config": {"a": {"z": 6}}, "rootfs": {"files": {}}})
    recipe = load_recipe("top", root)
    assert recipe.config == {"a": {"x": 5, "z": 6}}
    assert recipe.rootfs == {"links": {"l": "t"}, "files": {}}
    assert (recipe.name, recipe.description) == ("top", "t")


@pytest.mark.parametrize("name", ["nope", "", "../recipes/ground", "ground.json"])
def test_an_unknown_recipe_lists_the_known_ones(root: Path, name: str) -> None:
    """A wrong name, or a path in its place, gives an InputError with the names that there are."""
    _write(root, "other", {"description": "o"})
    with pytest.raises(InputError, match="there is no recipe") as caught:
        load_recipe(name, root)
    assert str(caught.value).endswith("there are ground, other")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"description": "d", "conifg": {}}, "unknown key 'conifg'; allowed are description, base, config, rootfs"),
        ({"config": {}}, "/description is missing"),
        ({"description": "d", "config": []}, "/config: expected an object, found an array"),
        ({"description": 5}, "/description: expected a string, found number 5"),
        ({"description": "d", "base": None}, "/base: expected a string, found null"),
        ([], "the top level must be an object, not an array"),
        ('{"description": "d",\n}', "not JSON: line 2, column 1"),
    ],
)
def test_a_mistake_in_a_recipe_names_file_and_key(root: Path, value: Any, reason: str) -> None:
    """A typo, a wrong type or no JSON gives an InputError of one line with the file."""
    _write(root, "bad", value)
    with pytest.raises(InputError) as caught:
        load_recipe("bad", root)
    assert str(caught.value).startswith(f"{root}/recipes/bad.json: {reason}")
    assert "\n" not in str(caught.value)


def test_bases_in_a_circle_are_refused(root: Path) -> None:
    """A circle gives an InputError that shows it, not an endless loop."""
    _write(root, "a", {"description": "d", "base": "b"})
    _write(root, "b", {"description": "d", "base": "a"})
    with pytest.raises(InputError, match="a -> b -> a"):
        load_recipe("a", root)


def test_an_unknown_base_names_who_asked(root: Path) -> None:
    """The message tells which recipe has the wrong base."""
    _write(root, "a", {"description": "d", "base": "gruond"})
    with pytest.raises(InputError, match=r"no recipe 'gruond' \(base of a\)"):
        load_recipe("a", root)
