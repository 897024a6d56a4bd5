"""Parsing of `RUNTIME state`."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.oci.state import parse_state

# Printed by `runc state` of runc 1.1.5 after `runc create` of the recipe `true` with one annotation.
RUNC_CREATED = b"""{
  "ociVersion": "1.0.2-dev",
  "id": "ocitry-c1",
  "pid": 10422,
  "status": "created",
  "bundle": "/tmp/ocitry/b",
  "rootfs": "/tmp/ocitry/b/rootfs",
  "created": "2026-11-20T10:05:43.516494899Z",
  "annotations": {
    "a": "b"
  },
  "owner": ""
}"""

# Printed by `crun state` of crun 1.8.1 for the same bundle, after `crun start`, when it had ended.
CRUN_STOPPED = b"""{
    "ociVersion": "1.0.0",
    "id": "ocitry-c1",
    "pid": 0,
    "status": "stopped",
    "bundle": "/tmp/ocitry/b",
    "rootfs": "rootfs",
    "created": "2026-11-20T10:05:43.561924Z",
    "systemd-scope": "",
    "owner": "root",
    "annotations": {
        "a": "b"
    }
}

"""

ANY = st.fixed_dictionaries(
    {key: st.none() | st.integers() | st.text(max_size=3) | st.just("running") for key in ("id", "status", "pid")},
    optional={"annotations": st.none() | st.dictionaries(st.text(), st.text() | st.integers(), max_size=2)},
).map(lambda fields: {"ociVersion": "1.0.0", "bundle": "/b", **fields})


def _printed(**fields: Any) -> bytes:
    good = {"ociVersion": "1.0.0", "id": "c", "pid": 7, "status": "created", "bundle": "/b"}
    return json.dumps({key: value for key, value in {**good, **fields}.items() if value != "ABSENT"}).encode()


def test_what_runc_prints_is_read() -> None:
    """All fields of the spec are read, and unknown ones stay in the document."""
    state = parse_state(RUNC_CREATED)
    assert (state.oci_version, state.id, state.pid, state.status) == ("1.0.2-dev", "ocitry-c1", 10422, "created")
    assert (state.bundle, state.annotations) == ("/tmp/ocitry/b", {"a": "b"})
    assert state.document["rootfs"] == "/tmp/ocitry/b/rootfs"


def test_what_crun_prints_of_a_stopped_container_is_read() -> None:
    """The pid 0 of a stopped container is None, and crun's own fields stay in the document."""
    state = parse_state(CRUN_STOPPED)
    assert (state.oci_version, state.pid, state.status) == ("1.0.0", None, "stopped")
    assert state.document["systemd-scope"] == ""


@pytest.mark.parametrize(
    ("fields", "pid"),
    [
        ({"status": "stopped", "pid": 0}, None),
        ({"status": "stopped", "pid": "ABSENT"}, None),
        ({"status": "stopped", "pid": 7}, None),
        ({"status": "creating", "pid": 0}, None),
        ({"status": "creating", "pid": 7}, 7),
        ({"status": "paused"}, 7),
        ({"status": "created"}, 7),
    ],
)
def test_a_pid_is_there_only_with_a_process(fields: dict[str, Any], pid: int | None) -> None:
    """0 and absent are None, and a stopped container has none."""
    assert parse_state(_printed(**fields)).pid == pid


def test_annotations_may_be_null() -> None:
    """null annotations are as good as none."""
    assert parse_state(_printed(annotations=None)).annotations == {}
    assert parse_state(_printed(annotations={"a": "b"})).annotations == {"a": "b"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON: it is empty"),
        (b"container does not exist", "not JSON: line 1, column 1"),
        (RUNC_CREATED[:40], "not JSON"),
        (b"[]", "expected an object, found an array"),
        (b"null", "expected an object, found null"),
        (_printed(id="ABSENT"), "/id: missing"),
        (_printed(status="ABSENT"), "/status: missing"),
        (_printed(bundle="ABSENT"), "/bundle: missing"),
        (_printed(ociVersion="ABSENT"), "/ociVersion: missing"),
        (_printed(pid="7"), '/pid: expected an integer, found string "7"'),
        (_printed(pid=True), "/pid: expected an integer, found boolean true"),
        (_printed(pid=1.5), "/pid: expected an integer, found number 1.5"),
        (_printed(pid=-1), "/pid: number -1 is no process id"),
        (_printed(pid=2**22 + 1), "/pid: number 4194305 is no process id"),
        (_printed(pid=10**30), "is no process id"),
        (_printed(status="running", pid=0), "/pid: there is none, but the status is running"),
        (_printed(status="created", pid="ABSENT"), "/pid: there is none, but the status is created"),
        (_printed(status="Running"), '/status: string "Running" is not one of'),
        (_printed(id=""), "/id: it is empty"),
        (_printed(annotations={"a": 1}), "/annotations/a: expected a string, found number 1"),
        (b" " * (1024 * 1024 + 1), "more than 1048576"),
    ],
)
def test_garbage_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    """Whatever is wrong gives a ValueError of one line that says it."""
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        parse_state(data)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None, database=None)
@given(st.binary(max_size=200) | ANY.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_state_or_a_value_error(data: bytes) -> None:
    """No other exception comes out, whatever a runtime prints."""
    with contextlib.suppress(ValueError):
        parse_state(data)
