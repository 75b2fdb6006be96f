"""Bad bearer tokens are turned away before Django: an answer costs a fraction of what a good request does.

What cannot be a token, and a JWT whose signature or times are wrong, gets its 401 here. What only the database knows to
be wrong (a revoked session, a key that nobody has) gets it from the API, and is counted here. Each address has 30 of
either a minute, counted in PostgreSQL for all processes: what this process saw goes there every second, and comes back as
the count of them all. Past it a wrong JWT and an opaque token that never was good get 429, good ones still pass.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from django.conf import settings

from accounts import jwt, rates
from accounts.errors import TooManyAttempts
from accounts.selectors import KEY_SCHEME
from hyprbox.lib import lanes, refusals
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import HyprBoxError, NotAuthenticated
from hyprbox.lib.ids import rate_key
from hyprbox.lib.opaque import digest_of
from hyprbox.lib.threads import in_thread

FLUSH_SECONDS = 1.0
WINDOW_SECONDS = 60.0
MAX_ADDRESSES = 20_000
MAX_KNOWN = 50_000
DRAIN_BYTES = 1024 * 1024
_OPAQUE = re.compile(rf"(?:{KEY_SCHEME}|hbnt_)[a-z0-9]{{8}}[A-Za-z0-9_-]{{43}}")
_STREAM = re.compile(r"/api/(?:stream/nodes|jobs/[0-9a-f-]{36}/stream)")  # which tell of a refusal themselves
_JWT = re.compile(r"[A-Za-z0-9_-]{1,1000}\.[A-Za-z0-9_-]{1,2000}\.[A-Za-z0-9_-]{1,200}")
_loads = msgspec.json.Decoder().decode

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Counter:
    """What this process knows of an address: `count` of all processes when last asked, `pending` since, and `untold` of
    those that the log of refusals does not know yet.
    """

    count: int = 0
    pending: int = 0
    untold: int = 0
    until: float = 0.0


class BadBearers:
    """How often each address showed a token that is not good: people's, or `what` `rates.PER_MINUTE` has."""

    def __init__(self, what: str = "bearer") -> None:
        self.what, self.limit = what, rates.PER_MINUTE[what]
        self._counters: OrderedDict[str, _Counter] = OrderedDict()
        self._flush: asyncio.Task[None] | None = None

    def note(self, key: str, *, is_told: bool = False) -> int:
        """Count one. The seconds until the next is answered, or 0. A flood that is refused anyway is not counted on.

        `is_told`: whoever refused it says so to the log itself.
        """
        if seconds := self.blocked(key):
            return seconds
        now = time.monotonic()
        counter = self._counters.get(key)
        if counter is None or counter.until < now:
            counter = self._counters[key] = _Counter(until=now + WINDOW_SECONDS)
            if len(self._counters) > MAX_ADDRESSES:
                self._counters.popitem(last=False)
        counter.pending += 1
        counter.untold += not is_told
        self._schedule()
        return self.blocked(key)

    def blocked(self, key: str) -> int:
        """The seconds for which this address is over its limit, or 0."""
        counter, now = self._counters.get(key), time.monotonic()
        if counter is None or counter.until < now or counter.count + counter.pending <= self.limit:
            return 0
        return max(1, math.ceil(counter.until - now))

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        if self._flush is None or self._flush.done() or self._flush.get_loop() is not loop:
            self._flush = loop.create_task(self._tell(), name="bad-bearers")

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            now = time.monotonic()
            told = {
                key: (counter, counter.pending)
                for key, counter in self._counters.items()
                if counter.pending and counter.until >= now
            }
            if not told:
                return
            try:
                found = await in_thread(rates.add, {self._key(key): n for key, (_, n) in told.items()})
            except HyprBoxError as error:
                log.warning("bearers.not_counted", error=repr(error))  # this process' own count goes on
                return
            now, untold = time.monotonic(), []
            for key, (counter, n) in told.items():
                counter.count, left = found[self._key(key)]
                counter.pending -= n
                counter.until = now + left
                if counter.untold:
                    untold.append(_refusal(key, counter.untold))
                    counter.untold = 0
            if untold:
                await refusals.tell_many(untold)

    def _key(self, key: str) -> str:
        return rates.address_key(key, self.what)


class BearerGate:
    """ASGI middleware. `app` is what good, absent and undecided tokens reach."""

    def __init__(self, app: lanes.App) -> None:
        self.app = app
        self.bad = BadBearers()
        self._known: OrderedDict[bytes, None] = OrderedDict()

    async def __call__(self, scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send) -> None:
        shown = lanes.header(scope, b"authorization") if scope["path"].startswith("/api/") else ""
        scheme, _, token = shown.partition(" ")
        if scheme.lower() != "bearer":
            await self.app(scope, receive, send)
            return
        token, key = token.strip(), rate_key(lanes.peer_ip(scope))
        is_opaque = _OPAQUE.fullmatch(token) is not None
        if not is_opaque and not _is_good_jwt(token):
            await self._refuse(scope, receive, send, self.bad.note(key))
            return
        digest = digest_of(token)
        if is_opaque and digest not in self._known and (seconds := self.bad.blocked(key)):
            await self._refuse(scope, receive, send, seconds)
            return

        def prove(shown: str) -> None:
            if is_opaque and shown == token:
                self._remember(digest)

        def refuse(status: int) -> None:
            if status == 401:
                self._known.pop(digest, None)
                self.bad.note(key)

        scope = lanes.heard_by({**scope, lanes.BEARER_IS_COUNTED: True}, prove, refuse)
        is_stream = _STREAM.fullmatch(scope["path"])  # a thousand viewers: not one more call for each frame
        await self.app(scope, receive, send if is_stream else _watching(send, refuse))

    def _remember(self, digest: bytes) -> None:
        """In whatever thread the token was found good."""
        self._known.pop(digest, None)
        self._known[digest] = None
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    async def _refuse(self, scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send, seconds: int) -> None:
        error = TooManyAttempts(retry_after=seconds) if seconds else NotAuthenticated()
        if scope["method"] not in ("GET", "HEAD", "DELETE", "OPTIONS"):
            try:  # so that the client reads the answer
                await lanes.read_body(receive, DRAIN_BYTES)
            except lanes.ClientGone:
                return
            except HyprBoxError:
                pass
        await lanes.answer_error(send, error, lanes.request_id_of(scope))


def _watching(send: lanes.Send, refuse: Callable[[int], None]) -> lanes.Send:
    async def watch(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            refuse(message["status"])
        await send(message)

    return watch


def _refusal(key: str, times: int) -> refusals.Refusal:
    return refusals.Refusal(NotAuthenticated(), Actor.anonymous(ip=key), "bearer", times=times)


def _is_good_jwt(token: str) -> bool:
    """Signed here and not over. The rest of a JWT's rules are for whoever reads it: nobody else can sign one."""
    if not _JWT.fullmatch(token):
        return False
    signed, _, signature = token.rpartition(".")
    expected = hmac.digest(settings.SECRET_KEY.encode(), signed.encode(), "sha256")
    try:
        if not hmac.compare_digest(_decoded(signature), expected):
            return False
        ends = float(_loads(_decoded(signed.partition(".")[2])).get("exp", 0))
    except (ValueError, TypeError, AttributeError, msgspec.DecodeError):
        return False
    return ends > time.time() - jwt.LEEWAY_SECONDS


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
