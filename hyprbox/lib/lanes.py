"""What the ASGI lanes share: reading a bounded body, answering, and the one error shape.

A lane is a plain ASGI handler mounted before Django, for the two calls that every node makes all the time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from django.conf import settings
from django.http import parse_cookie

from hyprbox.lib import headers
from hyprbox.lib.errors import BodyTooLarge, HeadersTooLarge, HyprBoxError, NotAuthenticated, RateLimited, TooSlow
from hyprbox.lib.ids import client_ip, new_request_id

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# In the scope of a request whose bad bearer token somebody in front counts and tells of.
BEARER_IS_COUNTED = "hyprbox.bearer_is_counted"
# In the scope: Callables[[str], None] that hear, in any thread, which token or session of the request was found good.
ON_PROVEN = "hyprbox.on_proven"
# The same for a stream that was refused: Callables[[int], None] that hear the status.
ON_REFUSED = "hyprbox.on_refused"
# A way to write a chunk of the answer's body at once, a Callable[[bytes], bool]: False when it has to go the ordinary way.
CHUNKS = "hyprbox.chunks"
DRAIN_LIMIT = 32 * 1024 * 1024
BODY_SECONDS = 30.0
MAX_HEADER_BYTES = 16 * 1024
encode = msgspec.json.Encoder().encode


class Reply(Protocol):
    """Where the answer to a request that was taken directly goes (`hyprbox.lib.protocol`)."""

    def send(self, status: int, rest: bytes) -> None:
        """Write the answer; `rest` is what `rendered` makes."""

    def send_error(self, error: HyprBoxError, request_id: str) -> None:
        """Answer in the one error shape."""


# Takes a whole body and answers later through the reply; False leaves the request to the lane, which says what is wrong.
Taker = Callable[[bytes, Reply], bool]
# By path: who takes POSTs with the headers of this scope, now and whenever the very same head comes again; None for those
# that only the lane understands.
direct: dict[str, Callable[[Scope], Taker | None]] = {}


class ClientGone(Exception):
    """The client closed the connection before it had sent its request."""


def header(scope: Scope, name: bytes) -> str:
    """The first value of a request header (`name` in lower case), or an empty string."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return ""


def require_small_headers(scope: Scope) -> None:
    """Raises `HeadersTooLarge` when names and values together are over `MAX_HEADER_BYTES`."""
    if sum(len(key) + len(value) for key, value in scope["headers"]) > MAX_HEADER_BYTES:
        raise HeadersTooLarge()


def peer_ip(scope: Scope) -> str:
    """The client's address, through trusted proxies only. The same that Django's requests have as `client_ip`."""
    peer = (scope.get("client") or ("", 0))[0]
    proxies = settings.HYPRBOX_TRUSTED_PROXIES
    return client_ip(peer, _forwarded(scope) if proxies else "", proxies)


def _forwarded(scope: Scope) -> str:
    """All lines of `X-Forwarded-For` as one: a proxy may add its hop in a line of its own, after what the client wrote."""
    return ",".join(str(value, "latin-1") for key, value in scope["headers"] if key == b"x-forwarded-for")


def cookies(scope: Scope) -> dict[str, str]:
    """The cookies as Django will read them: of several with one name the last one counts."""
    lines = [str(value, "latin-1") for key, value in scope["headers"] if key == b"cookie"]
    return parse_cookie(",".join(lines)) if lines else {}


def heard_by(scope: Scope, on_proven: Callable[[str], None], on_refused: Callable[[int], None]) -> Scope:
    """The scope for whoever is next; those who listen already still hear."""
    return {
        **scope,
        ON_PROVEN: (*scope.get(ON_PROVEN, ()), on_proven),
        ON_REFUSED: (*scope.get(ON_REFUSED, ()), on_refused),
    }


def prove(scope: Mapping[str, Any], shown: str) -> None:
    """Tell those who count requests that this token or session, which this one shows, is good."""
    for hear in scope.get(ON_PROVEN, ()):
        hear(shown)


def refuse(scope: Mapping[str, Any], status: int) -> None:
    """Tell them that a stream was refused."""
    for hear in scope.get(ON_REFUSED, ()):
        hear(status)


def bearer(scope: Scope) -> str:
    """The bearer token of the request. Raises `NotAuthenticated` when there is none."""
    scheme, _, token = header(scope, b"authorization").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotAuthenticated()
    return token.strip()


