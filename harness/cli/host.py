"""`oci-harness host`: what this host is, what its runtimes are, and what on the node can break containers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import json_options, runtimes_option
from harness.cli.output import console, emit, table
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.diagnosis.node.finding import Examination

COLOURS = {"error": "bold red", "warning": "bold yellow", "info": "bold blue"}


@click.command()
@click.option("--node", is_flag=True, help="Examine the node: kernel log, file systems, processes, state, limits, ...")
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Examine a copy of a node's files there (a support bundle) in place of this host; implies --node.",
)
@click.option(
    "--elf",
    "executables",
    multiple=True,
    metavar="PATH",
    help="Also: can the node execute this file (of DIR with --root)? May be given several times; implies --node.",
)
@click.option("--check", is_flag=True, help="Exit with 1 if there is a finding of severity error; implies --node.")
@runtimes_option
@json_options
def host(
    node: bool,
    root: Path | None,
    executables: tuple[str, ...],
    check: bool,
    runtimes: tuple[str, ...],
    as_json: bool,
    output: str | None,
) -> int:
    """Show the facts of this host and, with --node, what is wrong with it.

    Each finding has the values that were found, the file they are from, the cause it leads to and a fix. What could
    not be looked at, for want of root or of a file, is listed too. Nothing is changed, and what may hang is left alone.
    """
    from harness.diagnosis.node.examine import copied, examine, live
    from harness.diagnosis.node.facts import facts
    from harness.diagnosis.node.finding import Examination

    if root is not None and runtimes:
        raise InputError("--runtime: the runtimes of a copied tree are never started; leave it out with --root")
    tree = live() if root is None else copied(root)
    wanted = node or root is not None or bool(executables) or check
    known = facts(tree)
    found = _runtimes(runtimes) if root is None else []
    absolute = tuple(path if root is not None else str(Path(path).absolute()) for path in executables)
    examination = examine(tree, absolute) if wanted else Examination(unseen=list(tree.unseen))
    value = {
        "schema": "oci-harness/host/1",
        "root": None if root is None else str(root),
        **known,
        "runtimes": found,
        "checks": examination.checks,
        "findings": [finding.to_json() for finding in examination.findings],
        "unseen": [unseen.to_json() for unseen in examination.unseen],
    }
    emit(value, as_json=as_json, output=output)
    if not as_json:
        _show_facts(value)
        _show(examination)
    return 1 if check and examination.failed else 0


def _runtimes(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Those named, or the usual ones in PATH; one that cannot be used says why."""
    import shutil

    from harness.errors import RuntimeUnusable
    from harness.runtime.discovery import DEFAULT_NAMES, find_runtime, parse_runtime_option

    found: list[dict[str, Any]] = []
    for option in names or tuple(name for name in DEFAULT_NAMES if shutil.which(name)):
        name, path = parse_runtime_option(option)
        try:
            runtime = find_runtime(option)
        except RuntimeUnusable as error:
            path = path or shutil.which(name)
            found.append({"name": name, "path": path, "version": None, "usable": False, "reason": error.reason})
            continue
        version = runtime.version or None
        found.append({"name": name, "path": runtime.path, "version": version, "usable": True, "reason": None})
    return found


def _show_facts(value: dict[str, Any]) -> None:
    def row(label: str, text: str) -> None:
        click.echo(f"{label:14}{text}")

    kernel, cgroup = value["kernel"], value["cgroup"]
    if value["root"] is not None:
        row("tree", value["root"])
    row("kernel", f"{kernel['release'] or 'unknown'} {kernel['machine'] or ''}".rstrip())
    by_version: dict[int | None, list[str]] = {}
    for name, where in cgroup["controllers"].items():
        by_version.setdefault(where["version"], []).append(name)
    row("cgroup", cgroup["mode"])
    for version, label in ((1, "v1"), (2, "v2"), (None, "not mounted")):
        if version in by_version:
            row("", f"{label}: {' '.join(by_version[version])}")
    if value["namespaces"]:
        absent = [kind for kind, facts in value["namespaces"].items() if not facts["present"]]
        row("namespaces", "all" if not absent else f"without {', '.join(absent)}")
    row("lsm", "unknown" if value["lsm"] is None else ", ".join(value["lsm"]) or "none")
    missing = value["capabilities"]["missing"]
    if missing is not None:
        row("capabilities", f"without {' '.join(missing)}" if missing else "all")
    if value["runtimes"]:
        rows = [(r["name"], r["version"] or "-", r["path"] or "-", r["reason"] or "usable") for r in value["runtimes"]]
        table(None, ("runtime", "version", "path", ""), rows)


def _show(examination: Examination) -> None:
    from rich.text import Text

    if not examination.checks:
        click.echo("\n--node examines the node as well")
        return
    out = console()
    counts = dict.fromkeys(COLOURS, 0)
    click.echo()
    for finding in examination.findings:
        counts[finding.severity] += 1
        head = Text()
        head.append(f"{finding.severity:8}", COLOURS[finding.severity])
        head.append(f"{finding.id}: {finding.message}")
        out.print(head, soft_wrap=True)
        for label, text in (
            *(
                (f"{evidence.where}:", evidence.text.splitlines()[0] if evidence.text else "")
                for evidence in finding.evidence[-2:]
            ),
            ("cause:", finding.cause),
            ("fix:", finding.fix),
        ):
            out.print(Text(f"        {label} {text}"), soft_wrap=True)
    if examination.unseen:
        click.echo(("\n" if examination.findings else "") + "not looked at:")
        for unseen in examination.unseen:
            click.echo(f"  {unseen.what}: {unseen.reason}")
    told = ", ".join(f"{number} {severity}" for severity, number in counts.items() if number)
    click.echo(f"\n{len(examination.checks)} checks: {told or 'nothing found'}")
