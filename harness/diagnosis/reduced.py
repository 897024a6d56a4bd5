"""The answer of the minimizer: what is left of a config.json and why, and the reduced bundle as a directory."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field

from harness.diagnosis.oracle import SETTLE_S, Candidate, Oracle, Outcome, link_relative, place_payload
from harness.diagnosis.skeleton import PAYLOAD, ROOTFS
from harness.errors import InputError
from harness.oci import pointer as json_pointer
from harness.oci.rootfs import build_default, copy_tree
from harness.oci.spec import Config

if TYPE_CHECKING:
    from harness.runtime.discovery import Runtime
    from harness.runtime.session import Session

# minimized: as small as can be found. partial: stopped before that. starts: there is no failure here.
# unstable: it does not always fail in the same way.
Verdict = Literal["minimized", "partial", "starts", "unstable"]
Rootfs = Literal["copied", "embedded", "in-place"]  # embedded: the harness's own, for the bundle's does not matter


class Kept(Struct, frozen=True):
    """A part that is left, and what really happens without it; `outcome` None: that was not tried any more."""

    pointer: str  # in the original config.json
    in_bundle: str | None  # in the reduced one
    missing: str | None  # the fault is that this is not there
    value: Any
    outcome: Outcome | None
    needed_by: list[str]  # other parts that would be another thing without it

    def to_json(self) -> dict[str, Any]:
        return {
            "pointer": self.pointer,
            "in_bundle": self.in_bundle,
            "missing": self.missing,
            "needed_by": self.needed_by,
            **(self.outcome.to_json() if self.outcome else {"outcome": "not-run"}),
        }


class Result(Struct):
    """`document` is the reduced config.json; `bundle` is where write_bundle has put it."""

    verdict: Verdict
    source: Path
    runtime: str
    runtime_version: str
    view: str
    outcome: Outcome
    outcomes: list[Outcome]  # of each of the first runs; the words may differ where processes race
    reason: str | None = None
    kept: list[Kept] = field(default_factory=list)
    skeleton: list[str] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)
    rootfs: Rootfs = "copied"
    lower: Path | None = None
    removed_count: int = 0
    total_count: int = 0
    tests_run: int = 0
    cached: int = 0
    runtime_calls: int = 0
    seconds: float = 0.0
    bundle: Path | None = None
    verified: bool | None = None  # the written bundle was run once more; None: it was not

    def commands(self, runtime: Runtime, view_steps: list[str]) -> list[str]:
        """What shows the failure without this tool, as a shell takes it."""
        argv = [runtime.path, *runtime.dialect.global_args, "run", "--bundle", str(self.bundle)]
        run = shlex.join([*argv, f"{self.source.name[:40]}-minimal"])
        return [f"unshare -m sh -c {shlex.quote('; '.join([*view_steps, run]))}" if view_steps else run]

    def to_json(self) -> dict[str, Any]:
        found = self.outcome
        return {
            "schema": "oci-harness/minimize/1",
            "verdict": self.verdict,
            "reason": self.reason,
            "source": str(self.source),
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "view": self.view,
            "stage": found.stage,
            "cause": found.cause,
            "variant": found.variant,
            "side": found.side,
            "clause": found.clause,
            "text": found.text,
            "fields": found.fields,
            "kept": [each.pointer for each in self.kept],
            "counterfactuals": [each.to_json() for each in self.kept],
            "skeleton": self.skeleton,
            "removed_count": self.removed_count,
            "total_count": self.total_count,
            "tests_run": self.tests_run,
            "cached": self.cached,
            "runtime_calls": self.runtime_calls,
            "seconds": round(self.seconds, 3),
            "rootfs": self.rootfs,
            "bundle": None if self.bundle is None else str(self.bundle),
            "verified": self.verified,
        }


def default_directory(bundle: Path) -> Path:
    """`BUNDLE-minimal` beside the bundle, or with the first number that is free."""
    first = bundle.with_name(f"{bundle.name}-minimal")
    number, directory = 2, first
    while directory.exists() or directory.is_symlink():
        number, directory = number + 1, first.with_name(f"{first.name}-{number}")
    return directory


def check_directory(directory: Path) -> None:
    """Before long work: can the reduced bundle be written there? Raises InputError."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} exists and is not an empty directory; name a new one with --keep")
    above = next(each for each in (directory, *directory.parents) if each.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{above} is no directory that can be written to; name a place with --keep")


def write_bundle(result: Result, directory: Path) -> None:
    """The reduced bundle as a directory; sets result.bundle. Raises InputError, and then leaves nothing half done.

    It has no cgroupsPath unless that is a part that is kept: the runtime then takes a place of its own.
    """
    check_directory(directory)
    fresh = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        Config(result.document).save(directory / "config.json")
        link_relative(result.document, result.source, directory)
        if result.rootfs != "in-place":
            rootfs = directory / ROOTFS
            rootfs.mkdir()
            if result.rootfs == "embedded" or result.lower is None:
                build_default(rootfs)
            else:
                copy_tree(result.lower, rootfs)
            if json_pointer.get(result.document, "/process/args", None) == [PAYLOAD]:
                place_payload(rootfs)
    except BaseException as error:
        for each in [directory] if fresh else [*directory.iterdir()]:
            shutil.rmtree(each, ignore_errors=True) if each.is_dir() and not each.is_symlink() else each.unlink()
        if isinstance(error, OSError):
            raise InputError(f"{directory}: {error.strerror}; name another place with --keep") from None
        raise
    result.bundle = directory


def verify(session: Session, runtime: Runtime, result: Result) -> None:
    """Run the written bundle once; sets result.verified. Its files are not changed: it too runs on an overlay."""
    if result.bundle is None or result.rootfs == "in-place":
        return
    document = Config.load(result.bundle).document
    relocated = not any(each.pointer == "/linux/cgroupsPath" for each in result.kept)
    candidate = Candidate(document, result.bundle / ROOTFS, needs_payload=False, relocated=relocated)
    settle_s = SETTLE_S if result.outcome.stage == "run" else 0.0
    outcome = Oracle(session, runtime, result.bundle).run(candidate, settle_s)
    result.tests_run += 1
    result.runtime_calls += outcome.calls
    result.verified = any(outcome.same(each) for each in result.outcomes)
