"""`oci-harness report`: results as one page, or their samples in the forms of other tools."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from harness.cli.output import check_output, encode, write_atomically
from harness.errors import HostError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

EXPORTS = ("csv", "markdown", "hyperfine", "openmetrics")


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(), metavar="RESULT...")
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Where to write it (atomically).")
@click.option(
    "--format",
    "form",
    type=click.Choice(("html", *EXPORTS)),
    default="html",
    show_default=True,
    help="csv: all samples; markdown: tables for a pull request; hyperfine: as by its --export-json; openmetrics: "
    "text for Prometheus. All but html take one `bench` result.",
)
@click.option("--stage", "stages", multiple=True, metavar="STAGE", help="For hyperfine; `whole` if not given.")
def report(results: tuple[str, ...], output: str | None, form: str, stages: tuple[str, ...]) -> int:
    """Make one self-contained page of results: `bench` (plain, --sweep, --ablate, --memory-floor) and `trace`.

    The page opens from disk, loads nothing, needs no JavaScript, and has the files themselves in it, to be downloaded.
    Several files become one page, in the order given. With --format the samples of one `bench` go to other tools.
    Without -o it goes to stdout.
    """
    from harness.report.saved import load

    check_output(output)
    if stages and form != "hyperfine":
        raise InputError("--stage: is for --format hyperfine; the others have all stages")
    if form == "html":
        if output is None and sys.stdout.isatty():
            raise InputError("a page is nothing for a terminal: name a file, -o report.html")
        loaded = [load(path, keep=True) for path in results]
        text = _page()(loaded)
    else:
        if len(results) > 1:
            raise InputError(f"--format {form}: takes one result, not {len(results)}")
        text = _exported(results[0], form, stages)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_atomically(output, text)
    return 0


def _page() -> Callable[..., str]:
    """Raises HostError where the extra is not installed."""
    try:
        import jinja2  # noqa: F401 - is it there?
        import matplotlib as mpl  # noqa: F401 - is it there?
    except ModuleNotFoundError as error:
        raise HostError(f"a page needs {error.name}: pip install 'oci-harness[report]'") from None
    from harness.report.html import render

    return render


def _exported(path: str, form: str, stages: tuple[str, ...]) -> str:
    from harness.report.saved import load_full, stages_named

    bench = load_full(path)
    if form == "csv":
        from harness.report.csv_samples import csv_samples

        return csv_samples(bench)
    if form == "markdown":
        from harness.report.markdown import bench_markdown

        return bench_markdown(bench)
    if form == "openmetrics":
        from harness.report.openmetrics import openmetrics

        return openmetrics(bench)
    from harness.report.hyperfine import hyperfine

    return encode(hyperfine(bench, tuple(stages_named(stages)) if stages else ("whole_ns",))) + "\n"
