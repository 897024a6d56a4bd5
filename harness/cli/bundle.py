"""`oci-harness bundle`: create and validate bundles."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from harness.cli.options import json_options, positive, set_option, settings_of
from harness.cli.output import emit, table


class Size(click.ParamType[int]):
    """`512M`, `16G` or bytes; the value is bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d{1,15})([KMGT]?)(i?B)?", str(value))
        if match is None or not int(match[1]):
            self.fail(f"{value!r} is no size; write 512M or 16G", param, ctx)
        return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2]]


def shown(value: Any) -> str:
    """A value of config.json on one line of bearable length."""
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


@click.group()
def bundle() -> None:
    """Create or validate a bundle: a directory with config.json and rootfs."""


@bundle.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--from",
    "source",
    default="default",
    show_default=True,
    metavar="RECIPE|PATH|-",
    help="A recipe's name; a rootfs, bundle or image layout directory; an image archive; JSON of crictl, ctr, docker "
    "or podman inspect, or a config.json (- reads it from standard input). PATH:TAG names one image of several.",
)
@click.option(
    "--rootfs",
    metavar="DIR|IMAGE|synthesized",
    help="The root file system. Default: what the source names, if it is on this host; else synthesized: only the "
    "paths that the configuration needs, with a static program as its command.",
)
@click.option("--portable", is_flag=True, help="Replace what belongs to another host, so that the bundle runs here.")
@click.option("--platform", metavar="OS/ARCH", help="Which image of a multi-platform one; this host's if not given.")
@click.option(
    "--max-size",
    type=Size(),
    default="16G",
    show_default=True,
    help="Refuse an image that unpacks to more.",
)
@click.option("--max-entries", type=int, default=1_000_000, show_default=True, help="Refuse an image of more files.")
@set_option
@json_options
def create(
    directory: Path,
    source: str,
    rootfs: str | None,
    portable: bool,
    platform: str | None,
    max_size: int,
    max_entries: int,
    assignments: tuple[str, ...],
    as_json: bool,
    output: str | None,
) -> None:
    """Build a bundle in DIR that any runtime can use by hand.

    Recipes: see `oci-harness bundle recipes`. Without --from the embedded default rootfs is used; it needs no network.
    What the configuration takes from another host (namespaces, bind sources, cgroups, labels, limits, hooks, ...) is
    listed on stderr; with --portable it is replaced, and each replacement is listed. Images need skopeo and umoci.
    """
    from harness.oci.assembly import Wanted, assemble
    from harness.oci.tarball import Limits

    positive("--max-entries", max_entries, 1)
    limits = Limits(max_size, max_entries)
    wanted = Wanted(source, rootfs, settings_of(assignments), portable, platform, limits)
    made = assemble(directory, wanted)
    image = made.image
    told = {"digest": image.digest, "platform": image.platform, "size_bytes": image.size_bytes} if image else None
    value = {
        "schema": "oci-harness/bundle/1",
        "bundle": str(made.bundle.path),
        "source": source,
        "kind": made.kind,
        "oci_version": made.bundle.config.get("/ociVersion", None),
        "rootfs": {"how": made.rootfs, "reason": made.rootfs_reason},
        "image": told,
        "findings": [{"pointer": each.pointer, "what": each.what, "why": each.why} for each in made.findings],
        "replacements": [each.to_json() for each in made.replacements],
    }
    emit(value, as_json=as_json, output=output)
    for replacement in made.replacements:
        to = "removed" if replacement.to is None else f"now {shown(replacement.to)}"
        click.echo(f"replaced: {replacement.pointer}: {shown(replacement.before)}: {to}: {replacement.why}", err=True)
    for finding in made.findings:
        click.echo(f"host-specific: {finding.pointer or '(whole)'}: {finding.what}: {finding.why}", err=True)
    if not as_json:
        click.echo(f"{directory}: ociVersion {value['oci_version']}, rootfs by {made.rootfs}")
        click.echo(f"try it: oci-harness run --bundle {directory} try1", err=True)


@bundle.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@json_options
def validate(directory: Path, as_json: bool, output: str | None) -> int:
    """Report every problem of the bundle in DIR with its JSON pointer. Exit status 1 when there is an error."""
    from harness.oci.validate import validate as find_problems

    findings = find_problems(directory)
    errors = [finding for finding in findings if finding.severity == "error"]
    value = {
        "schema": "oci-harness/validation/1",
        "bundle": str(directory),
        "valid": not errors,
        "problems": [{"pointer": f.pointer, "message": f.message, "severity": f.severity} for f in findings],
    }
    emit(value, as_json=as_json, output=output)
    if not as_json:
        for finding in findings:
            click.echo(f"{finding.severity}: {finding.pointer or '(whole)'}: {finding.message}")
        click.echo(f"{directory}: {len(errors)} errors, {len(findings) - len(errors)} warnings")
    return 1 if errors else 0


@bundle.command()
@json_options
def recipes(as_json: bool, output: str | None) -> None:
    """List the recipes that --from takes."""
    from harness.oci.recipe import load_recipe, recipe_names

    found = [load_recipe(name) for name in recipe_names()]
    value = {
        "schema": "oci-harness/recipes/1",
        "recipes": [{"name": r.name, "description": r.description, "args": r.config["process"]["args"]} for r in found],
    }
    emit(value, as_json=as_json, output=output)
    if not as_json:
        table(None, ("recipe", "what it is"), [(r.name, r.description) for r in found])
