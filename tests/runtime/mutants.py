"""Run the conformance suite over broken runtimes, in a process of its own; prints {mutation: {case: outcome}} as JSON.

    mutants.py RUNTIME DIRECTORY PART PARTS

PART of PARTS (from 0) of the mutations is tried, so that several processes can share them.
One runtime a mutation, each a script in DIRECTORY around RUNTIME; on each only the cases that could see a difference:
those that name the mutation, and those whose config.json it would change.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import mutant

from harness.compat.conformance import suite
from harness.compat.conformance.verdicts import Verdict
from harness.runtime.discovery import Runtime, find_runtime
from harness.runtime.session import Session

# What every config.json has: without it each case is another one, so only those that name it are run.
EVERYWHERE = ("/linux/namespaces/type=pid", "/linux/namespaces/type=mount", "/process/args/")


def script(directory: Path, number: int, mutation: str, real: Runtime) -> str:
    path = directory / f"m{number}"
    here = Path(mutant.__file__)
    words = [sys.executable, "-I", "-S", str(here), mutation, real.path]
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    path.write_text(f'#!/bin/sh\ncase "$1" in --*) [ $# = 1 ] && exec {real.path} "$@";; esac\nexec {quoted} "$@"\n')
    path.chmod(0o755)
    return f"m{number}={path}"


def changes(verdict: Verdict, mutation: str) -> bool:
    """Whether a plain pointer would change a config.json of the case."""
    if not mutation.startswith("/") or mutation.startswith(EVERYWHERE):
        return False
    for document in verdict.documents:
        edited = copy.deepcopy(document)
        mutant.edit(edited, mutation)
        if edited != document:
            return True
    return False


def main(name: str, directory: Path, part: int, parts: int) -> None:
    real = find_runtime(name)
    with Session("auto", [real], kind="mutants", timeout_s=10.0) as session:
        healthy = [verdict for verdict in suite.run(session, [real]).verdicts if verdict.outcome == "passes"]
        mutations = sorted({field for verdict in healthy for field in verdict.claim.fields})[part::parts]
        runtimes = [find_runtime(script(directory, *each, real)) for each in enumerate(mutations)]
        runs: set[tuple[str, str]] = set()
        for runtime, mutation in zip(runtimes, mutations, strict=True):
            for verdict in healthy:
                if mutation in verdict.claim.fields or changes(verdict, mutation):
                    runs.add((verdict.case, runtime.name))
        report = suite.run(session, runtimes, only=runs)
    named = {verdict.case: verdict.claim.fields for verdict in healthy}
    found: dict[str, dict[str, str]] = {mutation: {} for mutation in mutations}
    texts: dict[str, str] = {}
    for verdict in report.verdicts:
        mutation = mutations[int(verdict.runtime[1:])]
        found[mutation][verdict.case] = verdict.outcome
        texts[f"{mutation} {verdict.case}"] = f"{verdict.seconds:.2f} s: {verdict.reason}"
    print(json.dumps({"named": named, "mutations": found, "reasons": texts}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
