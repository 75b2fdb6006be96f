"""The job's stream: cursors, split characters, gaps. The journey tests drive it over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from hyprbox.lib.errors import InvalidInput
from jobs.output import Stored
from jobs.streams import Tail, parse_cursor


def shown(tail: Tail, data: bytes, *, at: int, total: int | None = None, is_final: bool = False) -> Any:
    return tail.take(Stored(at, data, 0, total if total is not None else at + len(data)), is_final=is_final)


def test_text_comes_with_its_true_offsets() -> None:
    tail = Tail("stdout", 0)
    assert shown(tail, b"one\n", at=0) == {"offset": 0, "next_offset": 4, "text": "one\n"}
    assert shown(tail, b"two\n", at=4) == {"offset": 4, "next_offset": 8, "text": "two\n"}


def test_half_a_character_waits_for_its_other_half() -> None:
    whole = "caf\u00e9 \U0001f600".encode()
    for cut in range(len(whole) + 1):
        tail = Tail("stdout", 0)
        text = ""
        for piece in (whole[:cut], whole):
            event = shown(tail, piece[tail.offset :], at=tail.offset)
            text += event["text"] if event else ""
        assert text == "caf\u00e9 \U0001f600", cut
        assert tail.offset == len(whole)


def test_what_never_becomes_a_character_is_replaced_at_the_end() -> None:
    tail = Tail("stdout", 0)
    assert shown(tail, b"ok\xf0\x9f", at=0)["text"] == "ok"
    assert shown(tail, b"\xf0\x9f", at=2, is_final=True) == {"offset": 2, "next_offset": 4, "text": "\ufffd"}


def test_a_gap_shows_as_a_larger_offset() -> None:
    tail = Tail("stdout", 10)
    event = shown(tail, b"tail", at=5000)
    assert (event["offset"], event["next_offset"]) == (5000, 5004)


def test_a_cursor_says_where_to_go_on() -> None:
    assert parse_cursor("") == (0, 0)
    assert parse_cursor("stdout:123,stderr:45") == (123, 45)


@pytest.mark.parametrize(
    "text", ["stdout:1", "stdout:-1,stderr:0", "1,2", "stdout:1,stderr:2,x", "stdout:" + "9" * 40 + ",stderr:0"]
)
def test_a_malformed_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_cursor(text)
