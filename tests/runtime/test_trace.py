"""Traces of real starts: the phases add up, what is lost is told, nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from actors import CommandLine, Sessions, until

from harness.errors import HostError
from harness.kernel import procfs, shim, tracefs
from harness.kernel.events import ProcessEvents
from harness.process.children import reap_orphans
from harness.runtime.dialects import CRUN
from harness.runtime.discovery import Runtime
from harness.runtime.session import Session
from harness.trace.collect import Trace
from harness.trace.export import STATES, trace_events
from harness.trace.phases import PHASES
from harness.trace.result import Result
from harness.trace.run import run_trace
from harness.trace.timeline import draw

STARTS = {"runc": 100, "crun": 100, "runsc": 20}
TOLERANCE = 0.02


@pytest.fixture(autouse=True)
def no_instances() -> Any:
    """Every test: no trace instance of this process more than before."""
    yield
    assert [name for name in tracefs.find_instances("oci-harness-") if f"-{os.getpid()}-" in name] == []


@pytest.fixture(scope="module")
def needs_events() -> None:
    try:
        ProcessEvents().stop()
    except HostError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def needs_tracefs() -> None:
    try:
        os.close(tracefs.open_root())
    except HostError as error:
        pytest.skip(str(error))


def only(result: Result) -> list[Trace]:
    assert result.failed == []
    assert result.notes == []
    return result.traces


def test_phases_add_up(runtime: Runtime, session: Session, needs_events: None) -> None:
    """Of every start the phases follow each other and add up to the time that passed outside, and no event is lost."""
    outside: list[int] = []
    clock = [shim.monotonic_ns()]

    def started(_: object) -> None:
        clock.append(shim.monotonic_ns())
        outside.append(clock[-1] - clock[-2])

    traces = only(run_trace(session, [runtime], runs=STARTS[runtime.name], warmup=0, on_start=started))
    assert len(traces) == STARTS[runtime.name]
    for trace, passed_ns in zip(traces, outside, strict=True):
        total = sum(phase.duration_ns for phase in trace.phases)
        assert abs(total - trace.whole_ns) <= TOLERANCE * trace.whole_ns
        assert total <= passed_ns
        assert all(one.end_ns == two.start_ns for one, two in pairwise(trace.phases))
        assert min(phase.duration_ns for phase in trace.phases) >= 0
        for phase in trace.phases:
            if phase.steps:
                assert sum(step.end_ns - step.start_ns for step in phase.steps) == phase.duration_ns
        assert trace.lost_events == 0
        operations = {op.verb: op for op in trace.lived.operations}
        began = trace.lived.create.start_ns
        ends = {phase.name: phase.end_ns + began for phase in trace.phases}
        for verb, phase_name in (("start", "start returned"), ("delete", "delete"), ("kill", "kill returned")):
            assert ends[phase_name] == operations[verb].end_ns
            assert operations[verb].start_ns < ends[f"{verb} spawned"] < operations[verb].end_ns


def test_what_each_runtime_shows(runtime: Runtime, session: Session, needs_events: None) -> None:
    """Every phase is there or absent with a reason; the payload's own clock comes right behind its exec event."""
    (trace,) = only(run_trace(session, [runtime], runs=1, warmup=1))
    shown = set(trace.order)
    assert shown | {one.name for one in trace.absent} == set(PHASES)
    assert {"spawn", "init forked", "session led", "ready for start", "exit", "reaped", "delete"} <= shown
    if runtime.dialect.shares_host_clock:
        stamp = next(phase for phase in trace.phases if phase.name == "first instruction")
        assert 0 <= stamp.duration_ns < 1_000_000
    else:
        assert {"payload executed", "first instruction"} & shown == set()
    labels = " ".join(step.name for phase in trace.phases for step in phase.steps)
    assert {"runc": "runc:[1:CHILD]", "crun": "runtime ended", "runsc": "helper 1 executed again"}[
        runtime.name
    ] in labels


def test_lost_process_events(runtime: Runtime, session: Session, needs_events: None) -> None:
    """With a socket buffer that holds next to nothing, the loss is counted and the phases still add up."""
    traces = only(run_trace(session, [runtime], runs=2, warmup=0, receive_buffer_bytes=2304))
    assert all((trace.lost_events or 0) > 0 for trace in traces)
    assert all(sum(phase.duration_ns for phase in trace.phases) == trace.whole_ns for trace in traces)


def test_lost_kernel_events(sessions: Sessions, require: Callable[..., None], needs_tracefs: None) -> None:
    """With a trace buffer of a few pages, the loss is counted."""
    require("root", "crun")
    session = sessions.of("crun")
    (trace,) = only(run_trace(session, [sessions.runtime("crun")], runs=1, warmup=0, deep=True, buffer_kib=16))
    assert trace.lost["trace_buffer"] > 1000


