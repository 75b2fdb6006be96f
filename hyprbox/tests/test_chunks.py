"""A chunk that is written at once, and when it has to go the ordinary way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hyprbox.lib.protocol import Chunks
from hyprbox.lib.sse import chunk_of


def cycle(wire: list[bytes], **other: bool) -> Any:
    state = {
        "chunked_encoding": True,
        "response_complete": False,
        "disconnected": False,
        "write_paused": False,
        **other,
    }
    flow = SimpleNamespace(write_paused=state.pop("write_paused"))
    return SimpleNamespace(transport=SimpleNamespace(write=wire.append), flow=flow, **state)


def test_it_is_on_the_wire_as_http_has_it() -> None:
    wire: list[bytes] = []
    assert Chunks(cycle(wire))(chunk_of(b"x" * 26)) is True
    assert wire == [b"1a\r\n" + b"x" * 26 + b"\r\n"]


@pytest.mark.parametrize(
    "state",
    [{"write_paused": True}, {"disconnected": True}, {"response_complete": True}, {"chunked_encoding": False}],
)
def test_what_cannot_be_written_at_once_is_refused(state: dict[str, bool]) -> None:
    wire: list[bytes] = []
    assert Chunks(cycle(wire, **state))(b"1\r\nx\r\n") is False
    assert wire == []
