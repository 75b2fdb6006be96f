"""uvicorn's HTTP protocol with a short way for what every node sends all the time.

`uvicorn --http hyprbox.lib.protocol:Protocol`. A request to an address in `lanes.direct` is first offered to the function
there, in the same turn of the event loop and without a task: a heartbeat in which all is as usual needs nothing that
ASGI gives. Whatever the function does not take goes the ordinary way, and so does everything under another server:
same answers, more work.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from hyprbox.lib import lanes
from hyprbox.lib.errors import HyprBoxError

MAX_BODY_BYTES = 16 * 1024  # far below where uvicorn stops reading until ASGI takes the body


class Protocol(HttpToolsProtocol):
    # A cycle that waits for its body, with the application that gets it when nothing takes it directly.
    _waiting: tuple[RequestResponseCycle, Any] | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if cycle.scope["path"] not in lanes.direct or cycle.scope["method"] != "POST" or cycle.waiting_for_100_continue:
            super()._start_asgi_task(cycle, app)
        elif cycle.more_body:
            self._waiting = cycle, app
            if len(cycle.body) > MAX_BODY_BYTES:
                self._go_the_ordinary_way()
        else:
            self._offer(cycle, app)

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self._waiting is not None and len(self._waiting[0].body) > MAX_BODY_BYTES:
            self._go_the_ordinary_way()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._waiting is not None and not self._waiting[0].more_body:
            (cycle, app), self._waiting = self._waiting, None
            self._offer(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting = None  # it never became a request
        super().connection_lost(exc)

    def _go_the_ordinary_way(self) -> None:
        assert self._waiting is not None
        (cycle, app), self._waiting = self._waiting, None
        super()._start_asgi_task(cycle, app)

    def _offer(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        if not cycle.keep_alive or not lanes.direct[scope["path"]](scope, bytes(cycle.body), Reply(self, cycle)):
            super()._start_asgi_task(cycle, app)


class Reply:
    """Where the answer to one request goes; a `lanes.Reply`."""

    __slots__ = ("cycle", "protocol")

    def __init__(self, protocol: Protocol, cycle: RequestResponseCycle) -> None:
        self.protocol, self.cycle = protocol, cycle

    def send(self, status: int, rest: bytes) -> None:
        cycle = self.cycle
        if cycle.disconnected or cycle.response_started:
            return
        cycle.response_started = cycle.response_complete = True
        cycle.transport.write(STATUS_LINE[status] + _rendered(cycle.default_headers) + rest)
        if not cycle.keep_alive:  # the server began to stop meanwhile
            cycle.transport.close()
        cycle.on_response()

    def send_error(self, error: HyprBoxError, request_id: str) -> None:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            await lanes.answer_error(send, error, request_id)

        if not self.cycle.disconnected and not self.cycle.response_started:
            HttpToolsProtocol._start_asgi_task(self.protocol, self.cycle, answer)


_newest: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")


def _rendered(headers: list[tuple[bytes, bytes]]) -> bytes:
    """uvicorn's own headers, the date among them; it makes this list anew once a second."""
    global _newest
    if _newest[0] is not headers:
        _newest = (headers, b"".join(b"%s: %s\r\n" % header for header in headers))
    return _newest[1]
