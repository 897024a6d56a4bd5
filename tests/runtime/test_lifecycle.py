"""One list of cases for every runtime: what a container's life looks like, and that nothing of it stays behind."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from actors import PAUSE, read_until, shell

from harness.cgroup.files import CgroupFiles
from harness.errors import HostError, InputError, OperationFailed
from harness.kernel import procfs, shim
from harness.process.command import Stdio
from harness.runtime.console import ConsoleSocket
from harness.runtime.container import Container
from harness.runtime.discovery import Runtime, find_runtimes
from harness.runtime.failures import check
from harness.runtime.options import CreateOptions, ExecOptions
from harness.runtime.session import Session

Make = Callable[..., Container]
Lacking = Callable[[str], None]


def as_a_shell_shows(status: int) -> int:
    """-9 as 137: a runtime whose init is a sandbox passes a signal on as an exit status."""
    return 128 - status if status < 0 else status


def started(container: Container) -> Container:
    check(container.create())
    check(container.start())
    return container


def options_of(container: Container, **more: object) -> CreateOptions:
    return CreateOptions(str(container.bundle.path), f"{container.directory}/pid", **more)


def test_states_come_in_order(make: Make) -> None:
    """A container is created, running, stopped, and then unknown to its runtime."""
    container = make()
    check(container.create())
    seen = [container.state().status]
    check(container.start())
    seen.append(container.state().status)
    check(container.kill())
    container.wait(10)
    seen.append(container.state().status)
    check(container.delete())
    assert seen == ["created", "running", "stopped"]
    with pytest.raises(OperationFailed):
        container.state()


def test_state_names_the_container(make: Make) -> None:
    """The state of a created container has its id, its bundle, and a process that lives."""
    container = make(container_id="named.one_2")
    check(container.create())
    state = container.state()
    assert (state.id, state.bundle) == ("named.one_2", str(container.bundle.path))
    assert state.pid is not None
    os.kill(state.pid, 0)


def test_nothing_runs_before_start(make: Make) -> None:
    """The process of config.json has not run while the container is created."""
    container = make(shell("echo ran"))
    check(container.create())
    assert container.state().status == "created"
    assert container.stdout == b""
    check(container.start())
    container.wait(10)
    assert container.stdout == b"ran\n"


@pytest.mark.parametrize("status", [0, 7, 255])
def test_exit_status(make: Make, status: int) -> None:
    """The exit status of a detached container's init is what its process returned."""
    assert started(make(shell(f"exit {status}"))).wait(10).status == status


@pytest.mark.parametrize("sig", ["SIGKILL", "KILL", "9"])
def test_killed_by_name_and_number(make: Make, sig: str) -> None:
    """`kill` takes a signal's full name, its short name and its number, and the status tells of the signal."""
    container = started(make())
    check(container.kill(sig))
    assert as_a_shell_shows(container.wait(10).status) == 128 + signal.SIGKILL


@pytest.mark.parametrize("sig", ["SIGTERM", "15"])
def test_a_handler_gets_the_signal(make: Make, sig: str) -> None:
    """A signal that init handles runs its handler."""
    reader, writer = os.pipe()
    container = make(shell("trap 'exit 5' TERM; echo ready; sleep 60 & wait"), stdio=Stdio(stdout=writer))
    started(container)
    os.close(writer)
    read_until(reader, b"ready\n")
    os.close(reader)
    check(container.kill(sig))
    assert container.wait(10).status == 5


def test_killed_by_sigterm(make: Make, session: Session) -> None:
    """Outside of a pid namespace of its own a process without a handler dies of SIGTERM."""
    namespaces = session.template("default").config.get("/linux/namespaces")
    others = [namespace for namespace in namespaces if namespace["type"] != "pid"]
    container = started(make(("/bin/sleep", "60"), ("/linux/namespaces", others)))
    check(container.kill("SIGTERM"))
    assert as_a_shell_shows(container.wait(10).status) == 128 + signal.SIGTERM


def test_an_unknown_signal_is_refused(make: Make, lacking: Lacking) -> None:
    """A signal that does not exist makes `kill` fail, and the container runs on."""
    lacking("unknown-signal")
    container = started(make())
    with pytest.raises(OperationFailed):
        check(container.kill("SIGNOPE"))
    assert container.state().status == "running"


