"""A comparison as JUnit XML: one test case a check, as CI systems show them beside the tests.

Valid for Apache Ant's schema and for that of Jenkins' xUnit plug-in (junit-10.xsd); GitLab and GitHub's reporters read
a subset of these. What could not be judged is a skipped case, so that it is not taken for a pass.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from xml.etree import ElementTree

from harness.report.comparison import Comparison

# what XML 1.0 cannot hold at all, not even escaped (section 2.2)
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)


def _token(text: str) -> str:
    """As xs:token wants it: no line breaks, single blanks; never empty."""
    return " ".join(_text(text).split()) or "-"


def junit(comparison: Comparison) -> str:
    """`timestamp`: when the new result was written."""
    cases = comparison.cases
    written = datetime.fromtimestamp(comparison.new.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {
            "package": "oci-harness",
            "id": "0",
            "name": "oci-harness compare",
            "timestamp": written,
            "hostname": "localhost",
            "tests": str(len(cases)),
            "failures": str(sum(case.outcome == "failed" for case in cases)),
            "errors": "0",
            "skipped": str(sum(case.outcome == "skipped" for case in cases)),
            "time": f"{sum(case.seconds for case in cases):.3f}",  # junit-10.xsd allows no more digits
        },
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("old", str(comparison.old)), ("new", str(comparison.new)), ("of", comparison.of)):
        ElementTree.SubElement(properties, "property", name=name, value=_text(value))
    for case in cases:
        element = ElementTree.SubElement(
            suite,
            "testcase",
            name=_token(case.name),
            classname=_token(f"oci-harness.compare.{case.group}"),
            time=f"{case.seconds:.9f}",
        )
        if case.outcome == "failed":
            failure = ElementTree.SubElement(element, "failure", message=_token(case.message), type="regression")
            failure.text = _text(case.message)
        elif case.outcome == "skipped":
            ElementTree.SubElement(element, "skipped", message=_token(case.message))
    notes = [comparison.sentence, *(f"warning {each.id}: {each.message}" for each in comparison.warnings)]
    ElementTree.SubElement(suite, "system-out").text = _text("\n".join(notes))
    ElementTree.SubElement(suite, "system-err")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"
