"""`oci-harness kernels`: list and fetch the kernels that guests boot."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import json_options
from harness.cli.output import emit, note, table

cache_option = click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where kernels and the root for systemd are kept; else $OCI_HARNESS_CACHE, else ~/.cache/oci-harness.",
)


@click.group()
def kernels() -> None:
    """List and fetch the kernels that `matrix` boots guests with."""


@kernels.command("list")
@click.option("--all", "everything", is_flag=True, help="Also the Debian packages that could be fetched.")
@cache_option
@json_options
def list_(everything: bool, cache: Path | None, as_json: bool, output: str | None) -> int:
    """List the kernels that are there, and with --all those that can be fetched."""
    from harness.compat.kernels import cache_directory, cached, packages
    from harness.compat.machine import missing
    from harness.compat.systemd_root import present

    where = cache_directory(cache)
    found = cached(where)
    fetchable = packages() if everything else []
    lacking = missing()
    root = present(where)
    value = {
        "schema": "oci-harness/kernels/1",
        "cache": str(where),
        "kernels": [kernel.to_json() for kernel in found],
        "fetchable": fetchable,
        "systemd_root": None if root is None else str(root),
        "missing": lacking,
    }
    emit(value, as_json=as_json, output=output)
    if not as_json:
        rows = [(kernel.release, "fetched", str(kernel.image)) for kernel in found]
        here = {kernel.release for kernel in found}
        rows += [(release, "can be fetched", "") for release in fetchable if release not in here]
        if rows:
            table(None, ("kernel", "state", "image"), rows)
        else:
            click.echo(f"no kernel in {where}; oci-harness kernels fetch 6.1")
        click.echo(f"root for systemd: {root or 'not made; oci-harness kernels fetch --systemd'}")
        for line in lacking:
            click.echo(f"missing for guests: {line}")
    return 0


@kernels.command("fetch")
@click.argument("names", nargs=-1)
@click.option("--systemd", is_flag=True, help="Also make the root in which systemd is PID 1 (debootstrap).")
@cache_option
@json_options
def fetch(names: tuple[str, ...], systemd: bool, cache: Path | None, as_json: bool, output: str | None) -> int:
    """Download Debian's kernel packages and unpack them into the cache; nothing is installed.

    NAMES are releases or the beginning of one: 6.1, 6.12, 6.1.0-56. The newest that fits is taken.
    """
    from harness.compat import systemd_root
    from harness.compat.kernels import cache_directory
    from harness.compat.kernels import fetch as fetch_kernel
    from harness.errors import InputError

    if not names and not systemd:
        raise InputError("name a kernel to fetch, such as 6.1, or use --systemd; kernels list --all shows them")
    where = cache_directory(cache)
    fetched = [fetch_kernel(name, where, note) for name in names]
    root = systemd_root.make(where, note) if systemd else systemd_root.present(where)
    value = {
        "schema": "oci-harness/kernels/1",
        "cache": str(where),
        "kernels": [kernel.to_json() for kernel in fetched],
        "systemd_root": None if root is None else str(root),
    }
    emit(value, as_json=as_json, output=output)
    if not as_json:
        for kernel in fetched:
            click.echo(f"{kernel.name}: {kernel.image}")
        if systemd:
            click.echo(f"systemd: {root}")
    return 0
