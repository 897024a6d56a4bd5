"""Static SVG by matplotlib that takes its colours from the page it stands in, and is described for who cannot see it.

matplotlib knows no CSS, so it is given colours that stand for names (TOKENS), which become variables of the page's
style sheet. Text stays text. Nothing in it runs or loads anything.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

from msgspec import Struct

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SVG: Final = "http://www.w3.org/2000/svg"
XLINK: Final = "http://www.w3.org/1999/xlink"
INK, MUTED, LINE, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES: Final = tuple(f"#05000{number}" for number in range(6))
PARTS: Final = {"create": "#060000", "start": "#060001", "run": "#060002", "kill": "#060003", "delete": "#060004"}
PARTS_OWN: Final = "#060005"  # time that is the harness's own
TOKENS: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
    PARTS_OWN: "var(--part-own)",
    **{token: f"var(--series-{number})" for number, token in enumerate(SERIES)},
    **{token: f"var(--part-{name})" for name, token in PARTS.items()},
}
DASHES: Final = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))  # series are told apart without colour too
WIDE, NARROW = 760, 350  # of a page and of a phone; a panel of a grid is NARROW
FONT = 10.5
_TOKEN: Final = re.compile("|".join(TOKENS))
_LONG: Final = re.compile(r"-?\d+\.\d{2,}")
_REFERENCE: Final = re.compile(r"url\(#([^)]+)\)")
_UNPRINTABLE: Final = re.compile("[^\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Chart(Struct, frozen=True):
    """One chart of the page. `narrow`: another drawing of the same for a phone; "": the same fits both."""

    title: str
    description: str  # instead of the picture
    wide: str
    narrow: str = ""
    note: str = ""


class Canvas:
    """Draws figures; ids are unique over all that one canvas drew."""

    def __init__(self) -> None:
        self._serial = itertools.count()

    def draw(self, width: float, height: float, paint: Callable[[Figure], None]) -> str:
        """An <svg> element as text. `paint` gets a figure of width x height points."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        with mpl.rc_context(_style()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a glyph that matplotlib's font lacks is drawn by the browser's
            figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
            figure.set_facecolor("none")
            paint(figure)
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None})
        return _finished(text.getvalue(), f"c{next(self._serial)}-")

    def both(self, title: str, description: str, paint: Callable[[Figure, bool], float], note: str = "") -> Chart:
        """One drawing for a page and one for a phone. `paint` gets whether it is narrow, and returns the height."""
        return Chart(title, description, self._sized(paint, False), self._sized(paint, True), note)

    def _sized(self, paint: Callable[[Figure, bool], float], narrow: bool) -> str:
        def sized(figure: Figure) -> None:
            height = paint(figure, narrow)
            figure.set_size_inches(figure.get_figwidth(), height / 72)

        return self.draw(NARROW if narrow else WIDE, 100, sized)


def _style() -> Any:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "oci-harness",
        "text.parse_math": False,  # a name with dollar signs is a name
        "path.simplify": False,
        "font.size": FONT,
        "axes.titlesize": FONT,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": FONT - 1,
        "xtick.labelsize": FONT - 1.5,
        "ytick.labelsize": FONT - 1.5,
        "text.color": INK,
        "axes.edgecolor": LINE,
        "axes.labelcolor": MUTED,
        "axes.facecolor": "none",
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "axes.grid": True,
        "axes.grid.axis": "x",
        "grid.color": LINE,
        "grid.linewidth": 0.7,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "figure.constrained_layout.w_pad": 0.02,
        "figure.constrained_layout.h_pad": 0.03,
    }


def shown(text: str, most: int = 28) -> str:
    """A name as it may stand in a picture: printable, not too long."""
    clean = _UNPRINTABLE.sub("\ufffd", text)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def series(number: int) -> str:
    return SERIES[number % len(SERIES)]


def dash(number: int) -> Any:
    return DASHES[number % len(DASHES)]


def time_axis(axes: Axes, low_ns: float, high_ns: float) -> None:
    """The x axis for times between the two, in a unit that suits; logarithmic where that is needed to see anything."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    scale, unit = next(
        (each for each in ((1e9, "s"), (1e6, "ms"), (1e3, "us")) if high_ns >= 1.5 * each[0]), (1.0, "ns")
    )
    if low_ns > 0 and high_ns / low_ns > 12:
        axes.set_xscale("log")
        decades = high_ns / low_ns > 200
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades else (1.0, 2.0, 5.0), numticks=12))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(low_ns / 1.08, high_ns * 1.08)
    else:
        margin = max((high_ns - low_ns) * 0.04, high_ns * 0.005, 1.0)
        axes.set_xlim(max(0.0, low_ns - margin), high_ns + margin)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale:g} {unit}"))


def dots(axes: Axes, x: list[float], y: list[float], color: str, size: float = 3.2, alpha: float = 0.55) -> None:
    """Many dots as a single path: a tenth of the bytes of as many circles."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    vertices = [point for pair in zip(x, y, strict=True) for point in (pair, pair)]
    if not vertices:
        return
    codes = [Path.MOVETO, Path.LINETO] * len(x)
    patch = PathPatch(Path(vertices, codes), fill=False, edgecolor=color, linewidth=size, alpha=alpha, capstyle="round")
    axes.add_patch(patch)


def _finished(text: str, prefix: str) -> str:
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(text.encode())
    for parent in root.iter():
        for child in list(parent):
            if child.tag == f"{{{SVG}}}metadata":
                parent.remove(child)
    referred = {name for element in root.iter() for name in _referred(element)}
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in referred:
            element.set("id", prefix + str(own))
        link = element.attrib.pop(f"{{{XLINK}}}href", None)
        if link is not None:
            element.set("href", f"#{prefix}{link[1:]}")
        for name, value in element.attrib.items():
            if "url(#" in value:
                element.set(name, _REFERENCE.sub(rf"url(#{prefix}\1)", value))
            if name == "d":
                element.set(name, _LONG.sub(lambda number: f"{float(number[0]):.1f}", " ".join(value.split())))
    width, height = (root.attrib.pop(name).removesuffix("pt") for name in ("width", "height"))
    root.attrib.pop("version", None)
    root.set("viewBox", f"0 0 {width} {height}")
    root.set("aria-hidden", "true")  # its figure has the description
    found = ElementTree.tostring(root, encoding="unicode")
    return _TOKEN.sub(lambda token: TOKENS[token[0]], found)


def _referred(element: ElementTree.Element) -> list[str]:
    link = element.get(f"{{{XLINK}}}href", "#")[1:]
    return [link, *(name for value in element.attrib.values() for name in _REFERENCE.findall(value))]
