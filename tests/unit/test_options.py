"""Option values become arguments, in each dialect."""

from __future__ import annotations

import pytest

from harness.errors import HostError
from harness.runtime.dialects import CRUN, GENERIC, KNOWN, RUNC, RUNSC, Dialect, dialect_of
from harness.runtime.options import (
    EVENTS,
    FEATURES,
    LIST,
    PAUSE,
    PS,
    RESUME,
    START,
    STATE,
    CreateOptions,
    DeleteOptions,
    ExecOptions,
    KillOptions,
    Options,
    PlainOptions,
    UpdateOptions,
    tail,
)

ALIKE = (RUNC, CRUN, GENERIC)
EVERY = (*KNOWN, GENERIC)

# (value, the arguments where nothing deviates)
TABLE: list[tuple[Options, list[str]]] = [
    (CreateOptions("/b"), ["--bundle", "/b"]),
    (CreateOptions("/b", pid_file="/p"), ["--bundle", "/b", "--pid-file", "/p"]),
    (CreateOptions("", pid_file=""), ["--bundle", "", "--pid-file", ""]),
    (CreateOptions("/b", console_socket="/s"), ["--bundle", "/b", "--console-socket", "/s"]),
    (CreateOptions("/b", detach=True, verb="run"), ["--bundle", "/b", "--detach"]),
    (CreateOptions("/b", detach=False, verb="run"), ["--bundle", "/b"]),
    (CreateOptions("/b", extra=("--x", "y z")), ["--bundle", "/b", "--x", "y z"]),
    (KillOptions(), []),
    (KillOptions("KILL", all=True), ["--all"]),
    (DeleteOptions(), []),
    (DeleteOptions(force=True), ["--force"]),
    (ExecOptions(("ls", "-l")), []),
    (ExecOptions(("ls",), detach=True), ["--detach"]),
    (ExecOptions(process="/p.json"), ["--process", "/p.json"]),
    (
        ExecOptions(
            ("x",), pid_file="/p", cwd="/c", env=("A=1", "B="), user="1:2", console_socket="/s", extra=("--cap", "x")
        ),
        [
            "--console-socket",
            "/s",
            "--pid-file",
            "/p",
            "--cwd",
            "/c",
            "--user",
            "1:2",
            "--env",
            "A=1",
            "--env",
            "B=",
            "--cap",
            "x",
        ],
    ),
    (START, []),
    (STATE, []),
    (PAUSE, []),
    (RESUME, []),
    (FEATURES, []),
    (PS, ["--format", "json"]),
    (LIST, ["--format", "json"]),
    (EVENTS, ["--stats"]),
]
# what runsc of 2022 does not have
DEVIATING: list[tuple[Options, list[str], str]] = [
    (CreateOptions("/b", preserve_fds=(7, 9)), ["--bundle", "/b", "--preserve-fds", "2"], "--preserve-fds"),
    (CreateOptions("/b", no_pivot=True), ["--bundle", "/b", "--no-pivot"], "--no-pivot"),
    (CreateOptions("/b", no_new_keyring=True), ["--bundle", "/b", "--no-new-keyring"], "--no-new-keyring"),
    (ExecOptions(("sh",), tty=True), ["--tty"], "--tty"),
    (ExecOptions(("sh",), preserve_fds=(3,)), ["--preserve-fds", "1"], "--preserve-fds"),
    (UpdateOptions("/r"), ["--resources", "/r"], "update"),
]


@pytest.mark.parametrize("dialect", EVERY, ids=lambda each: each.name)
@pytest.mark.parametrize(("options", "expected"), TABLE, ids=lambda value: getattr(value, "verb", None))
def test_arguments_alike(options: Options, expected: list[str], dialect: Dialect) -> None:
    """These are the same for every runtime."""
    assert options.args(dialect) == expected


@pytest.mark.parametrize("dialect", ALIKE, ids=lambda each: each.name)
@pytest.mark.parametrize(("options", "expected", "_flag"), DEVIATING, ids=lambda value: getattr(value, "verb", None))
def test_arguments_of_runc_and_crun(options: Options, expected: list[str], _flag: str, dialect: Dialect) -> None:
    """runc, crun and unknown runtimes take these as the convention says."""
    assert options.args(dialect) == expected


@pytest.mark.parametrize(("options", "_expected", "flag"), DEVIATING, ids=lambda value: getattr(value, "verb", None))
def test_what_runsc_lacks(options: Options, _expected: list[str], flag: str) -> None:
    """What a runtime has not is refused before it is run, naming flag, runtime and reason."""
    with pytest.raises(HostError) as caught:
        options.args(RUNSC)
    assert flag in str(caught.value)
    assert "cannot be used with runsc: " in str(caught.value)


@pytest.mark.parametrize(
    ("options", "container", "expected"),
    [
        (LIST, None, []),
        (FEATURES, None, []),
        (KillOptions("TERM"), None, []),
        (START, "id", ["id"]),
        (CreateOptions("/b"), "id", ["id"]),
        (DeleteOptions(force=True), "id", ["id"]),
        (KillOptions(), "id", ["id", "SIGTERM"]),
        (KillOptions("9"), "id", ["id", "9"]),
        (ExecOptions(("ls", "-l", "")), "id", ["id", "ls", "-l", ""]),
        (ExecOptions(process="/p.json"), "id", ["id"]),
        (PlainOptions("start"), "id", ["id"]),
    ],
)
def test_tail(options: Options, container: str | None, expected: list[str]) -> None:
    """The container id follows the options, then the signal of kill or the command of exec."""
    assert list(tail(options, container)) == expected


def test_verbs() -> None:
    """Every value knows its verb."""
    verbs = {row[0].verb for row in TABLE} | {row[0].verb for row in DEVIATING}
    assert verbs == {
        *("create", "run", "kill", "delete", "exec", "start", "state", "pause", "resume", "features"),
        *("ps", "list", "events", "update"),
    }


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("runc version 1.1.5+ds1\ncommit: x", RUNC),
        ("crun version 1.8.1\n", CRUN),
        ("\n  crun version 1.8.1", CRUN),
        ("runsc version 0.0~20221219.0\nspec: 1.0.2-dev", RUNSC),
        ("runsc version release-20240101.0", RUNSC),
        ("RUNC VERSION 1", RUNC),
        ("kata-runtime  : 3.0", None),
        ("busybox v1.35", None),
        ("", None),
        ("version: runc version 1", None),
    ],
)
def test_dialect_of(text: str, dialect: Dialect | None) -> None:
    """A runtime's family is told by what --version says, not by its name."""
    assert dialect_of(text) is dialect


def test_dialects_are_apart() -> None:
    """No family's version text begins like another's, and none is empty but the generic one."""
    prefixes = [dialect.version_prefix for dialect in KNOWN]
    assert all(prefixes)
    assert not any(a != b and a.startswith(b) for a in prefixes for b in prefixes)
    assert len({dialect.name for dialect in EVERY}) == len(EVERY)