def test_wait_has_a_deadline(make: Make) -> None:
    """`wait` raises TimeoutError at its deadline and leaves the container running."""
    container = started(make())
    with pytest.raises(TimeoutError):
        container.wait(0.05)
    assert container.state().status == "running"
    check(container.kill())
    assert as_a_shell_shows(container.wait(10).status) == 137


def test_wait_for_what_was_never_created(make: Make) -> None:
    """`wait` on a container that was not created says so instead of waiting."""
    with pytest.raises(ChildProcessError, match="not created"):
        make().wait(1)


def test_exec_gives_output_and_status(make: Make) -> None:
    """`exec` returns stdout, stderr and the exit status of the command apart from each other."""
    operation = started(make()).exec("/bin/sh", "-c", "echo out; echo again; echo err >&2; exit 9")
    assert (operation.exit_status, operation.stdout, operation.stderr) == (9, b"out\nagain\n", b"err\n")


def test_exec_with_cwd_and_environment(make: Make) -> None:
    """`exec` takes a working directory and environment variables."""
    options = ExecOptions(("/bin/sh", "-c", "pwd; echo $WORD"), cwd="/tmp", env=("WORD=two words",))
    operation = check(started(make()).exec(options=options))
    assert operation.stdout == b"/tmp\ntwo words\n"


def test_exec_has_a_deadline(make: Make) -> None:
    """An `exec` that misses its deadline is killed, and the container lives on."""
    container = started(make())
    operation = container.exec("/bin/sleep", "60", timeout_s=0.3)
    assert operation.timed_out
    assert container.state().status == "running"


def test_kill_after_an_exec_that_failed(make: Make) -> None:
    """What a failed `exec` leaves half done does not keep init from dying."""
    container = started(make())
    assert container.exec("/nope").exit_status != 0
    check(container.kill())
    assert as_a_shell_shows(container.wait(5).status) == 137


def detached_sleep(container: Container) -> ExecOptions:
    return ExecOptions(("/bin/sleep", "60"), detach=True, pid_file=f"{container.directory}/exec-pid")


def test_kill_with_a_detached_exec(make: Make) -> None:
    """A detached `exec` that still runs does not keep init from dying, nor delete from going well."""
    container = started(make())
    check(container.exec(options=detached_sleep(container)))
    check(container.kill())
    assert as_a_shell_shows(container.wait(5).status) == 137
    check(container.delete())


def test_clean_up_with_a_detached_exec(make: Make) -> None:
    """Clean-up ends a container in which a detached `exec` still runs."""
    container = started(make())
    check(container.exec(options=detached_sleep(container)))
    assert container.clean_up() == []


def test_pause_and_resume(make: Make) -> None:
    """A paused container shows `paused`, and `running` once it is resumed."""
    container = started(make())
    check(container.pause())
    paused = container.state().status
    check(container.resume())
    assert (paused, container.state().status) == ("paused", "running")


def test_ps_lists_processes(make: Make, runtime: Runtime) -> None:
    """`ps` lists the processes of the container: init, and its child."""
    reader, writer = os.pipe()
    container = started(make(shell("sleep 60 & echo ready; wait"), stdio=Stdio(stdout=writer)))
    os.close(writer)
    read_until(reader, b"ready\n")
    os.close(reader)
    pids = json.loads(check(container.client.ps(container.id)).stdout)
    assert len(pids) == 2
    if runtime.dialect.uses_host_cgroups:  # else they are numbers of the sandbox's own
        assert container.init is not None
        assert container.init.pid in pids


def test_list_knows_it(make: Make) -> None:
    """`list` shows a running container with its id and status, and no longer after delete."""
    container = started(make())
    found = json.loads(check(container.client.list()).stdout)
    assert [(each["id"], each["status"]) for each in found if each["id"] == container.id] == [(container.id, "running")]
    check(container.kill())
    container.wait(10)
    check(container.delete())
    assert container.id not in check(container.client.list()).stdout.decode()


def test_the_containers_output_is_its_own(make: Make) -> None:
    """What the container writes is on its two streams, each on its own, and never in a log of the runtime."""
    container = started(make(shell("echo to-stdout; echo to-stderr >&2")))
    container.wait(10)
    check(container.delete())
    assert (container.stdout, container.stderr) == (b"to-stdout\n", b"to-stderr\n")
    for operation in container.operations:
        assert operation.stdout == b""
        assert not [record for record in operation.log if "to-std" in record.msg]


