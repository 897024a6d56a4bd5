"""The page in a real browser: no errors, no requests, no foreign script, light, dark and on a phone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import prctl
import pytest
import saved_results as saved

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

# in a process of its own: matplotlib keeps the files of its fonts open
RENDER = """
import sys
from harness.report import html
from harness.report.saved import load
html.MOST_LINK, target, *results = int(sys.argv[1]), *sys.argv[2:]
open(target, "w").write(html.render([load(path, keep=True) for path in results]))
"""


@pytest.fixture(scope="module", autouse=True)
def somebody_else_reaps() -> Iterator[None]:
    """The helpers that a browser leaves to end by themselves go to the host's init, not to the tests."""
    before = prctl.get_child_subreaper()
    prctl.set_child_subreaper(False)
    yield
    prctl.set_child_subreaper(before)


@pytest.fixture(autouse=True)
def _chromium(require: Callable[..., None]) -> None:
    require("chromium")


def browse(tmp_path: Path, page: Path, *options: str) -> tuple[str, list[str], list[str]]:
    """(the page's elements after it was loaded, console messages, requests that the page made)."""
    log = tmp_path / "net.json"
    argv = [str(shutil.which("chromium")), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    argv += [f"--user-data-dir={tmp_path}/profile", f"--log-net-log={log}", "--no-first-run", "--mute-audio"]
    done = subprocess.run([*argv, *options, f"file://{page}"], capture_output=True, text=True, check=True, timeout=120)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # the browser's own requests have no initiator; those of a page from disk have the opaque one
    requests = [
        event["params"]["url"]
        for event in json.loads(log.read_text())["events"]
        if "initiator" in event.get("params", {}) and event["params"]["initiator"] != "not an origin"
    ]
    return done.stdout, console, requests


def written(tmp_path: Path, *values: dict[str, Any], most_link: int = 1_000_000) -> Path:
    results = [str(saved.write(tmp_path / f"{at}.json", value)) for at, value in enumerate(values)]
    page = tmp_path / "report.html"
    subprocess.run([sys.executable, "-c", RENDER, str(most_link), str(page), *results], check=True)
    return page


def everything(*runtimes: str) -> list[dict[str, Any]]:
    bench = saved.bench({name: 1.0 + at / 2 for at, name in enumerate(runtimes)})
    kinds = (saved.trace, saved.ablation, saved.sweep, saved.floors, saved.matrix)
    return [bench, *(kind(*runtimes) for kind in kinds)]


def test_the_check_itself(tmp_path: Path) -> None:
    """A page that logs and loads something is seen to do so."""
    page = tmp_path / "bad.html"
    page.write_text('<!doctype html><img src="http://page.invalid/x.png"><script>console.log("hello")</script>')
    dom, console, requests = browse(tmp_path, page, "--dump-dom")
    assert "<img" in dom
    assert len(console) >= 1
    assert requests == ["http://page.invalid/x.png"]


def test_quiet(tmp_path: Path) -> None:
    """The page logs no error and makes no request."""
    dom, console, requests = browse(tmp_path, written(tmp_path, *everything("runc", "crun")), "--dump-dom")
    assert dom.count("<svg") > 12
    assert console == []
    assert requests == []


def test_hostile(tmp_path: Path) -> None:
    """A runtime's name with a script in it does not run, and asks for nothing."""
    page = written(tmp_path, *everything(saved.HOSTILE, "crun"))
    dom, console, requests = browse(tmp_path, page, "--dump-dom")
    title = dom.partition("<title>")[2].partition("</title>")[0]
    assert title.endswith("- oci-harness")
    assert console == []
    assert requests == []


def test_large_file(tmp_path: Path) -> None:
    """The policy lets the page's own script run: it shows the link to the embedded file."""
    page = written(tmp_path, saved.bench({"runc": 1.0}), most_link=100)
    dom, console, _ = browse(tmp_path, page, "--dump-dom")
    assert '<a class="embedded" download="0.json.gz" href="#">' in dom
    assert console == []


def shot(tmp_path: Path, page: Path, width: int, scheme: int) -> Any:
    """A screenshot; `scheme`: 0 is dark, 1 is light. A window cannot be as narrow as a phone, a frame can."""
    from PIL import Image

    frame = tmp_path / "frame.html"
    style = f"border:0;width:{width}px;height:1600px"
    frame.write_text(f'<!doctype html><body style="margin:0"><iframe style="{style}" src="file://{page}"></iframe>')
    target = tmp_path / f"{width}-{scheme}.png"
    size = f"--window-size={max(width, 500)},1600"
    options = [size, "--hide-scrollbars", f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={target}"]
    browse(tmp_path, frame, *options)
    return Image.open(target).convert("RGB").crop((0, 0, width, 1600))


@pytest.mark.parametrize("width", [390, 1240])
def test_seen(tmp_path: Path, width: int) -> None:
    """Light is dark on light and dark is light on dark, both with the colours of the runtimes; a phone has it all."""
    page = written(tmp_path, *everything("runc", "crun"))
    light, dark = (shot(tmp_path, page, width, scheme) for scheme in (1, 0))
    assert min(light.getpixel((width // 2, 3))) > 200
    assert max(dark.getpixel((width // 2, 3))) < 60
    for image, wanted in ((light, (0, 103, 173)), (dark, (98, 180, 240))):
        colors = {color for _, color in image.getcolors(1 << 24)}
        assert wanted in colors
        assert len(colors) > 50
