"""What runtimes declare, accept and really do, on real containers."""

from __future__ import annotations

import json
from collections.abc import Callable

from actors import CommandLine
from msgspec.structs import replace

from harness.compat.features import Checker, Row, check_features, chosen_features, differences, is_declared
from harness.runtime.discovery import Runtime, find_runtime
from harness.runtime.session import Session


def rows_of(session: Session, runtime: Runtime, *groups: str) -> dict[str, Row]:
    return {row.feature.name: row for row in check_features(session, runtime, chosen_features(groups)).rows}


def test_what_every_runtime_does(session: Session, runtime: Runtime) -> None:
    """Namespaces, limits, hooks: what a runtime must do shows where the host's kernel can see it."""
    if not runtime.dialect.uses_host_cgroups:  # a sandbox: only what its own inside shows
        rows = rows_of(session, runtime, "linux")
        assert rows["hostname"].exercised is True
        assert rows["devices"].configured is True
        return
    rows = rows_of(session, runtime, "namespace", "hook", "sysctl", "rlimit")
    for name in ("pid", "network", "ipc", "uts", "mount", "user"):
        assert rows[name].columns[1:] == (True, True), rows[name]
    for name in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"):
        assert rows[name].exercised is True, rows[name]
    assert rows["RLIMIT_NOFILE"].exercised is True
    assert rows["network: net.ipv4.ip_forward"].exercised is True


def test_accepted_without_effect(session: Session, runtime: Runtime) -> None:
    """A setting that is accepted and does nothing is not taken for done: nothing in the container shows it."""
    (feature,) = (f for f in chosen_features(["linux"]) if f.name == "hostname")
    ignored = replace(feature, settings=(("/linux/noSuchField", True),))
    with Checker(session, runtime) as checker:
        (row,) = checker.rows([ignored], None)
    assert (row.configured, row.exercised) == (True, False)
    assert row.text is not None


def test_a_refusal_hits_only_the_one(session: Session, runtime: Runtime) -> None:
    """One feature that is refused is found by halving, and those that shared its container keep their verdicts."""
    good = [f for f in chosen_features(["linux"]) if f.name in ("hostname", "maskedPaths", "readonlyPaths", "devices")]
    bad = replace(good[0], name="bad", settings=(("/process/args", []),))
    with Checker(session, runtime) as checker:
        rows = checker.rows([*good[:2], bad, *good[2:]], None)
    found = {row.feature.name: row.configured for row in rows}
    assert found == {"hostname": True, "maskedPaths": True, "bad": False, "readonlyPaths": True, "devices": True}


def test_declared_against_exercised(require: Callable[..., None], pair: Session) -> None:
    """runc declares what it has; a difference between two runtimes is told once, with both rows."""
    require("runc", "crun")
    features = chosen_features(["namespace"])
    found = [check_features(pair, find_runtime(name), features) for name in ("runc", "crun")]
    assert found[0].declares == ("features" in found[0].runtime.verbs)
    for one, other in differences(found):
        assert any(None not in pair and pair[0] != pair[1] for pair in zip(one.columns, other.columns, strict=True))
    odd = replace(found[1], rows=[replace(row, exercised=not row.exercised) for row in found[0].rows])
    assert len(differences([found[0], odd])) == sum(row.exercised is not None for row in found[0].rows)
    (pid,) = (feature for feature in features if feature.name == "pid")
    assert is_declared(pid, {"linux": {"namespaces": ["pid"]}}) is True


def test_command(cli: CommandLine, require: Callable[..., None]) -> None:
    """The command's document has a row for each feature and runtime, and bad use is refused with a line."""
    require("runc")
    answer = cli("features", "--runtime", "runc", "--group", "hook", "--group", "process", "--json", timeout_s=60)
    assert answer.status == 0
    value = json.loads(answer.stdout)
    assert value["schema"] == "oci-harness/features/1"
    (only,) = value["runtimes"]
    assert {row["group"] for row in only["features"]} == {"hook", "process"}
    assert all(row["text"] for row in only["features"] if row["exercised"] is not True)
    assert cli("features", "--group", "nope").status == 2
