"""What stands before Django: how often somebody may call, who goes first when it is crowded, and who need not wait.

An ASGI middleware around everything but the lanes and the streams, which have limits of their own. Whether a credential
is good is Django's to say. Here one person's access tokens count together, any other credential for itself, and those
who show none by their address.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from accounts import jwt
from hyprbox.gate.slots import Kind, Slots
from hyprbox.gate.watch import Watch
from hyprbox.lib import headers, lanes
from hyprbox.lib.errors import HyprBoxError, NotAuthenticated, Unavailable
from hyprbox.lib.ids import rate_key
from hyprbox.lib.middleware import error_response

MIB = 1024 * 1024
_OPEN = "/healthz"  # needs no database
_PROBES = ("/readyz", "/metrics")  # must get through a crowd, to tell of it
_REPORT = re.compile(r"/(?:api/)?jobs/[^/]+/(?:output|complete|cancel)/?")
_LOGIN = ("/login/", "/api/auth/login", "/api/auth/refresh")
_COOKIE = re.compile(r"(?:^|;\s*)(?:hb_token|hb_session)=([^;]+)")
UNSURE = "The database does not answer. Whether this was done is not known: look, or send the same again."


class Gate:
    def __init__(self, app: lanes.App, *, size: int) -> None:
        """`size`: how many requests Django has connections for."""
        self.slots, self.watch = Slots(size), Watch()
        self._app = app
        self._known, self._unknown = lanes.TokenBucket(rate=20, burst=60), lanes.TokenBucket(rate=5, burst=30)
        self._left: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send) -> None:
        path, answer = scope["path"], _Answer(send)
        is_open = path == _OPEN or path.startswith(settings.STATIC_URL)
        try:
            if not is_open:
                self._count(scope)
            # Before a place is taken: else a few who send slowly would hold all of them.
            receive = await lanes.with_whole_body(receive, body_limit(path))
            if is_open:
                await self._app(scope, receive, send)
            else:
                await self._pass(scope, receive, answer)
        except lanes.ClientGone:
            return
        except HyprBoxError as error:
            if not answer.has_begun:
                await refuse(scope, send, error)

    def _count(self, scope: lanes.Scope) -> None:
        """Raises `RateLimited`."""
        if scope["path"] in _PROBES:
            return
        if shown := credential(scope):
            self._known.take(caller(shown))
        else:
            self._unknown.take(rate_key(lanes.peer_ip(scope)))

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


class _Answer:
    """What the caller hears: from Django, or from us alone."""

    def __init__(self, send: lanes.Send) -> None:
        self._send = send
        self.has_entered = self.has_begun = self.is_closed = False

    async def send(self, message: dict[str, Any]) -> None:
        if self.is_closed:
            return
        self.has_begun = True
        await self._send(message)


def body_limit(path: str) -> int:
    """In bytes. A preset may be larger than anything else, from a program or from the editor."""
    return 2 * MIB if path.startswith(("/api/presets", "/presets/")) else MIB


def kind_of(method: str, path: str) -> Kind:
    """What is never turned away for lack of room: ends and output of jobs, cancelling, logging in."""
    if path in _LOGIN:
        return Kind.LOGIN
    return Kind.REPORT if method == "POST" and _REPORT.fullmatch(path) else Kind.OTHER


def credential(scope: lanes.Scope) -> str:
    """The bearer token, or the cookie of an access token or a session; empty for nobody."""
    shown = lanes.header(scope, b"authorization").partition(" ")[2].strip()
    if not shown and (found := _COOKIE.search(lanes.header(scope, b"cookie"))):
        shown = found[1]
    return shown


@lru_cache(maxsize=4096)
def caller(shown: str) -> str:
    """Under which name a credential is counted. A name made up for somebody else is not believed."""
    try:
        return f"user {jwt.read_access(shown).user_id}"
    except NotAuthenticated:
        return hashlib.blake2b(shown.encode("utf-8", "replace"), digest_size=12).hexdigest()


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
