"""The conformance suite on real runtimes, and on broken ones: each case fails where its field is ignored, no other."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import leaks
import pytest
from actors import CommandLine, until

from harness.compat.conformance.lab import SYSCALLS
from harness.kernel import procfs
from harness.oci.rootfs import payload_binary
from harness.process.children import reap_orphans

HERE = Path(__file__).parent

# Cases that cannot be set up without a field which they are not about. {mutation: names, as fnmatch has them}
SET_UP_BY = {
    "/annotations": ["state-has-annotations"],
    "/linux/devices/type=c": ["device-denied*", "device-allowed*", "device-rules-in-order"],
    "/linux/gidMappings": ["user-as-seen-outside"],
    "/linux/namespaces/type=ipc": ["sysctl[[]kernel.*", "sysctl[[]fs.*"],
    "/linux/namespaces/type=network": ["sysctl[[]net.*", "joined-namespace-of-another-type*"],
    "/linux/namespaces/type=user": ["uid-mappings", "gid-mappings", "user-as-seen-outside"],
    "/linux/namespaces/type=uts": ["hostname", "domainname"],
    "/linux/resources/devices": ["device-allowed*", "device-rules-in-order"],
    "/linux/resources/devices/1": ["device-allowed*", "device-rules-in-order"],
    "/linux/resources/memory/limit": ["limit-v?[[]/memory/swap]"],
    "/linux/seccomp/defaultAction": ["seccomp-default-errno", "invalid-value[[]seccomp-action]"],
    "/linux/seccomp/syscalls/0/args": ["invalid-value[[]seccomp-operator]"],
    "/linux/seccomp/syscalls/0/errnoRet": ["seccomp-arguments*"],
    "/linux/seccomp/syscalls/0/names/=getsid": ["seccomp-default-*"],
    "/linux/sysctl/net.core.somaxconn": ["create-that-cannot-be", "failed-create-leaves-nothing"],
    "/mounts/destination=~1m~1a": ["mount-option-remount"],
    "/mounts/destination=~1m~1a/options/=bind": [
        "bind-source*",
        "bind-is-not-recursive",
        "mount-option[[]*,bind]",
        "mount-option-of-access-times[[]relatime]",
        "mount-propagation*",
        "readonly-bind-refuses-writes",
    ],
    "/mounts/destination=~1m~1a/options/=rbind": ["rbind-is-recursive"],
    "/mounts/destination=~1m~1a/type": ["mounts-in-listed-order", "mount-option*"],
    "/process/capabilities/bounding": ["capabilit*"],
    "/process/capabilities/bounding/=CAP_KILL": ["capabilities-*"],
    "/process/capabilities/inheritable": ["capabilities-ambient*"],
    "/process/capabilities/permitted": ["capabilities-ambient*"],
    "/process/noNewPrivileges": ["capabilities-permitted", "capabilities-effective"],
    "/process/user/gid": ["user-as-seen-outside"],
    "/process/user/uid": ["user-as-seen-outside", "capabilities-ambient*"],
}


def pointer(field: str) -> str:
    """`refuse:/a/b` -> `/a/b`."""
    return field[field.index("/") :] if "/" in field else field


def zombies() -> list[int]:
    stats = map(procfs.process_stat, procfs.children(os.getpid()))
    return [stat.pid for stat in stats if stat is not None and stat.state == "Z"]


def is_of(case: str, fields: list[str], mutation: str) -> bool:
    """Whether a case is one of the mutated field: it names it, something below it, or is set up with it."""
    if mutation in fields:
        return True
    below = any(pointer(field).startswith((mutation, mutation + "/")) for field in fields)
    return below or any(fnmatch.fnmatch(case, pattern) for pattern in SET_UP_BY.get(mutation, []))


def payload(*args: str, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    argv = [str(payload_binary()), *args]
    return subprocess.run(argv, input=stdin, env=env or {}, capture_output=True, text=True, check=False, timeout=10)


def test_payload_answers(tmp_path: Path) -> None:
    """`payload ask` gives one JSON line for each question, in their order, and says when it is through."""
    text = 'quote " backslash \\ tab \t byte \xff'
    (tmp_path / "file").write_text(text, encoding="latin-1")
    (tmp_path / "link").symlink_to("/some/where")
    questions = ["read", f"{tmp_path}/file", ",", "link", f"{tmp_path}/link", ",", "read", "/no/such", ","]
    questions += ["call", str(SYSCALLS["openat"]), "-100", "@/no/such", "0", ",", "call", str(SYSCALLS["close"]), "99"]
    process = subprocess.Popen([str(payload_binary()), "ask", *questions], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(7)]
    process.terminate()
    assert process.wait(10) == 0
    process.stdout.close()
    assert lines[0].strip().isdigit()
    answers = [[0, text], [0, "/some/where"], [-2, ""], [-2], [-9], "end"]
    assert [json.loads(line) for line in lines[1:]] == answers


def test_payload_as_hook(tmp_path: Path) -> None:
    """`payload hook` appends what it was given and where it runs, and ends with the status that it was told."""
    file = tmp_path / "hooks"
    for name, status in (("first", "0"), ("second", "9")):
        done = payload("hook", str(file), name, status, stdin='{"id": "x"}', env={"A": "b c"})
        assert done.returncode == int(status)
        assert done.stdout == ""
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record["name"] for record in records] == ["first", "second"]
    assert records[0]["at_ns"] < records[1]["at_ns"]
    assert records[0]["args"][1:] == ["hook", str(file), "first", "0"]
    assert records[0]["env"] == ["A=b c"]
    assert json.loads(records[0]["stdin"]) == {"id": "x"}
    assert records[0]["namespaces"]["net"] == os.readlink("/proc/self/ns/net")
    assert payload("hook", "/no/such/directory/file", "x", "0").returncode == 125


@pytest.mark.slow
@pytest.mark.usefixtures("no_leaks")
def test_suite_on_runc_and_crun(cli: CommandLine, require: Callable[..., None], tmp_path: Path) -> None:
    """Every case passes, is skipped with a reason, or deviates as it is known; JSON, JUnit and TAP say the same."""
    require("root", "runc", "crun")
    junit, tap = tmp_path / "junit.xml", tmp_path / "tap"
    answer = cli("conformance", "--json", "--junit", str(junit), "--tap", str(tap), timeout_s=300)
    result = answer.json
    assert [case for case in result["cases"] if not case["as_expected"]] == []
    assert answer.status == 0, answer
    assert result["schema"] == "oci-harness/conformance/1"
    by_runtime = {name: {c["case"] for c in result["cases"] if c["runtime"] == name} for name in ("runc", "crun")}
    assert by_runtime["runc"] == by_runtime["crun"]
    assert len(by_runtime["runc"]) > 300
    assert all(case["reason"] for case in result["cases"] if case["outcome"] != "passes")
    assert sum(len(suite) for suite in ElementTree.parse(junit).getroot()) == len(result["cases"])
    assert f"1..{len(result['cases'])}" in tap.read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("-k", "no-such-case"), 2, "no case has such a name"),
        (("-k", "and and"), 2, "-k and and: "),
        (("--runtime", "/nonexistent/runtime"), 3, "no such file"),
        (("--junit", "/nonexistent/directory/x"), 2, "/nonexistent/directory"),
    ],
)
def test_bad_arguments(cli: CommandLine, arguments: tuple[str, ...], status: int, says: str) -> None:
    """Bad input is one line that says what is wrong, and nothing is left."""
    answer = cli("conformance", *arguments)
    assert answer.status == status
    assert says in answer.error


def test_without_pytest(cli: CommandLine) -> None:
    """Where pytest is not installed one line says what to install."""
    prelude = (
        "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: n != 'pytest' and f(n, *a) or None\n"
    )
    answer = cli("conformance", prelude=prelude)
    assert answer.status == 3
    assert "oci-harness[conformance]" in answer.error


def test_interrupted(cli: CommandLine, require: Callable[..., None]) -> None:
    """Ctrl-C in the midst of it: exit status 130, and nothing is left behind."""
    require("crun")
    process = cli.start("conformance", "--runtime", "crun", "--json")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: children.read_text().split(), "a runtime or container of the suite runs", 20)
    process.terminate()
    assert process.wait(30) == 130


@pytest.mark.parametrize("view", ["unified", "legacy"])
@pytest.mark.usefixtures("no_leaks")
def test_limits_are_read_in_the_view(cli: CommandLine, require: Callable[..., None], view: str) -> None:
    """The files of a cgroup are looked for where the runtime sees them, not in the host's layout."""
    require("runc")
    answer = cli("conformance", "--runtime", "runc", "-k", "limit-v or failed-create-leaves", "--view", view, "--json")
    outcomes = {case["case"]: case["outcome"] for case in answer.json["cases"]}
    assert outcomes["failed-create-leaves-nothing"] == "passes"
    assert "fails" not in outcomes.values(), answer.stdout
    looked_at = {case[:8] for case, outcome in outcomes.items() if case.startswith("limit-") and outcome != "skipped"}
    assert looked_at == {"limit-v2" if view == "unified" else "limit-v1"}


