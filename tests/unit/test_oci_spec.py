"""Config: the document and its typed view."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BundleError, InputError
from harness.oci.spec import Config

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)

# One value in each corner of the spec: JSON names that camel case alone does not give.
CORNERS = {
    "ociVersion": "1.3.0",
    "process": {
        "cwd": "/",
        "user": {"uid": 0, "gid": 0, "additionalGids": [5]},
        "oomScoreAdj": 10,
        "noNewPrivileges": True,
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0-1"},
    },
    "linux": {
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "netDevices": {"eth0": {"name": "c0"}},
        "cgroupsPath": "/a",
        "resources": {
            "blockIO": {"throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 1}], "leafWeight": 10},
            "memory": {"kernelTCP": -1, "disableOOMKiller": True, "checkBeforeUpdate": True},
            "network": {"classID": 7},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 2**64 - 1}],
            "rdma": {"mlx5_1": {"hcaHandles": 3}},
        },
        "intelRdt": {"closID": "g", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "enableCMT": True},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "defaultErrnoRet": 1,
            "syscalls": [{"names": ["a"], "action": "b", "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "x"}]}],
        },
        "timeOffsets": {"monotonic": {"secs": -1}},
    },
    "vm": {"kernel": {"path": "/k"}},
}


@settings(max_examples=50, deadline=None, database=None)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_unknown_fields_survive_parse_and_encode(extra: dict[str, Any]) -> None:
    """parse, then encode keeps arbitrary unknown fields, their values and their order, at the top and below."""
    document = {**extra, "ociVersion": "1.0.2", "linux": {**extra, "cgroupsPath": "/x"}}
    again = Config.parse(Config.parse(json.dumps(document)).encode()).document
    assert again == document
    assert list(again) == list(document)


def test_each_json_name_reaches_its_attribute() -> None:
    """The typed view reads the spec's odd spellings: ID, IO, TCP, OOM, CPU, class."""
    spec = Config(CORNERS).spec
    assert spec.process is not None
    assert spec.process.io_priority is not None
    assert spec.process.io_priority.class_ == "IOPRIO_CLASS_BE"
    assert spec.process.oom_score_adj == 10
    assert spec.process.exec_cpu_affinity is not None
    assert spec.process.exec_cpu_affinity.initial == "0-1"
    linux = spec.linux
    assert linux is not None
    assert linux.uid_mappings is not None
    assert linux.uid_mappings[0].host_id == 1000
    resources = linux.resources
    assert resources is not None
    assert resources.block_io is not None
    assert resources.block_io.throttle_read_iops_device is not None
    assert resources.block_io.throttle_read_iops_device[0].rate == 1
    assert resources.memory is not None
    assert (resources.memory.kernel_tcp, resources.memory.disable_oom_killer) == (-1, True)
    assert resources.network is not None
    assert resources.network.class_id == 7
    assert resources.hugepage_limits is not None
    assert resources.hugepage_limits[0].limit == 2**64 - 1
    assert linux.intel_rdt is not None
    assert (linux.intel_rdt.clos_id, linux.intel_rdt.l3_cache_schema) == ("g", "L3:0=f")
    assert linux.intel_rdt.enable_cmt is True
    assert linux.seccomp is not None
    assert linux.seccomp.syscalls is not None
    assert linux.seccomp.syscalls[0].args is not None
    assert linux.seccomp.syscalls[0].args[0].value_two == 2


def test_absent_is_none() -> None:
    """What the document does not say is None in the view, never an empty value or 0."""
    spec = Config({"ociVersion": "1.0.2", "linux": {"resources": {"memory": {}}}}).spec
    assert spec.mounts is None
    assert spec.linux is not None
    assert spec.linux.resources is not None
    assert spec.linux.resources.memory is not None
    assert spec.linux.resources.memory.limit is None


