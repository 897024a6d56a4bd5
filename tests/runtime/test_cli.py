"""The real command in processes of its own: exit statuses, one line for each error, JSON, signals, and clean ends."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import prctl
import pytest
from actors import Answer, CommandLine, alive, read_until, until

from harness.kernel import procfs

Script = Callable[..., str]
RUN_TRUE = ("run", "--recipe", "true")
RUNC = ("--runtime", "runc", "--view", "host")
# A fake whose container is a process that names the run, so that it is found again.
FAKE_INIT = 'create) touch "$log"; tail -f "$log" </dev/null >/dev/null 2>&1 & echo $! > $pidfile ;;'


@pytest.fixture(scope="module", autouse=True)
def somebody_else_reaps() -> Iterator[None]:
    """As on any host: orphans of a command go to the host's init, not to the tests."""
    before = prctl.get_child_subreaper()
    prctl.set_child_subreaper(False)
    yield
    prctl.set_child_subreaper(before)


@pytest.fixture(autouse=True)
def _needs(require: Callable[..., None]) -> None:
    require("root", "runc", "busybox")


def container_files(base: Path) -> list[str]:
    return [str(path) for path in base.glob("*/c/*")]


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "status", "told"),
    [
        ((*RUN_TRUE, "--runtime", "no-such", "x"), 3, "runtime no-such: not found in PATH"),
        ((*RUN_TRUE, "--runtime", "a=/no/such", "x"), 3, "runtime a: /no/such: no such file"),
        ((*RUN_TRUE, "--runtime", "a=/etc/passwd", "x"), 3, "/etc/passwd is not executable"),
        ((*RUN_TRUE, "--runtime", "a=/bin", "x"), 3, "is a directory"),
        ((*RUN_TRUE, "--runtime", "a=/bin/true", "x"), 3, "/bin/true is no OCI runtime"),
        ((*RUN_TRUE, "--runtime", "a=", "x"), 2, "no path after '='"),
        ((*RUN_TRUE, "--runtime", "b/../a b=/bin/true", "x"), 2, "write NAME or NAME=PATH"),
        ((*RUN_TRUE, "a/b"), 2, "container id 'a/b' cannot be used"),
        ((*RUN_TRUE, ".."), 2, "container id '..' cannot be used"),
        ((*RUN_TRUE, ""), 2, "container id '' cannot be used"),
        ((*RUN_TRUE, "x" * 300), 2, "cannot be used: 1 to 128"),
        (("create", "--recipe", "true", "a\nb"), 2, "cannot be used"),
        (("run", "--recipe", "nope", "x"), 2, "there is no recipe 'nope'"),
        ((*RUN_TRUE, "--set", "/process/args", "x"), 2, "there is no ="),
        ((*RUN_TRUE, "--set", "/process/args=[", "x"), 2, "--set"),
        ((*RUN_TRUE, "--set", "process=1", "x"), 2, "must start with /"),
        ((*RUN_TRUE, "--set", "/mounts/99=1", "x"), 2, "/mounts/99"),
        ((*RUN_TRUE, "--bundle", "/tmp", "x"), 2, "exclude each other"),
        (("run", "--bundle", "/no/such/bundle", "x"), 2, "/no/such/bundle: no such directory"),
        (("run", "--bundle", "/etc", "--set", "/a=1", "x"), 2, "--set changes a recipe"),
        ((*RUN_TRUE, "--tty", "--detach", "x"), 2, "exclude each other"),
        (("state", "nobody"), 2, "no container 'nobody'"),
        (("delete", "nobody"), 2, "no container 'nobody'"),
        (("exec", "nobody", "true"), 2, "no container 'nobody'"),
        (("kill", "../x"), 2, "cannot be used"),
        (("inspect",), 2, "name either a CONTAINER or --pid PID"),
        (("inspect", "--pid", "999999999"), 2, "no process 999999999"),
        (("bench", "--runs", "0"), 2, "--runs 0: must be 1 or more"),
        (("bench", "--parallel", "0"), 2, "--parallel 0"),
        (("bench", "--runtime", "runc", "--runtime", "runc"), 2, "--runtime runc is given twice"),
        (("bench", "--recipe", "nope"), 2, "there is no recipe 'nope'"),
        (("bench", "--output", "/no/such/dir/x.json"), 2, "--output /no/such/dir/x.json"),
        ((*RUN_TRUE, "--output", "/no/such/dir/x.json", "x"), 2, "--output /no/such/dir/x.json"),
        (("create", "--recipe", "pause", "--output", "/no/such/dir/x.json", "x"), 2, "--output /no/such/dir/x.json"),
        (("bundle", "create", "/proc/nope/x"), 2, "/proc/nope"),
        (("bundle", "create", "/etc"), 2, "not an empty directory"),
        (("bundle", "validate", "/no/such"), 2, "/no/such"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else None,
)
def test_bad_input(cli: CommandLine, args: tuple[str, ...], status: int, told: str) -> None:
    """Bad input gives one line that names what is wrong, and the contract's exit status."""
    answer = cli(*args)
    assert told in answer.error
    assert answer.status == status
    assert answer.stdout == ""


@pytest.mark.parametrize(
    "args",
    [
        ("no-such-command",),
        ("run",),
        ("run", "--no-such-option", "x"),
        ("bench", "--runs", "many"),
        ("exec", "x"),
        ("run", "--timeout", "soon", "x"),
        ("run", "--view", "sideways", "x"),
    ],
    ids=" ".join,
)
def test_bad_usage(cli: CommandLine, args: tuple[str, ...]) -> None:
    """Bad usage gives click's usage lines, an error that ends them, and exit status 2."""
    answer = cli(*args)
    lines = answer.stderr.splitlines()
    assert answer.status == 2
    assert lines[0].startswith("Usage: oci-harness")
    assert lines[-1].startswith("Error: ")
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize("args", [("--help",), ("--version",), ("run", "--help"), ("-h",)], ids=" ".join)
def test_help_and_version(cli: CommandLine, args: tuple[str, ...]) -> None:
    """Help and version go to stdout with exit status 0."""
    answer = cli(*args)
    assert (answer.status, answer.stderr) == (0, "")
    assert answer.stdout.startswith(("Usage: oci-harness", "oci-harness "))


@pytest.fixture
def bundle(cli: CommandLine, tmp_path: Path) -> Path:
    answer = cli("bundle", "create", str(tmp_path / "b"), "--from", "true")
    assert answer.status == 0, answer
    return tmp_path / "b"


def test_config_absent(cli: CommandLine, bundle: Path) -> None:
    """A bundle without config.json is refused with the file's name."""
    (bundle / "config.json").unlink()
    answer = cli("run", *RUNC, "--bundle", str(bundle), "x")
    assert f"{bundle}/config.json" in answer.error
    assert answer.status == 2


def test_config_truncated(cli: CommandLine, bundle: Path) -> None:
    """A config.json that was cut is refused with line and column."""
    text = (bundle / "config.json").read_text()
    (bundle / "config.json").write_text(text[: len(text) // 2])
    answer = cli("run", *RUNC, "--bundle", str(bundle), "x")
    assert f"{bundle}/config.json" in answer.error
    assert "line " in answer.error
    assert answer.status == 2


def change(bundle: Path, action: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((bundle / "config.json").read_text())
    action(config)
    (bundle / "config.json").write_text(json.dumps(config))


def test_config_of_a_wrong_type(cli: CommandLine, bundle: Path) -> None:
    """A value of a wrong type is refused with its JSON pointer, and bundle validate says the same and exits with 1."""
    change(bundle, lambda config: config["process"].update(args="echo"))
    answer = cli("run", *RUNC, "--bundle", str(bundle), "x")
    assert "/process/args: " in answer.error
    assert answer.status == 2
    judged = cli("bundle", "validate", str(bundle), "--json")
    assert judged.status == 1
    assert judged.json["valid"] is False
    assert "/process/args" in [problem["pointer"] for problem in judged.json["problems"]]


def test_config_with_unknown_fields(cli: CommandLine, bundle: Path) -> None:
    """Unknown fields are no error: the bundle runs, and its config.json is left as it was."""
    change(bundle, lambda config: config.update({"x-mine": {"a": [1, 2]}}))
    before = (bundle / "config.json").read_bytes()
    answer = cli("run", *RUNC, "--bundle", str(bundle), "x")
    assert answer.status == 0, answer
    assert (bundle / "config.json").read_bytes() == before


def test_rootfs_absent(cli: CommandLine, bundle: Path) -> None:
    """A bundle without its root file system is refused with the pointer to it."""
    (bundle / "rootfs").rename(bundle / "elsewhere")
    answer = cli("run", *RUNC, "--bundle", str(bundle), "x")
    assert "/root/path" in answer.error
    assert answer.status == 2


def test_the_runtime_judges_when_asked_to(cli: CommandLine, bundle: Path) -> None:
    """With --no-validate the runtime's own words come, as one line with exit status 4."""
    (bundle / "rootfs").rename(bundle / "elsewhere")
    answer = cli("run", *RUNC, "--no-validate", "--bundle", str(bundle), "x")
    assert answer.status == 4
    assert "runc create failed" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_debug_shows_the_traceback(cli: CommandLine) -> None:
    """Only with --debug there is a traceback."""
    answer = cli("--debug", "state", "nobody")
    assert "Traceback" in answer.stderr
    assert answer.status != 0


# -- the host ----------------------------------------------------------------------------------------------------------

# root's files may be read on: the interpreter may lie in a home directory that nobody else may enter
NOBODY = (
    "setpriv",
    "--reuid",
    "65534",
    "--regid",
    "65534",
    "--clear-groups",
    "--inh-caps",
    "-all,+dac_read_search",
    "--ambient-caps",
    "-all,+dac_read_search",
    "--bounding-set",
    "-all,+dac_read_search",
)


@pytest.mark.parametrize(
    "args",
    [(*RUN_TRUE, "x"), ("create", "--recipe", "true", "x"), ("bench",), ("list",), ("gc",)],
    ids=lambda args: args[0],
)
def test_not_root(cli: CommandLine, args: tuple[str, ...]) -> None:
    """Who is not root is told so in one line, with exit status 3."""
    answer = cli(*args, argv=NOBODY)
    assert "must run as root" in answer.error
    assert answer.status == 3


def test_what_works_without_root(cli: CommandLine) -> None:
    """Commands that change nothing work without root."""
    answer = cli("bundle", "recipes", "--json", argv=NOBODY)
    assert answer.status == 0, answer
    assert "true" in [recipe["name"] for recipe in answer.json["recipes"]]


def on_a_small_disk(directory: Path, options: str) -> tuple[str, ...]:
    directory.mkdir()
    script = f'mount -t tmpfs -o {options} none {directory} && exec "$@"'
    return ("unshare", "-m", "/bin/sh", "-c", script, "sh")


@pytest.mark.parametrize("options", ["nr_inodes=2", "nr_inodes=12", "size=4k", "size=64k", "size=1100k"])
@pytest.mark.parametrize("args", [(*RUN_TRUE, *RUNC, "x"), ("bench", *RUNC, "--runs", "1")], ids=lambda args: args[0])
def test_full_disk(cli: CommandLine, tmp_path: Path, options: str, args: tuple[str, ...]) -> None:
    """A full disk under the state directory gives one line that says so, exit status 3, and leaves nothing."""
    argv = on_a_small_disk(tmp_path / "small", options)
    answer = cli(*args, argv=argv, env={**os.environ, "OCI_HARNESS_DIR": str(tmp_path / "small")})
    assert "No space left on device" in answer.error
    assert answer.status == 3


def denying(*names: str) -> str:
    return f"import errno; from harness.kernel import shim; shim.deny_syscalls({list(names)}, errno.ENOSYS); "


def test_without_openat2_and_clone3(cli: CommandLine) -> None:
    """On a kernel without openat2 and clone3 everything works."""
    answer = cli(*RUN_TRUE, *RUNC, "--json", "x", prelude=denying("openat2", "clone3"))
    assert answer.status == 0, answer
    bench = cli("bench", *RUNC, "--runs", "1", "--warmup", "0", "--json", prelude=denying("openat2", "clone3"))
    assert bench.status == 0, bench
    assert [sample.get("error") for sample in bench.json["samples"]] == [None]


def test_inspect_does_not_fork(cli: CommandLine) -> None:
    """The network namespace is looked at without a fork, which in a process with threads may hang for ever."""
    answer = cli("inspect", "--pid", str(os.getpid()), "--json", prelude=denying("clone"))
    assert answer.status == 0, answer
    assert "lo" in [interface["name"] for interface in answer.json["network"]]


def test_without_pidfd_open(cli: CommandLine) -> None:
    """On a kernel without pidfd_open one line says that it is missing, with exit status 3."""
    answer = cli(*RUN_TRUE, *RUNC, "x", prelude=denying("pidfd_open"))
    assert answer.status == 3
    assert "pidfd" in answer.error


def test_stdout_that_is_full(cli: CommandLine) -> None:
    """A result that cannot be written is an error, not silence."""
    with open("/dev/full", "w") as full:
        answer = cli("bundle", "recipes", "--json", stdout=full)
    assert answer.status != 0
    assert "Traceback" not in answer.stderr
    assert "No space left on device" in answer.stderr


def test_stdout_that_is_closed(cli: CommandLine) -> None:
    """A reader that went away is no reason for a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    answer = cli("bundle", "recipes", "--json", stdout=writer)
    os.close(writer)
    assert "Traceback" not in answer.stderr
    assert len(answer.stderr.splitlines()) <= 1
    assert answer.status != 0


# -- runtimes that misbehave -------------------------------------------------------------------------------------------


def test_a_hanging_runtime(cli: CommandLine, script: Script) -> None:
    """A runtime that hangs is killed at --timeout and reported in one line with exit status 4."""
    path = script("create) sleep 300 & sleep 300 ;;")
    answer = cli(*RUN_TRUE, "--view", "host", "--runtime", f"fake={path}", "--timeout", "300ms", "x")
    assert "fake create did not end within its deadline and was killed with its 2 children" in answer.error
    assert answer.status == 4


def test_a_runtime_that_says_no(cli: CommandLine, script: Script) -> None:
    """A runtime's error is one line, with exit status 4, however many lines it has."""
    path = script("""create) printf '{"level":"error","msg":"one\\\\ntwo\\\\nthree"}\\n' > "$log"; exit 1 ;;""")
    answer = cli(*RUN_TRUE, "--view", "host", "--runtime", f"fake={path}", "--json", "x")
    assert answer.error == "oci-harness: fake create failed (exit status 1): one two three"
    assert (answer.status, answer.stdout) == (4, "")


def test_garbage_for_state(cli: CommandLine, script: Script) -> None:
    """Garbage from `state` is one line with exit status 4, and the container can still be removed by force."""
    path = script(FAKE_INIT + "\nstate) echo garbage ;;")
    made = cli("create", "--recipe", "pause", "--view", "host", "--runtime", f"fake={path}", "--json", "junk")
    assert made.status == 0, made
    answer = cli("state", "junk")
    assert "fake state printed no state: not JSON" in answer.error
    assert answer.status == 4
    listed = cli("list", "--json")
    assert [(each["id"], each["status"][:7]) for each in listed.json["containers"]] == [("junk", "unknown")]
    removed = cli("delete", "--force", "junk")
    assert removed.status == 0, removed
    assert not alive(made.json["pid"])


def test_garbage_for_ps(cli: CommandLine, script: Script) -> None:
    """Garbage from `ps` is one line with exit status 4."""
    path = script(FAKE_INIT + "\nps) echo '{\"a\": 1}' ;;")
    assert cli("create", "--recipe", "pause", "--view", "host", "--runtime", f"fake={path}", "--json", "x").status == 0
    answer = cli("ps", "x")
    assert "fake ps printed no list of pids" in answer.error
    assert answer.status == 4
    assert cli("delete", "--force", "x").status == 0


def test_a_bench_of_a_broken_runtime(cli: CommandLine, script: Script) -> None:
    """A runtime of which no lifecycle goes well ends the benchmark early: one line, exit status 4, samples kept."""
    path = script("create) echo broken >&2; exit 1 ;;")
    answer = cli("bench", "--view", "host", "--runtime", f"fake={path}", "--runs", "50", "--json")
    assert "no lifecycle of fake went well: fake create failed (exit status 1): broken" in answer.error
    assert answer.status == 4
    samples = answer.json["samples"]
    assert 1 <= len(samples) < 50
    assert {sample["failed_stage"] for sample in samples} == {"create"}


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        (("runtimes", "--runtime", "runc"), "runtimes"),
        (("bundle", "recipes"), "recipes"),
        ((*RUN_TRUE, *RUNC, "x"), "run"),
        (("list",), "list"),
        (("gc", "--dry-run"), "gc"),
        (("inspect", "--pid", "self"), "inspect"),
        (("bench", *RUNC, "--runs", "1", "--warmup", "0"), "bench"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_json_and_nothing_else(cli: CommandLine, tmp_path: Path, args: tuple[str, ...], kind: str) -> None:
    """--json prints one JSON document on stdout with its schema first, and --output writes the same to a file."""
    args = tuple(str(os.getpid()) if arg == "self" else arg for arg in args)
    answer = cli(*args, "--json", "--output", str(tmp_path / "out.json"))
    assert answer.status == 0, answer
    assert next(iter(answer.json.items())) == ("schema", f"oci-harness/{kind}/1")
    assert json.loads((tmp_path / "out.json").read_text()) == answer.json
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_a_life_across_processes(cli: CommandLine, require: Callable[..., None], name: str) -> None:
    """create, start, state, exec, ps, pause, resume, inspect, kill, delete and list go on from process to process."""
    require(name)

    def ask(*args: str) -> Any:
        answer = cli(*args, "--json")
        assert answer.status == 0, answer
        assert answer.json["schema"].startswith("oci-harness/")
        return answer.json

    made = ask("create", "--recipe", "pause", "--runtime", name, "life")
    pid = made["pid"]
    assert alive(pid)
    assert made["runtime"]["name"] == name
    assert ask("state", "life")["state"]["status"] == "created"
    taken = cli("create", "--recipe", "pause", "--runtime", name, "life")
    assert "container id 'life' is taken" in taken.error
    assert taken.status == 2
    ask("start", "life")
    running = ask("state", "life")
    assert (running["state"]["status"], running["state"]["pid"]) == ("running", pid)
    assert running["snapshot"]["pid"] == pid

    told = cli("exec", "--cwd", "/tmp", "-e", "A=b", "life", "--", "/bin/sh", "-c", "pwd; echo $A >&2; exit 6")
    assert (told.status, told.stdout, told.stderr) == (6, "/tmp\n", "b\n")
    executed = cli("exec", "--json", "life", "sh", "-c", "echo out; exit 3")
    assert executed.status == 3
    assert (executed.json["exit_status"], executed.json["operation"]["stdout"]) == (3, "out\n")
    missing = cli("exec", "life", "no-such-program")
    assert missing.status == 4
    assert "no-such-program" in missing.stderr

    assert pid in [process["pid"] for process in ask("ps", "life")["processes"]]
    ask("pause", "life")
    assert ask("state", "life")["state"]["status"] == "paused"
    ask("resume", "life")
    assert ask("state", "life")["state"]["status"] == "running"
    looked = ask("inspect", "life")
    assert looked["pid"] == pid
    assert looked["namespaces"]["pid"]["shared_with_host"] is False
    assert [(each["id"], each["status"], each["pid"]) for each in ask("list")["containers"]] == [
        ("life", "running", pid)
    ]
    early = cli("delete", "life")
    assert early.status == 4, early
    ask("kill", "life", "SIGTERM")
    until(lambda: not alive(pid), "init has ended")
    assert ask("state", "life")["state"]["status"] == "stopped"
    ask("delete", "life")
    assert ask("list")["containers"] == []
    assert cli("state", "life").status == 2


def test_tables_for_people(cli: CommandLine) -> None:
    """Without --json the commands print what a person reads, and timing goes to stderr."""
    assert cli("run", "--detach", "--recipe", "pause", *RUNC, "--json", "seen").status == 0
    listed = cli("list")
    assert "seen" in listed.stdout
    assert "running" in listed.stdout
    assert "payload" in cli("ps", "seen").stdout
    shown = cli("inspect", "seen")
    assert "shared with the host" in shown.stdout
    deleted = cli("delete", "--force", "seen")
    assert (deleted.status, deleted.stdout) == (0, "")
    assert "seen: delete took" in deleted.stderr


@pytest.mark.parametrize("status", [0, 7])
def test_run_passes_the_exit_status(cli: CommandLine, status: int) -> None:
    """`run` exits with the container's status, and its streams are the container's."""
    text = f"echo out; echo err >&2; exit {status}"
    setting = "/process/args=" + json.dumps(["/bin/sh", "-c", text])
    answer = cli("run", *RUNC, "--recipe", "true", "--set", setting, "x")
    assert (answer.status, answer.stdout, answer.stderr) == (status, "out\n", "err\n")


def test_run_reads_stdin(cli: CommandLine) -> None:
    """The container of `run` has our stdin."""
    answer = cli("run", *RUNC, "--recipe", "shell", "x", stdin="echo hello $((6 * 7)); exit 5\n")
    assert (answer.status, answer.stdout) == (5, "hello 42\n")


def init_of(process: subprocess.Popen[str]) -> int:
    """The container's init: a child of the command, running the payload."""

    def found() -> list[int]:
        return [pid for pid in procfs.children(process.pid) if procfs.command_line(pid).startswith("/payload")]

    until(found, "the container runs")
    return found()[0]


def test_run_tells_of_a_signal(cli: CommandLine) -> None:
    """`run` exits with 128 + N when signal N has killed the container."""
    process = cli.start("run", *RUNC, "--recipe", "pause", "x")
    os.kill(init_of(process), signal.SIGKILL)
    assert process.wait(10) == 137


def test_run_with_a_terminal(cli: CommandLine) -> None:
    """`run --tty` gives the container a terminal of our size from its first moment, and passes input and output on."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(master, (43, 117))
    before = termios.tcgetattr(slave)
    text = "busybox stty size; busybox tty; read line; echo got:$line; exit 3"
    setting = "/process/args=" + json.dumps(["/bin/sh", "-c", text])
    streams = {"stdin": slave, "stdout": slave, "stderr": subprocess.PIPE, "start_new_session": True}
    try:
        process = cli.start("run", *RUNC, "--recipe", "true", "--set", setting, "--tty", "x", **streams)
        seen = read_until(master, b"/dev/pts/0")
        os.write(master, b"a word\r")
        seen += read_until(master, b"got:a word")
        assert b"43 117" in seen
        assert process.wait(10) == 3
        assert termios.tcgetattr(slave) == before, "our own terminal is as it was"
    finally:
        os.close(master)
        os.close(slave)


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_run(cli: CommandLine, base: Path, sig: signal.Signals) -> None:
    """A signal to `run` ends the container, cleans up, says so in one line, and the exit status is 130."""
    process = cli.start("run", *RUNC, "--recipe", "pause", "x")
    init = init_of(process)
    process.send_signal(sig)
    out, err = process.communicate(timeout=10)
    assert err.strip() == "oci-harness: interrupted"  # after an empty line that click writes behind a terminal's ^C
    assert process.returncode == 130
    assert out.strip().isdigit()
    assert not alive(init)
    assert container_files(base) == []


def until_measuring(process: subprocess.Popen[str], base: Path, order: int = 4) -> None:
    """Until the lifecycle number `order` has begun."""

    def begun() -> bool:
        names = [path.name for path in base.glob(f"oci-harness-bench-{process.pid}-*/c/b*")]
        return any(int(name[1:]) >= order for name in names)

    until(begun, f"lifecycle {order} has begun")


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("parallel", ["1", "2"])
def test_a_signal_ends_bench(cli: CommandLine, base: Path, sig: signal.Signals, parallel: str) -> None:
    """A signal to `bench` cleans up, keeps the samples so far in its JSON, and the exit status is 130."""
    args = ("bench", *RUNC, "--runs", "100000", "--warmup", "1", "--parallel", parallel, "--json")
    process = cli.start(*args)
    until_measuring(process, base)
    process.send_signal(sig)
    out, err = process.communicate(timeout=20)
    answer = Answer(process.returncode, out, err)
    assert answer.status == 130, answer
    assert answer.json["interrupted"] is True
    assert len(answer.json["samples"]) >= 2
    assert "interrupted" in [caveat["id"] for caveat in answer.json["caveats"]]
    assert answer.json["summary"]["runc"]["create_ns"]["n"] == len(answer.json["samples"])
    assert "Traceback" not in err
    assert container_files(base) == []


# -- bench -------------------------------------------------------------------------------------------------------------


def test_bench_result(cli: CommandLine, require: Callable[..., None], tmp_path: Path) -> None:
    """`bench` of two runtimes writes 2 x runs samples with all that the contract promises."""
    require("crun")
    path = tmp_path / "result.json"
    args = ("bench", "--runtime", "runc", "--runtime", "crun", "--runs", "5", "--warmup", "1", "--seed", "7")
    answer = cli(*args, "--output", str(path))
    assert answer.status == 0, answer
    assert "crun / runc" in answer.stdout
    result = json.loads(path.read_text())
    assert next(iter(result)) == "schema"
    assert {"environment", "caveats", "samples", "summary", "comparisons"} <= set(result)
    assert len(result["samples"]) == 10
    for sample in result["samples"]:
        assert {"runtime", "index", "order", "stages", "first_instruction_ns", "exit_status"} <= set(sample)
        assert {"create_ns", "start_ns", "kill_ns", "exit_ns", "delete_ns", "whole_ns"} <= set(sample["stages"])
        assert sample["exit_status"] == -9
    for name in ("runc", "crun"):
        assert {"n", "median_ns", "p95_ns", "p99_ns", "ci95_ns"} <= set(result["summary"][name]["create_ns"])
        assert result["summary"][name]["create_ns"]["n"] == 5
        low, high = result["summary"][name]["whole_ns"]["ci95_ns"]
        assert low <= result["summary"][name]["whole_ns"]["median_ns"] <= high
    for comparison in result["comparisons"]:
        assert {"a", "b", "stage", "ratio", "ci95", "verdict"} <= set(comparison)
        assert (comparison["a"], comparison["b"]) == ("runc", "crun")
    assert {caveat["id"] for caveat in result["caveats"]} >= {"few-samples"}
    assert all(caveat["message"] for caveat in result["caveats"])
    assert result["settings"]["seed"] == 7


# -- gc ----------------------------------------------------------------------------------------------------------------


def gc(cli: CommandLine, *args: str) -> Any:
    answer = cli("gc", "--json", *args)
    assert answer.status == 0, answer
    return answer.json


def names(found: list[dict[str, Any]]) -> set[str]:
    return {each["name"] for each in found}


def test_gc_after_sigkill(cli: CommandLine, base: Path) -> None:
    """What benchmarks leave that were killed at random moments is all gone after one gc."""
    draw = random.Random(20261120)
    left = 0
    for _ in range(4):
        killed = []
        for _ in range(3):
            process = cli.start("bench", *RUNC, "--runs", "1000", "--recipe", draw.choice(["pause", "true"]), "--json")
            begun = f"*-{process.pid}-*"
            until(lambda begun=begun: any(base.glob(begun)), "it has begun", 20)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(draw.uniform(0.0, 0.35))
            killed.append(process)
        for process in killed:
            process.kill()
            process.wait()
        result = gc(cli)
        mine = {name for name in names(result["removed"]) if any(f"-{p.pid}-" in name for p in killed)}
        left += len(mine)
        assert names(result["removed"]) >= mine
        assert not [each for each in gc(cli, "--dry-run")["found"] if each["name"] in mine]
    assert left == 12


def test_gc_spares_the_living(cli: CommandLine) -> None:
    """gc leaves a run alone whose owner lives, and says so."""
    process = cli.start("run", *RUNC, "--recipe", "pause", "living")
    init = init_of(process)
    result = gc(cli)
    assert [each["fate"] for each in result["spared"] if each["name"] == "oci-harness-c-living"] == ["live"]
    assert alive(init)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 130


def test_gc_spares_what_was_kept(cli: CommandLine) -> None:
    """gc leaves a container alone that was made by hand, and takes it only with --kept."""
    made = cli("run", "--detach", "--recipe", "pause", *RUNC, "--json", "kept")
    pid = made.json["pid"]
    result = gc(cli)
    assert [each["fate"] for each in result["spared"] if each["name"] == "oci-harness-c-kept"] == ["kept"]
    assert cli("state", "kept").status == 0
    dry = gc(cli, "--kept", "--dry-run")
    assert "oci-harness-c-kept" in names(dry["found"])
    assert alive(pid)
    assert cli("delete", "--force", "kept").status == 0
    assert not alive(pid)


def test_gc_takes_kept_ones_when_asked(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """gc --kept removes containers made by hand with all that is in them."""
    made = cli("run", "--detach", "--recipe", "pause", *RUNC, "--json", "taken-away")
    pid = made.json["pid"]
    result = gc(cli, "--kept")
    assert "oci-harness-c-taken-away" in names(result["removed"])
    assert not alive(pid)
    assert cli("state", "taken-away").status == 2


def test_a_pid_file_that_cannot_be_written(cli: CommandLine) -> None:
    """create --pid-file into a missing directory says so in one line and leaves no container."""
    answer = cli("create", "--recipe", "pause", "--runtime", "runc", "--pid-file", "/no/such/directory/pid", "pidless")
    assert answer.status == 3
    assert answer.stderr.strip() == "oci-harness: /no/such/directory/pid: No such file or directory"
    assert '"containers": []' in cli("list", "--json").stdout
