"""The page is complete in itself, shows every result, and takes nothing in a result for markup."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import saved_results as saved

from harness.report.saved import load

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from harness.report import html
from harness.report.distribution import MOST_DOTS, SLOWEST, thinned


class Elements(HTMLParser):
    """(tag, attributes) of all elements, and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def page(tmp_path: Path, *values: dict[str, Any]) -> str:
    paths = [saved.write(tmp_path / f"{at}.json", value) for at, value in enumerate(values)]
    return html.render([load(path, keep=True) for path in paths])


def elements(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(text)
    return parser.found


def every(*runtimes: str) -> list[dict[str, Any]]:
    bench = saved.bench(dict.fromkeys(runtimes, 1.0))
    kinds = (saved.trace, saved.ablation, saved.sweep, saved.floors, saved.matrix)
    return [bench, *(kind(*runtimes) for kind in kinds)]


def references(text: str) -> Iterator[str]:
    for _, attributes in elements(text):
        for name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href", "background"):
            if attributes.get(name) is not None:
                yield str(attributes[name])


def test_every_kind(tmp_path: Path) -> None:
    """Every kind of result has its section with a verdict, charts and a table, and no token of a colour is left."""
    text = page(tmp_path, *every("runc", "crun"))
    for title in html.TITLES.values():
        assert title in text
    assert text.count('class="verdict"') == 6
    assert text.count("<svg") >= 7 + 2 + 2 + 2 + 2 + 2 + 2
    assert re.findall("#0[1-6]0[0-9]{3}", text) == []
    assert "var(--series-1)" in text


def test_matrix(tmp_path: Path) -> None:
    """Cells are coloured by verdict, what differs from the baseline is marked and has its row, and why is told."""
    text = page(tmp_path, saved.matrix("runc", memory_swap="reproduced", exec_not_found="inconclusive"))
    assert '<td class="mark good" title="why so">reproduced*</td>' in text
    assert '<td class="mark bad" title="why so">?* !</td>' in text
    assert "1 not as expected" in text
    differs = text[text.index("What differs") : text.index("All cases")]
    assert "memory-swap" in differs
    assert "start-container" not in differs


def test_nothing_is_loaded(tmp_path: Path) -> None:
    """No element refers to anything but a place in the page or data in it, and the policy forbids the rest."""
    text = page(tmp_path, *every("runc", "crun"))
    assert all(target.startswith(("#", "data:")) for target in references(text))
    assert [target for target in re.findall(r"url\(([^)]*)\)", text) if not target.startswith("#")] == []
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert "<script" not in text


def test_ids(tmp_path: Path) -> None:
    """Ids are unique over all charts, and what is referred to is there."""
    text = page(tmp_path, *every("runc", "crun"))
    ids = [attributes["id"] for _, attributes in elements(text) if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {target[1:] for target in references(text) if target.startswith("#")}
    assert wanted | set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)


def test_text_alternatives(tmp_path: Path) -> None:
    """Every picture says in words what it shows: runtimes and figures."""
    found = elements(page(tmp_path, *every("runc", "crun")))
    images = [attributes for _, attributes in found if attributes.get("role") == "img"]
    assert len(images) >= 12
    for image in images:
        told = str(image["aria-label"])
        assert "runc" in told or "crun" in told
        assert re.search(r"\d", told)


def test_hostile_text(tmp_path: Path) -> None:
    """Names and errors with markup, scripts, formulas and odd characters stay text, in charts as well."""
    values = every(saved.HOSTILE, "\U0001d4c7unc \U0001f433 " + "x" * 300)
    values[0]["samples"][0] |= {"error": saved.HOSTILE, "stages": {}}
    values[0]["caveats"].append({"id": saved.HOSTILE, "message": saved.HOSTILE + "\x00\x1b"})
    text = page(tmp_path, *values)
    tags = {tag for tag, _ in elements(text)}
    assert not tags & {"script", "img", "iframe", "object", "embed", "link", "form"}
    assert "pwned" in text
    assert not any(name.startswith("on") for _, attributes in elements(text) for name in attributes)


def test_embedded_file(tmp_path: Path) -> None:
    """The file itself is in the page, byte for byte, behind a link that needs no script."""
    value = saved.bench({"runc": 1.0})
    link = next(target for target in references(page(tmp_path, value)) if target.startswith("data:"))
    assert json.loads(gzip.decompress(base64.b64decode(link.partition(",")[2]))) == value


def test_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no link can hold is in the page all the same, with the one script that the policy allows."""
    monkeypatch.setattr(html, "MOST_LINK", 100)
    value = saved.bench({"runc": 1.0})
    text = page(tmp_path, value)
    packed = re.search(r'<script type="text/plain">([^<]*)</script>', text)
    assert packed is not None
    assert json.loads(zlib.decompress(base64.b64decode(packed[1]), 31)) == value
    assert re.search("script-src (&#39;|')sha256-", text)


def test_thinning() -> None:
    """Of many samples a fixed number is drawn, the slowest always; of few, all."""
    many = sorted((at * 7919) % 100_003 for at in range(50_000))
    drawn = thinned(many)
    assert len(drawn) == MOST_DOTS
    assert drawn[0] == many[0]
    assert drawn[-SLOWEST:] == many[-SLOWEST:]
    assert thinned(many[:MOST_DOTS]) == many[:MOST_DOTS]


def test_thinning_is_told(tmp_path: Path) -> None:
    """The page says how many of the samples are drawn."""
    few, many = saved.bench({"runc": 1.0}, runs=20), saved.bench({"runc": 1.0}, runs=700)
    assert "all are drawn" in page(tmp_path, few)
    assert "700 lifecycles 600 are drawn" in page(tmp_path, many)


@pytest.mark.parametrize("runs", [1, 2])
def test_hardly_anything(tmp_path: Path, runs: int) -> None:
    """One or two samples, equal times, times of nothing: a page all the same."""
    value = saved.bench({"runc": 1.0}, runs=runs)
    for each in value["samples"]:
        each["stages"] |= {"exit_ns": 0, "create_ns": 5}
    assert "<svg" in page(tmp_path, value)


def test_nothing_at_all(tmp_path: Path) -> None:
    """Results in which nothing went well still make a page that says so."""
    value = saved.bench({"runc": 1.0}, runs=3, failed={"runc": 3})
    empty = {"schema": "oci-harness/trace/1", "traces": []}
    bare = {"schema": "oci-harness/ablation/1", "costs": {}}
    floors = {"schema": "oci-harness/memory-floor/1", "floors": {"runsc": {"reason": "no limits"}}}
    sweep = {"schema": "oci-harness/bench-sweep/1", "points": []}
    text = page(tmp_path, value, empty, bare, floors, sweep)
    assert "No lifecycle went well: no such luck" in text
    assert "runsc: no limits" in text