def test_deep(runtime: Runtime, session: Session, needs_events: None, needs_tracefs: None) -> None:
    """System calls, the threads' time in each state, the container's cgroups and mounts are seen; nothing is lost."""
    (trace,) = only(run_trace(session, [runtime], runs=1, warmup=0, deep=True))
    deep = trace.deep
    assert deep is not None
    assert trace.lost == {"process_events": 0, "trace_buffer": 0}
    totals = {row["name"]: row for row in deep.call_totals()}
    assert {"openat", "mmap", "write"} <= set(totals)
    assert all(row["longest_ns"] <= row["wall_ns"] for row in totals.values())
    assert any(call.name == "pivot_root" and call.result == 0 for call in deep.mounts)
    assert runtime.path in {os.path.realpath(file) for _, _, file in deep.executed} | {f for _, _, f in deep.executed}
    assert "namespaces entered" in trace.order
    if runtime.dialect.uses_host_cgroups:
        name = session.workspace.cgroup
        joined = {one.hierarchy for one in deep.cgroups if one.what == "attach" and name in one.path}
        assert joined == {h.key or "unified" for h in session.layout.hierarchies}
        assert "cgroup joined" in trace.order
    threads = {span.thread for span in deep.spans}
    for thread in threads:
        own = sorted((span for span in deep.spans if span.thread == thread), key=lambda span: span.start_ns)
        assert all(one.end_ns <= two.start_ns for one, two in pairwise(own))
    on_cpu = deep.time_in(trace.lived.create.start_ns, trace.lived.delete.end_ns)["running_ns"]
    used = sum(op.usage.user_us + op.usage.system_us for op in trace.lived.operations) * 1000
    assert on_cpu <= trace.whole_ns * (os.cpu_count() or 1)
    assert on_cpu >= 0.5 * used


def check_trace_events(document: dict[str, Any]) -> None:
    """The Trace Event Format as ui.perfetto.dev reads it. Raises AssertionError."""
    assert isinstance(document["traceEvents"], list)
    named: set[tuple[str, int, int]] = set()
    open_until: dict[tuple[int, int], list[float]] = {}
    for event in document["traceEvents"]:
        assert event["ph"] in {"X", "i", "M"}
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["name"], str)
        assert isinstance(event["args"], dict)
        if event["ph"] == "M":
            named.add((event["name"], event["pid"], event["tid"] if event["name"] == "thread_name" else 0))
        elif event["ph"] == "i":
            assert event["s"] == "t"
            assert event["ts"] >= 0
    slices = [event for event in document["traceEvents"] if event["ph"] == "X"]
    for event in sorted(slices, key=lambda one: (one["ts"], -one["dur"])):
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        assert ("process_name", event["pid"], 0) in named
        assert ("thread_name", event["pid"], event["tid"]) in named
        stack = open_until.setdefault((event["pid"], event["tid"]), [])
        end = round(event["ts"] + event["dur"], 3)
        while stack and stack[-1] <= event["ts"]:
            stack.pop()
        assert not stack or end <= stack[-1], f"{event} crosses the end of the slice around it"
        stack.append(end)


def test_perfetto(pair: Session, sessions: Sessions, needs_events: None, needs_tracefs: None) -> None:
    """Processes and threads are named, slices of one track nest, cgroups and mounts are instants with their facts."""
    result = run_trace(pair, [sessions.runtime("runc"), sessions.runtime("crun")], runs=1, warmup=0, deep=True)
    document = json.loads(json.dumps(trace_events(only(result))))
    check_trace_events(document)
    events = document["traceEvents"]
    assert {"phase", "syscall", "process", "operation", "running"} <= {one["cat"] for one in events if one["ph"] == "X"}
    joins = [one["args"] for one in events if one["name"] == "cgroup attach"]
    assert {"memory", "pids"} <= {args["hierarchy"] for args in joins}
    assert all(pair.workspace.cgroup in args["path"] for args in joins)
    assert any(one["name"] == "mount" and "bind" in one["args"]["flags"] for one in events if one["ph"] == "i")
    assert any(one["tid"] > STATES for one in events)


def test_timeline(pair: Session, sessions: Sessions, needs_events: None) -> None:
    """One line for each phase, its bar where the phase is, all of one width."""
    (trace,) = only(run_trace(pair, [sessions.runtime("crun")], runs=1, warmup=0))
    head, *lines = draw(trace, 40)
    assert head.startswith("crun: start 0 of ")
    bars = [line for line in lines if not line.startswith("  ")]
    assert [line.split("  ")[0].split(" (")[0] for line in bars] == list(trace.order)
    assert {len(line) for line in lines} == {len(lines[0])}
    assert bars[0].split("|")[1].startswith("#")
    assert bars[-1].split("|")[1].endswith("#")


def test_command(cli: CommandLine, require: Callable[..., None], tmp_path: Path, needs_events: None) -> None:
    """The JSON of the contract on stdout and in the file; the table has every phase and both runtimes."""
    require("root", "runc", "crun")
    file = tmp_path / "trace.json"
    both = ("--runtime", "runc", "--runtime", "crun", "--runs", "2", "--warmup", "0")
    answer = cli("trace", *both, "--json", "-o", str(file))
    assert answer.status == 0, answer
    assert answer.json == json.loads(file.read_text())
    assert answer.json["schema"] == "oci-harness/trace/1"
    assert [trace["runtime"] for trace in answer.json["traces"]] == ["runc", "crun", "runc", "crun"]
    for trace in answer.json["traces"]:
        assert trace["phases"][-1]["end_ns"] == trace["whole_ns"]
        assert trace["lost_events"] == 0
    answer = cli("trace", *both)
    assert answer.status == 0, answer
    for name in ("ready for start", "first instruction", "delete spawned"):
        assert name in answer.stdout
    assert "runc median" in answer.stdout
    assert "0 events of process_events lost" in answer.stdout


