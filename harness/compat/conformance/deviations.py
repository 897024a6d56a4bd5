"""Where a known runtime is known not to do what the spec says: read from deviations.toml, one reason each."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

from harness.cgroup.hierarchy import Layout
from harness.compat.conformance.needs import KINDS, unmet
from harness.errors import InputError
from harness.runtime.discovery import Runtime

FILE = Path(__file__).with_name("deviations.toml")
_CONDITION = re.compile(r"(<=|>=|<|>|==)\s*([0-9]+(?:\.[0-9]+)*)")


class Deviation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`runtime`: a dialect. `versions`: conditions that must all hold, `>=1.0, <1.2`; "" is any version.

    `cases`: names as the suite shows them. `sentence`: the spec's, of each of them. `needs`: where it shows, in the
    words of a case's own needs, `cgroup-v1:pids`.
    """

    runtime: str
    versions: str
    cases: tuple[str, ...]
    reason: str
    sentence: str
    needs: tuple[str, ...] = ()

    def holds_for(self, runtime: Runtime, layout: Layout) -> bool:
        return (
            runtime.dialect.name == self.runtime
            and version_is(runtime.version, self.versions)
            and unmet(self.needs, runtime, layout) is None
        )


class _Condition(Struct, frozen=True):
    operator: str
    version: tuple[int, ...]

    def holds(self, version: tuple[int, ...]) -> bool:
        longest = max(len(version), len(self.version))
        one, other = (each + (0,) * (longest - len(each)) for each in (version, self.version))
        return {"<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other, "==": one == other}[
            self.operator
        ]


def version_is(version: str, conditions: str) -> bool:
    """Whether "1.1.5+ds1" is `>=1.1, <1.2`; a version without a number fulfils only "". Raises ValueError."""
    wanted = []
    for text in filter(None, map(str.strip, conditions.split(","))):
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no condition on a version; write >=1.2 or <1.3")
        wanted.append(_Condition(match[1], _numbers(match[2])))
    number = re.match(r"\d+(?:\.\d+)*", version)
    if number is None:
        return not wanted
    return all(condition.holds(_numbers(number.group())) for condition in wanted)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


@cache
def load_deviations(path: Path = FILE) -> tuple[Deviation, ...]:
    """Raises InputError naming the file and the place."""
    try:
        document = tomllib.loads(path.read_text())
        found = msgspec.convert(document.get("deviation", []), tuple[Deviation, ...])
        for each in found:
            version_is("0", each.versions)
            if strange := [need for need in each.needs if need.partition(":")[0] not in KINDS]:
                raise ValueError(f"no need {strange[0]!r}; there are {', '.join(KINDS)}")
    except (OSError, ValueError) as error:  # msgspec's and tomllib's errors are ValueErrors
        raise InputError(f"{path}: {error}") from None
    return found


def deviation_of(runtime: Runtime, layout: Layout, case: str) -> Deviation | None:
    """What is known of this case on this runtime in this layout."""
    return next((each for each in load_deviations() if case in each.cases and each.holds_for(runtime, layout)), None)
