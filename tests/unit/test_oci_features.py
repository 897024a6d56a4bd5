"""Parsing of `RUNTIME features`."""

from __future__ import annotations

import json
import re

import pytest

from harness.oci.features import parse_features

# The fields are those of `runc features` of runc 1.1.5, lists cut to one or two words.
RUNC = {
    "ociVersionMin": "1.0.0",
    "ociVersionMax": "1.0.2-dev",
    "hooks": ["prestart", "createRuntime"],
    "mountOptions": ["bind", "rbind"],
    "linux": {
        "namespaces": ["cgroup", "pid"],
        "capabilities": ["CAP_CHOWN"],
        "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True},
        "seccomp": {"enabled": True, "actions": ["SCMP_ACT_ALLOW"], "operators": ["SCMP_CMP_EQ"], "archs": []},
        "apparmor": {"enabled": True},
        "selinux": {"enabled": False},
    },
    "annotations": {"org.opencontainers.runc.version": "1.1.5+ds1"},
}


def test_the_features_of_runc_are_read() -> None:
    """All fields are read; what runc does not say is None; the whole is kept."""
    features = parse_features(json.dumps({**RUNC, "new": {"x": 1}}).encode())
    assert (features.oci_version_min, features.oci_version_max) == ("1.0.0", "1.0.2-dev")
    assert features.hooks == ["prestart", "createRuntime"]
    assert features.mount_options == ["bind", "rbind"]
    assert features.annotations["org.opencontainers.runc.version"] == "1.1.5+ds1"
    assert features.potentially_unsafe_config_annotations is None
    linux = features.linux
    assert linux is not None
    assert linux.cgroup is not None
    assert (linux.cgroup.systemd_user, linux.cgroup.rdma) == (True, None)
    assert linux.seccomp is not None
    assert (linux.seccomp.archs, linux.seccomp.known_flags) == ([], None)
    assert linux.selinux is not None
    assert linux.selinux.enabled is False
    assert linux.intel_rdt is None
    assert features.document["new"] == {"x": 1}


def test_the_fields_of_newer_releases_are_read() -> None:
    """idmap, flags, intelRdt, memoryPolicy, netDevices and unsafe annotations have their attributes."""
    linux = {
        "mountExtensions": {"idmap": {"enabled": True}},
        "seccomp": {"supportedFlags": ["SECCOMP_FILTER_FLAG_LOG"]},
        "intelRdt": {"enabled": True, "monitoring": False},
        "memoryPolicy": {"modes": ["MPOL_BIND"]},
        "netDevices": {"enabled": True},
    }
    document = {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "linux": linux,
        "potentiallyUnsafeConfigAnnotations": ["a."],
    }
    features = parse_features(json.dumps(document).encode())
    read = features.linux
    assert read is not None
    assert read.mount_extensions is not None
    assert read.mount_extensions.idmap is not None
    assert read.mount_extensions.idmap.enabled is True
    assert read.seccomp is not None
    assert read.seccomp.supported_flags == ["SECCOMP_FILTER_FLAG_LOG"]
    assert read.intel_rdt is not None
    assert (read.intel_rdt.monitoring, read.intel_rdt.schemata) == (False, None)
    assert read.memory_policy is not None
    assert read.memory_policy.modes == ["MPOL_BIND"]
    assert read.net_devices is not None
    assert read.net_devices.enabled is True
    assert features.potentially_unsafe_config_annotations == ["a."]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"unknown command features\n", "not JSON: line 1, column 1"),
        (b"", "not JSON: it is empty"),
        (b"[]", "expected an object, found an array"),
        (b'{"ociVersionMin": "1.0.0"}', "/ociVersionMax: missing; expected a string"),
        (b'{"ociVersionMin": "1", "ociVersionMax": "1", "linux": {"cgroup": {"v1": "yes"}}}', "/linux/cgroup/v1"),
        (b" " * (1024 * 1024 + 1), "more than 1048576"),
    ],
)
def test_garbage_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    """What crun 1.8.1 prints, cut text and wrong types give a ValueError of one line."""
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        parse_features(data)
    assert "\n" not in str(caught.value)
