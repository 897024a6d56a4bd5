"""What an examination of a node yields: findings, and what could not be looked at."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

# error: it is so now, and containers fail by it; warning: it has happened, comes near, or may fail them; info: worth
# knowing when one reads the rest.
Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


class Evidence(Struct, frozen=True):
    """Where a finding rests: a file (with `:LINE` if that helps) or a command, and the text seen there."""

    where: str
    text: str


class Finding(Struct, frozen=True):
    """One thing that is wrong, with the values found. `cause` is the slug of bundles/causes.toml that it leads to."""

    id: str  # of this kind of finding; several findings may have it
    severity: Severity
    message: str
    cause: str
    fix: str
    evidence: tuple[Evidence, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "severity": self.severity,
            "message": self.message,
            "cause": self.cause,
            "evidence": [{"where": each.where, "text": each.text} for each in self.evidence],
            "fix": self.fix,
        }


class Unseen(Struct, frozen=True):
    """What could not be looked at, and why: no finding there does not mean that all is well."""

    what: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, "reason": self.reason}


class Examination(Struct):
    """The result: findings, gravest first."""

    checks: list[str] = field(default_factory=list)  # names of what was looked at
    findings: list[Finding] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)


def some(names: list[str], limit: int = 3) -> str:
    """The first few of a list, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
