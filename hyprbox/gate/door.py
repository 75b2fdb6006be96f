"""What stands before Django: how often somebody may call, who goes first when it is crowded, and who need not wait.

An ASGI middleware around everything but the lanes and the streams, which have limits of their own. Whether a credential
is good is Django's to say; who is counted as what until then is in `hyprbox.gate.strangers`.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from hyprbox.gate.slots import Kind, Slots
from hyprbox.gate.strangers import Strangers
from hyprbox.gate.watch import Watch
from hyprbox.lib import headers, lanes
from hyprbox.lib.errors import HyprBoxError, Unavailable
from hyprbox.lib.middleware import error_response

MIB = 1024 * 1024
_OPEN = "/healthz"  # needs no database
_PROBES = ("/readyz", "/metrics")  # must get through a crowd, to tell of it
_REPORT = re.compile(r"/(?:api/)?jobs/[^/]+/(?:output|complete|cancel)/?")
_LOGIN = ("/login/", "/api/auth/login", "/api/auth/refresh")
UNSURE = "The database does not answer. Whether this was done is not known: look, or send the same again."


class Gate:
    def __init__(self, app: lanes.App, *, size: int) -> None:
        """`size`: how many requests Django has connections for."""
        self.slots, self.watch = Slots(size), Watch()
        self._app = app
        self.strangers = Strangers()
        self._left: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send) -> None:
        path, answer = scope["path"], _Answer(send)
        if path == _OPEN or path.startswith(settings.STATIC_URL) or path in _PROBES:
            await self._let_in(scope, receive, answer)
            return
        try:
            visit = self.strangers.enter(scope)
        except HyprBoxError as error:
            await refuse(scope, send, error)
            return
        try:
            await self._let_in(lanes.heard_by(scope, visit.prove, visit.end), receive, answer)
        finally:
            visit.end(answer.status)

    async def _let_in(self, scope: lanes.Scope, receive: lanes.Receive, answer: _Answer) -> None:
        try:
            # Before a place is taken: else a few who send slowly would hold all of them.
            receive = await lanes.with_whole_body(receive, body_limit(scope["path"]))
            if scope["path"] == _OPEN or scope["path"].startswith(settings.STATIC_URL):
                await self._app(scope, receive, answer.send)
            else:
                await self._pass(scope, receive, answer)
        except lanes.ClientGone:
            return
        except HyprBoxError as error:
            if not answer.has_begun:
                await refuse(scope, answer.refuse, error)

    async def _pass(self, scope: lanes.Scope, receive: lanes.Receive, answer: _Answer) -> None:
        """Raises `Overloaded`, `Unavailable`."""
        if self.watch.is_away:
            raise Unavailable()
        with self.watch.outage() as outage:
            serving = asyncio.create_task(self._serve(scope, receive, answer), name="django")
            try:
                await asyncio.wait({serving, outage}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                serving.cancel()
                raise
            if serving.done() or answer.has_begun:
                await serving
                return
            has_entered, answer.is_closed = answer.has_entered, True
            # A thread that waits for the database cannot be called back: it goes on, and nobody hears what it says.
            self._left.add(serving)
            serving.add_done_callback(self._forget)
            if not has_entered:
                serving.cancel()
            raise Unavailable(UNSURE if has_entered and scope["method"] not in ("GET", "HEAD") else None)

    async def _serve(self, scope: lanes.Scope, receive: lanes.Receive, answer: _Answer) -> None:
        if scope["path"] in _PROBES:
            await self._app(scope, receive, answer.send)
            return
        place = await self.slots.take(kind_of(scope["method"], scope["path"]))
        try:
            answer.has_entered = True
            await self._app(scope, receive, answer.send)
        finally:
            self.slots.give(place)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # nobody is left to hear it


class StreamGate:
    """Before a stream. It holds no place, and the streams have limits of their own for those who are known."""

    def __init__(self, app: lanes.App, strangers: Strangers) -> None:
        self._app, self._strangers = app, strangers

    async def __call__(self, scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send) -> None:
        try:
            visit = self._strangers.enter(scope, is_stream=True)
        except HyprBoxError as error:
            await lanes.answer_error(send, error, lanes.request_id_of(scope))
            return
        await self._app(lanes.heard_by(scope, visit.prove, visit.end), receive, send)


class _Answer:
    """What the caller hears: from Django, or from us alone."""

    def __init__(self, send: lanes.Send) -> None:
        self._send = send
        self.has_entered = self.has_begun = self.is_closed = False
        self.status = 0

    async def send(self, message: dict[str, Any]) -> None:
        """For Django, until nobody waits for it any more."""
        if not self.is_closed:
            await self.refuse(message)

    async def refuse(self, message: dict[str, Any]) -> None:
        self.has_begun = True
        self.status = message.get("status", self.status)
        await self._send(message)


def body_limit(path: str) -> int:
    """In bytes. A preset may be larger than anything else, from a program or from the editor."""
    return 2 * MIB if path.startswith(("/api/presets", "/presets/")) else MIB


def kind_of(method: str, path: str) -> Kind:
    """What is never turned away for lack of room: ends and output of jobs, cancelling, logging in."""
    if path in _LOGIN:
        return Kind.LOGIN
    return Kind.REPORT if method == "POST" and _REPORT.fullmatch(path) else Kind.OTHER


async def refuse(scope: lanes.Scope, send: lanes.Send, error: HyprBoxError) -> None:
    """The error as JSON under /api/, else as a page; /readyz says it in its own words."""
    request_id = lanes.request_id_of(scope)
    if scope["path"] == "/readyz":
        body = lanes.encode({"ready": False, "failing": {"database": "unreachable"}})
        await lanes.answer(send, 503, body, request_id, {"retry-after": "2"})
        return
    if scope["path"].startswith("/api/"):
        await lanes.answer_error(send, error, request_id)
        return
    body = _page(error, scope, request_id)
    sent = [*_PAGE_HEADERS, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id.encode())]
    sent += [(name.encode(), value.encode()) for name, value in lanes.error_headers(error).items()]
    await send({"type": "http.response.start", "status": error.status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


def _page(error: HyprBoxError, scope: lanes.Scope, request_id: str) -> bytes:
    """Rendered once for each message and theme, for it is needed when there is least time."""
    theme = found[1] if (found := _THEME.search(lanes.header(scope, b"cookie"))) else ""
    if (error.message, theme) not in _pages:
        request = HttpRequest()
        request.method, request.COOKIES = "GET", {"hb_theme": theme}
        request.id = _ID  # type: ignore[attr-defined]
        _pages[error.message, theme] = error_response(request, error).content
    return _pages[error.message, theme].replace(_ID.encode(), request_id.encode())


_THEME = re.compile(r"(?:^|;\s*)hb_theme=(dark|light)(?:;|$)")
_ID = "the-id-of-the-request"
_pages: dict[tuple[str, str], bytes] = {}
_PAGE_HEADERS = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    *headers.RAW,
]
