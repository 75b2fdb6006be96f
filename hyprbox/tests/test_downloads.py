from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import cast

import pytest
from django.core.signals import request_finished
from django.db import close_old_connections
from django.http import HttpResponse

from hyprbox.lib import downloads

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("motd.yaml", 'attachment; filename="motd.yaml"'),
        ('a"b.yaml', 'attachment; filename="a\\"b.yaml"'),
        ("größe.log", "attachment; filename*=utf-8''gr%C3%B6%C3%9Fe.log"),
    ],
)
def test_a_name_arrives_whole(name: str, header: str) -> None:
    response = downloads.offer(HttpResponse(), name)
    assert response.headers["Content-Disposition"] == header
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["../motd.yaml", "a\r\nSet-Cookie: b", "a\0b"])
def test_what_is_no_file_name_is_a_defect(name: str) -> None:
    with pytest.raises(ValueError, match="no file name"):
        downloads.offer(HttpResponse(), name)


def test_nobody_writes_this_header_by_hand() -> None:
    folders = ("accounts", "audit", "hyprbox", "jobs", "nodes", "presets", "tokens")
    sources = (path for folder in folders for path in (ROOT / folder).rglob("*.py") if "tests" not in path.parts)
    # As a header of its own. One of a list, as CORS names those a page may read, writes nothing.
    header = re.compile(r"""b?(["'])content-disposition\1""", re.IGNORECASE)
    told = [path.name for path in sources if header.search(path.read_text())]
    assert told == ["downloads.py"]


class Rows:
    """A thousand rows of which one can fail, and how many of them were asked for."""

    def __init__(self, failing: int = -1) -> None:
        self.read, self.failing = 0, failing
        self.is_closed = False

    def __iter__(self) -> Iterator[str]:
        for number in range(1000):
            if number == self.failing:
                raise ValueError("the database is gone")
            self.read += 1
            yield f"{number}\n"

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def connections_stay() -> Iterator[None]:
    """The end of a response looks at its thread's connection, which another test may have left; there is no database here."""
    request_finished.disconnect(close_old_connections)
    yield
    request_finished.connect(close_old_connections)


ALL = "".join(f"{number}\n" for number in range(1000)).encode()


@pytest.mark.usefixtures("connections_stay")
async def test_rows_are_read_a_piece_at_a_time() -> None:
    rows = Rows()
    pieces = aiter(downloads.RowsResponse(rows))
    first = await anext(pieces)
    assert (rows.read, first) == (downloads.PIECE, ALL[: len(first)])
    assert first + b"".join([piece async for piece in pieces]) == ALL


def test_rows_are_rows_without_an_event_loop_too() -> None:
    assert b"".join(downloads.RowsResponse(Rows())) == ALL


@pytest.mark.usefixtures("connections_stay")
async def test_rows_that_fail_leave_nothing_open() -> None:
    rows, finished = Rows(failing=700), []
    request_finished.connect(listener := lambda **told: finished.append(told), weak=False)
    try:
        with pytest.raises(ValueError, match="gone"):
            assert [piece async for piece in downloads.RowsResponse(rows)] == []
    finally:
        request_finished.disconnect(listener)
    assert rows.is_closed and len(finished) == 1


@pytest.mark.usefixtures("connections_stay")
async def test_a_reader_that_leaves_ends_the_reading() -> None:
    rows = Rows()
    pieces = cast("AsyncGenerator[bytes]", aiter(downloads.RowsResponse(rows)))
    await anext(pieces)
    await pieces.aclose()
    assert rows.is_closed and rows.read == downloads.PIECE
