"""The differential oracle with real runtimes: what it finds unaided and shrinks to; nothing hostile stays."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from actors import CommandLine, Sessions, until

from harness.compat.differential.bundled import waiting
from harness.compat.differential.campaign import Campaign, Result, explore, run
from harness.compat.differential.edits import Edit
from harness.compat.differential.sealing import SCRATCH, seal
from harness.compat.differential.trial import Trial
from harness.oci.bundle import create_bundle
from harness.runtime.session import Session

# Any seed meets what the first test looks for within 300 cases (tests/unit/test_differ_generation.py); this one early.
SEED, CASES = 6, 170


@pytest.fixture
def campaign(require: Callable[..., None], sessions: Sessions, no_leaks: None) -> Iterator[Campaign]:
    """runc and crun, the pausing container, in a session of its own: it gets sealed."""
    require("root", "runc", "crun")
    runtimes = (sessions.runtime("runc"), sessions.runtime("crun"))
    with Session("auto", runtimes, kind="differ", timeout_s=10.0) as session:
        template = session.template("pause")
        with Campaign(session, runtimes, waiting(template.config.document), template.lower) as made:
            yield made


def result_of(campaign: Campaign) -> Result:
    return Result(campaign.runtimes, campaign.session.choice.view, SEED, "pause")


@pytest.mark.slow
def test_it_finds_the_known_partings_unaided(campaign: Campaign) -> None:
    """A generated run with a fixed seed and budget: cgroupsPath ../../x, ociVersion 9.9.9, device type z."""
    result = run(campaign, result_of(campaign), count=CASES, seed=SEED, max_time_s=None)
    found = {
        (tuple(edit.pointer for edit in edits), json.dumps(edits[0].value))
        for finding in result.findings
        for edits in (finding.edits, *finding.examples)
        if edits
    }
    by_field = {finding.field: finding for finding in result.findings if finding.difference.aspect == "outcome"}
    assert (("/linux/cgroupsPath",), '"../../x"') in found
    assert (("/ociVersion",), '"9.9.9"') in found
    assert any(pointers == ("/linux/devices/-",) and '"type": "z"' in value for pointers, value in found)
    told = by_field["/ociVersion"].difference.facts
    assert told == {"outcome": ("runs", "fails at create")}
    assert by_field["/linux/devices/*/type"].difference.facts == {"outcome": ("fails at create", "runs")}


@pytest.mark.parametrize(
    ("field", "edit", "seen"),
    [
        ("/linux/cgroupsPath", Edit("set", "/linux/cgroupsPath", "../../x"), ("runs", "fails at create")),
        ("/ociVersion", Edit("set", "/ociVersion", "9.9.9"), ("runs", "fails at create")),
        ("/process/cwd", Edit("set", "/process/cwd", "relative"), ("fails at create", "runs")),
        ("/hostname (name twice)", Edit("again", "/hostname", "first"), ("oci-harness", "first")),
        ("/linux/personality", Edit("set", "/linux/personality", {"domain": "LINUX32"}), ("00000000", "00000008")),
        ("/process/user/additionalGids", Edit("set", "/process/user/additionalGids", [5, 5]), ("5", "5 5")),
    ],
)
def test_what_the_container_really_got_is_compared(
    campaign: Campaign, field: str, edit: Edit, seen: tuple[str, str]
) -> None:
    found = [finding for finding, again in campaign.look_at((edit,)) if again]
    assert [finding.field for finding in found] == [field]
    assert next(iter(found[0].difference.facts.values())) == seen
    assert found[0].known is not None


def test_a_case_of_many_changes_is_cut_down_to_the_one_that_matters(campaign: Campaign) -> None:
    harmless = [Edit("set", f"/annotations/a{number}", "b") for number in range(4)]
    case = (*harmless[:2], Edit("set", "/ociVersion", "9.9.9"), *harmless[2:])
    ((finding, again),) = campaign.look_at(case)
    assert again
    assert finding.edits == (Edit("set", "/ociVersion", "9.9.9"),)


def test_two_changes_that_only_matter_together_stay_together(campaign: Campaign) -> None:
    """A second namespace of a type is refused by runc; either of the two alone is the first."""
    cgroup = {"type": "cgroup"}
    case = (
        Edit("set", "/linux/namespaces/5", cgroup),
        Edit("set", "/annotations/a", "b"),
        Edit("set", "/linux/namespaces/6", cgroup),
    )
    found = [finding for finding, _ in campaign.look_at(case) if finding.difference.aspect == "outcome"]
    assert [[edit.pointer for edit in finding.edits] for finding in found] == [
        ["/linux/namespaces/5", "/linux/namespaces/6"]
    ]


@pytest.mark.parametrize(
    "path", ["../../x", "../../../../tmp/x", "/../../../../../tmp/x", "x/../../../../../../etc/x", "a/b/c", None]
)
def test_a_hostile_cgroups_path_leaves_nothing_and_reaches_nothing(campaign: Campaign, path: str | None) -> None:
    """Cgroups of any place are found by the run's name (checked by the fixture); the host's files are read-only."""
    before = {str(each) for place in ("/tmp", "/etc", "/", "/sys") for each in Path(place).iterdir()}
    edit = Edit("delete", "/linux/cgroupsPath") if path is None else Edit("set", "/linux/cgroupsPath", path)
    assert campaign.compared((edit,)) is not None
    for hierarchy in campaign.session.layout.hierarchies:
        named = [each for each in Path(hierarchy.mount_point).rglob("*oci-harness-differ*") if each.is_dir()]
        own = campaign.session.workspace.name
        assert [each for each in named if each.name.startswith(own) and each.name != own] == []
    after = {str(each) for place in ("/tmp", "/etc", "/", "/sys") for each in Path(place).iterdir()}
    assert {each for each in after - before if "oci-harness" in each or each.endswith("/x")} == set()


def test_the_host_is_read_only_in_a_sealed_session_and_the_run_is_not(
    require: Callable[..., None], sessions: Sessions, no_leaks: None
) -> None:
    require("root", "runc")
    with Session("host", [], kind="differ") as session:
        seal(session)
        for place in ("/", "/etc", "/usr"):
            with pytest.raises(OSError, match="Read-only"):
                session.namespace.call(Path(place, "oci-harness-x").touch)
        session.namespace.call((session.workspace.path / "x").touch)
        session.namespace.call(Path(SCRATCH, "oci-harness-x").touch)
        assert not Path(SCRATCH, "oci-harness-x").exists()


def test_what_a_container_mounts_without_a_namespace_of_its_own_is_taken_away(campaign: Campaign) -> None:
    namespaces = [{"type": "uts"}, {"type": "pid"}, {"type": "ipc"}, {"type": "network"}]
    mounts = campaign.session.namespace.call(Path("/proc/thread-self/mountinfo").read_text)
    campaign.compared((Edit("set", "/linux/namespaces", namespaces),))
    assert campaign.session.namespace.call(Path("/proc/thread-self/mountinfo").read_text) == mounts


def test_a_change_that_could_reach_the_host_is_never_run(campaign: Campaign) -> None:
    operations = campaign.operations
    assert campaign.compared((Edit("set", "/linux/sysctl", {"kernel.panic": "7"}),)) is None
    assert campaign.compared((Edit("delete", "/linux/namespaces/3"),)) is None
    assert (campaign.operations, campaign.refused) == (operations, 2)


def test_the_same_seed_finds_the_same(campaign: Campaign) -> None:
    def found() -> list[tuple[str, ...]]:
        result = run(campaign, result_of(campaign), count=12, seed=SEED, max_time_s=None)
        return [finding.key for finding in result.findings]

    assert found() == found()


def test_a_program_that_ends_at_once_is_no_program_that_runs(campaign: Campaign) -> None:
    for status in (0, 3):
        found = campaign.compared((Edit("set", "/process/args", ["/payload", "exit", str(status)]),))
        assert found is not None
        assert {each.facts.get("process exit status") for each in found.behaviours} == {str(status)}


def test_ctrl_c_gives_what_was_found_so_far(campaign: Campaign) -> None:
    def drawn() -> Iterator[tuple[Edit, ...]]:
        yield (Edit("set", "/ociVersion", "9.9.9"),)
        raise KeyboardInterrupt

    result = explore(campaign, result_of(campaign), drawn(), total=None, max_time_s=None)
    assert result.interrupted
    assert "/ociVersion" in {finding.field for finding in result.findings}


def test_one_trial_leaves_no_directory(campaign: Campaign) -> None:
    trial = Trial(campaign.session, campaign.session.template("pause").lower)
    try:
        trial.run(campaign.runtimes[0], campaign.document)
    finally:
        trial.close()
    assert [*(campaign.session.workspace.path / "c").iterdir()] == []


# --- the command ---


def answer(cli: CommandLine, *args: str) -> tuple[int, dict[str, Any]]:
    done = cli("differ", *args, "--json", timeout_s=120.0)
    assert done.stdout, done.stderr
    return done.status, json.loads(done.stdout)


def test_a_kept_difference_is_shown_again(cli: CommandLine, tmp_path: Path, require: Callable[..., None]) -> None:
    require("root", "runc", "crun")
    file = tmp_path / "r.json"
    edits = [{"op": "set", "pointer": "/process/cwd", "value": "relative"}]
    file.write_text(json.dumps({"schema": "oci-harness/difference/1", "base": "pause", "edits": edits}))
    status, value = answer(cli, "--recipe", str(file), "--keep", str(tmp_path / "kept"))
    assert status == 0
    assert value["schema"] == "oci-harness/differences/1"
    told = {each["known"]: each for each in value["differences"]}["cwd-relative"]
    assert (told["right"], told["spec"]["says"]) == ("runc", "This value MUST be an absolute path.")
    kept = json.loads((tmp_path / "kept/cwd-relative.json").read_text())
    assert [{**each, "field": "/process/cwd"} for each in edits] == kept["edits"]
    assert set(kept["runtimes"]) == {"runc", "crun"}


def test_a_difference_of_a_bundle_is_cut_down_to_its_field_and_the_bundle_stays(
    cli: CommandLine, tmp_path: Path, require: Callable[..., None]
) -> None:
    require("root", "runc", "crun")
    settings = (("/ociVersion", "9.9.9"), ("/process/args", ["/bin/true"]), ("/process/cwd", "/tmp"))
    create_bundle(tmp_path / "b", "default", settings)
    before = sorted(map(str, (tmp_path / "b").rglob("*")))
    _, value = answer(cli, str(tmp_path / "b"))
    outcomes = [each for each in value["differences"] if each["aspect"] == "outcome"]
    assert [each["fields"] for each in outcomes] == [["/ociVersion"]]
    assert sorted(map(str, (tmp_path / "b").rglob("*"))) == before


def test_a_new_difference_is_exit_status_1(
    cli: CommandLine, tmp_path: Path, require: Callable[..., None], sessions: Sessions
) -> None:
    """The same runtime twice, once through a wrapper that lowers a limit."""
    require("root", "runc")
    wrapper = tmp_path / "other"
    wrapper.write_text(f'#!/bin/sh\nulimit -n 500\nexec {sessions.runtime("runc").path} "$@"\n')
    wrapper.chmod(0o755)
    status, value = answer(cli, "--runtime", "runc", "--runtime", f"other={wrapper}")
    assert status == 1
    assert [(each["aspect"], [*each["facts"]]) for each in value["differences"]] == [
        ("rlimit", ["rlimit Max open files"])
    ]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--runtime", "runc"), "--runtime: name two runtimes"),
        (("--runtime", "runc", "--runtime", "runc"), "both are called runc"),
        (("x", "--recipe", "pause"), "not both"),
        (("--recipe", "/nope.json"), "/nope.json: cannot be read"),
        (("/nope",), "/nope: no such directory"),
    ],
)
def test_bad_input_is_one_line(
    cli: CommandLine, args: tuple[str, ...], told: str, require: Callable[..., None]
) -> None:
    require("root", "runc", "crun")
    done = cli("differ", *args)
    assert done.status == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_sigint_ends_the_command_with_its_findings(
    cli: CommandLine, tmp_path: Path, base: Path, require: Callable[..., None]
) -> None:
    require("root", "runc", "crun")
    process = cli.start("differ", "--max-time", "60s", "--json")
    until(lambda: any(base.glob("*differ*/c/*-6")), "a sixth container", 30.0)
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    value = json.loads(stdout)
    assert value["interrupted"]
    assert value["differences"]
