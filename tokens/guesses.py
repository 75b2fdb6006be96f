"""Addresses that show one bad node token after the other, for the lanes.

Each has 30 a minute, counted in PostgreSQL for all processes. Past that the address' limit comes before the database: what
nobody here has seen to be good is looked up no more than twice a second, so that a good token of a neighbour still gets
through, and gets its look-up back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from accounts.gate import BadBearers
from hyprbox.lib.errors import RateLimited
from hyprbox.lib.lanes import TokenBucket
from tokens.cache import VerifiedToken
from tokens.errors import BadToken

Found = VerifiedToken | BadToken

bad_tokens = BadBearers("node")  # of this process, in all lanes


class Guesses:
    def __init__(self, bad: BadBearers | None = None) -> None:
        self.bad = BadBearers("node") if bad is None else bad
        self._looked_up = TokenBucket(rate=2, burst=60)

    def note(self, address: str) -> None:
        """One more bad token. Raises `RateLimited` past the limit."""
        if seconds := self.bad.note(address, is_told=True):  # whoever asks tells what it answers
            raise RateLimited(retry_after=seconds)

    async def look_up(self, address: str, ask: Callable[[], Awaitable[Found]]) -> Found:
        """What `ask` finds in the database. Raises `RateLimited` instead of asking for whoever guesses too much."""
        if not self.bad.blocked(address):
            return await ask()
        self._looked_up.take(address)
        is_bad = False
        try:
            found = await ask()
            is_bad = isinstance(found, BadToken)
        finally:
            if not is_bad:  # also when the database does not answer
                self._looked_up.give_back(address)
        return found
