"""A report for other programs: JUnit XML and TAP version 14."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from harness.compat.conformance.verdicts import Report, Verdict

# what XML 1.0 cannot hold at all, not even escaped (section 2.2)
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)


def junit(report: Report) -> str:
    """One suite a runtime; a case's class is its section. What deviates as is known is skipped, with the reason."""
    root = ElementTree.Element("testsuites", name="oci-harness conformance")
    for runtime in report.runtimes:
        cases = [verdict for verdict in report.verdicts if verdict.runtime == runtime.name]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=f"{runtime.name} {runtime.version}",
            tests=str(len(cases)),
            failures=str(sum(not case.as_expected for case in cases)),
            errors="0",
            skipped=str(sum(case.outcome in ("skipped", "deviates") for case in cases)),
            time=f"{sum(case.seconds for case in cases):.3f}",
        )
        for verdict in cases:
            _case(suite, verdict)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, verdict: Verdict) -> None:
    element = ElementTree.SubElement(
        suite,
        "testcase",
        classname=f"{verdict.runtime}.{verdict.claim.section}",
        name=_text(verdict.case),
        time=f"{verdict.seconds:.3f}",
    )
    if not verdict.as_expected:
        failure = ElementTree.SubElement(element, "failure", type=verdict.outcome, message=_text(verdict.reason))
        failure.text = _text(f"{verdict.claim.section}: {verdict.claim.sentence}\n{verdict.text}")
    elif verdict.outcome in ("skipped", "deviates"):
        word = "deviates: " if verdict.outcome == "deviates" else ""
        ElementTree.SubElement(element, "skipped", message=_text(word + verdict.reason))


def tap(report: Report) -> str:
    """TAP version 14 (testanything.org): a known deviation is `not ok ... # TODO`, which counts as expected."""
    lines = ["TAP version 14", f"1..{len(report.verdicts)}"]
    for number, verdict in enumerate(report.verdicts, 1):
        ok = "ok" if verdict.outcome in ("passes", "skipped") else "not ok"
        directive = {"skipped": f" # SKIP {verdict.reason}", "deviates": f" # TODO {verdict.reason}"}
        # a '#' begins a directive, so one in a name is escaped
        name = _escaped(f"{verdict.runtime} {verdict.claim.section} {verdict.case}")
        lines.append(f"{ok} {number} - {name}{' '.join(directive.get(verdict.outcome, '').splitlines())}")
        if not verdict.as_expected:
            block = {"outcome": verdict.outcome, "sentence": verdict.claim.sentence, "reason": verdict.reason}
            lines += ["  ---", *(f"  {key}: {_quoted(value)}" for key, value in block.items()), "  ..."]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("#", "\\#")


def _quoted(text: str) -> str:
    """A YAML double-quoted scalar is a JSON string."""
    import json

    return json.dumps(text)
