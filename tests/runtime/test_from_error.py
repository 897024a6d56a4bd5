"""From a pasted text to a run that shows the same: fault picked, the text's values put in, the clause compared."""

from __future__ import annotations

import pytest

from harness.diagnosis import diagnose
from harness.diagnosis.reproduction import Reproduction, instantiate, reproduce_text
from harness.errors import InputError
from harness.faults.catalogue import load_catalogue
from harness.runtime.discovery import find_runtime
from harness.runtime.session import Session

RUNC = "OCI runtime create failed: runc create failed: unable to start container process: "
INIT = RUNC + "error during container init: "


def again(session: Session, text: str) -> Reproduction:
    wanted = diagnose(text).primary
    assert wanted is not None
    assert wanted.runtime is not None
    (run,) = reproduce_text(session, wanted, [find_runtime(wanted.runtime)])
    return run


@pytest.mark.parametrize(
    ("text", "instantiated"),
    [
        (RUNC + 'exec: "my-app": executable file not found in $PATH: unknown', {"my-app"}),
        (RUNC + 'exec: "/srv/start": stat /srv/start: no such file or directory: unknown', {"/srv/start"}),
        (RUNC + 'exec: "/entry.sh": permission denied: unknown', {"/entry.sh"}),
        (
            INIT + 'error mounting "/opt/app.conf" to rootfs at "/etc/app": '
            "stat /opt/app.conf: no such file or directory",
            {"/opt/app.conf", "/etc/app"},
        ),
        (
            INIT + 'error setting cgroup config for procHooks process: failed to write "-7": '
            "write /sys/fs/cgroup/memory/pod1/memory.limit_in_bytes: invalid argument: unknown",
            {"-7"},
        ),
        ("Error: crun: executable file `server9` not found in $PATH: No such file or directory", {"server9"}),
        ("crun: error stat'ing file `/opt/gone`: No such file or directory", {"/opt/gone"}),
    ],
)
def test_the_text_comes_again_with_its_own_values(pair: Session, text: str, instantiated: set[str]) -> None:
    run = again(pair, text)
    assert run.same, run.differences
    assert {new for _, new in run.instantiated.values()} >= instantiated
    assert run.verdict is not None
    assert run.verdict.verdict == "reproduced"
    assert run.seen is not None
    assert all(value in run.seen.decisive for value in instantiated)


def test_a_value_that_works_here_is_told_as_the_difference(pair: Session) -> None:
    """No kernel refuses this limit: it was refused for what else was true of that node."""
    run = again(pair, INIT + 'failed to write "268435456": write /a/memory.limit_in_bytes: invalid argument: unknown')
    assert run.same_cause
    assert run.differences


def test_a_text_without_a_fault_is_refused(pair: Session) -> None:
    wanted = diagnose("OCI runtime create failed").primary
    assert wanted is not None
    with pytest.raises(InputError, match="no fault of the catalogue"):
        list(reproduce_text(pair, wanted, [find_runtime("runc")]))


@pytest.mark.parametrize("value", ["../../etc/passwd", "/a/../../b", "${run}", "", "x" * 300, "a\nb"])
def test_hostile_values_of_a_text_are_never_put_in(value: str) -> None:
    entry = load_catalogue()["exec-not-found"]
    same, replaced = instantiate(entry, {"command": "/app/run"}, {"command": value})
    assert not replaced
    assert same == entry


def test_a_path_of_the_host_stays_below_the_runs_own_directory() -> None:
    entry = load_catalogue()["mount-source-missing"]
    changed, replaced = instantiate(
        entry, {"source": "/run/oci-harness/x/c/y/work-dir/gone"}, {"source": "/etc/shadow"}
    )
    assert replaced == {"source": ("/gone", "/etc/shadow")}
    assert changed.fault.break_.config[0].value["source"] == "${work}/etc/shadow"
    assert changed.fault.heal.node[0].path == "${work}/etc/shadow"  # type: ignore[union-attr]  # the file has a host-path
