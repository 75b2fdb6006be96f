"""One hint for many jobs that moved: what a hint for each would cost at both ends is most of what a move costs.

It leaves after the COMMIT and at most every 20 ms. One that is lost with its process costs a viewer two seconds, the time
after which everybody looks again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator

from hyprbox.lib import live
from hyprbox.lib.errors import Unavailable
from hyprbox.lib.prepared import Call
from jobs.connections import Connection
from jobs.usual import Report

MOVED = "moved"
PAUSE_SECONDS = 0.02
_PER_HINT = 90  # two ids of 36 characters each; NOTIFY takes 8,000 bytes
_TELL = f"SELECT pg_notify('{live.CHANNEL}', $1)"


class Teller:
    """Tells every process of what this one wrote."""

    def __init__(self) -> None:
        self._moved: list[Report] = []
        # To wait for the disk would hold up those who write something that lasts.
        self._connection = Connection("hyprbox-hints", {"tell": _TELL}, {"synchronous_commit": "off"})
        self._task: asyncio.Task[None] | None = None

    def tell(self, moved: Iterable[Report]) -> None:
        """Soon; the first one at once."""
        self._moved += moved
        if self._moved and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run(), name="hints")

    async def stop(self) -> None:
        """Once everything is told."""
        if self._task is not None and self._task.get_loop() is asyncio.get_running_loop():
            await self._task
        await self._connection.close()

    async def _run(self) -> None:
        while self._moved:
            moved, self._moved = self._moved, []
            with contextlib.suppress(Unavailable):  # the database is away: on return everybody looks at everything
                await self._connection.run(list(_calls(moved)))
            await asyncio.sleep(PAUSE_SECONDS)


def _calls(moved: list[Report]) -> Iterator[Call]:
    for has_room in (False, True):
        jobs = [f"{one.job_id} {one.node_pk}" for one in moved if one.makes_room == has_room]
        for start in range(0, len(jobs), _PER_HINT):
            told = live.payload(MOVED, room=has_room, jobs=",".join(jobs[start : start + _PER_HINT]))
            yield "tell", (told.encode(),)


def hints(moved: live.Event, is_heard: Callable[[str], bool] = lambda topic: True) -> Iterator[live.Event]:
    """What one hint tells of many jobs, as `jobs.moves` tells it of each; only on topics that somebody hears."""
    of_jobs, of_work = is_heard("jobs"), moved.ids["room"] and is_heard("work")
    for pair in str(moved.ids["jobs"]).split(","):
        job, _, node = pair.partition(" ")
        if is_heard(topic := f"job.{job}"):
            yield live.Event(topic, {"kind": "status"})
        if of_jobs:
            yield live.Event("jobs", {"job": job, "node": node})
        if of_work:
            yield live.Event("work", {"node": node})


def _hear(event: live.Event) -> None:
    if event.topic == MOVED:  # and not a resync, which everybody hears anyway
        for hint in hints(event, live.hub.is_heard):
            live.hub.deliver(hint)


live.hub.on(MOVED, _hear)
