"""Find OCI runtimes on this host and learn what each one is by asking it, not by its file name."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from msgspec import Struct

from harness.errors import HostError, InputError, RuntimeUnusable
from harness.process.command import run
from harness.process.operation import Operation
from harness.runtime.dialects import GENERIC, Dialect, dialect_of

DEFAULT_NAMES = ("runc", "crun", "youki", "runsc")
LIFECYCLE_VERBS = ("create", "start", "state", "kill", "delete")
PROBE_TIMEOUT_S = 10.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Runtime(Struct, frozen=True):
    """One OCI runtime binary on this host."""

    name: str  # the user's name for it; several names may be one family
    path: str  # absolute
    dialect: Dialect
    version: str  # as it tells: "1.1.5+ds1"
    version_text: str  # all that --version prints
    verbs: frozenset[str]  # commands that its --help lists

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "path": self.path,
            "dialect": self.dialect.name,
            "version": self.version,
            "version_text": self.version_text,
            "verbs": sorted(self.verbs),
        }


def resolve(name: str, path: str | None) -> str:
    """The absolute path of a runtime. Raises RuntimeUnusable when it is missing or not executable."""
    if path is None:
        found = shutil.which(name)
        if found is None:
            raise RuntimeUnusable(
                name, f"not found in PATH ({os.environ.get('PATH', '')}); name it: {name}=/path/to/it"
            )
        return str(Path(found).absolute())
    full = Path(path).absolute()
    if not full.exists():
        raise RuntimeUnusable(name, f"{full}: no such file")
    if full.is_dir():
        raise RuntimeUnusable(name, f"{full} is a directory, not a runtime's binary")
    if not os.access(full, os.X_OK):
        raise RuntimeUnusable(name, f"{full} is not executable; chmod +x it")
    return str(full)


def _ask(name: str, path: str, argument: str) -> Operation:
    try:
        answer = run(argument.lstrip("-"), [path, argument], timeout_s=PROBE_TIMEOUT_S)
    except OSError as error:
        raise RuntimeUnusable(name, f"{path} cannot be started: {error.strerror}") from None
    if answer.timed_out:
        raise RuntimeUnusable(name, f"{path} {argument} did not end within {PROBE_TIMEOUT_S:.0f} s, so it was killed")
    if answer.truncated:
        raise RuntimeUnusable(name, f"{path} {argument} printed more than 16 MiB: not an OCI runtime")
    return answer


def parse_verbs(help_text: str) -> frozenset[str]:
    """Commands that a --help lists: the first word of each indented line (urfave/cli, argp and subcommands alike)."""
    return frozenset(re.findall(r"^[ \t]+([a-z][a-z-]+)(?=[ \t,]|$)", help_text, re.MULTILINE))


def parse_version(text: str) -> str:
    """The version in the first line of --version; "" when there is none."""
    first = text.strip().splitlines()[0] if text.strip() else ""
    match = re.search(r"\d+(?:\.\d+)+\S*", first)
    return match.group() if match else ""


def inspect_runtime(name: str, path: str | None = None) -> Runtime:
    """Find one runtime and prove that it is one.

    Raises RuntimeUnusable: missing, not executable, hanging, or no OCI runtime.
    """
    full = resolve(name, path)
    version = _ask(name, full, "--version")
    text = version.stdout.decode(errors="replace")
    dialect = dialect_of(text) if version.exit_status == 0 else None
    usage = _ask(name, full, "--help")
    verbs = parse_verbs((usage.stdout + usage.stderr).decode(errors="replace"))
    if not verbs.issuperset(LIFECYCLE_VERBS):
        said = text.strip().splitlines()[0][:80] if text.strip() else "nothing"
        raise RuntimeUnusable(
            name,
            f"{full} is no OCI runtime: its --help lists no {', '.join(LIFECYCLE_VERBS)} (--version says {said!r})",
        )
    return Runtime(name, full, dialect or GENERIC, parse_version(text), text.strip(), verbs)


def parse_runtime_option(option: str) -> tuple[str, str | None]:
    """`NAME` or `NAME=PATH`; a bare path is its own name. Raises InputError."""
    name, separator, path = option.partition("=")
    if not separator and "/" in option:
        name, path, separator = Path(option).name, option, "="
    if not NAME.fullmatch(name):
        raise InputError(f"--runtime {option}: write NAME or NAME=PATH; a NAME has letters, digits, '.', '_' and '-'")
    if separator and not path:
        raise InputError(f"--runtime {option}: no path after '='")
    return name, (path if separator else None)


def find_runtime(option: str = "runc") -> Runtime:
    """The runtime for a `--runtime` value: NAME (looked up in PATH) or NAME=PATH."""
    return inspect_runtime(*parse_runtime_option(option))


def find_runtimes(options: tuple[str, ...]) -> list[Runtime]:
    """Those named, or all the usual ones that are on this host. Raises InputError for a name given twice."""
    if options:
        names = [parse_runtime_option(option)[0] for option in options]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"--runtime {name} is given twice; tell them apart: {name}-a=PATH, {name}-b=PATH")
        return [find_runtime(option) for option in options]
    present = [name for name in DEFAULT_NAMES if shutil.which(name)]
    if not present:
        raise HostError(
            f"no OCI runtime in PATH (looked for {', '.join(DEFAULT_NAMES)}); install one: apt-get install runc"
        )
    return [find_runtime(name) for name in present]
