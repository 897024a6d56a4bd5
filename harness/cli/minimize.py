"""`oci-harness minimize`: the smallest config.json that still fails of the same cause, each part proven."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import json_options, positive, runtime_option, timeout_option, view_option
from harness.cli.output import console, emit, note
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.diagnosis.minimize import Progress
    from harness.diagnosis.reduced import Kept, Result

MAX_TESTS = 200  # as in harness.diagnosis.minimize, which need not be loaded for --help
INTERRUPTED = 130
_PARTS = 12  # as many fit on a screen
_LONG = 60  # characters of a value on a terminal


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to write the reduced bundle; BUNDLE-minimal beside BUNDLE, with a number if need be, if not given.",
)
@click.option(
    "--max-tests",
    type=click.IntRange(3),
    default=MAX_TESTS,
    show_default=True,
    help="Stop after so many lifecycles with the smallest bundle so far.",
)
@runtime_option
@view_option
@timeout_option
@json_options
def minimize(
    bundle: Path,
    keep: Path | None,
    max_tests: int,
    runtime: str | None,
    view: str,
    timeout_s: float,
    as_json: bool,
    output: str | None,
) -> int:
    """Find the smallest config.json that still fails as BUNDLE does.

    BUNDLE is not changed: each try is a lifecycle on an overlay of its rootfs, in a cgroup of the run, hooks included.
    It counts only if it fails of the same cause at the same stage. For each part that is left it is shown what really
    happens without it. Exit status 1 when BUNDLE starts, or does not always fail in the same way. Ctrl-C ends the
    search with the smallest bundle so far.
    """
    from harness.diagnosis.minimize import minimize as reduce
    from harness.diagnosis.reduced import check_directory, default_directory, verify, write_bundle
    from harness.oci.bundle import Bundle
    from harness.runtime.discovery import find_runtime, find_runtimes
    from harness.runtime.session import Session

    positive("--timeout", timeout_s, 0.001)
    loaded = Bundle.load(bundle.absolute())
    directory = keep.absolute() if keep is not None else default_directory(loaded.path)
    check_directory(directory)
    found = find_runtime(runtime) if runtime else find_runtimes(())[0]
    failed: InputError | None = None
    with Session(view, [found], kind="minimize", timeout_s=timeout_s) as session:
        if session.choice.explanation:
            note(session.choice.explanation)
        with _progress(as_json) as tick:
            result = reduce(session, found, loaded, max_tests=max_tests, tick=tick)
        if result.document:
            try:
                write_bundle(result, directory)
                if result.verdict == "minimized":
                    verify(session, found, result)
            except InputError as error:  # what was found is worth more than the copy of it
                failed = error
        steps = [str(step) for step in session.choice.steps]
    emit(result.to_json(), as_json=as_json, output=output)
    if not as_json:
        _explain(result)
    if result.bundle is not None:
        click.echo("by hand, without this tool:", err=True)
        for command in result.commands(found, steps):
            click.echo(f"  {command}", err=True)
    if failed is not None:
        raise failed
    if result.reason == "interrupted":
        return INTERRUPTED
    return 1 if result.verdict in ("starts", "unstable") else 0


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """One line on stderr that is written over, if that is a terminal."""
    shown = console(stderr=True)
    if quiet or not shown.is_terminal:
        yield lambda _: None
        return
    with shown.status("looking at the failure") as status:
        yield lambda now: status.update(f"{now.tests} lifecycles; fails with {now.values} of {now.total} values")


def _explain(result: Result) -> None:
    from rich.text import Text

    out = console()

    def line(label: str, text: str, style: str = "") -> None:
        out.print(Text(f"  {label:11}").append(text, style), soft_wrap=True)

    head = Text(f"{result.source.name} on {result.runtime} {result.runtime_version}: ")
    failing = result.outcome.stage is not None
    named = result.outcome.cause or "a cause without a name"
    what = f"{named} at {result.outcome.stage}" if failing else "starts; there is no failure to minimize"
    out.print(head.append(what, "bold"), soft_wrap=True)
    if failing:
        line("said", result.outcome.text or f"nothing (exit status {result.outcome.exit_status})")
    if result.reason is not None and failing:
        line(result.verdict, result.reason, "bold yellow")
    if not result.document:
        return
    for kept in result.kept[:_PARTS]:
        line("kept", _shown(kept), "bold")
        line("", _without(kept))
    if len(result.kept) > _PARTS:
        line("", f"and {len(result.kept) - _PARTS} more; --json has them all")
    if not result.kept:
        whose = "the node" if result.rootfs == "embedded" else "the rootfs or the node"
        line("kept", f"nothing: the skeleton alone fails in the same way, so it is {whose} and not config.json", "bold")
    line("skeleton", " ".join(result.skeleton))
    line(
        "removed",
        f"{result.removed_count} of {result.total_count} values, in {result.tests_run} lifecycles "
        f"({result.runtime_calls} calls of the runtime), {result.seconds:.1f} s",
    )
    rootfs = {
        "copied": "with a copy of the rootfs",
        "embedded": "with a small rootfs of the harness's own, for that of the bundle does not matter",
        "in-place": "which uses the rootfs where it is, for elsewhere it does not fail",
    }
    if result.bundle is not None:
        line("bundle", f"{result.bundle}, {rootfs[result.rootfs]}")
    if result.verified is not None:
        again = "fails in the same way" if result.verified else "does NOT fail in the same way"
        line("", f"run once more as written: it {again}", "" if result.verified else "bold red")


def _shown(kept: Kept) -> str:
    if kept.missing is not None:
        return f"{kept.pointer}: {kept.missing}"
    value = json.dumps(kept.value)
    return f"{kept.pointer} = {value if len(value) <= _LONG else value[: _LONG - 3] + '...'}"


def _without(kept: Kept) -> str:
    """The counterfactual in words."""
    if kept.outcome is None:
        return "not tried without it"
    with_it = "with it there" if kept.missing is not None else "without it"
    told = f"{with_it}: {kept.outcome.describe()}"
    needed = f" (needed by {', '.join(kept.needed_by)})" if kept.needed_by else ""
    return told + needed
