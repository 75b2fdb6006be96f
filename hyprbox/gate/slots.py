"""Places in Django: as many requests as there are database connections, and some places kept for what may not wait.

Whoever finds no place waits in a bounded queue, and hears 503 when that is full or does not move. What ends or cancels a
job, and people who log in, have places that nobody else takes, and queues that do not fill up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import Enum

from hyprbox.lib.errors import Overloaded

MOVING_SECONDS = 1.5  # a place that was held for less shows that the queue moves; a lock is waited for for 2 s


@dataclass(frozen=True, slots=True)
class Terms:
    """`kept`: places for this kind alone. `waiting`: how many may wait.

    For how long: `seconds` in a queue that does not move, `longest` in one that does.
    """

    kept: int
    waiting: int
    seconds: float
    longest: float


class Kind(Enum):
    """The most urgent first: in this order free places are handed on."""

    REPORT = Terms(kept=3, waiting=4096, seconds=20.0, longest=20.0)
    LOGIN = Terms(kept=1, waiting=1024, seconds=20.0, longest=20.0)
    OTHER = Terms(kept=0, waiting=256, seconds=1.8, longest=6.0)


@dataclass(frozen=True, slots=True)
class Place:
    """One of a kind's own, or one of those that all share (None). `since` is the loop's time."""

    kind: Kind | None
    since: float


class Slots:
    def __init__(self, size: int) -> None:
        """`size` places in all, of which some are kept; at least one is shared."""
        self._free: dict[Kind | None, int] = {kind: kind.value.kept for kind in Kind}
        self._free[None] = max(1, size - sum(self._free.values()))
        self._waiting: dict[Kind, deque[asyncio.Future[Place]]] = {kind: deque() for kind in Kind}
        self._moved_at = 0.0

    async def take(self, kind: Kind) -> Place:
        """A place, to be given back. Raises `Overloaded`, at once when the queue is full."""
        loop = asyncio.get_running_loop()
        for own in (kind, None):
            if self._free[own]:
                self._free[own] -= 1
                return Place(own, loop.time())
        queue = self._waiting[kind]
        if len(queue) >= kind.value.waiting:
            raise Overloaded()
        mine: asyncio.Future[Place] = loop.create_future()
        queue.append(mine)
        try:
            await self._wait(mine, kind.value)
        except BaseException:
            self._leave(queue, mine)
            raise
        return mine.result()

    def give(self, place: Place) -> None:
        """To the most urgent one that waits for it, or back."""
        now = asyncio.get_running_loop().time()
        if place.kind is None and now - place.since < MOVING_SECONDS:
            self._moved_at = now
        for kind in Kind if place.kind is None else (place.kind,):
            queue = self._waiting[kind]
            while queue:
                mine = queue.popleft()
                if not mine.done():
                    mine.set_result(Place(place.kind, now))
                    return
        self._free[place.kind] += 1

    async def _wait(self, mine: asyncio.Future[Place], terms: Terms) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not mine.done():
            end = min(max(began, self._moved_at) + terms.seconds, began + terms.longest)
            if (left := end - loop.time()) <= 0:
                raise Overloaded()
            await asyncio.wait({mine}, timeout=left)

    def _leave(self, queue: deque[asyncio.Future[Place]], mine: asyncio.Future[Place]) -> None:
        if mine.done():  # it was handed over in this very moment
            self.give(mine.result())
        else:
            queue.remove(mine)
