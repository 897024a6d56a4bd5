"""`oci-harness host`: what this host is, what it lets runtimes do, and what on the node can break containers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import json_options, runtimes_option
from harness.cli.output import console, emit, table
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.compat.probes import Probed
    from harness.diagnosis.node.finding import Finding, Unseen
    from harness.runtime.discovery import Runtime

VIEWS = ("host", "legacy", "hybrid", "unified")
MARKS = {True: "yes", False: "no", None: "?"}
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
@click.option("--no-probes", is_flag=True, help="Facts only: try nothing out. A copy (--root) is never tried out.")
@runtimes_option
@json_options
def host(
    node: bool,
    root: Path | None,
    executables: tuple[str, ...],
    check: bool,
    no_probes: bool,
    runtimes: tuple[str, ...],
    as_json: bool,
    output: str | None,
) -> int:
    """Show what this host is, and what it really lets runtimes do.

    Namespaces, cgroup controllers, seccomp actions, mounts and the like are tried out in child processes, as this user
    and as an unprivileged one, and each runtime starts a minimal container in each view; nothing is changed and nothing
    left behind. With --node what is wrong on the node is looked for as well. Each finding has the values that were
    found, the cause it leads to and a fix. What could not be looked at, for want of root or of a file, is listed too.
    """
    from harness.compat.probes import probe_host
    from harness.diagnosis.node.examine import copied, examine, live
    from harness.diagnosis.node.facts import facts
    from harness.diagnosis.node.finding import SEVERITIES, Examination

    if root is not None and runtimes:
        raise InputError("--runtime: the runtimes of a copied tree are never started; leave it out with --root")
    tree = live() if root is None else copied(root)
    wanted = node or root is not None or bool(executables) or check
    known = facts(tree)
    found, unusable = _runtimes(runtimes) if root is None else ([], [])
    probed = probe_host(found) if root is None and not no_probes else None
    absolute = tuple(path if root is not None else str(Path(path).absolute()) for path in executables)
    examination = examine(tree, absolute) if wanted else Examination(unseen=list(tree.unseen))
    findings, unseen = examination.findings, examination.unseen
    if probed is not None:
        findings = sorted(probed.findings + findings, key=lambda each: SEVERITIES.index(each.severity))
        unseen = probed.unseen + unseen
    value = {
        "schema": "oci-harness/host/1",
        "root": None if root is None else str(root),
        **known,
        "runtimes": [*(_runtime(each, probed) for each in found), *unusable],
        **({} if probed is None else _measured(known, probed)),
        "checks": examination.checks,
        "findings": [finding.to_json() for finding in findings],
        "unseen": [each.to_json() for each in unseen],
    }
    emit(value, as_json=as_json, output=output)
    if not as_json:
        _show_facts(value)
        if probed is not None:
            _show_probes(value)
        _show(findings, unseen, len(examination.checks) + (0 if probed is None else len(probed.tries)))
        if not examination.checks:
            click.echo("--node examines the node as well: kernel log, file systems, processes, state, limits")
    return 1 if check and any(each.severity == "error" for each in findings) else 0


def _runtimes(names: tuple[str, ...]) -> tuple[list[Runtime], list[dict[str, Any]]]:
    """Those named, or the usual ones in PATH; and of those that are none, why."""
    import shutil

    from harness.errors import RuntimeUnusable
    from harness.runtime.discovery import DEFAULT_NAMES, find_runtime, parse_runtime_option

    found: list[Runtime] = []
    unusable: list[dict[str, Any]] = []
    for option in names or tuple(name for name in DEFAULT_NAMES if shutil.which(name)):
        name, path = parse_runtime_option(option)
        if any(name == each.name for each in found):
            raise InputError(f"--runtime {name} is given twice; tell them apart: {name}-a=PATH, {name}-b=PATH")
        try:
            found.append(find_runtime(option))
        except RuntimeUnusable as error:
            path = path or shutil.which(name)
            unusable.append({"name": name, "path": path, "version": None, "usable": False, "reason": error.reason})
    return found, unusable


def _runtime(runtime: Runtime, probed: Probed | None) -> dict[str, Any]:
    """`usable`: it starts a container in at least one view; `reason`: why not in the host's own."""
    value = {"name": runtime.name, "path": runtime.path, "version": runtime.version or None}
    views = probed.starts.get(runtime.name) if probed is not None else None
    if views is None:
        return {**value, "usable": True, "reason": None}
    working = [view for view, start in views.items() if start.works]
    reason = views["host"].reason
    if working and reason is not None:
        reason = f"only in view {', '.join(working)}: {reason}"
    usable = bool(working) or all(start.works is None for start in views.values())
    return {**value, "usable": usable, "reason": reason, "views": {k: v.to_json() for k, v in views.items()}}


def _measured(known: dict[str, Any], probed: Probed) -> dict[str, Any]:
    """The facts with what the probes know of them, and the probes' own fields."""
    value = probed.to_json()
    controllers = {**known["cgroup"]["controllers"], **{k: v.to_json() for k, v in probed.controllers.items()}}
    namespaces = {kind: {**each, **value["probes"].get(f"ns:{kind}", {})} for kind, each in known["namespaces"].items()}
    return {"cgroup": {**known["cgroup"], "controllers": controllers}, "namespaces": namespaces, **value}


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
        columns = sorted({view for each in value["runtimes"] for view in each.get("views", {})}, key=VIEWS.index)
        rows = [
            (
                each["name"],
                each["version"] or "-",
                each["path"] or "-",
                *(MARKS[each["views"][view]["works"]] if "views" in each else "-" for view in columns),
                each["reason"] or "usable",
            )
            for each in value["runtimes"]
        ]
        table(None, ("runtime", "version", "path", *columns, ""), rows)


def _show_probes(value: dict[str, Any]) -> None:
    """A row for each group of probes: what works, and what does not."""
    groups: dict[str, list[str]] = {}
    for name, each in value["probes"].items():
        group, _, what = name.partition(":")
        rootless = each["rootless"]
        mark = "no " if not each["works"] else "" if rootless is None or rootless["works"] else "root only: "
        groups.setdefault(group, []).append(f"{mark}{what or 'yes'}")
    rows = [
        (group, ", ".join(sorted(words, key=lambda word: (word.startswith(("no ", "root only")), word))))
        for group, words in groups.items()
    ]
    drivers = [f"{'' if each['works'] else 'no '}{name}" for name, each in value["drivers"].items()]
    rows.append(("driver", ", ".join(drivers)))
    table(f"tried out in {value['probe_seconds']:.1f} s", ("", ""), rows)


def _show(findings: list[Finding], unseen: list[Unseen], checks: int) -> None:
    from rich.text import Text

    out = console()
    counts = dict.fromkeys(COLOURS, 0)
    for finding in findings:
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
    if unseen:
        click.echo(("\n" if findings else "") + "not looked at:")
        for each in unseen:
            click.echo(f"  {each.what}: {each.reason}")
    told = ", ".join(f"{number} {severity}" for severity, number in counts.items() if number)
    click.echo(f"\n{checks} checks: {told or 'nothing found'}")
