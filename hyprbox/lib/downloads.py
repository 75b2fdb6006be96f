"""Downloads: what the browser is told to do with them, and those that are made while they are sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import TypeVar, cast

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

Answer = TypeVar("Answer", bound=HttpResponseBase)
PIECE = 500  # rows


class RowsResponse(StreamingHttpResponse):
    """Rows of text that a generator makes of the database, however many: read a piece at a time, as fast as they are taken.

    Django itself would read a generator to its end before the event loop sends its first row. And where one fails, it would
    leave the request as it is: its body open, its database connection out of the pool.
    """

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while piece := await sync_to_async(self._piece)():
                yield piece
        except BaseException:
            await sync_to_async(self.close)()
            raise

    def _piece(self) -> bytes:
        rows = cast("Iterator[bytes]", self.streaming_content)
        return b"".join(islice(rows, PIECE))


def offer(response: Answer, name: str) -> Answer:
    """The response as a file to be saved under `name`, which we make: of ids and of names that have a form of their own.

    The header is RFC 6266's, so that a name that is not plain ASCII, or has a quote in it, cannot become something else.
    """
    if "/" in name or not name.isprintable():
        raise ValueError(f"{name!r} is no file name")
    response.headers["Content-Disposition"] = content_disposition_header(True, name)
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
