"""minimum_version: which ociVersion a document needs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.oci import pointer
from harness.oci.recipe import load_recipe, recipe_names
from harness.oci.version import NEEDS, Need, minimum_version, release


def _using(pattern: str, value: Any) -> dict[str, Any]:
    """A document with one place that matches `pattern`."""
    document: dict[str, Any] = {}
    pointer.set(document, pattern.replace("/*", "/-"), value)
    return document


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: f"{need.pattern}-{need.version}")
def test_each_row_raises_the_version(need: Need) -> None:
    """A document that uses nothing but the field of a row needs at least that row's version."""
    for value in sorted(need.values or {"x"}):
        assert release(minimum_version(_using(need.pattern, value))) >= release(need.version)


@pytest.mark.parametrize(
    ("text", "value", "version"),
    [
        ("/domainname", "d", "1.1.0"),
        ("/linux/namespaces/-/type", "time", "1.1.0"),
        ("/linux/namespaces/-/type", "pid", "1.0.2"),
        ("/linux/resources/unified", {"memory.max": "1"}, "1.1.0"),
        ("/linux/resources/cpu/idle", 0, "1.1.0"),
        ("/linux/resources/memory/checkBeforeUpdate", False, "1.1.0"),
        ("/linux/seccomp/defaultAction", "SCMP_ACT_LOG", "1.0.2"),
        ("/linux/seccomp/defaultAction", "SCMP_ACT_KILL_PROCESS", "1.1.0"),
        ("/mounts/-/uidMappings", [], "1.1.0"),
        ("/mounts/-/options", ["bind", "idmap"], "1.2.0"),
        ("/mounts/-/options", ["bind", "ro"], "1.0.2"),
        ("/process/execCPUAffinity", {}, "1.2.1"),
        ("/linux/seccomp/architectures", ["SCMP_ARCH_LOONGARCH64"], "1.2.1"),
        ("/linux/netDevices", {}, "1.3.0"),
        ("/linux/memoryPolicy", {"mode": "MPOL_LOCAL"}, "1.3.0"),
        ("/process/user/umask", 18, "1.0.2"),
        ("/hooks/createRuntime", [], "1.0.2"),
        ("/linux/resources/rdma", {}, "1.0.2"),
        ("/mounts/-/gidMappings", [], "1.1.0"),
        ("/process/scheduler", {}, "1.1.0"),
        ("/process/ioPriority", {}, "1.1.0"),
        ("/linux/timeOffsets", {}, "1.1.0"),
        ("/linux/resources/cpu/burst", 0, "1.1.0"),
        ("/linux/intelRdt/enableCMT", True, "1.1.0"),
        ("/linux/intelRdt/enableMBM", True, "1.1.0"),
        ("/linux/seccomp/defaultErrnoRet", 1, "1.1.0"),
        ("/linux/seccomp/listenerPath", "/s", "1.1.0"),
        ("/linux/seccomp/listenerMetadata", "m", "1.1.0"),
        ("/linux/seccomp/syscalls/-/errnoRet", 1, "1.1.0"),
        ("/linux/seccomp/syscalls/-/action", "SCMP_ACT_NOTIFY", "1.1.0"),
        ("/linux/seccomp/flags", ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], "1.1.0"),
        ("/linux/seccomp/architectures", ["SCMP_ARCH_RISCV64"], "1.1.0"),
        ("/zos", {}, "1.1.0"),
        ("/windows/resources/cpu/affinity", [], "1.2.1"),
        ("/zos/namespaces", [], "1.2.1"),
        ("/linux/intelRdt/schemata", [], "1.3.0"),
        ("/linux/intelRdt/enableMonitoring", True, "1.3.0"),
        ("/linux/intelRdt/l3CacheSchema", "L3:0=f", "1.0.2"),
        ("/vm/hwConfig", {}, "1.3.0"),
        ("/vm/hwconfig", {}, "1.3.0"),
        ("/vm/kernel", {}, "1.0.2"),
        ("/freebsd", {}, "1.3.0"),
        ("/unknown", 1, "1.0.2"),
        ("/domainname", None, "1.0.2"),
    ],
)
def test_known_fields_need_their_release(text: str, value: object, version: str) -> None:
    """Fields need the release of runtime-spec that brought them; null and unknown need none."""
    document: dict[str, Any] = {}
    pointer.set(document, text, value)
    assert minimum_version(document) == version


def test_the_newest_need_wins() -> None:
    """Of several fields the one with the newest version decides, whatever the order."""
    document = {"linux": {"netDevices": {}, "timeOffsets": {}}, "domainname": "d"}
    assert minimum_version(document) == "1.3.0"


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_say_the_version_that_they_need(name: str) -> None:
    """No recipe asks for more than its fields need, so crun 1.8.1 takes them all."""
    config = load_recipe(name).config
    assert config["ociVersion"] == minimum_version(config)
    assert release(config["ociVersion"]) < (1, 2, 0)


def test_release_compares_by_number() -> None:
    """1.10.0 is newer than 1.9.0, and a suffix does not count."""
    assert release("1.10.0") > release("1.9.0")
    assert release("1.0.2-dev") == release("1.0.2+x") == (1, 0, 2)


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=3) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["linux", "seccomp", "mounts", "options", "namespaces", "type", "process"]), inner
            )
        ),
        max_leaves=10,
    )
)
def test_minimum_version_never_raises(value: Any) -> None:
    """Whatever the document holds, there is an answer."""
    assert release(minimum_version({"linux": value, "mounts": value, "process": value})) >= (1, 0, 2)
