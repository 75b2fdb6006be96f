"""Patterns agree with Python's `re`, and take linear time where `re` does not end."""

from __future__ import annotations

import re
import signal
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presets import patterns
from presets.patterns import MAX_INPUT_LENGTH, Pattern, PatternError

MOST_LINES = 20_000_000  # ten times what the worst of them needs
HANGS_SECONDS = 120

ATOMS = st.sampled_from(
    ["a", "b", "[ab]", "[^a]", "[a-c]", ".", r"\d", r"\w", r"\S", r"\.", "é", r"\-", "[]a]", "[a-]"]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map("|".join).map("(?:{})".format)
        | st.tuples(inner, st.sampled_from(["?", "*", "+", "{2}", "{0,2}", "{1,}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        )
        | inner.map("({})".format)
    ),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(PATTERNS, st.lists(st.text("abc1.-é \n]", max_size=8), min_size=1, max_size=8))
def test_matches_exactly_what_re_fullmatch_matches(pattern: str, values: list[str]) -> None:
    compiled = Pattern(pattern)
    for value in values:
        assert compiled.matches(value) == bool(re.fullmatch(pattern, value, re.ASCII)), (pattern, value)


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("^abc$", "abc", True),
        ("^abc$", "abc\n", False),
        ("a|b", "b", True),
        ("a|", "", True),
        ("", "", True),
        ("", "a", False),
        (r"a{2,3}", "aaaa", False),
        (r"\$\^", "$^", True),
        (r"[\d-]+", "1-2", True),
        (r"[^\s]+", "a b", False),
        (r"\n", "\n", True),
        (r"(a(b(c)?)?)?", "abc", True),
    ],
)
def test_whole_values_only(pattern: str, value: str, fits: bool) -> None:
    assert Pattern(pattern).matches(value) is fits


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a)\1", "(?=a)", "(?!a)", "(?<=a)b", "(?P<n>a)", "(?i)a", "a**", "a+?", "a++", "*a", "+", "?", "{2}", "a{,2}",
        "a{2", "a{3,2}", "a{201}", "a{99999999999}", "(a", "a)", "[a", "[z-a]", r"[\d-z]", "[[:alpha:]]", "a^b", "a$b",
        r"\b", r"\x41", r"\p{L}", "\\", "x" * 501, "(" * 30 + ")" * 30, "((a{200}){200}){200}", "(((){200}){200}){200}",
        "a{٣}",
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        Pattern(pattern)


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)*b", "(a*)*b", "a*a*a*a*a*a*b", "(.*)*x", "(a?){200}a{200}b", "([a-z]+)*[0-9]"]
)
def test_patterns_that_stop_re_for_ever_take_work_linear_in_the_value(pattern: str) -> None:
    compiled = Pattern(pattern)
    half, _ = work_of(compiled, "a" * (MAX_INPUT_LENGTH // 2))
    whole, computed = work_of(compiled, "a" * MAX_INPUT_LENGTH)
    assert whole <= 2 * half + 100
    assert computed <= len(compiled._machine.steps)  # the same states and the same letter are looked up


def work_of(pattern: Pattern, value: str) -> tuple[int, int]:
    """The lines of `presets.patterns` that run until it is known that the value does not fit, and how many steps they compute."""
    lines, steps, before = 0, 0, sys.gettrace()

    def line(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal lines
        lines += 1
        assert lines < MOST_LINES, "it takes more work than anything linear would"
        return line

    def call(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal steps
        steps += frame.f_code is Pattern._step.__code__
        return line if frame.f_code.co_filename == patterns.__file__ else None

    def give_up(number: int, frame: FrameType | None) -> None:
        raise AssertionError("it does not end")

    kept = signal.signal(signal.SIGALRM, give_up)  # `re` hears signals while it backtracks
    signal.alarm(HANGS_SECONDS)
    sys.settrace(call)
    try:
        assert not pattern.matches(value)
    finally:
        sys.settrace(before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, kept)
    return lines, steps


def test_a_value_over_the_limit_never_fits() -> None:
    assert not Pattern("a*").matches("a" * (MAX_INPUT_LENGTH + 1))
