"""The whole matrix: two kernels, the cgroup layouts, runc and crun, every fault of the catalogue; and systemd."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from harness.compat.kernels import Kernel
from harness.faults.catalogue import load_catalogue

pytestmark = pytest.mark.slow

Cells = dict[tuple[str, str, str, str], dict[str, Any]]
# What the guides that this project began with name as causes of a failed task creation.
NAMED_BY_GUIDES = frozenset(
    {
        "exec-permission-denied",
        "exec-not-found",
        "exec-format-error",
        "missing-interpreter",
        "mount-source-missing",
        "cgroup-driver-mismatch",
        "cgroup-invalid-value",
        "rootfs-readonly",
        "no-space",
        "apparmor",
        "capability",
        "oom-during-init",
        "cgroup-v1-v2-mismatch",
    }
)


# The conformance cases that need cgroup v2 with all its controllers.
CONFORMANCE = "limit-v2"


@pytest.fixture(scope="module")
def places(old_kernel: Kernel, new_kernel: Kernel) -> dict[str, str]:
    return {"old": old_kernel.release, "new": new_kernel.release}


def start(file: Path, kernels: Iterable[str], views: str, *more: str) -> subprocess.Popen[str]:
    """`oci-harness matrix`, as a user calls it."""
    argv = [sys.executable, "-m", "harness", "matrix", "--view", views, "--runtime", "runc", "--runtime", "crun"]
    argv += [word for release in kernels for word in ("--kernel", release)]
    argv += ["--output", str(file), "--junit", str(file.with_suffix(".xml")), *more]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def result(file: Path, running: subprocess.Popen[str]) -> Cells:
    _, stderr = running.communicate()
    assert file.exists(), stderr
    assert file.with_suffix(".xml").stat().st_size
    value: dict[str, Any] = json.loads(file.read_text())
    assert value["schema"] == "oci-harness/matrix/1", stderr
    return {(c["kernel"], c["view"], c["runtime"], c["case"]): c for c in value["cells"]}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matrix")


@pytest.fixture(scope="module")
def special(directory: Path, places: dict[str, str], root_with_systemd: Path) -> tuple[Cells, Cells]:
    """What has guests of its own: the hybrid layout; and systemd as PID 1, for the cgroup drivers and AppArmor."""
    hybrid, systemd = directory / "hybrid.json", directory / "systemd.json"
    of_hybrid = start(hybrid, places.values(), "hybrid", "--faults", "cgroup-hybrid-layout")
    of_systemd = start(systemd, [places["old"]], "unified+systemd")
    return result(hybrid, of_hybrid), result(systemd, of_systemd)


@pytest.fixture(scope="module")
def systemd(special: tuple[Cells, Cells]) -> Cells:
    return special[1]


@pytest.fixture(scope="module")
def whole(directory: Path, places: dict[str, str]) -> Cells:
    """The catalogue, and what conformance can only see with cgroup v2: both kernels, two layouts, two runtimes."""
    file = directory / "whole.json"
    return result(file, start(file, places.values(), "unified,legacy", "--conformance", CONFORMANCE))


@pytest.fixture(scope="module")
def cells(whole: Cells, special: tuple[Cells, Cells]) -> Cells:
    return whole | special[0] | special[1]


def unexpected(cells: Cells) -> dict[tuple[str, str, str, str], str]:
    return {key: cell.get("reason") or cell["text"] for key, cell in cells.items() if not cell["as_expected"]}


def test_every_cell_is_as_the_catalogue_expects(cells: Cells) -> None:
    """No guest died, no text was another, nothing was left behind that the catalogue does not know of."""
    assert unexpected(cells) == {}


def test_every_fault_has_a_verdict_on_every_kernel_layout_and_runtime(whole: Cells, places: dict[str, str]) -> None:
    """The whole catalogue, none of it left out."""
    for place in itertools.product(places.values(), ("unified", "legacy"), ("runc", "crun")):
        there = {key[3] for key in whole if key[:3] == place}
        assert {case for case in there if ":" not in case} == {"start-container", "conformance", *load_catalogue()}


def test_every_limit_of_cgroup_v2_is_read_back_from_the_kernel(cells: Cells, places: dict[str, str]) -> None:
    """Memory, cpu, cpuset, pids, io, hugetlb and unified: none is left out in a unified layout."""
    for release in places.values():
        for runtime in ("runc", "crun"):
            found = {k[3]: c["verdict"] for k, c in cells.items() if k[:3] == (release, "unified", runtime)}
            limits = {case: verdict for case, verdict in found.items() if case.startswith("conformance:limit-v2[")}
            assert len(limits) >= 19
            assert set(limits.values()) == {"passes", "deviates"}
            assert limits["conformance:limit-v2[/memory/limit]"] == "passes"
            assert limits["conformance:limit-v2[/blockIO/throttleReadBpsDevice]"] == "passes"


def test_debian_6_12_has_no_memory_controller_in_cgroup_v1(cells: Cells, places: dict[str, str]) -> None:
    """And 6.1 has it: the same fault is reproduced there."""
    fault = "memory-swap-below-memory"
    assert cells[places["old"], "legacy", "runc", fault]["verdict"] == "reproduced"
    missing = cells[places["new"], "legacy", "runc", fault]
    assert (missing["verdict"], missing["reason"]) == ("not-applicable", "no memory controller in this view")


def test_crun_1_8_refuses_a_hybrid_layout_where_v2_has_controllers(cells: Cells, places: dict[str, str]) -> None:
    """On 6.12 memory is left to v2; on 6.1 v1 takes all of them, and crun starts its containers."""
    refused = cells[places["new"], "hybrid", "crun", "start-container"]
    if not refused["runtime_version"].startswith("1.8"):
        pytest.skip(f"crun {refused['runtime_version']} may know better")
    assert refused["verdict"] == "fails"
    assert "cgroups in hybrid mode not supported" in refused["text"]
    assert cells[places["new"], "hybrid", "crun", "cgroup-hybrid-layout"]["verdict"] == "reproduced"
    assert cells[places["old"], "hybrid", "crun", "start-container"]["verdict"] == "passes"


def test_memory_max_is_refused_only_where_the_layout_is_unified(cells: Cells) -> None:
    """The text that the guides quote, failed to write to memory.max, is one of cgroup v2."""
    views = {key[1] for key, cell in cells.items() if "memory.max" in cell.get("text", "")}
    assert views == {"unified"}


def test_at_least_60_faults_are_reproduced_on_runc(cells: Cells) -> None:
    """In guests alone."""
    found = {key[3] for key, cell in cells.items() if key[2] == "runc" and cell["verdict"] == "reproduced"}
    assert len(found) >= 60


@pytest.mark.parametrize("cause", sorted(NAMED_BY_GUIDES))
def test_every_cause_that_the_guides_name_is_reproduced_somewhere(cells: Cells, cause: str) -> None:
    """On at least one kernel and layout."""
    assert any(cell["verdict"] == "reproduced" and cell.get("cause") == cause for cell in cells.values())


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_the_cgroup_drivers_put_init_where_they_should(
    systemd: Cells, places: dict[str, str], runtime: str, require: Callable[..., None]
) -> None:
    """Scope and slice by systemd, the path itself by cgroupfs, and the silent mismatch in a place of its own."""
    require(runtime)
    here = {key[3]: cell for key, cell in systemd.items() if key[:3] == (places["old"], "unified+systemd", runtime)}
    drivers = {case: cell["verdict"] for case, cell in here.items() if case.startswith("driver-")}
    assert set(drivers.values()) == {"passes"}
    assert len(drivers) == 4
    assert here["cgroup-driver-mismatch"]["verdict"] == "reproduced"
    assert here["driver-mismatch-silent"]["text"].endswith(f".slice:cri:driver-mismatch-silent-{runtime}")
    apparmor = {here[f"apparmor-{fault}"]["verdict"] for fault in ("denies-exec", "denies-mount", "profile-missing")}
    assert apparmor == {"reproduced"}
