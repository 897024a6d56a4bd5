"""Guests that die, hang or are interrupted: each is a result, and none outlives its maker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.compat import guest, machine
from harness.compat.cells import Cell, Matrix, load_cells
from harness.compat.kernels import HOST, Kernel
from harness.compat.matrix import Plan, Runner
from harness.faults.catalogue import find_faults
from harness.kernel import procfs
from harness.process.children import become_subreaper
from harness.runtime.discovery import find_runtimes
from harness.runtime.workspace import Workspace

CASES = ("exec-not-found", "mount-source-missing")
SAYS_HELLO = """
import json, os, sys
from harness.compat.guest_agent import Channel, _open
channel = Channel(_open(None))
channel.send("hello", kernel=os.uname().release)
case, runtime = channel.receive()["shifts"][0]["cases"][0]
channel.send("begin", case=case, runtime=runtime)
"""
PANICS = SAYS_HELLO + "open('/proc/sysrq-trigger', 'w').write('c')"
HANGS = SAYS_HELLO + "import time; time.sleep(1000)"

pytestmark = pytest.mark.slow


def plan(kernel: Kernel, runtimes: tuple[str, ...], view: str = "unified", faults: tuple[str, ...] = CASES) -> Plan:
    return Plan((kernel,), (view,), tuple(find_runtimes(runtimes)), tuple(find_faults(faults)), True, 30.0)


def run(asked: Plan, accelerators: list[machine.Accelerator] | None = None, known: list[Cell] | None = None) -> Matrix:
    made = Matrix()
    become_subreaper()
    with Workspace("matrix") as workspace:
        Runner(made, asked, workspace.path, accelerators or ["tcg"], jobs=2).run(known or [])
    return made


def qemus(of: str) -> list[int]:
    return [stat.pid for stat in procfs.processes_naming(of) if stat.comm.startswith("qemu")]


def lives(pid: int) -> bool:
    """A zombie does not: whoever inherits a guest of a dead maker, here the tests, reaps it some time."""
    stat = procfs.process_stat(pid)
    return stat is not None and stat.state != "Z"


def wait_for(condition: Callable[[], object], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def test_a_guest_gives_the_verdicts_of_its_own_kernel(
    base: Path, old_kernel: Kernel, runtimes: tuple[str, ...]
) -> None:
    """A fault is reproduced there on both runtimes, with the texts that they have everywhere."""
    cells = run(plan(old_kernel, runtimes)).cells
    assert {cell.verdict for cell in cells.values() if cell.case in CASES} == {"reproduced"}
    assert {cell.kernel for cell in cells.values()} == {old_kernel.release}
    assert len(cells) == 6


def test_a_second_cpu_comes_up_for_the_case_that_needs_it(
    base: Path, old_kernel: Kernel, runtimes: tuple[str, ...]
) -> None:
    """In the same guest, after all others: what was asked for first is not run first."""
    narrow = "cpuset-parent-narrow"
    made = run(plan(old_kernel, runtimes, "legacy", (narrow, CASES[0])))
    assert [guest["cells"] for guest in made.guests] == [6]
    verdicts = [(cell.case, cell.verdict) for cell in made.cells.values() if cell.case in (narrow, CASES[0])]
    assert verdicts == [(CASES[0], "reproduced")] * 2 + [(narrow, "reproduced")] * 2


def test_the_host_is_a_place_like_any_other(base: Path, runtimes: tuple[str, ...]) -> None:
    """Without a guest the same cells come from a process of this host."""
    made = run(plan(Kernel(HOST, os.uname().release), runtimes[:1], "host"))
    assert {cell.verdict for cell in made.cells.values()} == {"passes", "reproduced"}
    assert {cell.accelerator for cell in made.cells.values()} == {None}


def test_what_there_is_no_time_for_is_told(base: Path, runtimes: tuple[str, ...]) -> None:
    """Nothing is started when the time is over, and how much was not run is in the result."""
    made = Matrix()
    asked = plan(Kernel(HOST, os.uname().release), runtimes[:1], "host")
    with Workspace("matrix") as workspace:
        Runner(made, asked, workspace.path, ["tcg"], jobs=1, max_time_s=0.0).run()
    assert (made.cells, made.environment["not_run"], made.guests) == ({}, 3, [])


def test_a_panic_is_the_result_of_the_case_it_happened_in(
    base: Path, old_kernel: Kernel, runtimes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cell has the panic's words and the console's last lines; no other cell is lost."""
    monkeypatch.setattr(guest, "agent_argv", lambda _fd=None: (sys.executable, "-P", "-c", PANICS))
    made = run(plan(old_kernel, runtimes[:1], faults=CASES[:1]))
    verdicts = {cell.verdict for cell in made.cells.values()}
    assert verdicts == {"inconclusive"}
    assert len(made.cells) == 2
    first = made.cells[old_kernel.release, "unified", "runc", "start-container"]
    assert "panicked: sysrq" in (first.reason or "")
    assert "Kernel panic" in (first.console or "")