def test_the_view_follows_set_and_delete() -> None:
    """spec is made once, and made anew after a change."""
    config = Config({"ociVersion": "1.0.2", "hostname": "a"})
    first = config.spec
    assert config.spec is first
    config.set("/hostname", "b")
    assert config.spec.hostname == "b"
    config.delete("/hostname")
    assert config.spec.hostname is None


def test_the_view_of_a_wrong_document_names_every_type_error() -> None:
    """spec raises BundleError with all problems, and the document stays usable."""
    config = Config({"ociVersion": 1, "hostname": 2}, "b/config.json")
    with pytest.raises(BundleError, match=r"^b/config\.json: /ociVersion: expected a string, found number 1") as caught:
        _ = config.spec
    assert [problem.pointer for problem in caught.value.problems] == ["/ociVersion", "/hostname"]
    assert config.get("/hostname") == 2


def test_a_copy_is_deep() -> None:
    """A change of the copy is not seen in the original."""
    config = Config({"ociVersion": "1.0.2", "process": {"args": ["a"]}})
    other = config.copy()
    other.set("/process/args/0", "b")
    assert config.get("/process/args/0") == "a"
    assert other != config


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": 1,\n  "b" 2}', "x.json: not JSON: line 2, column 7"),
        (b'{"ociVersion": "1.0', "x.json: not JSON: line 1, column 16"),
        (b"[1]", "x.json: the top level must be an object, not an array"),
        (b"", "x.json: not JSON: it is empty"),
    ],
)
def test_parse_names_the_file_and_the_place(data: bytes, reason: str) -> None:
    """Bad text gives an InputError of one line with file, line and column."""
    with pytest.raises(InputError) as caught:
        Config.parse(data, "x.json")
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


def test_load_reads_a_file_or_a_bundle(tmp_path: Path) -> None:
    """A directory means its config.json."""
    (tmp_path / "config.json").write_text('{"ociVersion": "1.0.2"}')
    assert Config.load(tmp_path) == Config.load(tmp_path / "config.json") == Config({"ociVersion": "1.0.2"})


def test_load_of_a_missing_file_names_it(tmp_path: Path) -> None:
    """No file gives an InputError with its path."""
    with pytest.raises(InputError, match=r"none/config\.json: cannot be read: No such file"):
        Config.load(tmp_path / "none" / "config.json")


def test_save_writes_what_load_reads_and_leaves_no_other_file(tmp_path: Path) -> None:
    """A save makes exactly one file, with the mode the umask gives."""
    config = Config({"z": 1, "ociVersion": "1.0.2"})
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path).document == config.document
    assert [each.name for each in tmp_path.iterdir()] == ["config.json"]
    (tmp_path / "plain").touch()
    assert (tmp_path / "config.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_save_keeps_mode_and_symbolic_link(tmp_path: Path) -> None:
    """Writing over a file keeps its mode; over a link, it writes where the link points."""
    real = tmp_path / "real.json"
    real.write_text("{}")
    real.chmod(0o600)
    (tmp_path / "config.json").symlink_to("real.json")
    Config({"a": 1}).save(tmp_path / "config.json")
    assert (tmp_path / "config.json").is_symlink()
    assert json.loads(real.read_text()) == {"a": 1}
    assert real.stat().st_mode & 0o777 == 0o600


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    """When the rename cannot be, the temporary file is gone again."""
    target = tmp_path / "config.json"
    target.mkdir()
    (target / "keep").touch()
    with pytest.raises(InputError, match="cannot be written: Is a directory"):
        Config({"a": 1}).save(target)
    assert [each.name for each in tmp_path.iterdir()] == ["config.json"]


def test_a_document_that_json_cannot_say_is_not_written(tmp_path: Path) -> None:
    """NaN put in from Python is an InputError, and no file is made."""
    with pytest.raises(InputError, match="not a JSON value"):
        Config({"a": float("nan")}).save(tmp_path / "config.json")
    assert list(tmp_path.iterdir()) == []
