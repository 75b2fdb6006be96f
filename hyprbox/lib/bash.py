"""Bash as HTML lines: classes only, everything escaped, line numbers by CSS so that they are never copied."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from pygments.lexers.shell import BashLexer
from pygments.token import STANDARD_TYPES

_LEXER = BashLexer(stripnl=False, ensurenl=False)
_PLAIN = {"p", "w", "go", ""}


@lru_cache(maxsize=256)
def _lines(source: str) -> tuple[str, ...]:
    lines: list[list[str]] = [[]]
    for kind, text in _LEXER.get_tokens(source):
        while kind not in STANDARD_TYPES:
            kind = kind.parent
        css = STANDARD_TYPES[kind]
        for index, piece in enumerate(text.split("\n")):
            if index:
                lines.append([])
            if piece:
                shown = escape(piece)
                lines[-1].append(shown if css in _PLAIN else f'<span class="{css}">{shown}</span>')
    while lines and not lines[-1]:
        lines.pop()
    return tuple("".join(line) for line in lines)


def highlight(source: str, *, bad: Collection[int] = (), marked: Collection[int] = ()) -> SafeString:
    """`<span class="l">` per line; the lines numbered in `bad` and `marked` stand out."""
    rows = []
    for number, line in enumerate(_lines(source), 1):
        extra = (" bad" if number in bad else "") + (" hl" if number in marked else "")
        rows.append(f'<span class="l{extra}" id="L{number}">{line}</span>')
    return mark_safe("".join(rows))


def count_lines(source: str) -> int:
    return len(_lines(source))
