"""JSON pointers (RFC 6901)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.oci import pointer

# The document and table of RFC 6901 section 5.
RFC_DOCUMENT: dict[str, Any] = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", RFC_DOCUMENT),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_the_table_of_the_rfc_holds(text: str, value: object) -> None:
    """Each example of RFC 6901 section 5 finds its value."""
    assert pointer.get(RFC_DOCUMENT, text) == value


@settings(max_examples=80, deadline=None, database=None)
@given(st.lists(st.text(alphabet=st.sampled_from("a~/01-*é ="), max_size=4), max_size=5))
def test_parse_undoes_build(tokens: list[str]) -> None:
    """Any names survive the way into a pointer and back."""
    assert pointer.parse(pointer.build(tokens)) == tokens


@settings(max_examples=80, deadline=None, database=None)
@given(st.lists(st.text(alphabet="ab/~", min_size=1, max_size=3), min_size=1, max_size=4), st.integers())
def test_what_was_set_can_be_got_and_deleted(tokens: list[str], value: int) -> None:
    """set makes the parents it needs, get finds the value, delete takes it away."""
    document: dict[str, Any] = {}
    text = pointer.build(tokens)
    pointer.set(document, text, value)
    assert pointer.get(document, text) == value
    pointer.delete(document, text)
    assert pointer.get(document, text, None) is None


@pytest.mark.parametrize("text", ["foo", "/a~2", "/a~", "#/a"])
def test_parse_refuses_what_is_no_pointer(text: str) -> None:
    """A missing slash and a wrong escape give an InputError of one line."""
    with pytest.raises(InputError, match="is no JSON pointer") as caught:
        pointer.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/nope", "has no 'nope'"),
        ("/a/9", "array of 2 and has no index '9'"),
        ("/a/01", "no index '01'"),
        ("/a/-", "no index '-'"),
        ("/a/-1", "no index '-1'"),
        ("/a/" + "9" * 6000, "no index"),
        ("/a/0/x", "/a/0 is number 1 and has nothing inside"),
    ],
)
def test_get_and_delete_say_where_the_way_ends(text: str, reason: str) -> None:
    """A place that is not there gives an InputError with the last place that is, and nothing changes."""
    document = {"a": [1, 2]}
    for call in (pointer.get, pointer.delete):
        with pytest.raises(InputError, match=reason):
            call(document, text)
    assert document == {"a": [1, 2]}


def test_get_returns_the_default_only_where_nothing_is() -> None:
    """A null that is there is returned, not the default."""
    assert pointer.get({"a": None}, "/a", 1) is None
    assert pointer.get({}, "/a", 1) == 1


@pytest.mark.parametrize(
    ("before", "text", "after"),
    [
        ({"a": [1]}, "/a/-", {"a": [1, 9]}),
        ({"a": [1]}, "/a/1", {"a": [1, 9]}),
        ({"a": [1]}, "/a/0", {"a": [9]}),
        ({}, "/a/b", {"a": {"b": 9}}),
        ({}, "/a/-", {"a": [9]}),
        ({}, "/a/0", {"a": {"0": 9}}),
        ({"a": None}, "/a/b", {"a": {"b": 9}}),
        ({"a": [{}]}, "/a/0/b", {"a": [{"b": 9}]}),
        ({"a": []}, "/a/-/b", {"a": [{"b": 9}]}),
        ({"a": 1}, "/a", {"a": 9}),
    ],
)
def test_set_puts_appends_and_makes_parents(before: dict[str, Any], text: str, after: dict[str, Any]) -> None:
    """Objects are made on the way, `-` and the length append, an index replaces."""
    pointer.set(before, text, 9)
    assert before == after


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "whole document"),
        ("/a/3", "no index of an array of 1"),
        ("/a/x", "no index of an array of 1"),
        ("/a/2/b", "no index of an array of 1"),
        ("/s/x/y", "/s is string"),
    ],
)
def test_set_that_cannot_be_changes_nothing(text: str, reason: str) -> None:
    """A failed set leaves the document as it was, with no half-made parents."""
    document = {"a": [1], "s": "text"}
    before = copy.deepcopy(document)
    with pytest.raises(InputError, match=reason):
        pointer.set(document, text, 9)
    assert document == before


def test_delete_takes_items_of_arrays_and_objects() -> None:
    """Later items of an array move up."""
    document = {"a": [1, 2, 3], "b": 1}
    pointer.delete(document, "/a/1")
    pointer.delete(document, "/b")
    assert document == {"a": [1, 3]}


def test_select_matches_any_key_and_index_and_only_the_type() -> None:
    """`*` stands for keys and indexes; a boolean is no integer; wrong shapes are passed over."""
    document = {"m": [{"x": 1}, {"x": "s"}, 5, {"x": True}, {}], "o": {"a/b": {"x": 2}}}
    assert list(pointer.select(document, "/m/*/x", int)) == [("/m/0/x", 1)]
    assert list(pointer.select(document, "/m/*/x", bool)) == [("/m/3/x", True)]
    assert list(pointer.select(document, "/o/*/x", int)) == [("/o/a~1b/x", 2)]
    assert list(pointer.select(document, "/m/1/x", str)) == [("/m/1/x", "s")]
    assert list(pointer.select(document, "/none/*/x", str)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('/process/args=["sh", "-c"]', ("/process/args", ["sh", "-c"])),
        ('/process/env/-="A=b=c"', ("/process/env/-", "A=b=c")),
        ("/hostname=null", ("/hostname", None)),
        ("/a~1b= 5 ", ("/a~1b", 5)),
    ],
)
def test_parse_assignment_splits_at_the_first_equals(text: str, expected: tuple[str, Any]) -> None:
    """The pointer ends at the first =; the rest is JSON."""
    assert pointer.parse_assignment(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/hostname", "there is no ="),
        ("/hostname=box", "not JSON"),
        ("/process/args=[sh]", "not JSON"),
        ("/process/env/-=PATH=1", "not JSON"),
        ("/hostname=", "not JSON"),
        ("/x=NaN", "not JSON"),
        ("hostname=1", "no JSON pointer"),
        ("=1", "pointer is empty"),
    ],
)
def test_parse_assignment_names_the_flag_and_what_is_allowed(text: str, reason: str) -> None:
    """A bad --set gives one line with the text as given and the reason; unquoted strings are not guessed at."""
    with pytest.raises(InputError) as caught:
        pointer.parse_assignment(text)
    message = str(caught.value)
    assert message.startswith(f"--set {text!r}: ")
    assert reason in message
    assert "\n" not in message