def test_a_guest_that_says_nothing_is_given_up(
    base: Path, old_kernel: Kernel, runtimes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The case that it hangs in is inconclusive, and the next guest goes on behind it."""
    monkeypatch.setattr(guest, "agent_argv", lambda _fd=None: (sys.executable, "-P", "-c", HANGS))
    monkeypatch.setattr(guest, "SILENCE_S", 5.0)
    made = run(plan(old_kernel, runtimes[:1], faults=CASES[:1]))
    assert [cell.reason for cell in made.cells.values()] == ["no word for 5 s"] * 2


def test_an_accelerator_that_does_not_work_gives_way_to_the_next(
    base: Path, old_kernel: Kernel, runtimes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """KVM that does not bring a guest up within its deadline costs no cell."""
    monkeypatch.setattr(guest, "BOOT_S", {"kvm": 0.5, "tcg": 180.0})
    monkeypatch.setattr(
        guest.machine,
        "accelerators",
        lambda _asked: ["kvm", "tcg"],
    )
    start = machine.start
    monkeypatch.setattr(guest.machine, "start", lambda *args: start(*args[:3], "tcg", *args[4:]))
    made = run(plan(old_kernel, runtimes[:1]), ["kvm", "tcg"])
    assert {cell.accelerator for cell in made.cells.values()} == {"tcg"}
    assert made.environment["accelerators_given_up"][0]["accelerator"] == "kvm"
    assert {cell.verdict for cell in made.cells.values()} == {"passes", "reproduced"}


def test_cells_of_an_earlier_run_are_not_run_again(base: Path, old_kernel: Kernel, runtimes: tuple[str, ...]) -> None:
    """With the same catalogue, runtime and kernel no guest is booted; another fingerprint is another cell."""
    asked = plan(old_kernel, runtimes[:1])
    fingerprints = asked.fingerprints()
    cells = [
        Cell(
            old_kernel.release,
            "unified",
            runtime,
            case,
            "reproduced",
            True,
            fingerprints[old_kernel.release, runtime, case],
        )
        for case, runtime in asked.jobs()[0].cases
    ]
    made = run(asked, known=cells)
    assert (len(made.cells), made.guests) == (3, [])


@pytest.mark.parametrize(
    "wrong",
    [("--faults", "no-such"), ("--conformance", "and and"), ("--baseline", "no/such"), ("--resume", "-o", "{}")],
)
def test_what_is_refused_is_refused_before_a_root_is_made(
    wrong: tuple[str, ...], base: Path, cache: Path, old_kernel: Kernel, tmp_path: Path
) -> None:
    """A root with systemd takes a minute to make."""
    (tmp_path / "kernels").symlink_to(cache / "kernels")
    (tmp_path / "m.json").write_text("{}")
    argv = [sys.executable, "-m", "harness", "matrix", "--kernel", old_kernel.release, "--view", "unified+systemd"]
    words = [str(tmp_path / "m.json") if word == "{}" else word for word in wrong]
    argv += ["--cache", str(tmp_path), *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert not (tmp_path / "roots").exists()


@pytest.fixture
def command(base: Path, old_kernel: Kernel, runtimes: tuple[str, ...], tmp_path: Path) -> subprocess.Popen[bytes]:
    """`oci-harness matrix` with a guest of its own, in the midst of its work."""
    words = ["matrix", "--kernel", old_kernel.release, "--runtime", runtimes[0], "--accel", "tcg"]
    argv = [sys.executable, "-m", "harness", *words, "--output", str(tmp_path / "m.json")]
    started = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    result = tmp_path / "m.json"
    try:
        wait_for(lambda: result.exists() and len(load_cells(result)) > 1, 240)
    except BaseException:
        started.kill()
        raise
    assert qemus(str(base))
    return started


def test_sigkill_leaves_no_qemu_and_gc_the_rest(command: subprocess.Popen[bytes], base: Path, tmp_path: Path) -> None:
    """The kernel ends the guest with its maker; the cells so far are in the file, whole."""
    running = qemus(str(base))
    command.kill()
    command.wait()
    wait_for(lambda: not any(map(lives, running)), 10)
    assert json.loads((tmp_path / "m.json").read_text())["cells"]
    collected = subprocess.run([sys.executable, "-m", "harness", "gc", "--json"], capture_output=True, check=True)
    assert len(json.loads(collected.stdout)["removed"]) == 1


def test_ctrl_c_ends_the_guest_and_keeps_the_cells(
    command: subprocess.Popen[bytes], base: Path, tmp_path: Path
) -> None:
    """Nothing is left, and the file can be gone on with."""
    running = qemus(str(base))
    command.send_signal(signal.SIGINT)
    assert command.wait(60) == 130
    assert not any(map(lives, running))
    assert load_cells(tmp_path / "m.json")