def test_the_runtimes_error_is_not_the_containers_output(make: Make) -> None:
    """A runtime's error is in its log records and never on the container's stdout."""
    container = make(("/no/such/program",))
    operation = container.create()
    if operation.exit_status == 0:
        operation = container.start()
    assert operation.exit_status != 0
    assert any("/no/such/program" in record.msg for record in operation.log)
    assert "/no/such/program" in operation.message
    assert container.stdout == b""


def test_a_great_deal_of_output(make: Make) -> None:
    """A container that writes much more than a pipe holds comes to its end, for nobody has to read along."""
    container = started(make(shell("yes 0123456789abcde | head -c 4000000; echo end >&2")))
    assert container.wait(20).status == 0
    assert len(container.stdout) == 4_000_000
    assert container.stderr == b"end\n"


def test_console_socket(make: Make) -> None:
    """With a terminal the container's 0, 1 and 2 are one, and the master sent through the socket shows its output."""
    text = "test -t 0 && test -t 1 && test -t 2 && echo terminal; busybox stty size; read line; echo got $line"
    container = make(shell(text), ("/process/terminal", True))
    with ConsoleSocket(container.directory) as console:
        check(container.create(options_of(container, console_socket=console.path)))
        master = console.receive()
    try:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 41, 133, 0, 0))
        check(container.start())
        seen = read_until(master, b"41 133\r\n")
        os.write(master, b"a word\n")
        read_until(master, b"got a word")
        assert b"terminal\r\n" in seen
        container.wait(10)
    finally:
        os.close(master)


def test_preserve_fds(make: Make, lacking: Lacking) -> None:
    """A preserved descriptor is number 3 of the process, with what was in it."""
    lacking("preserve-fds")
    reader, writer = os.pipe()
    os.write(writer, b"through three\n")
    os.close(writer)
    container = make(shell("cat <&3"))
    stdout = os.open(container.directory / "stdout", os.O_WRONLY | os.O_CREAT)
    try:
        check(container.create(options_of(container, preserve_fds=(reader,), stdio=Stdio(stdout=stdout))))
        check(container.start())
        container.wait(10)
    finally:
        os.close(reader)
        os.close(stdout)
    assert container.stdout == b"through three\n"


def test_preserve_fds_where_there_are_none(make: Make, runtime: Runtime) -> None:
    """A runtime that cannot preserve descriptors is refused with the reason before anything is made."""
    if runtime.dialect.preserve_fds:
        pytest.skip(f"{runtime.name} has --preserve-fds")
    container = make()
    with pytest.raises(HostError, match="--preserve-fds cannot be used"):
        container.create(options_of(container, preserve_fds=(0,)))
    assert container.operations == []


@pytest.mark.parametrize("option", ["no_pivot", "no_new_keyring"])
def test_options_of_create(make: Make, runtime: Runtime, option: str) -> None:
    """--no-pivot and --no-new-keyring are accepted where they exist, and refused with the flag's name elsewhere."""
    container = make(shell("exit 3"))
    options = options_of(container, **{option: True})
    if getattr(runtime.dialect, f"{option}_arg") is None:
        with pytest.raises(HostError, match=option.replace("_", "-")):
            container.create(options)
        return
    check(container.create(options))
    assert f"--{option.replace('_', '-')}" in container.operations[0].argv
    check(container.start())
    assert container.wait(10).status == 3


def test_pid_file(make: Make) -> None:
    """The pid file holds init's pid as a decimal number and nothing else."""
    container = make()
    check(container.create())
    text = (container.directory / "pid").read_text()
    assert text.isdigit()
    assert int(text) == container.state().pid


def test_an_id_that_is_taken(make: Make, lacking: Lacking) -> None:
    """Creating a container under a taken id fails with the runtime's own text, and the first one is unharmed."""
    lacking("taken-id")
    first = started(make(container_id="taken"))
    second = make()
    with pytest.raises(OperationFailed, match="exist") as caught:
        check(first.client.create("taken", options_of(second)))
    assert caught.value.operation.message in str(caught.value)
    assert first.state().status == "running"
    assert first.exec("/bin/true").exit_status == 0


def test_an_id_that_is_taken_in_the_session(make: Make) -> None:
    """A session refuses an id that it has given out already, before any runtime is called."""
    make(container_id="once")
    with pytest.raises(FileExistsError):
        make(container_id="once")


