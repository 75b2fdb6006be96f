"""Terminal colours become class names; everything else of a terminal is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyprbox.lib import ansi
from hyprbox.lib.ansi import Span, Style


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", [Span("plain")]),
        ("\x1b[31mred\x1b[0m not", [Span("red", "ansi-red-fg"), Span(" not")]),
        ("\x1b[1;4;92mx", [Span("x", "ansi-bright-green-fg ansi-bold ansi-underline")]),
        ("\x1b[44;97mx", [Span("x", "ansi-bright-white-fg ansi-blue-bg")]),
        ("\x1b[7mx", [Span("x", "ansi-inverse")]),
        ("\x1b[31;7mx", [Span("x", "ansi-red-bg")]),
        ("\x1b[38;5;196mx", [Span("x", "ansi-bright-red-fg")]),
        ("\x1b[38;2;0;128;0mx", [Span("x", "ansi-green-fg")]),
        ("\x1b[48;5;238mx", [Span("x", "ansi-bright-black-bg")]),
        ("\x1b[31m\x1b[39mx", [Span("x")]),
        ("\x1b[1mx\x1b[22my", [Span("x", "ansi-bold"), Span("y")]),
        ("\x1b[mx", [Span("x")]),
        ("a\x1b[2Jb\x1b[10;3Hc", [Span("a"), Span("b"), Span("c")]),
        ("\x1b]0;title\x07x", [Span("x")]),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", [Span("link")]),
        ("bell\x07 tab\there", [Span("bell"), Span(" tab\there")]),
    ],
)
def test_sequences(text: str, expected: list[Span]) -> None:
    assert ansi.spans(text, Style())[0] == expected


def test_a_style_goes_on_over_a_line_end() -> None:
    _, style = ansi.spans("\x1b[35mone", Style())
    assert ansi.spans("two", style)[0] == [Span("two", "ansi-magenta-fg")]


@given(st.text(alphabet=st.sampled_from("\x1b[]0123456789;:mKHJ\x07\\ab"), max_size=60))
def test_whatever_comes_is_text_without_escapes(text: str) -> None:
    found, _ = ansi.spans(text, Style())
    assert "\x1b" not in "".join(span.text for span in found)
    assert all(set(span.classes) <= set("abcdefghijklmnopqrstuvwxyz- ") for span in found)
