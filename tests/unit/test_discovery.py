"""Runtimes are found and proven by asking them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HostError, InputError, RuntimeUnusable
from harness.runtime import discovery
from harness.runtime.dialects import GENERIC, RUNC
from harness.runtime.discovery import (
    LIFECYCLE_VERBS,
    find_runtimes,
    inspect_runtime,
    parse_runtime_option,
    parse_verbs,
    parse_version,
)

Require = Callable[..., None]

# Recorded: runc 1.1.5, crun 1.8.1, runsc 20221219 (shortened to what can mislead), youki 0.3.
RUNC_HELP = """NAME:
   runc - Open Container Initiative runtime

To start a new instance of a container:

    # runc run [ -b bundle ] <container-id>

USAGE:
   runc [global options] command [command options] [arguments...]

VERSION:
   1.1.5+ds1
commit: 1.1.5+ds1-1+deb12u1

COMMANDS:
   checkpoint  checkpoint a running container
   create      create a container
   delete      delete any resources held by the container often used with detached container
   kill        kill sends the specified signal (default: SIGTERM) to the container's init process
   start       executes the user defined process in a created container
   state       output the state of a container
   help, h     Shows a list of commands or help for one command

GLOBAL OPTIONS:
   --debug             enable debug logging
   --help, -h          show help
"""
CRUN_HELP = """Usage: crun [OPTION...] COMMAND [OPTION...]

COMMANDS:
\tcreate      - create a container
\tdelete      - remove definition for a container
\texec        - exec a command in a running container
\tkill        - send a signal to the container init process
\tstart       - start a container
\tstate       - output the state of a container

      --cgroup-manager=MANAGER   cgroup manager
  -?, --help                 Give this help list
"""
RUNSC_HELP = """Usage: runsc <flags> <subcommand> <subcommand args>

Subcommands:
\tcreate           create a secure container
\tdelete           delete resources held by a container
\tkill             sends a signal to the container
\tstart            start a secure container
\tstate            get the state of a container

Subcommands for internal use only:
\tboot             launch a sandbox process
\tread-control     read a cgroups control value inside the container

Use "runsc flags" for a list of top-level flags
"""
YOUKI_HELP = """A container runtime written in Rust

Usage: youki [OPTIONS] <COMMAND>

Commands:
  create      Create a container
  start       Start a previously created container
  state       Show the container state
  kill        Send the specified signal to the container
  delete      Release any resources held by the container
  help        Print this message or the help of the given subcommand(s)

Options:
  -r, --root <ROOT>          root directory to store container state
"""


@pytest.mark.parametrize(
    ("text", "more", "less"),
    [
        (RUNC_HELP, {"checkpoint", "help"}, {"exec", "update", "commit", "debug", "kill sends"}),
        (CRUN_HELP, {"exec"}, {"cgroup-manager", "features", "help"}),
        (RUNSC_HELP, {"boot", "read-control"}, {"update", "flags"}),
        (YOUKI_HELP, {"help"}, {"root", "exec"}),
    ],
    ids=["runc", "crun", "runsc", "youki"],
)
def test_verbs_of_recorded_help(text: str, more: set[str], less: set[str]) -> None:
    """The commands of a real --help are found, options and prose are not."""
    verbs = parse_verbs(text)
    assert verbs >= set(LIFECYCLE_VERBS) | more
    assert not verbs & less
    assert parse_verbs(text.replace("\n", "\r\n")) >= set(LIFECYCLE_VERBS)


@pytest.mark.parametrize(
    "text", ["", "create start state kill delete", "create\nstart\n", "  Create\n  START\n", "   --create\n"]
)
def test_no_verbs(text: str) -> None:
    """What is not a list of commands has none."""
    assert not parse_verbs(text) & set(LIFECYCLE_VERBS)


@given(
    st.sets(st.from_regex(r"[a-z][a-z-]{1,10}", fullmatch=True), max_size=8),
    st.sampled_from([" - ", "  ", ", x  ", "\t"]),
)
def test_any_list_of_verbs(names: set[str], separator: str) -> None:
    """Every indented first word is a verb, whatever the style of the list."""
    text = "COMMANDS:\n" + "".join(f"   {name}{separator}does Things\n" for name in sorted(names))
    assert parse_verbs(text) == names


@pytest.mark.parametrize("name", ["runc", "crun", "runsc"])
def test_real_runtimes(name: str, require: Require) -> None:
    """The runtimes of this host are recognised, with version, family and verbs."""
    require(name)
    done = subprocess.run([name, "--help"], capture_output=True, text=True, check=False)
    assert parse_verbs(done.stdout + done.stderr) >= {*LIFECYCLE_VERBS, "exec", "run", "ps", "list", "pause", "resume"}
    runtime = inspect_runtime(name)
    assert (runtime.name, runtime.path, runtime.dialect.name) == (name, shutil.which(name), name)
    assert re.match(r"\d+\.\d+", runtime.version)
    assert runtime.version in runtime.version_text.splitlines()[0]
    assert ("update" in runtime.verbs) is bool(runtime.dialect.update_args)
    as_json = runtime.to_json()
    assert as_json["verbs"] == sorted(runtime.verbs)
    assert as_json["dialect"] == name


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("runc version 1.1.5+ds1\ncommit: 9.9.9", "1.1.5+ds1"),
        ("crun version 1.8.1\ncommit: f8a096", "1.8.1"),
        ("runsc version 0.0~20221219.0", "0.0~20221219.0"),
        ("runsc version release-20240101.0", "20240101.0"),
        ("runc version 1.3.0-rc.1+dev", "1.3.0-rc.1+dev"),
        ("youki version 0.3.3", "0.3.3"),
        ("\n\n  crun version 1.20\n", "1.20"),
        ("crun version UNKNOWN", ""),
        ("crun version 1", ""),
        ("runc\nversion 1.2.3", ""),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_parse_version(text: str, version: str) -> None:
    """The first dotted number of the first line, with what is attached to it; else nothing."""
    assert parse_version(text) == version


@given(st.text(max_size=60))
def test_version_of_anything(text: str) -> None:
    """Any text has a version or none, without an exception."""
    assert parse_version(text) == "" or parse_version(text) in text


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("runc", ("runc", None)),
        ("runc=/opt/runc", ("runc", "/opt/runc")),
        ("new=./build/runc", ("new", "./build/runc")),
        ("a=b=c", ("a", "b=c")),
        ("/usr/bin/crun", ("crun", "/usr/bin/crun")),
        ("./runc", ("runc", "./runc")),
        ("runc-1.3_x.y", ("runc-1.3_x.y", None)),
        ("r" * 64, ("r" * 64, None)),
        ("9=/x", ("9", "/x")),
    ],
)
def test_runtime_option(option: str, expected: tuple[str, str | None]) -> None:
    """NAME, NAME=PATH, or a path that is its own name."""
    assert parse_runtime_option(option) == expected


@pytest.mark.parametrize(
    "option",
    ["", "=", "=/usr/bin/runc", "runc=", "a b", "-x", ".x", "/", "..", "ru\nnc", "żó", "r" * 65, "a\0=/x", "x:y=/z"],
)
def test_bad_runtime_option(option: str) -> None:
    """Anything else is an InputError that quotes the flag."""
    with pytest.raises(InputError, match=r"^--runtime "):
        parse_runtime_option(option)


@given(st.text(max_size=30))
def test_runtime_option_of_anything(option: str) -> None:
    """A name that comes out is one that a directory can have."""
    try:
        name, path = parse_runtime_option(option)
    except InputError:
        return
    assert discovery.NAME.fullmatch(name)
    assert path is None or path


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


HELP = "".join(f"   {verb}  does it\\n" for verb in LIFECYCLE_VERBS)
GOOD = f"case $1 in --version) echo 'thing version 3.2.1';; --help) printf '{HELP}';; esac"


def test_unknown_family_is_generic(tmp_path: Path) -> None:
    """A program that lists the lifecycle's verbs is a runtime, though its family is not known."""
    runtime = inspect_runtime("mine", str(program(tmp_path / "mine", GOOD)))
    assert (runtime.dialect, runtime.version, runtime.version_text) == (GENERIC, "3.2.1", "thing version 3.2.1")
    assert runtime.path == str(tmp_path / "mine")


