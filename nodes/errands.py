"""What may follow the COMMIT of heartbeats a little later, on a thread.

Status flips, heartbeats that did not fit their node, and when tokens were used.
"""

from __future__ import annotations

import asyncio
import time
import uuid

import structlog

from hyprbox.lib.errors import Unavailable
from hyprbox.lib.threads import in_thread
from nodes import clones, services
from nodes.identity import Sighting
from tokens.cache import VerifiedToken

USE_NOTED_SECONDS = 60.0
PAUSE_SECONDS = 0.25
FINISH_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Errands:
    def __init__(self) -> None:
        self._woken: set[str] = set()
        self._misfits: dict[tuple[str, str, str], Sighting] = {}  # by node, machine and instance; the newest of each
        self._used: set[uuid.UUID] = set()
        self._successors: set[uuid.UUID] = set()
        self._noted: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, tokens: list[VerifiedToken | None]) -> None:
        """`tokens` were used in a batch."""
        now = time.monotonic()
        for token in tokens:
            if token is not None and self._noted.get(token.key, 0.0) < now:
                self._noted[token.key] = now + USE_NOTED_SECONDS
                self._used.add(token.id)
                if token.replaces is not None:
                    self._successors.add(token.id)
        if self._used:
            self._start()

    def look_at(self, found: list[tuple[str, Sighting | None]]) -> None:
        """Nodes (their ids) that had been announced as silent, or whose heartbeat did not fit them."""
        for key, seen in found:
            self._woken.add(key)
            if seen is not None:
                self._misfits[key, seen.machine_id, seen.instance_id] = seen
        self._start()

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="heartbeat-errands")

    async def finish(self) -> None:
        task, self._task = self._task, None
        if task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([task], timeout=FINISH_SECONDS)

    async def _run(self) -> None:
        while self._woken or self._used:
            woken, self._woken = self._woken, set()
            misfits, self._misfits = self._misfits, {}
            used, self._used = self._used, set()
            successors, self._successors = self._successors, set()
            try:
                if misfits:
                    found = [(uuid.UUID(key), seen) for (key, _, _), seen in misfits.items()]
                    await in_thread(clones.note_all, found)
                if woken:
                    await in_thread(services.announce_flips, [uuid.UUID(pk) for pk in woken])
                if used:
                    await in_thread(services.note_token_use, list(used), list(successors))
            except Unavailable as error:  # the worker's next round announces the flips; the rest shows again
                log.warning("heartbeats.errand_failed", error=str(error))
            if len(self._noted) > 100_000:
                self._noted.clear()
            await asyncio.sleep(PAUSE_SECONDS)
