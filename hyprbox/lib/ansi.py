"""ANSI colours as class names. Pure; `static/js/ansi.js` does the same to what arrives live.

Only SGR sequences mean something (colours, bold, dim, italic, underline, inverse). Every other escape
sequence and control character is left out, so that output cannot move the cursor or set a title.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_ESCAPE = re.compile(
    r"\x1b\[([0-9;:]*)m"  # SGR: the only one with a meaning here
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # other CSI
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC, DCS and other strings
    r"|\x1b[ -/]*[0-~]"  # two-character escapes
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # controls but tab and newline
)


@dataclass(frozen=True, slots=True)
class Style:
    """What holds for the text that follows. Colours are 0-15, None for the default."""

    fg: int | None = None
    bg: int | None = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    inverse: bool = False

    @property
    def classes(self) -> str:
        fg, bg = (self.bg, self.fg) if self.inverse else (self.fg, self.bg)
        names = [_name(fg, "fg"), _name(bg, "bg")]
        if self.inverse and fg is None and bg is None:
            names.append("ansi-inverse")
        names += [f"ansi-{kind}" for kind in ("bold", "dim", "italic", "underline") if getattr(self, kind)]
        return " ".join(name for name in names if name)


@dataclass(frozen=True, slots=True)
class Span:
    text: str
    classes: str = ""


def _name(colour: int | None, side: str) -> str:
    if colour is None:
        return ""
    return f"ansi-{'bright-' if colour > 7 else ''}{COLOURS[colour % 8]}-{side}"


def spans(text: str, style: Style) -> tuple[list[Span], Style]:
    """`text` in pieces of one style each, and the style that holds after it."""
    found: list[Span] = []
    at = 0
    for match in _ESCAPE.finditer(text):
        if match.start() > at:
            found.append(Span(text[at : match.start()], style.classes))
        if match[1] is not None:
            style = _apply(style, match[1])
        at = match.end()
    if at < len(text):
        found.append(Span(text[at:], style.classes))
    return found, style


def _apply(style: Style, parameters: str) -> Style:
    codes = iter([int(part or 0) for part in parameters.replace(":", ";").split(";")])
    for code in codes:
        style = _one(style, code, codes)
    return style


_ON = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse"}
_OFF = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("inverse",)}


def _one(style: Style, code: int, rest: Iterator[int]) -> Style:
    if code == 0:
        return Style()
    if code in _ON:
        return replace(style, **{_ON[code]: True})
    if code in _OFF:
        return replace(style, **dict.fromkeys(_OFF[code], False))
    if code in (38, 48):
        colour = _extended(rest)
        return replace(style, fg=colour) if code == 38 else replace(style, bg=colour)
    if 30 <= code <= 37 or 90 <= code <= 97:
        return replace(style, fg=code - 30 if code < 40 else code - 82)
    if 40 <= code <= 47 or 100 <= code <= 107:
        return replace(style, bg=code - 40 if code < 50 else code - 92)
    if code == 39:
        return replace(style, fg=None)
    return replace(style, bg=None) if code == 49 else style


def _extended(rest: Iterator[int]) -> int | None:
    """256 colours and true colour, as the nearest of the sixteen."""
    kind = next(rest, 0)
    if kind == 5:
        return _of_256(next(rest, 0))
    if kind == 2:
        return _nearest(next(rest, 0), next(rest, 0), next(rest, 0))
    return None


def _of_256(index: int) -> int | None:
    if index < 16:
        return index
    if index < 232:
        cube = index - 16
        return _nearest(*(level * 51 for level in (cube // 36, cube // 6 % 6, cube % 6)))
    return None if index > 255 else _nearest(*[8 + (index - 232) * 10] * 3)


def _nearest(red: int, green: int, blue: int) -> int:
    top = max(red, green, blue)
    if top < 64:
        return 0
    bits = (red > top // 2) | (green > top // 2) << 1 | (blue > top // 2) << 2
    if bits == 7 and top < 192:
        return 8 if top < 128 else 7
    return bits + (8 if top > 191 else 0)
