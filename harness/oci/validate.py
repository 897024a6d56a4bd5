"""What is wrong with a config.json: all type errors, then the rules of the runtime-spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import Problem
from harness.oci.finding import Finding
from harness.oci.rules import general_findings
from harness.oci.rules_linux import linux_findings
from harness.oci.shape import shape_problems
from harness.oci.spec import CONFIG_NAME, Config, Spec
from harness.oci.vocabulary import vocabulary_findings

__all__ = ["Finding", "rule_problems", "type_problems", "validate"]


def type_problems(document: Any) -> list[Problem]:
    """Every type error and missing required field of a config.json, with its pointer. Never raises.

    Unknown fields are no problem: the spec lets runtimes ignore them (config.md, Extensibility).
    """
    return shape_problems(document, Spec)


def rule_problems(config: Config, bundle_dir: str | Path | None = None) -> list[Finding]:
    """Findings of all rules; values of a wrong type are passed over.

    `bundle_dir`: where relative paths start; None skips the rules that need the bundle on disk. Sources of absolute
    bind mounts are looked for on this host either way.
    """
    directory = None if bundle_dir is None else Path(bundle_dir)
    document = config.document
    return [
        *vocabulary_findings(document),
        *general_findings(document, directory),
        *linux_findings(document),
    ]


def validate(bundle_dir: str | Path) -> list[Finding]:
    """Load BUNDLE/config.json -> all findings, type errors first. Raises InputError if it cannot be read as JSON."""
    config = Config.load(Path(bundle_dir) / CONFIG_NAME)
    types = [Finding(each.pointer, each.message, "error") for each in type_problems(config.document)]
    known = {each.pointer for each in types}
    return [*types, *(each for each in rule_problems(config, bundle_dir) if each.pointer not in known)]