@pytest.mark.parametrize("container_id", ["a/b", "..", "", "x" * 129, "a b"])
def test_an_id_that_cannot_be(session: Session, runtime: Runtime, container_id: str) -> None:
    """An id that is no plain name is refused before any runtime is called."""
    if container_id == "":
        container_id = "\n"
    with pytest.raises(InputError, match="cannot be used"):
        session.container(runtime, "default", container_id)


class Oops(Exception):
    """Raised by a test's body."""


def test_clean_up_when_the_body_raises(make: Make) -> None:
    """Leaving the context manager by an exception ends the container and takes its directory away."""
    container = make()
    with pytest.raises(Oops), container:  # noqa: PT012 - what comes before is the point
        check(container.start())
        assert container.state().status == "running"
        raise Oops
    assert not container.directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(container.init.pid, 0)


def test_clean_up_of_a_container_never_started(make: Make) -> None:
    """A container that was only created is removed."""
    with make() as container:
        assert container.state().status == "created"
    assert not container.directory.exists()


def test_clean_up_when_the_program_is_missing(make: Make) -> None:
    """A program that is not there makes create or start fail with its name, and nothing stays."""
    container = make(("/no/such/program",))
    with pytest.raises(OperationFailed, match="/no/such/program"), container:
        check(container.start())
    assert not container.directory.exists()


def test_clean_up_when_create_fails(make: Make) -> None:
    """A mount that cannot be made makes create fail, and nothing stays."""
    container = make(
        PAUSE, ("/mounts/-", {"destination": "/x", "type": "bind", "source": "/nope", "options": ["bind"]})
    )
    with pytest.raises(OperationFailed, match="create failed"), container:
        pytest.fail("the body must not run")
    assert not container.directory.exists()


