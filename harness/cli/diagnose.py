"""`oci-harness diagnose`: error text in, cause out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import click

from harness.cli.options import json_options
from harness.cli.output import console, emit
from harness.cli.text_input import open_text
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.diagnosis.diagnosis import Diagnosis, Report

CHUNK = 1 << 16  # characters read at once of a line that is longer
LINE = 4 << 20  # of a line of --jsonl; the rest of a longer one is passed over
_COLOURS = {"image": "magenta", "config": "cyan", "node": "yellow", "kernel": "red"}


@click.command()
@click.argument("source", metavar="[FILE|-|TEXT]", default="-")
@click.option("--jsonl", is_flag=True, help="One message a line in, one JSON object a line out. See below.")
@click.option("--all", "everything", is_flag=True, help="Explain every failure in the text, not only the most telling.")
@json_options
def diagnose(source: str, jsonl: bool, everything: bool, as_json: bool, output: str | None) -> int:
    """Name the cause of a container that would not start, from any text that tells of it.

    Give a FILE, - for standard input (the default), or the message itself as one argument: an event of kubectl
    describe, a line of a journal, what docker or podman printed, a whole paste of them.

    With --jsonl each line of input is one message: plain text, or JSON that is a string or an object with the message
    in "text" (also "message", "msg" or "log") and maybe an "id", which comes back. Memory stays constant.

    Exit status 1 if no cause could be named; a symptom alone (EOF, a deadline) is no cause.
    """
    with open_text(source) as stream:
        if jsonl:
            if output is not None:
                raise InputError("--jsonl writes to standard output; redirect it in place of --output")
            return 0 if _stream(stream) else 1
        if stream.isatty():
            click.echo("paste the message, end with Ctrl-D", err=True)
        from harness.diagnosis import diagnose_lines
        from harness.diagnosis.explain import report_to_json

        report = diagnose_lines(iter(lambda: stream.readline(CHUNK), ""))
        emit(report_to_json(report), as_json=as_json, output=output)
        if not as_json:
            _show(report, everything)
    return 0 if report.named else 1


def _stream(stream: IO[str]) -> bool:
    """--jsonl. Whether every message could be named."""
    import msgspec

    from harness.diagnosis import diagnose
    from harness.diagnosis.explain import report_to_json

    every = True
    write = sys.stdout.buffer.write
    for line in _lines(stream):
        if not line.strip():
            continue
        name, text = _message(line)
        report = diagnose(text)
        every = every and report.named
        value: dict[str, Any] = report_to_json(report)
        if name is not None:
            value = {"id": name, **value}
        try:
            answer = msgspec.json.encode(value)
        except UnicodeEncodeError:  # half of a surrogate pair, from an escape of the input
            answer = json.dumps(value).encode()
        write(answer + b"\n")
    sys.stdout.buffer.flush()
    return every


def _lines(stream: IO[str]) -> Iterator[str]:
    """Whole lines, but of each no more than LINE characters."""
    held = ""
    while part := stream.readline(LINE):
        if not held or len(held) < LINE:
            held += part[: LINE - len(held)]
        if part.endswith("\n"):
            yield held
            held = ""
    if held:
        yield held


def _message(line: str) -> tuple[Any, str]:
    """The id, if there is one, and the text of one line of --jsonl."""
    if line[0] in '{"':
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None, line
        if isinstance(value, str):
            return None, value
        if isinstance(value, dict):
            for key in ("text", "message", "msg", "log"):
                if isinstance(value.get(key), str):
                    return value.get("id"), value[key]
    return None, line


def _show(report: Report, everything: bool) -> None:
    if report.primary is None:
        click.echo("No failure of a container was found in the text.")
        return
    shown = report.failures if everything else report.failures[:1]
    for number, diagnosis in enumerate(shown):
        if number:
            click.echo()
        _explain(diagnosis)
    rest = len(report.failures) - len(shown)
    if rest:
        click.echo()
        for diagnosis in report.failures[len(shown) :]:
            times = f" ({diagnosis.count} times)" if diagnosis.count > 1 else ""
            clause = _printable(" ".join(diagnosis.decisive.split()))
            click.echo(f"also in the text{times}: {diagnosis.cause or 'not known'}: {clause[:140]}")
        click.echo("--all explains them too")


def _explain(diagnosis: Diagnosis) -> None:
    """One failure on one screen."""
    from rich.text import Text

    from harness.diagnosis.explain import explain

    told = explain(diagnosis)
    out = console()

    def line(label: str, text: str, style: str = "") -> None:
        row = Text(f"{label:9}", "dim")
        out.print(row.append_text(Text(_printable(text), style)), soft_wrap=True)

    head = Text(diagnosis.cause or "not known", "bold")
    if diagnosis.side is not None:
        head.append("  ")
        head.append("/".join(diagnosis.sides), _COLOURS.get(diagnosis.side, ""))
    about = [diagnosis.runtime, diagnosis.stage and f"at {diagnosis.stage}", f"confidence {diagnosis.confidence}"]
    head.append("  (" + ", ".join(each for each in about if each) + ")", "dim")
    if diagnosis.count > 1:
        head.append(f"  {diagnosis.count} times", "dim")
    out.print(head, soft_wrap=True)
    line("clause", " ".join(diagnosis.decisive.split()), "bold red")
    line("what", told.happened)
    line("why", told.why, "dim")
    for number, command in enumerate(told.check):
        line("" if number else "check", command)
    if told.fix:
        line("fix", told.fix, "green")
    if told.mistaken:
        line("not", told.mistaken)
    if diagnosis.alternatives:
        line("or", ", ".join(each.cause for each in diagnosis.alternatives))
    if told.faults:
        line("again", f"oci-harness reproduce {told.faults[0]}")


def _printable(text: str) -> str:
    """No control character of the input reaches the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)
