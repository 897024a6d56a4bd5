"""What runs in a guest, or on this host in a process of its own: takes a job over a channel, gives verdicts back.

One JSON object a line. The agent says `hello`, is sent the job, and says `begin` before each case, `cell` after it and
`end` when there are no more. Who reads the channel knows from the last `begin` which case a guest has died of.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from harness.compat import driver_cases
from harness.compat.initramfs import PORT
from harness.errors import HarnessError, HostError
from harness.faults.catalogue import Entry, load_fault
from harness.faults.reproduce import Proofs, reproduce
from harness.faults.verdict import Verdict
from harness.runtime.discovery import Runtime, find_runtime
from harness.runtime.failures import describe
from harness.runtime.session import Session

VIRTIO_PORTS = Path("/sys/class/virtio-ports")
CONFORMANCE = "conformance"  # the suite as a whole; its cases are conformance:NAME
START = "start-container"  # the case that says whether the runtime starts anything at all in this view
PORT_WAIT_S = 20.0
TEXT_LIMIT = 2000


class Channel:
    """Lines of JSON over a descriptor that is open both ways."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = b""

    def send(self, kind: str, **fields: Any) -> None:
        data = json.dumps({"kind": kind, **fields}).encode() + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]

    def receive(self) -> dict[str, Any]:
        """Raises EOFError when the other end is gone."""
        while b"\n" not in self._buffer:
            part = os.read(self._fd, 65536)
            if not part:
                raise EOFError("the other end of the channel is gone")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        value: dict[str, Any] = json.loads(line)
        return value


class Work(Struct):
    """What all cases of a job share."""

    channel: Channel
    session: Session
    conformance: str  # which of the suite's cases, as pytest's -k
    proofs: Proofs = field(default_factory=dict)


def _open(descriptor: int | None) -> int:
    """The channel's descriptor: that one, or the guest's port. Raises HostError."""
    if descriptor is not None:
        return descriptor
    deadline = time.monotonic() + PORT_WAIT_S
    while time.monotonic() < deadline:
        for port in VIRTIO_PORTS.glob("*/name"):  # the console's has no name
            if port.read_text().strip() == PORT:
                return os.open(f"/dev/{port.parent.name}", os.O_RDWR | os.O_CLOEXEC)
        time.sleep(0.05)  # the driver is told of its ports' names by the device, some time after it is loaded
    raise HostError(f"no virtio port {PORT} in this guest after {PORT_WAIT_S:.0f} s")


def serve(descriptor: int | None = None) -> None:
    """Do one job to its end. Raises HostError without a channel; all else is said through it."""
    channel = Channel(_open(descriptor))
    channel.send("hello", kernel=os.uname().release, uptime_s=float(Path("/proc/uptime").read_text().split()[0]))
    job = channel.receive()
    try:
        _work(channel, job)
        channel.send("end")
    except (HarnessError, OSError) as error:
        channel.send("failed", reason=str(error))


def _work(channel: Channel, job: dict[str, Any]) -> None:
    """`job`: view, timeout_s, runtimes {name: path}, conformance (an expression), shifts [{cpus, cases}].

    A case is [case, runtime's name]. Each shift has a session of its own: what has been made before a CPU comes up does
    not get it (cpuset of cgroup v1).
    """
    usable: dict[str, Runtime | str] = {}
    for name, path in job["runtimes"].items():
        try:
            usable[name] = find_runtime(f"{name}={path}")
        except HarnessError as error:
            usable[name] = str(error)
    for shift in job["shifts"]:
        for number in range(1, shift["cpus"]):
            Path(f"/sys/devices/system/cpu/cpu{number}/online").write_text("1")
        cases: list[list[str]] = shift["cases"]
        try:
            session = Session(job["view"], kind="matrix", timeout_s=job["timeout_s"])
        except HostError as error:
            for case, name in cases:
                channel.send("cell", case=case, runtime=name, **_not_applicable(str(error)))
            continue
        with session:
            _shift(Work(channel, session, job["conformance"]), usable, cases)


def _shift(work: Work, usable: dict[str, Runtime | str], cases: list[list[str]]) -> None:
    refused = {name: None if isinstance(it, str) else _refusal(work.session, it) for name, it in usable.items()}
    for case, name in cases:
        work.channel.send("begin", case=case, runtime=name)
        started = time.monotonic()
        runtime = usable[name]
        if isinstance(runtime, str):
            fields = _not_applicable(runtime)
        else:
            try:
                fields = _case(work, runtime, case, refused[name])
            except Exception as error:  # a bug of ours costs this one case, and not the guest with all the others
                reason = f"a bug in oci-harness: {type(error).__name__}: {error}"
                fields = {"verdict": "inconclusive", "as_expected": False, "reason": reason}
            fields["runtime_version"] = runtime.version
        work.channel.send("cell", case=case, runtime=name, seconds=round(time.monotonic() - started, 3), **fields)