@pytest.mark.parametrize("then", ["exit 1", "exec sleep 300"])
def test_clean_up_of_a_hook_that_outlives_its_runtime(runtime: Runtime, then: str) -> None:
    """It became our child when the runtime ended; dead or alive, it goes."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"kill -9 $PPID; {then}"]}
    with Session("auto", [runtime], kind="test") as session:
        container = session.container(runtime, session.template("default", (("/hooks", {"createRuntime": [hook]}),)))
        assert container.create().exit_status == -signal.SIGKILL
        assert container.clean_up() == []
        assert procfs.children(os.getpid()) == []


def test_clean_up_when_start_fails(make: Make) -> None:
    """Start fails when init was killed before, and nothing stays."""
    container = make()
    with pytest.raises(OperationFailed, match="start failed"), container:  # noqa: PT012 - killed in between
        os.kill(container.init.pid, signal.SIGKILL)
        container.wait(10)
        check(container.start())
    assert not container.directory.exists()


def test_init_killed_behind_the_runtimes_back(make: Make) -> None:
    """When somebody else kills init the runtime says stopped, and delete goes well."""
    container = started(make())
    os.kill(container.init.pid, signal.SIGKILL)
    assert as_a_shell_shows(container.wait(10).status) == 137
    assert container.state().status == "stopped"
    check(container.delete())


def test_clean_up_of_a_paused_container(make: Make) -> None:
    """A container that is paused at clean-up is ended all the same, within two seconds."""
    with make() as container:
        check(container.start())
        check(container.pause())
        assert container.state().status == "paused"
        begin = shim.monotonic_ns()
    assert shim.monotonic_ns() - begin < 2_000_000_000
    assert not container.directory.exists()


def test_clean_up_twice(make: Make) -> None:
    """Cleaning up a second time does nothing."""
    container = make()
    with container:
        pass
    before = len(container.operations)
    assert container.clean_up() == []
    assert len(container.operations) == before


def test_deleting_a_running_container_is_refused(make: Make) -> None:
    """Plain delete of a running container fails, and the container runs on."""
    container = started(make())
    assert container.delete().exit_status != 0
    assert container.state().status == "running"


def test_two_versions_side_by_side(runtime: Runtime) -> None:
    """One binary under two names is two runtimes: each sees its own containers only, both run at once."""
    found = find_runtimes((f"a={runtime.path}", f"b={runtime.path}"))
    assert [each.name for each in found] == ["a", "b"]
    with (
        Session("auto", found, kind="test") as session,
        session.container(found[0], "pause", "one") as one,
        session.container(found[1], "pause", "two") as two,
    ):
        check(one.start())
        check(two.start())
        lists = [json.loads(check(each.client.list()).stdout) for each in (one, two)]
        assert [[each["id"] for each in found] for found in lists] == [["one"], ["two"]]
        assert one.client.root != two.client.root


def test_update_of_limits(make: Make, session: Session, lacking: Lacking, tmp_path: Path) -> None:
    """`update` changes the memory limit and the pids limit that the kernel shows."""
    lacking("update")
    container = started(make(PAUSE, ("/linux/resources/memory", {"limit": 256 << 20})))
    resources = tmp_path / "resources.json"
    resources.write_text(json.dumps({"memory": {"limit": 64 << 20}, "pids": {"limit": 33}}))

    def limits() -> tuple[int | None, object]:
        with CgroupFiles.of_pid(session.layout, container.init.pid) as files:
            snapshot = files.snapshot()
            return snapshot.memory.limit_bytes, snapshot.pids.limit

    before = session.namespace.call(limits)
    check(container.client.update(container.id, str(resources)))
    after = session.namespace.call(limits)
    assert before[0] == 256 << 20
    assert after == (64 << 20, 33)
    assert before[1] != 33


def test_update_where_there_is_none(make: Make, runtime: Runtime) -> None:
    """A runtime without `update` is refused with the reason."""
    if "update" in runtime.verbs:
        pytest.skip(f"{runtime.name} has update")
    with pytest.raises(HostError, match="no update command"):
        make().client.update("x", "/dev/null")


def test_events(make: Make, runtime: Runtime) -> None:
    """`events --stats` gives one reading of the running container, in JSON."""
    if "events" not in runtime.verbs:
        pytest.skip(f"{runtime.name} has no events command")
    container = started(make())
    event = json.loads(check(container.client.events(container.id)).stdout)
    assert (event["type"], event["id"]) == ("stats", container.id)
    assert event["data"]["pids"]["current"] >= 1


def test_features(make: Make, runtime: Runtime) -> None:
    """`features` tells the namespaces that the runtime knows."""
    if "features" not in runtime.verbs:
        pytest.skip(f"{runtime.name} has no features command")
    features = make().client.features()
    assert features.linux is not None
    assert {"pid", "mount", "network"} <= set(features.linux.namespaces or ())


def test_unknown_fields_are_kept(make: Make) -> None:
    """A config.json with fields that nobody knows runs, and keeps them."""
    unknown = {"deep": [1, None, {"x": "y"}]}
    container = started(make(shell("exit 4"), ("/x-unknown", unknown), ("/linux/xNew", 1)))
    assert container.wait(10).status == 4
    kept = json.loads((container.bundle.path / "config.json").read_text())
    assert (kept["x-unknown"], kept["linux"]["xNew"]) == (unknown, 1)


def test_first_instruction(make: Make, lacking: Lacking) -> None:
    """The payload's stamp of its first instruction lies between start's clone and now."""
    lacking("host-clock")
    container = started(make(("/payload",)))
    container.wait(10)
    assert container.operations[-1].start_ns < int(container.stdout) < shim.monotonic_ns()


def test_operations_are_kept(make: Make) -> None:
    """Every call is kept in order, with a command line, a time, and what it used."""
    container = started(make())
    check(container.kill())
    container.wait(10)
    check(container.delete())
    assert [operation.verb for operation in container.operations] == ["create", "start", "kill", "delete"]
    for earlier, later in zip(container.operations, container.operations[1:], strict=False):
        assert earlier.start_ns < earlier.end_ns <= later.start_ns
    for operation in container.operations:
        assert operation.argv[0] == container.client.runtime.path
        assert container.id in operation.command
        assert operation.usage.user_us + operation.usage.system_us >= 0
        assert not operation.timed_out


@pytest.mark.parametrize("given", [False, True])
def test_dev_null_is_not_given_away(make: Make, given: bool) -> None:
    """A runtime that gives its streams to nobody (65534) never gets the host's /dev/null, even if we are told to."""
    nobody = 65534
    if Path("/dev/null").stat().st_uid == nobody:
        pytest.fail("/dev/null belongs to nobody already: chown root:root /dev/null")
    null = os.open("/dev/null", os.O_RDWR)
    try:
        container = started(make(stdio=Stdio(null, null, null) if given else None))
        check(container.exec("/bin/true"))
    finally:
        os.close(null)
    assert Path("/dev/null").stat().st_uid != nobody
