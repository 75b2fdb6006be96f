"""Whether the database answers: asked only while a request takes long, and until an outage is over.

A database that is stopped, or whose machine hangs, refuses nothing: threads wait for it without end. Here their callers
are told so within two seconds, and until it answers again nobody else is let in to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import structlog

from hyprbox.lib import db

PATIENCE_SECONDS = 0.8  # a request that took longer makes us ask
ANSWER_SECONDS = 0.45  # twice: the first connection may be an old one
RETRY_SECONDS = 0.5

log = structlog.get_logger(__name__)


class Watch:
    def __init__(self) -> None:
        self.is_away = False
        self._waiting: dict[asyncio.Future[None], float] = {}
        self._task: asyncio.Task[None] | None = None
        self._conn: psycopg.AsyncConnection[tuple[Any, ...]] | None = None

    @contextlib.contextmanager
    def outage(self) -> Iterator[asyncio.Future[None]]:
        """A future that is done when the database is found to be away before the block ends."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[None] = loop.create_future()
        self._waiting[mine] = loop.time()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._conn = None
            self._task = loop.create_task(self._watch_and_close(), name="database-watch")
        try:
            yield mine
        finally:
            self._waiting.pop(mine, None)

    async def _watch_and_close(self) -> None:
        try:
            await self._watch()
        finally:
            self.is_away = False  # however it ended: with nobody who looks, nobody would ever be let in again
            if self._conn is not None:
                await self._conn.close()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting or self.is_away:
            since = min(self._waiting.values(), default=0.0)
            if not self.is_away and (early := since + PATIENCE_SECONDS - loop.time()) > 0:
                await asyncio.sleep(early)
            elif await self._answers():
                if self.is_away:
                    log.info("database.back")
                self.is_away = False
                await asyncio.sleep(PATIENCE_SECONDS)
            else:
                self._tell()
                await asyncio.sleep(RETRY_SECONDS)

    def _tell(self) -> None:
        if not self.is_away:
            log.warning("database.away", waiting=len(self._waiting))
        self.is_away = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def _answers(self) -> bool:
        for _ in range(2):
            with contextlib.suppress(psycopg.Error, OSError, TimeoutError):
                conn = await self._connected()
                with db.cut_after(conn, ANSWER_SECONDS):
                    await conn.execute("SELECT 1")
                return True
        return False

    async def _connected(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        if self._conn is None or self._conn.closed:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._conn = await db.async_connect(application_name="hyprbox-watch")
        return self._conn
