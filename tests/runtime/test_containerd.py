"""The truth check: a real containerd gets the same words from the runtimes as our direct runs do."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import leaks
import pytest

from harness.runtime.session import Session

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare-containerd"
SOCKETS = Path("/run/containerd")
MANY = 100  # of the catalogue's faults; fewer were no check of it
# what a containerd's shim asks, it asks of crun; what we ask, of runc
LIAR = '#!/bin/sh\ncase "$*" in\n*/run/containerd/*) exec crun "$@" ;;\n*) exec runc "$@" ;;\nesac\n'


def left_behind() -> bool:
    """Whether /run/containerd is one of the script's, and no run has it in use."""
    try:
        fd = os.open(SOCKETS, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return bool(os.fstat(fd).st_mode & stat.S_ISVTX)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


@pytest.fixture
def view(require: Callable[..., None], pair: Session) -> str:
    """The one in which runc and crun both work."""
    require("containerd")
    return pair.choice.view


def compare(view: str, *args: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, rows, and what stands on stderr."""
    argv = [sys.executable, str(SCRIPT), "--json", "--view", view, *args]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        leaks.makers.add(process.pid)
        try:
            out, err = process.communicate(timeout=180)
        except BaseException:
            process.kill()
            raise
    return process.returncode, json.loads(out)["rows"] if out else [], err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["runc", "crun"])
def test_containerd_gets_the_same_words(view: str, name: str) -> None:
    """Every fault that containerd can express fails by it at the same stage and with the same words as directly."""
    status, rows, err = compare(view, "--runtime", name)
    different = [f"{row['fault']}: {row['direct']} {row['containerd']} {row['reason']}" for row in rows]
    different = [line for line, row in zip(different, rows, strict=True) if row["verdict"] == "different"]
    assert different == [], "\n".join(different)
    assert status == 0, err
    same = [row for row in rows if row["verdict"] == "same"]
    assert len(same) >= MANY
    assert {row["stage"] for row in same} >= {"create", "run"}
    assert all(row["reason"] for row in rows if row["verdict"] == "not-expressible")
    assert not left_behind()


def test_other_words_are_found(view: str, tmp_path: Path) -> None:
    """A runtime that tells containerd something else than us is a difference, and exit status 1."""
    liar = tmp_path / "liar"
    liar.write_text(LIAR)
    liar.chmod(0o755)
    status, rows, err = compare(view, "--runtime", f"liar={liar}", "exec-permission-denied")
    assert status == 1, err
    assert [row["verdict"] for row in rows] == ["different"]
    assert rows[0]["direct"] == [
        'runc create failed: unable to start container process: exec: "/start.sh": permission denied'
    ]
    assert rows[0]["containerd"] == ["open executable: Permission denied"]
