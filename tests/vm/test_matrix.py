"""The whole matrix: two kernels, the cgroup layouts, runc and crun, every fault of the catalogue; and systemd."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.compat.kernels import Kernel
from harness.faults.catalogue import load_catalogue

pytestmark = pytest.mark.slow

Cells = dict[tuple[str, str, str, str], dict[str, Any]]
VIEWS = "unified,legacy,unified+systemd"
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


@pytest.fixture(scope="module")
def places(old_kernel: Kernel, new_kernel: Kernel) -> dict[str, str]:
    return {"old": old_kernel.release, "new": new_kernel.release}


def run(directory: Path, kernels: list[str], views: str, *more: str) -> Cells:
    """`oci-harness matrix`, as a user calls it."""
    words = [word for release in kernels for word in ("--kernel", release)]
    argv = [
        sys.executable,
        "-m",
        "harness",
        "matrix",
        *words,
        "--view",
        views,
        "--runtime",
        "runc",
        "--runtime",
        "crun",
    ]
    files = ["--output", str(directory / "m.json"), "--junit", str(directory / "m.xml")]
    done = subprocess.run([*argv, *more, *files], capture_output=True, text=True, check=False)
    value = json.loads((directory / "m.json").read_text())
    assert value["schema"] == "oci-harness/matrix/1", done.stderr
    assert (directory / "m.xml").stat().st_size
    return {(c["kernel"], c["view"], c["runtime"], c["case"]): c for c in value["cells"]}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory, places: dict[str, str], root_with_systemd: Path) -> Cells:
    """The whole catalogue in two layouts, what is of the drivers under systemd, and the hybrid layout itself."""
    kernels = list(places.values())
    found = run(tmp_path_factory.mktemp("matrix"), kernels, VIEWS)
    return found | run(tmp_path_factory.mktemp("hybrid"), kernels, "hybrid", "--faults", "cgroup-hybrid-layout")


def test_every_cell_has_a_verdict_and_it_is_as_the_catalogue_expects(cells: Cells) -> None:
    """No guest died, no text was another, nothing was left behind that the catalogue does not know of."""
    unexpected = {key: cell.get("reason") or cell.get("text") for key, cell in cells.items() if not cell["as_expected"]}
    assert unexpected == {}


def test_the_whole_catalogue_is_there_in_every_layout(cells: Cells, places: dict[str, str]) -> None:
    """Both kernels, two layouts, two runtimes: each fault once."""
    for release in places.values():
        for view in ("unified", "legacy"):
            for runtime in ("runc", "crun"):
                there = {key[3] for key in cells if key[:3] == (release, view, runtime)}
                assert there - {"start-container"} == set(load_catalogue())


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
    assert len({key[3] for key, cell in cells.items() if key[2] == "runc" and cell["verdict"] == "reproduced"}) >= 60


@pytest.mark.parametrize("cause", sorted(NAMED_BY_GUIDES))
def test_every_cause_that_the_guides_name_is_reproduced_somewhere(cells: Cells, cause: str) -> None:
    """On at least one kernel and layout."""
    assert any(cell["verdict"] == "reproduced" and cell.get("cause") == cause for cell in cells.values())


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_the_cgroup_drivers_put_init_where_they_should(
    cells: Cells, places: dict[str, str], runtime: str, require: Callable[..., None]
) -> None:
    """Scope and slice by systemd, the path itself by cgroupfs, and the silent mismatch in a place of its own."""
    require(runtime)
    for release in places.values():
        here = {key[3]: cell for key, cell in cells.items() if key[:3] == (release, "unified+systemd", runtime)}
        drivers = {case: cell["verdict"] for case, cell in here.items() if case.startswith("driver-")}
        assert set(drivers.values()) == {"passes"}
        assert len(drivers) == 4
        assert here["cgroup-driver-mismatch"]["verdict"] == "reproduced"
        assert here["driver-mismatch-silent"]["text"].endswith(f".slice:cri:driver-mismatch-silent-{runtime}")
        assert {
            here[f"apparmor-{fault}"]["verdict"] for fault in ("denies-exec", "denies-mount", "profile-missing")
        } == {"reproduced"}
