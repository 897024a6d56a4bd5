"""`oci-harness runtimes`: what is on this host, and what each one says of itself."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.options import json_options, runtimes_option
from harness.cli.output import emit, table


@click.command()
@runtimes_option
@json_options
def runtimes(runtimes: tuple[str, ...], as_json: bool, output: str | None) -> int:
    """List the runtimes found: path, version, and the features that they declare.

    Exit status 1 when one that was named cannot be used.
    """
    import shutil

    from harness.errors import RuntimeUnusable
    from harness.runtime.discovery import DEFAULT_NAMES, find_runtime, parse_runtime_option

    names = runtimes or tuple(name for name in DEFAULT_NAMES if shutil.which(name))
    found: list[dict[str, Any]] = []
    for option in names:
        name, path = parse_runtime_option(option)
        try:
            runtime = find_runtime(option)
        except RuntimeUnusable as error:
            found.append({"name": name, "path": path, "version": None, "usable": False, "reason": error.reason})
            continue
        found.append({**runtime.to_json(), "usable": True, "reason": None, "features": _features(runtime)})
    emit({"schema": "oci-harness/runtimes/1", "runtimes": found}, as_json=as_json, output=output)
    if not as_json:
        if not found:
            click.echo(f"no runtime in PATH (looked for {', '.join(DEFAULT_NAMES)}); install one: apt-get install runc")
        else:
            rows = [
                (r["name"], r["version"] or "-", r.get("dialect", "-"), r.get("path") or "-", r["reason"] or _short(r))
                for r in found
            ]
            table(None, ("runtime", "version", "dialect", "path", "declares"), rows)
    return 0 if found and all(r["usable"] for r in found) else 1


def _features(runtime: Any) -> dict[str, Any] | None:
    """What `features` prints; None where the runtime has no such command."""
    import tempfile

    from harness.errors import HarnessError
    from harness.runtime.client import Client

    if "features" not in runtime.verbs:
        return None
    with tempfile.TemporaryDirectory(prefix="oci-harness-") as directory:
        try:
            document: dict[str, Any] = Client(runtime, directory, directory).features().document
        except HarnessError:
            return None
    return document


def _short(runtime: dict[str, Any]) -> str:
    features = runtime.get("features")
    if not features:
        return "no features command"
    linux = features.get("linux", {})
    cgroup = linux.get("cgroup", {})
    groups = [name for name in ("v1", "v2", "systemd") if cgroup.get(name)]
    return (
        f"spec {features.get('ociVersionMin')} to {features.get('ociVersionMax')}; "
        f"cgroup {', '.join(groups) or '-'}; {len(linux.get('namespaces') or ())} namespaces"
    )
