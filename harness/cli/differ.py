"""`oci-harness differ`: the same config.json on two runtimes, and what each of them made of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from harness.cli.options import Duration, json_options, positive, view_option
from harness.cli.output import console, emit, note, table
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.compat.differential.bundled import Units
    from harness.compat.differential.campaign import Campaign, Progress, Result
    from harness.compat.differential.edits import Document, Edit
    from harness.runtime.discovery import Runtime
    from harness.runtime.session import Session

INTERRUPTED = 130
BASE = "pause"
_FACTS = 6  # facts of one difference that are shown


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    help="A recipe to start from, or a difference that --keep wrote, to be shown again.  [default: pause]",
)
@click.option(
    "--runtime", "runtimes", multiple=True, metavar="NAME[=PATH]", help="Two of them.  [default: runc and crun]"
)
@click.option("--generate", type=click.IntRange(1), metavar="N", help="Compare N generated changes of the config.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="The same seed: the same changes.")
@click.option("--max-time", "max_time_s", type=Duration(), metavar="TIME", help="Draw no further change after so long.")
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Write each difference as a file."
)
@view_option
@click.option(
    "--timeout",
    "timeout_s",
    type=Duration(),
    default="5s",
    show_default=True,
    help="Deadline of each operation; a runtime that misses it is killed with its children.",
)
@json_options
def differ(
    bundle: Path | None,
    recipe: str | None,
    runtimes: tuple[str, ...],
    generate: int | None,
    seed: int,
    max_time_s: float | None,
    keep: Path | None,
    view: str,
    timeout_s: float,
    as_json: bool,
    output: str | None,
) -> int:
    """Compare what two runtimes make of the same config.json.

    How it ends, at which stage and why, and what the container really got: cgroup files, namespaces, mounts,
    capabilities, environment, descriptors, limits, ids, devices, sysctls. With --generate (or --max-time) changes of
    the config are tried, valid ones and slightly wrong ones; each difference is cut down to the change that makes it.
    BUNDLE itself is not written to. Exit status 1 when a difference is not among the known ones
    (bundles/differences.toml). Ctrl-C ends it with what was found so far.
    """
    from harness.compat.differential.campaign import Result, explore, run
    from harness.compat.differential.finding import keep as write
    from harness.runtime.discovery import find_runtime
    from harness.runtime.session import Session

    positive("--timeout", timeout_s, 0.001)
    if bundle is not None and recipe is not None:
        raise InputError(f"give either BUNDLE ({bundle}) or --recipe {recipe}, not both")
    if len(runtimes) not in (0, 2):
        raise InputError(f"--runtime: name two runtimes to compare; there are {len(runtimes)} here")
    if keep is not None and keep.exists() and not keep.is_dir():
        raise InputError(f"--keep {keep}: is no directory")
    a, b = (find_runtime(name) for name in (runtimes or ("runc", "crun")))
    if a.name == b.name:
        raise InputError(f"--runtime: both are called {a.name}; write --runtime NAME=PATH for one of them")
    with Session(view, [a, b], kind="differ", timeout_s=timeout_s) as session:
        if session.choice.explanation:
            note(session.choice.explanation)
        start = _start(session, bundle, recipe, generated=generate is not None or max_time_s is not None)
        result = Result((a, b), session.choice.view, start.seed(seed), start.base)
        with start.campaign(session, (a, b)) as campaign, _progress(as_json) as tick:
            if start.generated:
                run(campaign, result, count=generate, seed=seed, max_time_s=max_time_s, tick=tick)
            else:
                explore(campaign, result, iter(start.cases), total=len(start.cases), max_time_s=None, tick=tick)
    emit(result.to_json(), as_json=as_json, output=output)
    if not as_json:
        _explain(result)
    if keep is not None:
        versions = {each.name: each.version or "" for each in (a, b)}
        files = write(result.findings, keep, start.base, versions, result.view, os.uname().release)
        note(f"{len(files)} differences written to {keep}; oci-harness differ --recipe FILE shows one again")
    if result.interrupted:
        return INTERRUPTED
    return 1 if result.new else 0


class _Start(Struct, frozen=True):
    """What is compared: cases that are given, or changes of `document` that are generated."""

    base: str
    document: Document
    lower: Path
    cases: list[tuple[Edit, ...]]
    generated: bool
    units: Units | None = None
    source: Path | None = None

    def seed(self, seed: int) -> int | None:
        return seed if self.generated else None

    def campaign(self, session: Session, runtimes: tuple[Runtime, Runtime]) -> Campaign:
        from harness.compat.differential.campaign import Campaign
        from harness.compat.differential.edits import apply

        change = apply if self.units is None else self.units.apply
        bounded = self.units is None
        return Campaign(
            session, runtimes, self.document, self.lower, change=change, bounded=bounded, source=self.source
        )


def _start(session: Session, bundle: Path | None, recipe: str | None, *, generated: bool) -> _Start:
    from harness.compat.differential.bundled import Units, waiting
    from harness.compat.differential.finding import load_recipe_file
    from harness.oci.bundle import Bundle

    if bundle is not None:
        loaded = Bundle.load(bundle.absolute())
        units = Units(loaded)
        if generated:
            return _Start(str(bundle), waiting(loaded.config.document), units.rootfs, [], True, None, loaded.path)
        return _Start(str(bundle), units.skeleton(), units.rootfs, units.cases(), False, units, loaded.path)
    base = recipe or BASE
    edits: tuple[Edit, ...] = ()
    if recipe is not None and recipe.endswith(".json"):
        base, edits = load_recipe_file(Path(recipe))
    template = session.template(base)
    document = waiting(template.config.document)
    return _Start(base, document, template.lower, [edits] if edits else [], generated)


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """One line on stderr that is written over, if that is a terminal."""
    shown = console(stderr=True)
    if quiet or not shown.is_terminal:
        yield lambda _: None
        return
    with shown.status("the unchanged config") as status:

        def tick(now: Progress) -> None:
            of = "" if now.total is None else f" of {now.total}"
            status.update(f"{now.cases}{of} cases, {now.comparisons} comparisons, {now.found} differences")

        yield tick


def _explain(result: Result) -> None:
    """News first and whole, then what is known in one line each."""
    from rich.text import Text

    out = console()
    a, b = result.runtimes
    for finding in result.new:
        out.print(Text("new: ", "bold yellow").append(finding.title, "bold"), soft_wrap=True)
        for edit in finding.edits:
            out.print(Text(f"  change    {edit.describe()}"), soft_wrap=True)
        for name, (one, other) in [*finding.difference.facts.items()][1:_FACTS]:
            out.print(Text(f"  also      {name}: {a.name}: {one or '-'}; {b.name}: {other or '-'}"), soft_wrap=True)
        for runtime, behaviour in zip(result.runtimes, finding.behaviours, strict=True):
            if behaviour.outcome.stage is not None:
                out.print(Text(f"  {runtime.name:9} {behaviour.outcome.describe()}"), soft_wrap=True)
        if finding.text is not None:
            out.print(Text(f"  the spec  {finding.text.says} ({finding.text.section})"), soft_wrap=True)
    known = [each for each in result.findings if each.known is not None]
    if known:
        rows = [
            (each.known.id, each.field, each.known.right, each.known.what) for each in known if each.known is not None
        ]
        table(f"known, {a.name} and {b.name}", ("difference", "field", "right", "what"), rows)
    rate = f", {result.comparisons / result.seconds:.1f}/s" if result.seconds else ""
    click.echo(
        f"{a.name} {a.version} and {b.name} {b.version}: {result.cases} cases, {result.comparisons} comparisons "
        f"in {result.seconds:.1f} s{rate}; {len(known)} known differences, {len(result.new)} new"
    )
    if result.refused:
        click.echo(f"{result.refused} changes were not run, for they could have reached the host")
    for caveat in result.caveats:
        note(caveat)
    for title in result.unstable:
        click.echo(f"seen once and not again: {title}")
    if result.interrupted:
        click.echo("interrupted; this is what was found before")
