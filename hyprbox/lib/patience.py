"""How long, and for how many bytes, a connection is waited for. Mixed into uvicorn's HTTP protocol, which waits for ever.

A request has to be there within 30 s of its first byte, and one second more for each KiB of its body. Whoever reads
nothing of an answer for 30 s is cut off: what waits for a viewer is bounded (`hyprbox.lib.sse`), and here it ends.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from hyprbox.lib import lanes
from hyprbox.lib.errors import HeadersTooLarge, HyprBoxError, InvalidInput, TooSlow
from hyprbox.lib.ids import new_request_id

READ_SECONDS = 30.0
BODY_BYTES_PER_SECOND = 1024
STALLED_SECONDS = 30.0
# Twice what `hyprbox.asgi` takes, which answers better: here ends what never would.
MAX_HEAD_BYTES = 32 * 1024


class Patient(HttpToolsProtocol):
    _awaited_since: float | None = None  # the loop's time; None while no part of a request is missing
    _is_in_head = True
    _is_last = False  # whatever comes after this request is not HTTP/1.1
    _head_bytes = 0
    _body_bytes = 0
    _read_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._awaited_since = self.loop.time()
        self._look_later(READ_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._read_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    # --- reading ---

    def data_received(self, data: bytes) -> None:
        if self._is_last:
            return
        was_in_head = self._is_in_head and self._awaited_since is not None
        super().data_received(data)
        if self._awaited_since is None:
            return
        if not self._is_in_head:
            self._body_bytes += len(data)
        elif was_in_head:  # of a piece in which something else ended it is not known how much is head
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.refuse(HeadersTooLarge())
        if self._read_timer is None:
            self._look_later(READ_SECONDS)

    def on_message_begin(self) -> None:
        self._awaited_since = self.loop.time()
        self._is_in_head = True
        self._head_bytes = self._body_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self._answer_and_close()

    def _answer_and_close(self) -> None:
        """Whoever asks for another protocol gets an answer in this one. The parser takes what follows for that protocol,
        the request's body too, so it must not be read as the next request.
        """
        cycle = self.cycle
        cycle.default_headers = [*cycle.default_headers, (b"connection", b"close")]
        cycle.keep_alive = False
        self._is_last = True

    def _unsupported_upgrade_warning(self) -> None:
        """No line in the log for each of them."""

    def on_message_complete(self) -> None:
        self._awaited_since = None
        super().on_message_complete()

    def _look_later(self, seconds: float) -> None:
        """One timer goes on over many requests: it looks what is missing when it ends."""
        self._read_timer = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._read_timer = None
        if self._awaited_since is None or self.transport.is_closing():
            return
        if self.flow.read_paused:  # it is this side that does not read
            self._awaited_since = self.loop.time()
        until = self._awaited_since + READ_SECONDS + self._body_bytes / BODY_BYTES_PER_SECOND
        if (left := until - self.loop.time()) > 0:
            self._look_later(left)
        elif self._is_in_head and not self._head_bytes and self.cycle is None:
            self.transport.close()  # never said a word
        else:
            self.refuse(TooSlow())

    def refuse(self, error: HyprBoxError) -> None:
        """Answer what has not become a request, where there is room for an answer, and close."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        is_mine = cycle is not None and not self._is_in_head and not cycle.response_started and not self.pipeline
        if cycle is None or cycle.response_complete or is_mine:
            own = b"".join(b"%s: %s\r\n" % header for header in self.server_state.default_headers)
            rest = lanes.rendered_error(error, new_request_id(), is_last=True)
            self.transport.write(STATUS_LINE[error.status] + own + rest)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self.refuse(InvalidInput("This is not a request in HTTP/1.1."))

    # --- writing ---

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _watch(self, waiting_bytes: int) -> None:
        self._write_timer = self.loop.call_later(STALLED_SECONDS, self._end_when_stalled, waiting_bytes)

    def _end_when_stalled(self, before: int) -> None:
        waiting = self.transport.get_write_buffer_size()
        if waiting < before:
            self._watch(waiting)
        else:
            self._write_timer = None
            self.transport.abort()
