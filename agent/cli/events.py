"""Server-sent events out of the bytes of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

MAX_EVENT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Event:
    """`data` is the JSON that came with it, or None."""

    name: str
    data: Any


def read_events(pieces: Iterable[bytes]) -> Iterator[Event]:
    """Whole events only: one that the connection's end cut in half does not count. Raises `ValueError` for other bytes."""
    name, data = "", bytearray()
    for line in _lines(pieces):
        if not line:
            if name or data:
                yield Event(name or "message", json.loads(data) if data else None)
            name, data = "", bytearray()
            continue
        key, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if key == b"event":
            name = value.decode("utf-8", "replace")
        elif key == b"data":
            data += (b"\n" if data else b"") + value
            if len(data) > MAX_EVENT_BYTES:
                raise ValueError("an event without end")


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    waiting = b""
    for piece in pieces:
        waiting += piece
        if b"\n" not in piece:
            if len(waiting) > MAX_EVENT_BYTES:
                raise ValueError("a line without end")
            continue
        *lines, waiting = waiting.split(b"\n")
        for line in lines:
            yield line[:-1] if line.endswith(b"\r") else line