async def read_body(receive: Receive, limit: int) -> bytes:
    """The request's body. One over `limit` bytes is read to its end first, so that the client hears the answer.

    Raises `BodyTooLarge`, `TooSlow`, `ClientGone`.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read_body(receive, limit)
    except TimeoutError:
        raise TooSlow() from None


async def _read_body(receive: Receive, limit: int) -> bytes:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > limit:
            raise BodyTooLarge(detail={"limit_bytes": limit})
        return body
    parts, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone()
        part = message.get("body", b"")
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif size > DRAIN_LIMIT:
            break
    if size > limit:
        raise BodyTooLarge(detail={"limit_bytes": limit})
    return b"".join(parts)


def rendered(body: bytes) -> tuple[bytes, bytes]:
    """A JSON answer after its status line, up to the request's id and from there on: the headers of `answer`, the body."""
    return b"content-length: %d\r\nx-request-id: " % len(body), b"\r\n" + _SAME_LINES + body


def rendered_error(error: HyprBoxError, request_id: str, *, is_last: bool = False) -> bytes:
    """An error after its status line; `is_last` when the connection is closed after it."""
    before, after = rendered(encode(error.as_dict()))
    headers = error_headers(error) | ({"connection": "close"} if is_last else {})
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return extra.encode() + before + request_id.encode() + after


async def answer(send: Send, status: int, body: bytes, request_id: str, extra: Mapping[str, str] | None = None) -> None:
    """Send a JSON answer."""
    sent = [(b"content-length", b"%d" % len(body)), (b"x-request-id", request_id.encode()), *_SAME_HEADERS]
    if extra:
        sent += [(key.lower().encode(), value.encode()) for key, value in extra.items()]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


_SAME_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *headers.RAW]
_SAME_LINES = b"".join(b"%s: %s\r\n" % header for header in _SAME_HEADERS) + b"\r\n"


async def answer_error(send: Send, error: HyprBoxError, request_id: str) -> None:
    """Send an error in the one shape."""
    await answer(send, error.status, encode(error.as_dict()), request_id, error_headers(error))


def error_headers(error: HyprBoxError) -> dict[str, str]:
    """Those that an error's answer has beside the ones of every answer."""
    extra = {"retry-after": str(error.retry_after)} if error.retry_after is not None else {}
    if error.status == 401:
        extra["www-authenticate"] = "Bearer"
    if isinstance(error, TooSlow):
        extra["connection"] = "close"  # the rest of it is not waited for
    return extra


def request_id_of(scope: Scope) -> str:
    return new_request_id(header(scope, b"x-request-id"))


async def with_whole_body(receive: Receive, limit: int) -> Receive:
    """A `receive` for whoever is next, with the body in one piece. Raises what `read_body` does.

    Of every method: Django would wait for the body of a GET as well, and keep it however large.
    """
    body = await read_body(receive, limit)
    handed = False

    async def replay() -> dict[str, Any]:
        nonlocal handed
        if handed:
            return await receive()
        handed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


class TokenBucket:
    """Per-key rate limit in this process' memory: `rate` a second, bursts of `burst`. Of too many keys those are
    forgotten that were not held back for the longest time.
    """

    def __init__(self, rate: float = 20.0, burst: float = 60.0, max_keys: int = 20_000) -> None:
        self.rate, self.burst, self.max_keys, self._half = rate, burst, max_keys, burst / 2
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> None:
        """Raises `RateLimited`, with the seconds to wait, when the key's bucket is empty."""
        now = time.monotonic()
        level, at = self._buckets.get(key, (self.burst, now))
        level = min(self.burst, level + (now - at) * self.rate)
        if level < _ONE:
            self._put(key, level, now)
            raise RateLimited(retry_after=math.ceil((_ONE - level) / self.rate))
        if level < self._half:
            self._put(key, level - 1.0, now)
            return
        self._buckets[key] = level - 1.0, now  # where it is: little is lost when one that is nearly full is forgotten
        if len(self._buckets) > self.max_keys:
            self._buckets.popitem(last=False)

    def require(self, key: str) -> None:
        """Raises as `take` would, and takes nothing."""
        level = self._level(key)
        if level < _ONE:
            raise RateLimited(retry_after=math.ceil((_ONE - level) / self.rate))

    def charge(self, key: str) -> None:
        """Take one if it is there, for what has happened already."""
        self._put(key, max(0.0, self._level(key) - 1.0), time.monotonic())

    def give_back(self, key: str) -> None:
        """Undo one `take`."""
        if key in self._buckets:
            self._put(key, min(self.burst, self._level(key) + 1.0), time.monotonic())

    def _level(self, key: str) -> float:
        now = time.monotonic()
        level, at = self._buckets.get(key, (self.burst, now))
        return min(self.burst, level + (now - at) * self.rate)

    def _put(self, key: str, level: float, now: float) -> None:
        buckets = self._buckets
        buckets.pop(key, None)  # to the end: who comes most often is forgotten last, also who is refused
        buckets[key] = level, now
        if len(buckets) > self.max_keys:
            buckets.popitem(last=False)


_ONE = 1.0 - 1e-9  # seconds times a rate are not exact
