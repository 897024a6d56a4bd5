"""`oci-harness bundle`: create and validate bundles."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import json_options, set_option, settings_of
from harness.cli.output import emit, table


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
    metavar="RECIPE|ROOTFS-DIR|BUNDLE-DIR",
    help="A recipe's name, a directory to take as rootfs, or another bundle.",
)
@set_option
@json_options
def create(directory: Path, source: str, assignments: tuple[str, ...], as_json: bool, output: str | None) -> None:
    """Build a bundle in DIR that any runtime can use by hand.

    Recipes: see `oci-harness bundle recipes`. Without --from the embedded default rootfs is used; it needs no network.
    """
    from harness.oci.bundle import create_bundle

    origin: str | Path = Path(source) if "/" in source or Path(source).is_dir() else source
    made = create_bundle(directory, origin, settings_of(assignments))
    provided = made.provided
    value = {
        "schema": "oci-harness/bundle/1",
        "bundle": str(made.path.absolute()),
        "source": source,
        "oci_version": made.config.get("/ociVersion", None),
        "rootfs": {"how": provided.how if provided else None, "reason": provided.reason if provided else None},
    }
    emit(value, as_json=as_json, output=output)
    if not as_json:
        click.echo(
            f"{made.path}: ociVersion {value['oci_version']}, rootfs by {provided.how if provided else 'nobody'}"
        )
        click.echo(f"try it: oci-harness run --bundle {made.path} try1", err=True)


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