def test_family_by_answer_not_by_name(tmp_path: Path) -> None:
    """A runtime called crun that says it is runc is runc; help on stderr with a bad status counts."""
    script = f"case $1 in --version) echo 'runc version 1.2.3';; --help) printf '{HELP}' >&2; exit 3;; esac"
    assert inspect_runtime("crun", str(program(tmp_path / "crun", script))).dialect is RUNC


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is made absolute."""
    program(tmp_path / "mine", GOOD)
    monkeypatch.chdir(tmp_path)
    assert inspect_runtime("mine", "./mine").path == str(tmp_path / "mine")
    assert inspect_runtime("mine", "mine").path == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_text("x"), "not executable"),
        (lambda path: program(path, "exit 0"), "no OCI runtime.*says 'nothing'"),
        (lambda path: program(path, "echo busybox; exit 1"), "no OCI runtime.*says 'busybox'"),
        (
            lambda path: (path.write_bytes(b"\x7fELF garbage"), path.chmod(0o755)),
            "cannot be started: Exec format error",
        ),
        (lambda path: (path.write_text("#!/nope\n"), path.chmod(0o755)), "cannot be started: No such file"),
        (lambda path: program(path, "head -c 20000000 /dev/zero"), "more than 16 MiB"),
        (lambda path: program(path, "trap '' TERM; sleep 1000"), "did not end within"),
    ],
)
def test_unusable(make: Callable[[Path], object], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with a runtime, the error names it, its path and the reason in one line."""
    monkeypatch.setattr(discovery, "PROBE_TIMEOUT_S", 0.2 if "end" in reason else 10)
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(RuntimeUnusable, match=reason) as caught:
        inspect_runtime("thing", str(path))
    assert caught.value.name == "thing"
    assert str(path) in caught.value.reason
    assert "\n" not in str(caught.value)


def test_not_in_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name that PATH does not have is unusable; with none of the usual ones the host is to blame."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeUnusable, match="not found in PATH"):
        inspect_runtime("runc")
    with pytest.raises(HostError, match="no OCI runtime in PATH"):
        find_runtimes(())
    program(tmp_path / "crun", "/bin/true")
    with pytest.raises(RuntimeUnusable, match="crun"):
        find_runtimes(())


def test_name_given_twice(tmp_path: Path) -> None:
    """Two runtimes of one name are refused; one binary under two names is fine."""
    path = program(tmp_path / "mine", GOOD)
    with pytest.raises(InputError, match="given twice"):
        find_runtimes((f"a={path}", f"a={path}"))
    assert [runtime.name for runtime in find_runtimes((f"a={path}", f"b={path}"))] == ["a", "b"]
