"""uvicorn's HTTP protocol with one more thing: a small answer leaves in one piece.

`uvicorn --http hyprbox.lib.protocol:Protocol`. The lanes answer thousands of times a second with headers that never
change; uvicorn would check each of them with two regular expressions, every time. Where the scope offers
`WHOLE`, `lanes.answer_whole` hands over the answer as bytes; under any other server it takes ASGI's ordinary way.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from hyprbox.lib.lanes import WHOLE


class Protocol(HttpToolsProtocol):
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if cycle.keep_alive:  # else uvicorn has to say that it closes
            cycle.scope[WHOLE] = partial(_send_whole, cycle)  # type: ignore[literal-required]
        super()._start_asgi_task(cycle, app)


def _send_whole(cycle: RequestResponseCycle, status: int, rest: bytes) -> None:
    """Write a complete answer and go on to the connection's next request.

    `rest` is what follows the status line and uvicorn's own headers (the date): headers, an empty line, the body.
    """
    if cycle.disconnected:
        return
    if cycle.response_started:
        raise RuntimeError("This request has been answered already.")
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(STATUS_LINE[status] + _rendered(cycle.default_headers) + rest)
    cycle.message_event.set()
    cycle.on_response()


_newest: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")


def _rendered(headers: list[tuple[bytes, bytes]]) -> bytes:
    """uvicorn makes this list anew once a second."""
    global _newest
    if _newest[0] is not headers:
        _newest = (headers, b"".join(b"%s: %s\r\n" % header for header in headers))
    return _newest[1]
