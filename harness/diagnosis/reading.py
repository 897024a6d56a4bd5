"""A message as the runtime printed it: escapes, colours, entities, line breaks undone, each character's origin kept."""

from __future__ import annotations

import html
import re
from bisect import bisect_left, bisect_right

from msgspec import Struct

from harness.diagnosis import errnos

# What the layers between a runtime and a person do to its text. A run of backslashes before a character is one escape
# however deep it was quoted (Go's %q within %q doubles them at every level), so the depth need not be known.
_NOISE = re.compile(
    r"""
      (?P<colour> (?: \x1b | \\+(?:x1b|u001b|033) | \^\[ ) \[ [0-9;]{0,16} [A-Za-z] )
    | (?P<escape> \\+ (?: u(?P<hex4>[0-9a-fA-F]{4}) | x(?P<hex2>[0-9a-fA-F]{2}) | (?P<char>[^\\\s]) )? )
    | (?P<entity> & (?:amp;){0,4}
        (?P<name> lt | gt | amp | quot | apos | nbsp | \#[0-9]{1,5} | \#[xX][0-9a-fA-F]{1,4} ) ; )
    | (?P<quote> [\u201c\u201d\u201e\u2018\u2019\u201b] )
    | (?P<unseen> \*\*+ | [\u200b\u200c\u200d\u2060\ufeff\x00-\x08\x0e-\x1b] )
    | (?P<blank> (?: \n [ \t]* [>|\u2502] (?=[ \t]) | [\s\u00a0] ){2,} | \n [ \t]* [>|\u2502] (?=[ \t])
        | [\t\n\r\v\f\u00a0\u2028] )
    """,
    re.VERBOSE,
)
_ESCAPED_BLANK = frozenset("nrtvf")
_SINGLE_QUOTES = frozenset("\u2018\u2019\u201b")


class Reading(Struct, frozen=True):
    """What is matched, and where each piece of it stands in the raw message."""

    raw: str
    text: str  # clean: one blank between words
    hay: bytes  # `text` in lower case, one byte a character
    starts: list[int]  # where a piece begins in `text` ...
    origins: list[int]  # ... and in `raw` ...
    widths: list[int]  # ... and how many characters of `raw` it stands for

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """The span of `raw` that became text[start:end]. The span must not be empty."""
        first = bisect_right(self.starts, start) - 1
        last = bisect_right(self.starts, end - 1) - 1
        size = (self.starts[last + 1] if last + 1 < len(self.starts) else len(self.text)) - self.starts[last]
        inside = end - self.starts[last]
        stop = self.origins[last] + (self.widths[last] if inside >= size else inside)
        return self.origins[first] + start - self.starts[first], min(stop, len(self.raw))


def read(raw: str, *, rejoin: bool = False) -> Reading:
    """Undo what stands between the runtime's text and `raw`. `rejoin`: line breaks fell inside words."""
    pieces: list[str] = []
    starts: list[int] = []
    origins: list[int] = []
    widths: list[int] = []
    length = last = 0

    for noise in _NOISE.finditer(raw):
        begin, end = noise.span()
        clean = _clean(noise, rejoin)
        for piece, place, width in ((raw[last:begin], last, begin - last), (clean, begin, end - begin)):
            if piece and not (piece == " " and pieces and pieces[-1].endswith(" ")):
                pieces.append(piece)
                starts.append(length)
                origins.append(place)
                widths.append(width)
                length += len(piece)
        last = end
    if last < len(raw) or not pieces:
        pieces.append(raw[last:])
        starts.append(length)
        origins.append(last)
        widths.append(len(raw) - last)
    text = "".join(pieces)
    whole = _completed(text)
    if whole is not text:
        starts.append(len(whole))
        origins.append(len(raw))
        widths.append(0)
        text = whole
    return Reading(raw, text, text.encode("ascii", "replace").lower(), starts, origins, widths)


def _completed(text: str) -> str:
    """A text that was cut within the words of an errno, with the rest of them."""
    end = text.rstrip(" .\u2026\"'`")
    tail = end[-errnos.LONGEST :].rpartition(": ")[2].lower()
    if len(tail) < 6 or tail in errnos.SPOKEN:
        return text
    place = bisect_left(errnos.SPOKEN, tail)
    if place == len(errnos.SPOKEN) or not errnos.SPOKEN[place].startswith(tail) or tail == "unknown":
        return text
    return end + errnos.SPOKEN[place][len(tail) :]


def _clean(noise: re.Match[str], rejoin: bool) -> str:
    match noise.lastgroup:
        case "blank":
            return "" if rejoin and "\n" in noise[0] else " "
        case "quote":
            return "'" if noise[0] in _SINGLE_QUOTES else '"'
        case "entity":
            return html.unescape(f"&{noise['name']};").replace("\u00a0", " ")
        case "escape":
            return _unescape(noise)
        case _:
            return ""


def _unescape(noise: re.Match[str]) -> str:
    code = noise["hex4"] or noise["hex2"]
    if code is not None:
        char = chr(int(code, 16))
        return char if char.isprintable() else " " if char in "\t\n\r" else f"\\x{ord(char):02x}"
    char = noise["char"]
    if char is None:
        return ""  # the text was cut, or wrapped, after a backslash
    if char in _ESCAPED_BLANK:
        return " "
    return f"\\{char}" if char.isalnum() else char
