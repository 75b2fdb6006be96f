"""Addresses that show one bad node token after the other, for the lanes; counted in this process' memory.

Each has 30 a minute. Past that the address' limit comes before the database: what nobody here has seen to be good is looked up
no more than twice a second, so that a good token of a neighbour still gets through, and gets its look-up back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hyprbox.lib.errors import RateLimited
from hyprbox.lib.lanes import TokenBucket
from tokens.cache import VerifiedToken
from tokens.errors import BadToken

Found = VerifiedToken | BadToken


class Guesses:
    def __init__(self) -> None:
        self._bad = TokenBucket(rate=0.5, burst=30)
        self._looked_up = TokenBucket(rate=2, burst=60)

    def note(self, address: str) -> None:
        """One more bad token. Raises `RateLimited` past the limit."""
        self._bad.take(address)

    async def look_up(self, address: str, ask: Callable[[], Awaitable[Found]]) -> Found:
        """What `ask` finds in the database. Raises `RateLimited` instead of asking for whoever guesses too much."""
        try:
            self._bad.require(address)
        except RateLimited:
            self._looked_up.take(address)
        else:
            return await ask()
        is_bad = False
        try:
            found = await ask()
            is_bad = isinstance(found, BadToken)
        finally:
            if not is_bad:  # also when the database does not answer
                self._looked_up.give_back(address)
        return found
