"""ruff and mypy as tests, and the reason that every ignore needs."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|fmt:\s*(?:off|skip)|ruff:|pragma)\b", re.IGNORECASE)
# with its codes named, then a dash or a second comment with the reason
REASONED = re.compile(r"#\s*(?:noqa:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*\s+-\s+\S|type:\s*ignore\[[a-z, -]+\]\s+#\s+\S)")
BARE_REASONED = re.compile(r"\b(?:skip|off)\s+(?:-|#)\s+\S")


def run(*argv: str) -> None:
    done = subprocess.run([sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout}{done.stderr}"


def python_files() -> list[Path]:
    folders = ("harness", "native", "tests", "bundles", "scripts")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py") if "generated" not in path.parts)


def test_ruff_check() -> None:
    """ruff has nothing to say."""
    run("ruff", "check", "--no-fix", ".")


def test_ruff_format() -> None:
    """Every file is formatted."""
    run("ruff", "format", "--check", ".")


def test_mypy() -> None:
    """mypy --strict has nothing to say."""
    run("mypy", "--strict")


def unreasoned(text: str) -> list[int]:
    """Lines of comments that suppress a check without codes and a reason."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        match = SUPPRESSION.search(token.string) if token.type == tokenize.COMMENT else None
        if match is None:
            continue
        bare = match.group(1).lower().startswith(("fmt", "ruff", "pragma"))  # these have no codes
        reasoned = BARE_REASONED if bare else REASONED
        if not reasoned.search(token.string):  # a second comment on the line is part of the same token
            found.append(token.start[0])
    return found


def test_ignores_have_reasons() -> None:
    """Every `noqa` and `type: ignore` names its codes and says why."""
    wrong = [f"{path.relative_to(ROOT)}:{line}" for path in python_files() for line in unreasoned(path.read_text())]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("x = 1  # noqa: E501 - a long line of the kernel's", True),
        ("x = 1  # noqa: E501, F401 - because", True),
        ("x = 1  # type: ignore[arg-type]  # cffi has no types", True),
        ("x = 1  # type: ignore[arg-type, misc]  # because", True),
        ("x = '# noqa'", True),
        ("x = 1  # noqa", False),
        ("x = 1  # noqa: E501", False),
        ("x = 1  # noqa: E501 -", False),
        ("x = 1  # type: ignore", False),
        ("x = 1  # type: ignore[misc]", False),
        ("x = 1  # type: ignore  # because", False),
        ("x = 1  # fmt: skip", False),
        ("x = 1  # fmt: skip - a table", True),
        ("# just a comment", True),
    ],
)
def test_the_check_itself(line: str, good: bool) -> None:
    """The check tells a reasoned ignore from a bare one."""
    assert (unreasoned(line + "\n") == []) is good
