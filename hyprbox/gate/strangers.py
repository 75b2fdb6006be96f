"""Who is counted as what. A token or session that was found good here before is counted for itself (one person's access tokens
together); whatever shows nothing, by its address.

Between the two is what nobody knows yet: it takes from its address' bucket as well, or anybody who makes up a new session for
each request would never be counted. Only Django can say which are good, and it tells (`lanes.prove`): then, and when nobody
could say it (503), what was taken is given back, so a crowd of good ones behind one address is not held up. A bearer token
that `accounts.gate` counts, and a stream, take nothing before they were refused: a fleet or an office that comes back all at
once has to get in. Where everybody gets an answer, as for the keys, nobody is refused, so there a token that nobody knows is
counted by its address as well, with room for a fleet.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from functools import lru_cache

from django.conf import settings

from accounts import jwt
from accounts.authentication import COOKIE
from hyprbox.lib import lanes
from hyprbox.lib.errors import NotAuthenticated, RateLimited
from hyprbox.lib.ids import rate_key

MAX_KNOWN = 50_000


class Strangers:
    """The counters of one process."""

    def __init__(self, max_known: int = MAX_KNOWN) -> None:
        self.named = lanes.TokenBucket(rate=20, burst=60)
        self.nobody = lanes.TokenBucket(rate=5, burst=30)
        # More than the gate lets in at once: what is on its way to be proven must not fill it.
        self.unproven = lanes.TokenBucket(rate=5, burst=300)
        self.refused = lanes.TokenBucket(rate=5, burst=300)
        self.refused_streams = lanes.TokenBucket(rate=5, burst=300)  # of people: agents open none, and wait for none
        self.answered = lanes.TokenBucket(rate=20, burst=1000)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._max_known = max_known
        self.lock = threading.Lock()  # proofs come from Django's threads

    def enter(self, scope: lanes.Scope, *, is_stream: bool = False) -> Visit:
        """Count a request. Raises `RateLimited`."""
        visit = Visit(self, scope, is_stream=is_stream)
        with self.lock:
            visit.pay(next((one for one in visit.shown if self._knows(one)), ""))
        return visit

    def remember(self, shown: str) -> None:
        self._known.pop(_digest(shown), None)
        self._known[_digest(shown)] = None
        if len(self._known) > self._max_known:
            self._known.popitem(last=False)

    def forget(self, shown: str) -> None:
        self._known.pop(_digest(shown), None)

    def _knows(self, shown: str) -> bool:
        digest = _digest(shown)
        if digest not in self._known:
            return False
        self._known.move_to_end(digest)
        return True


class Visit:
    """One request: what it shows, what it paid for that, and whether it was good."""

    __slots__ = (
        "_has_paid",
        "_is_proven",
        "_is_stream",
        "_key",
        "_known",
        "_pays_later",
        "_scope",
        "_strangers",
        "shown",
    )

    def __init__(self, strangers: Strangers, scope: lanes.Scope, *, is_stream: bool) -> None:
        self._strangers, self._scope, self._is_stream = strangers, scope, is_stream
        self._pays_later = is_stream or lanes.BEARER_IS_COUNTED in scope
        self.shown = shown_by(scope, as_api=is_stream or scope["path"].startswith("/api/"))
        self._key = self._known = ""
        self._has_paid = self._is_proven = False

    def pay(self, known: str) -> None:
        """`known` is the one of those shown that was good before. Raises `RateLimited`."""
        strangers, self._known = self._strangers, known
        if known:
            self._take_for_itself(known)
            return
        self._key = rate_key(lanes.peer_ip(self._scope))
        if not self.shown:
            strangers.nobody.take(self._key)
            return
        if self._pays_later:
            self._refused.require(self._key)
            if not self._is_stream:
                strangers.answered.require(self._key)
        else:
            strangers.unproven.take(self._key)
            self._has_paid = True
        try:
            self._take_for_itself(self.shown[0])
        except RateLimited:
            self._give_back()
            raise

    def prove(self, shown: str) -> None:
        """Hears from any thread what was found good. A cookie beside a bearer token says nothing about that."""
        if shown in self.shown:
            with self._strangers.lock:
                self._is_proven = True
                self._strangers.remember(shown)
                self._give_back()

    def end(self, status: int) -> None:
        """The answer's status; 0 when there was none."""
        with self._strangers.lock:
            if self._is_proven or not self.shown:
                return
            if status == 503:
                self._give_back()
            elif self._known:
                if status == 401 or not self._pays_later:  # no longer good; many answers to a bearer need no look at it
                    self._strangers.forget(self._known)
            elif self._has_paid:
                self._strangers.nobody.charge(self._key)
            elif 400 <= status < 500:
                self._refused.charge(self._key)
            elif 0 < status < 400 and not self._is_stream:
                self._strangers.answered.charge(self._key)

    @property
    def _refused(self) -> lanes.TokenBucket:
        return self._strangers.refused_streams if self._is_stream else self._strangers.refused

    def _take_for_itself(self, shown: str) -> None:
        if not self._is_stream:
            self._strangers.named.take(caller(shown))

    def _give_back(self) -> None:
        if self._has_paid:
            self._has_paid = False
            self._strangers.unproven.give_back(self._key)


def shown_by(scope: lanes.Scope, *, as_api: bool) -> tuple[str, ...]:
    """What Django will look at, in its order: the bearer token, or without one the cookies. Pages take a session alone."""
    if as_api and (given := lanes.header(scope, b"authorization")):
        scheme, _, token = given.partition(" ")
        return (token.strip(),) if scheme.lower() == "bearer" and token.strip() else ()
    cookies = lanes.cookies(scope)
    names = (COOKIE, settings.SESSION_COOKIE_NAME) if as_api else (settings.SESSION_COOKIE_NAME,)
    return tuple(shown for name in names if (shown := cookies.get(name)))


def _digest(shown: str) -> bytes:
    return hashlib.blake2b(shown.encode("utf-8", "replace"), digest_size=16).digest()


@lru_cache(maxsize=4096)
def caller(shown: str) -> str:
    """Under which name a credential is counted. A name made up for somebody else is not believed."""
    try:
        return f"user {jwt.read_access(shown).user_id}"
    except NotAuthenticated:
        return _digest(shown).hex()
