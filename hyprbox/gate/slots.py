"""Places in Django: as many requests as there are database connections, and some places kept for what may not wait.

Whoever finds no place waits in a bounded queue, and hears 503 when that is full or when the wait is over. What ends
or cancels a job, and people who log in, have places that nobody else takes, and queues that do not fill up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import Enum

from hyprbox.lib.errors import Overloaded


@dataclass(frozen=True, slots=True)
class Terms:
    """`kept`: places for this kind alone. `waiting`: how many may wait, and for how many `seconds`."""

    kept: int
    waiting: int
    seconds: float


class Kind(Enum):
    """The most urgent first: in this order free places are handed on."""

    REPORT = Terms(kept=3, waiting=4096, seconds=20.0)
    LOGIN = Terms(kept=1, waiting=1024, seconds=20.0)
    OTHER = Terms(kept=0, waiting=256, seconds=1.8)


# A place is of a kind's own, or shared by all.
Place = Kind | None


class Slots:
    def __init__(self, size: int) -> None:
        """`size` places in all, of which some are kept; at least one is shared."""
        self._free: dict[Place, int] = {kind: kind.value.kept for kind in Kind}
        self._free[None] = max(1, size - sum(self._free.values()))
        self._waiting: dict[Kind, deque[asyncio.Future[Place]]] = {kind: deque() for kind in Kind}

    async def take(self, kind: Kind) -> Place:
        """A place, to be given back. Raises `Overloaded`, at once when the queue is full."""
        for place in (kind, None):
            if self._free[place]:
                self._free[place] -= 1
                return place
        queue, terms = self._waiting[kind], kind.value
        if len(queue) >= terms.waiting:
            raise Overloaded()
        mine: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        try:
            async with asyncio.timeout(terms.seconds):
                return await mine
        except TimeoutError:
            self._leave(queue, mine)
            raise Overloaded() from None
        except asyncio.CancelledError:
            self._leave(queue, mine)
            raise

    def give(self, place: Place) -> None:
        """To the most urgent one that waits for it, or back."""
        for kind in Kind if place is None else (place,):
            queue = self._waiting[kind]
            while queue:
                mine = queue.popleft()
                if not mine.done():
                    mine.set_result(place)
                    return
        self._free[place] += 1

    def _leave(self, queue: deque[asyncio.Future[Place]], mine: asyncio.Future[Place]) -> None:
        if mine.done() and not mine.cancelled():  # it was handed over in this very moment
            self.give(mine.result())
        elif mine in queue:
            queue.remove(mine)
