"""uvicorn's HTTP protocol with a short way for what every node sends all the time.

`uvicorn --http hyprbox.lib.protocol:Protocol --ws none`. A POST to an address in `lanes.direct` is first offered to what is found
there, in the same turn of the event loop and without a task: a heartbeat in which all is as usual needs nothing that
ASGI gives. A stream finds in its scope a way to write a chunk of its body in the same manner (`lanes.CHUNKS`). And because a node sends the same headers each time, a head that was read once is known by its digest, and
a request with that head that comes in one piece is not parsed again. Whatever is not taken goes the ordinary way, and
so does everything under another server: same answers, more work.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from hyprbox.lib import lanes
from hyprbox.lib.errors import HyprBoxError
from hyprbox.lib.patience import Patient

MAX_BODY_BYTES = 16 * 1024  # far below where uvicorn stops reading until ASGI takes the body
MAX_HELD_BYTES = 64 * 1024
MAX_HEADS = 20_000
END_OF_HEAD = b"\r\n\r\n"


class Head(NamedTuple):
    """What a head that was read before means: so many bytes of body follow, and who takes them."""

    body_bytes: int
    take: lanes.Taker


# By SHA-256 of the head, so that no token lies here. They say nothing of whether the token is still good.
_heads: dict[bytes, Head] = {}


class Protocol(Patient):
    # A cycle that waits for its body, with the application that gets it when nothing takes it directly.
    _waiting: tuple[RequestResponseCycle, Any] | None = None
    # Digest of a head that is not known, and how many bytes came after it in the same piece.
    _unknown: tuple[bytes, int] | None = None
    _is_between_requests = True
    _is_answering = False  # a request with a known head was taken; what comes meanwhile is held
    _held = b""
    _is_stopping = False
    _answered_at = 0.0

    def data_received(self, data: bytes) -> None:
        if self._is_answering:
            self._hold(data)
            return
        if data.startswith(b"POST ") and self._is_idle() and self._take(data):
            return
        super().data_received(data)
        self._unknown = None

    def _is_idle(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return self._is_between_requests and (cycle is None or cycle.response_complete) and not self.flow.write_paused

    def _take(self, data: bytes) -> bool:
        """Whether `data` is one whole request with a known head, and was taken."""
        end = data.find(END_OF_HEAD) + len(END_OF_HEAD)
        if end < len(END_OF_HEAD):
            return False
        digest = hashlib.sha256(data[:end]).digest()
        head = _heads.get(digest)
        if head is None:
            self._unknown = digest, len(data) - end
            return False
        if len(data) - end != head.body_bytes:
            return False
        self._is_answering = head.take(data[end:], self)
        if self._is_answering:
            self._awaited_since = None
        return self._is_answering

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > MAX_HELD_BYTES:
            self.flow.pause_reading()

    # --- this connection as a `lanes.Reply`, for a request that was taken ---

    def send(self, status: int, rest: bytes) -> None:
        self._is_answering = False
        transport = self.transport
        if transport.is_closing():
            return
        transport.write(STATUS_LINE[status] + _rendered(self.server_state.default_headers) + rest)
        self.server_state.total_requests += 1
        if self._is_stopping:
            transport.close()
            return
        self._answered_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._arm_keep_alive(self.timeout_keep_alive)
        if self._held:
            held, self._held = self._held, b""
            self.flow.resume_reading()
            self.data_received(held)

    def send_error(self, error: HyprBoxError, request_id: str) -> None:
        self.send(error.status, lanes.rendered_error(error, request_id))

    # --- the life of a connection ---

    def timeout_keep_alive_handler(self) -> None:
        """The timer is not set anew for each request with a known head: it looks how long the silence has been."""
        silent = self.loop.time() - self._answered_at
        if self._is_answering:
            self._arm_keep_alive(self.timeout_keep_alive)
        elif silent < self.timeout_keep_alive:
            self._arm_keep_alive(self.timeout_keep_alive - silent)
        else:
            super().timeout_keep_alive_handler()

    def _arm_keep_alive(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def shutdown(self) -> None:
        if self._is_answering:
            self._is_stopping = True
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting = None  # it never became a request
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    # --- the parser's calls, and requests that are read for the first time ---

    def on_message_begin(self) -> None:
        self._is_between_requests = False
        super().on_message_begin()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        if scope["method"] == "GET":
            scope[lanes.CHUNKS] = Chunks(cycle)
        if scope["path"] not in lanes.direct or scope["method"] != "POST" or cycle.waiting_for_100_continue:
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
        self._is_between_requests = True
        super().on_message_complete()
        if self._waiting is not None and not self._waiting[0].more_body:
            (cycle, app), self._waiting = self._waiting, None
            self._offer(cycle, app)

    def _go_the_ordinary_way(self) -> None:
        assert self._waiting is not None
        (cycle, app), self._waiting = self._waiting, None
        super()._start_asgi_task(cycle, app)

    def _offer(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        take = lanes.direct[scope["path"]](scope) if cycle.keep_alive else None
        if take is None or not take(bytes(cycle.body), Reply(self, cycle)):
            super()._start_asgi_task(cycle, app)
        elif self._unknown is not None and self._unknown[1] == len(cycle.body):
            _remember(self._unknown[0], Head(len(cycle.body), take))


class Reply:
    """Where the answer to a request that was parsed goes; a `lanes.Reply`."""

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
        self.send(error.status, lanes.rendered_error(error, request_id))


class Chunks:
    """Writes a chunk of an answer's body at once; False when it has to go the ordinary way, which also waits."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def __call__(self, chunk: bytes) -> bool:
        cycle = self._cycle
        if not cycle.chunked_encoding or cycle.response_complete or cycle.disconnected or cycle.flow.write_paused:
            return False
        cycle.transport.write(chunk)
        return True


def _remember(digest: bytes, head: Head) -> None:
    if len(_heads) >= MAX_HEADS:
        _heads.clear()
    _heads[digest] = head


_newest: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")


def _rendered(headers: list[tuple[bytes, bytes]]) -> bytes:
    """uvicorn's own headers, the date among them; it makes this list anew once a second."""
    global _newest
    if _newest[0] is not headers:
        _newest = (headers, b"".join(b"%s: %s\r\n" % header for header in headers))
    return _newest[1]
