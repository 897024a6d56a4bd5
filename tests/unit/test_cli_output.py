"""What the command prints and where: JSON alone on stdout, files whole or not at all, statuses of the contract."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.cli import output
from harness.cli.entry import COMMANDS
from harness.errors import InputError

VALUE = {"schema": "oci-harness/test/1", "text": "żółć \u2028 \n", "none": None, "list": [1, 2.5, True]}


def cli(*args: str, **more: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", "from harness.cli.entry import main; main()", *args]
    return subprocess.run(argv, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload,no-any-return]  # passed on


def test_emit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """--json prints the document on stdout, --output writes the same bytes to the file, neither prints nothing."""
    file = tmp_path / "out.json"
    output.emit(VALUE, as_json=False)
    assert capsys.readouterr() == ("", "")
    output.emit(VALUE, as_json=True, output=str(file))
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == (VALUE, "")
    assert file.read_text() == out
    output.emit({"a": 1}, as_json=False, output=str(file))
    assert capsys.readouterr() == ("", "")
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_note_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Notes do not get into the result."""
    output.note("something")
    assert capsys.readouterr() == ("", "note: something\n")


def test_atomic(tmp_path: Path) -> None:
    """A reader sees the old text or the new one, never half of it."""
    file = tmp_path / "f"
    texts = {letter * 200_000 for letter in "ab"}
    output.write_atomically(str(file), "a" * 200_000)
    stop = threading.Event()
    seen: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(file.read_text())

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(50):
        for text in texts:
            output.write_atomically(str(file), text)
    stop.set()
    thread.join()
    assert seen <= texts
    assert list(tmp_path.iterdir()) == [file]


def test_write_failures(tmp_path: Path) -> None:
    """A file that cannot be written is an InputError that names it, and nothing is left beside it."""
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "none/f", tmp_path / "directory", Path("/proc/nope")):
        with pytest.raises(InputError, match="--output") as caught:
            output.write_atomically(str(path), "x")
        assert str(path) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["directory"]


def test_check_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before long work it is known whether the file can be written."""
    monkeypatch.chdir(tmp_path)
    for good in (None, "f", str(tmp_path / "f")):
        output.check_output(good)
    for bad in ("none/f", "/nope/f", "/etc/passwd/f"):
        with pytest.raises(InputError, match="--output"):
            output.check_output(bad)
    assert list(tmp_path.iterdir()) == []


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """A table without a terminal is plain text with whole cells, markup in a cell included."""
    output.table("title", ("a", "b"), [("x" * 60, "[red]1[/red]"), ("y", "22")], right=(1,))
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert "x" * 60 in out
    assert "title" in out


@pytest.mark.parametrize(
    ("args", "status", "stderr"),
    [
        (("--version",), 0, ""),
        (("--help",), 0, ""),
        (("nonsense",), 2, "No such command"),
        (("state",), 2, "Missing argument"),
        (("state", "--nonsense", "x"), 2, "No such option"),
        (("bench", "--runtime", "a b"), 2, "--runtime a b"),
        (("bench", "--runtime", "x=/nope/nope", "--runs", "1"), 3, "no such file"),
        (("state", "no-such-container"), 2, "no-such-container"),
    ],
)
def test_exit_status(args: tuple[str, ...], status: int, stderr: str, tmp_path: Path) -> None:
    """The status is the contract's, the error one line on stderr, without a traceback, and stdout stays empty."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "OCI_HARNESS_DIR": str(tmp_path / "base")}
    done = cli(*args, env=environment)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False)
    assert stderr in done.stderr
    assert bool(done.stdout) is (status == 0)
    assert (done.stderr == "") is (status == 0)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    """Every command of the table can be loaded, and those that print a result take --json and --output."""
    from click.testing import CliRunner

    from harness.cli.group import LazyGroup

    done = CliRunner().invoke(LazyGroup(COMMANDS), [name, "--help"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"Usage: oci-harness {name}") or "Usage:" in done.output
    if "COMMAND" not in done.output.splitlines()[0]:
        assert "--json" in done.output or name == "report"  # a report is the same result in another form
        assert "--output" in done.output


def test_broken_pipe() -> None:
    """A reader that goes away does not make a traceback."""
    argv = [sys.executable, "-c", "from harness.cli.entry import main; main()", "runtimes", "--json"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    stderr = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert "Traceback" not in stderr
    assert "Exception" not in stderr