def _case(work: Work, runtime: Runtime, case: str, refusal: str | None) -> dict[str, Any]:
    if case == START:
        return _start(refusal)
    if case in driver_cases.CASES:
        return driver_cases.run_case(work.session, runtime, case)
    if case == CONFORMANCE:
        return _conformance(work, runtime, refusal)
    return _fault(work, runtime, load_fault(case), refusal)


def _conformance(work: Work, runtime: Runtime, refusal: str | None) -> dict[str, Any]:
    """A cell for each case of the suite is sent as it comes; the one returned says that all have come."""
    if refusal is not None:
        return _not_applicable(f"{runtime.name} starts no container here: {refusal[-TEXT_LIMIT:]}")
    from harness.compat.conformance import suite
    from harness.compat.conformance.verdicts import Verdict as Outcome

    def tell(verdict: Outcome, _total: int) -> None:
        skipped = verdict.outcome == "skipped"
        work.channel.send(
            "cell",
            case=f"{CONFORMANCE}:{verdict.case}",
            runtime=runtime.name,
            runtime_version=runtime.version,
            verdict="not-applicable" if skipped else verdict.outcome,
            as_expected=verdict.as_expected,
            reason=verdict.reason or None,
            text=verdict.text[-TEXT_LIMIT:],
            seconds=round(verdict.seconds, 3),
        )

    report = suite.run(work.session, [runtime], expression=work.conformance, on_verdict=tell)
    counts = ", ".join(f"{number} {word}" for word, number in report.counts()[runtime.name].items())
    return {"verdict": "passes", "as_expected": True, "text": counts}


def _not_applicable(reason: str) -> dict[str, Any]:
    return {"verdict": "not-applicable", "as_expected": True, "reason": reason}


def _refusal(session: Session, runtime: Runtime) -> str | None:
    """What the runtime says instead of starting the smallest container here."""
    operation = session.probe(runtime)
    return None if operation.exit_status == 0 and not operation.timed_out else describe(operation)


def _start(refusal: str | None) -> dict[str, Any]:
    if refusal is None:
        return {"verdict": "passes", "as_expected": True}
    # what a runtime cannot do is what a matrix is asked for: no surprise, but the answer
    return {"verdict": "fails", "as_expected": True, "text": refusal[-TEXT_LIMIT:]}


def _fault(work: Work, runtime: Runtime, entry: Entry, refusal: str | None) -> dict[str, Any]:
    base = {"cause": entry.fault.cause, "side": entry.fault.side}
    # a fault of the layout itself is the one thing that can be seen where nothing starts
    of_the_layout = any(need.startswith("mode:") for need in entry.fault.needs)
    if refusal is not None and not of_the_layout:
        return {**base, **_not_applicable(f"{runtime.name} starts no container here: {refusal[-TEXT_LIMIT:]}")}
    first = _attempt(work, runtime, entry)
    if first["as_expected"]:
        return base | first
    # once more: emulation is slow enough for races that a runtime wins elsewhere, such as that between the removal of
    # a cgroup and the end of what is in it; what came of the first try is told
    second = _attempt(work, runtime, entry)
    return base | second | {"first_try": first.get("reason") or first["verdict"]}


def _attempt(work: Work, runtime: Runtime, entry: Entry) -> dict[str, Any]:
    try:
        (verdict,) = reproduce(work.session, [entry], [runtime], proofs=work.proofs)
    except (HarnessError, OSError) as error:
        return {"verdict": "inconclusive", "as_expected": False, "reason": f"{type(error).__name__}: {error}"}
    return _compact(verdict)


def _compact(verdict: Verdict) -> dict[str, Any]:
    """A verdict without its operations; these only where it is not as expected, to see why."""
    full = verdict.summary()
    kept = ("verdict", "as_expected", "expected", "reason", "stage", "text", "clause", "leaks")
    cell = {name: full[name] for name in kept if full[name] not in (None, "", [])}
    cell["text"] = verdict.text[-TEXT_LIMIT:]
    proof = full["counterfactual"]
    cell["counterfactual"] = proof["verdict"] + (f", as of {proof['as_of']}" if "as_of" in proof else "")
    if not verdict.as_expected:
        cell["operations"] = [
            {"attempt": attempt, "command": op.command, "exit_status": op.exit_status}
            for attempt, op in verdict.operations()
        ]
        cell["evidence"] = {"healed_text": full["counterfactual"]["text"]}
        if verdict.broken is not None:
            cell["evidence"] |= {
                "changes": verdict.broken.done,
                "container_stderr": verdict.broken.container_stderr[-TEXT_LIMIT:],
                "log": [record.msg for op in verdict.broken.operations for record in op.log][-20:],
            }
    return cell
