"""Which system calls a runtime needs: real runtimes under real filters, and runtimes made for the purpose."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from actors import CommandLine

from harness.compat.deny import chosen_calls, estimate, load_calls
from harness.errors import HostError
from harness.runtime.discovery import Runtime, find_runtime
from harness.runtime.session import Session


def test_estimate(session: Session, runtime: Runtime) -> None:
    """With all younger calls taken away at once the runtime still works; without a fatal one it fails, and says so."""
    found = estimate(session, runtime, chosen_calls(None))
    assert found.confirmed is True
    used = {each.call.name: each for each in found.outcomes if each.use != "unused"}
    assert used
    assert all(each.who for each in used.values())
    for each in found.outcomes:
        if each.use == "fatal":
            assert each.stage
            assert each.text
            assert each.call.release <= load_calls()[found.decided_by[0]].release


def test_seccomp_is_needed(require: Callable[..., None], pair: Session) -> None:
    """crun without seccomp(2) cannot load the profile that it is given: fatal at create, for the cause seccomp."""
    require("crun")
    (outcome,) = estimate(pair, find_runtime("crun"), chosen_calls("seccomp")).outcomes
    assert (outcome.use, outcome.stage, outcome.cause) == ("fatal", "create", "seccomp")
    assert "Function not implemented" in (outcome.text or "")


def test_named_calls_only(session: Session, runtime: Runtime) -> None:
    """For a few calls there is no confirmation, and a call that no runtime makes is unused."""
    found = estimate(session, runtime, chosen_calls("kexec_file_load,userfaultfd"))
    assert found.confirmed is None
    assert [each.use for each in found.outcomes] == ["unused", "unused"]
    assert found.minimum == "3.10"


def test_errno(session: Session, runtime: Runtime) -> None:
    """EPERM, as from a seccomp profile of an outer container that does not know the call, is another question."""
    found = estimate(session, runtime, chosen_calls("clone3"), "EPERM")
    assert found.to_json()["errno"] == "EPERM"
    assert found.outcomes[0].use in ("unused", "tolerated", "fatal")


def test_a_runtime_that_does_not_work(session: Session, runtime: Runtime, script: Callable[..., str]) -> None:
    """One that fails with all calls is no subject: one line with its own words."""
    broken = find_runtime(f"fake={script('create) echo no such luck >&2; exit 1 ;;')}")
    with pytest.raises(HostError, match="no such luck"):
        estimate(session, broken, chosen_calls("clone3"))


def test_command(cli: CommandLine, require: Callable[..., None]) -> None:
    """The command's document, and bad use refused with a line."""
    require("runc")
    answer = cli("compat", "--runtime", "runc", "--deny", "openat2,clone3", "--json", timeout_s=60)
    assert answer.status == 0
    value = json.loads(answer.stdout)
    assert value["schema"] == "oci-harness/compat/1"
    (only,) = value["estimates"]
    assert [each["call"] for each in only["calls"]] == ["openat2", "clone3"]
    assert {each["use"] for each in only["calls"]} <= {"fatal", "tolerated", "unused"}
    assert cli("compat", "--deny", "mount").status == 2