def test_known_deviation_is_told(cli: CommandLine, require: Callable[..., None]) -> None:
    """What deviates is shown with its reason, and is no failure."""
    require("crun")
    answer = cli("conformance", "--runtime", "crun", "-k", "rlimit-twice or uid", "--view", "auto")
    assert answer.status == 0, answer
    line = next(line for line in answer.stdout.splitlines() if "rlimit-twice" in line)
    assert "deviates" in line
    assert "config.md#configPOSIXProcess" in line


@pytest.fixture(scope="module")
def mutants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each mutation of crun, see mutants.py."""
    parts = min(4, os.cpu_count() or 1)
    running = []
    for part in range(parts):
        directory = tmp_path_factory.mktemp("mutants")
        argv = [sys.executable, str(HERE / "mutants.py"), "crun", str(directory), str(part), str(parts)]
        with (directory / "out").open("w") as out, (directory / "err").open("w") as err:
            running.append((directory, subprocess.Popen(argv, stdout=out, stderr=err)))
        leaks.makers.add(running[-1][1].pid)
    found: dict[str, Any] = {"mutations": {}, "reasons": {}, "named": {}}
    try:
        for directory, process in running:
            assert process.wait(timeout=900) == 0, (directory / "err").read_text()[-2000:]
            for key, value in json.loads((directory / "out").read_text()).items():
                found[key] |= value
    finally:
        for _, process in running:
            process.terminate()
            process.wait()
        until(lambda: reap_orphans(frozenset({"payload"})) or not zombies(), "what they left to us is reaped", 20)
    return found


@pytest.fixture
def checked_mutants(require: Callable[..., None], request: pytest.FixtureRequest) -> dict[str, Any]:
    require("root", "crun")
    found: dict[str, Any] = request.getfixturevalue("mutants")
    return found


@pytest.mark.slow
def test_ignored_field_fails_its_cases(checked_mutants: dict[str, Any]) -> None:
    """A runtime that ignores one field, or breaks one verb, fails every case that is about it."""
    named = checked_mutants["named"]
    missed = [
        f"{mutation}: {case}: {outcome}"
        for mutation, outcomes in checked_mutants["mutations"].items()
        for case, outcome in outcomes.items()
        if mutation in named[case] and outcome != "fails"
    ]
    assert missed == []
    assert all(set(fields) <= set(checked_mutants["mutations"]) for fields in named.values())
    assert len(named) > 250


@pytest.mark.slow
def test_ignored_field_fails_no_other_case(checked_mutants: dict[str, Any]) -> None:
    """A case that is neither about the field nor set up with it passes, though its config.json has the field."""
    wrong = [
        f"{mutation}: {case}: {outcome}: {checked_mutants['reasons'][f'{mutation} {case}']}"
        for mutation, outcomes in checked_mutants["mutations"].items()
        for case, outcome in outcomes.items()
        if outcome != "passes" and not is_of(case, checked_mutants["named"][case], mutation)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("case", "fields", "mutation", "expected"),
    [
        ("uid", ["/process/user/uid"], "/process/user/uid", True),
        ("uid", ["/process/user/uid"], "/process/user", True),
        ("uid", ["/process/user/uid"], "/process/user/gid", False),
        ("x", ["refuse:/a/b"], "/a", True),
        ("x", ["accept:start"], "/a", False),
        ("sysctl[net.core.somaxconn]", [], "/linux/namespaces/type=network", True),
        ("sysctl[kernel.msgmax]", [], "/linux/namespaces/type=network", False),
    ],
)
def test_the_check_itself(case: str, fields: list[str], mutation: str, expected: bool) -> None:
    """A case is of its own fields, of what holds them, and of what it is set up with."""
    assert is_of(case, fields, mutation) is expected