def test_command_perfetto(cli: CommandLine, require: Callable[..., None], tmp_path: Path) -> None:
    """--format perfetto puts the trace on stdout, or into the file and the table on stdout."""
    require("root", "crun")
    answer = cli("trace", "--runtime", "crun", "--runs", "1", "--format", "perfetto")
    assert answer.status == 0, answer
    check_trace_events(answer.json)
    file = tmp_path / "trace.json"
    answer = cli("trace", "--runtime", "crun", "--runs", "1", "--format", "perfetto", "-o", str(file))
    assert "crun median" in answer.stdout
    check_trace_events(json.loads(file.read_text()))


def test_in_a_pid_namespace(cli: CommandLine, require: Callable[..., None]) -> None:
    """Without a proc connector one line says so, and the harness's own clocks still give phases."""
    require("root", "crun")
    wrapped = ("unshare", "--pid", "--fork", "--mount-proc")
    answer = cli("trace", "--runtime", "crun", "--runs", "1", "--json", argv=wrapped)
    assert answer.status == 0, answer
    (told,) = answer.json["notes"]
    assert "initial pid namespace" in told
    assert answer.stderr.count(told) == 1
    (trace,) = answer.json["traces"]
    assert trace["lost_events"] is None
    assert {"ready for start", "first instruction", "delete"} <= {phase["name"] for phase in trace["phases"]}
    assert all(one["within"] in {phase["name"] for phase in trace["phases"]} for one in trace["absent"])


def test_failing_runtime(cli: CommandLine, script: Callable[..., str]) -> None:
    """A runtime that fails every start is given up on: one line, exit status 4."""
    path = script('create) echo "no luck" >&2; exit 7 ;;')
    answer = cli("trace", "--runtime", f"fake={path}", "--view", "host", "--runs", "50", "--json")
    assert answer.status == 4
    assert "no start of fake went well" in answer.error
    assert "no luck" in answer.error
    assert len(json.loads(answer.stdout)["failed"]) < 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--runs", "0"), "--runs"), (("--pause-ms", "-1"), "--pause-ms"), (("-o", "/nowhere/x"), "/nowhere")],
    ids=["runs", "pause", "output"],
)
def test_bad_usage(cli: CommandLine, arguments: tuple[str, ...], said: str) -> None:
    """What cannot be is refused in one line that names the option."""
    answer = cli("trace", *arguments)
    assert answer.status == 2
    assert said in answer.error


def test_killed_while_tracing(cli: CommandLine, require: Callable[..., None], needs_tracefs: None) -> None:
    """After SIGKILL in the middle, `gc` removes the trace instance with the rest of the run; a live one it leaves."""
    require("root", "crun")
    process = cli.start("trace", "--deep", "--runtime", "crun", "--runs", "100000")

    def own() -> list[str]:
        return [name for name in tracefs.find_instances("oci-harness-trace-") if f"-{process.pid}-" in name]

    until(lambda: own() != [], "the trace instance is there")
    spared = cli("gc", "--json")
    assert own()[0] in {run["name"] for run in spared.json["spared"]}
    assert own() != []
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    name = own()[0]
    answer = cli("gc", "--json")
    assert answer.status == 0, answer
    removed = {run["name"]: run for run in answer.json["removed"]}
    assert removed[name]["trace_instance"] is True
    assert own() == []
    until(no_zombies, "what it had started, which became ours, was reaped")


def no_zombies() -> bool:
    reap_orphans(CRUN.helper_comms | {"payload"})
    states = (procfs.process_stat(pid) for pid in procfs.children(os.getpid()))
    return all(stat is None or stat.state != "Z" for stat in states)


def test_interrupted(cli: CommandLine, require: Callable[..., None], needs_tracefs: None) -> None:
    """Ctrl-C keeps the starts so far, and takes the trace instance away."""
    require("root", "crun")
    process = cli.start("trace", "--deep", "--runtime", "crun", "--runs", "100000", "--warmup", "0", "--json")
    until(
        lambda: [name for name in tracefs.find_instances("oci-harness-trace-") if f"-{process.pid}-" in name] != [],
        "the trace instance is there",
    )
    until(lambda: _starts_seen(process.pid) > 3, "some starts are done")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["interrupted"] is True
    assert json.loads(out)["traces"] != []
    assert [name for name in tracefs.find_instances("oci-harness-trace-") if f"-{process.pid}-" in name] == []


def _starts_seen(pid: int) -> int:
    """The number of the container that a running trace is at."""
    base = Path(os.environ["OCI_HARNESS_DIR"])
    numbers = [int(path.name[1:]) for path in base.glob(f"oci-harness-trace-{pid}-*/c/t*")]
    return max(numbers, default=0)
