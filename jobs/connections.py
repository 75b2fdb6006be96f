"""The connections of this app's lanes: one task at a time, and an answer in time or none."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import psycopg
import structlog
from psycopg import sql

from hyprbox.lib import db
from hyprbox.lib.errors import Unavailable
from hyprbox.lib.prepared import Call, Pipeline, Row

ANSWER_SECONDS = 1.5  # what the database has for one batch before it counts as away
RETRY_SECONDS = 0.3

# One plan for ever, made of index look-ups: planning would cost more than the work, and a plan from the days when the
# table was small would read all of it.
SETTINGS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}

log = structlog.get_logger(__name__)


class Connection:
    """One autocommit connection, used by one task at a time; a broken one is replaced on the next use.

    One that does not answer in time is cut off, and for a moment nobody else tries: those in line hear at once.
    With `statements` (by name, parameters as $1, $2, ...) it is for those alone, through `run()`; `settings` are
    PostgreSQL's, beside those of every lane.
    """

    def __init__(
        self, name: str, statements: Mapping[str, str] | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._session = session({**SETTINGS, **(settings or {})})
        self._statements = statements
        self._away_until = 0.0
        self._conn: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._pipeline: Pipeline | None = None
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[psycopg.AsyncConnection[tuple[Any, ...]]]:
        """Yields the connection. Raises `Unavailable` when the database is away."""
        async with self._lock:
            try:
                conn, _ = await self._open()
                with db.cut_after(conn, ANSWER_SECONDS):
                    yield conn
            except BaseException as error:
                await self._broken(error)
                raise

    async def run(
        self, calls: Sequence[Call], before_commit: Callable[[list[list[Row]]], None] | None = None
    ) -> list[list[Row]]:
        """As `Pipeline.run`, of the connection's statements. Raises `Unavailable` when the database is away."""
        async with self._lock:
            timer = None
            try:
                conn, pipeline = await self._open()
                assert pipeline is not None  # it was given statements
                timer = asyncio.get_running_loop().call_later(ANSWER_SECONDS, db.cut, conn)
                return await pipeline.run(calls, before_commit)
            except BaseException as error:
                await self._broken(error)
                raise
            finally:
                if timer is not None:
                    timer.cancel()

    async def _open(self) -> tuple[psycopg.AsyncConnection[tuple[Any, ...]], Pipeline | None]:
        if time.monotonic() < self._away_until:
            raise Unavailable()
        if self._conn is None or self._conn.closed:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._conn = await db.async_connect(application_name=self.name)
            with db.cut_after(self._conn, ANSWER_SECONDS):
                await self._conn.execute(self._session, prepare=False)
            self._pipeline = Pipeline(self._conn, self._statements) if self._statements else None
        return self._conn, self._pipeline

    async def _broken(self, error: BaseException) -> None:
        """Raises `Unavailable` for what the database or the wire did. Any other error but a cancel leaves the connection."""
        if isinstance(error, psycopg.Error | OSError | TimeoutError):
            log.warning("lane.database_error", lane=self.name, error=str(error) or "no answer in time")
            if self._conn is None or self._conn.closed:
                self._away_until = time.monotonic() + RETRY_SECONDS
            await self.close()
            raise Unavailable() from error
        if isinstance(
            error, asyncio.CancelledError
        ):  # its answer is still on the way, and would be taken for the next one's
            await self.close()

    async def close(self) -> None:
        conn, pipeline, self._conn, self._pipeline = self._conn, self._pipeline, None, None
        if pipeline is not None:
            pipeline.detach()
        if conn is not None:
            await conn.close()


def session(settings: Mapping[str, str]) -> sql.Composed:
    """The statement that sets them for a whole connection."""
    made = [sql.SQL("set_config({}, {}, false)").format(name, value) for name, value in settings.items()]
    return sql.SQL("SELECT ") + sql.SQL(", ").join(made)


def uuid_array(ids: Iterable[uuid.UUID]) -> bytes:
    """As a parameter of a prepared statement."""
    return ("{" + ",".join([one.hex for one in ids]) + "}").encode()
