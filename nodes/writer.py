"""Group commit: one task with one connection writes the heartbeats of this process.

It takes whatever queued while the previous batch was in flight, at most 256, in one statement; each
heartbeat is answered after that COMMIT. A batch that fails is retried row by row, so a bad one cannot fail
its neighbours. When the database does not answer, everybody hears so within two seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import Any

import psycopg
import structlog

from hyprbox.lib import db, live
from hyprbox.lib.errors import HyprBoxError, InvalidInput, Overloaded, Unavailable
from hyprbox.lib.prepared import Prepared
from hyprbox.lib.threads import in_thread
from nodes import history, services
from nodes.beats import WRITE, Beat, WaitingBeat, Written, encode, to_look_at
from nodes.errands import Errands
from tokens.cache import TokenCache, VerifiedToken
from tokens.errors import BadToken
from tokens.secrets import Presented

MAX_QUEUED = 2048
MAX_BATCH = 256
STATEMENT_SECONDS = 1.5
CONNECT_SECONDS = 1.0
RETRY_SECONDS = 0.5
DRAIN_SECONDS = 5.0
HINT_SECONDS = 0.25
# One plan for ever: planning would cost more than the work.
SESSION = (
    "SELECT set_config(name, value, false) FROM (VALUES ('jit', 'off'), ('plan_cache_mode', 'force_generic_plan'), "
    "('lock_timeout', '500ms')) AS setting (name, value)"
)

log = structlog.get_logger(__name__)


class Writer:
    def __init__(self) -> None:
        self.tokens = TokenCache()
        self._beats: deque[Beat] = deque()
        self._lookups: list[tuple[Presented, asyncio.Future[VerifiedToken | BadToken]]] = []
        self._conn: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._statement: Prepared | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._away_until = 0.0
        self._is_draining = False
        self._is_busy = False
        self._errands = Errands()
        self._changed: set[str] = set()
        self._hinted_at = 0.0

    async def submit(self, beat: WaitingBeat) -> Written:
        """Returns after COMMIT. Raises `Overloaded` at once when the queue is full, `Unavailable`, `BadToken`."""
        self.enqueue(beat)
        return await beat.answer

    def enqueue(self, beat: Beat) -> None:
        """It is told later what became of it. Raises `Overloaded`, `Unavailable`."""
        if len(self._beats) >= MAX_QUEUED:
            raise Overloaded()
        self._start()
        self._beats.append(beat)

    async def look_up(self, presented: Presented) -> VerifiedToken | BadToken:
        """The token from the database, many in one statement."""
        if len(self._lookups) >= MAX_QUEUED:
            raise Overloaded()
        self._start()
        answer = asyncio.get_running_loop().create_future()
        self._lookups.append((presented, answer))
        return await answer  # type: ignore[no-any-return]

    async def drain(self) -> None:
        """Write what is queued, then take nothing more."""
        self._is_draining = True
        deadline = time.monotonic() + DRAIN_SECONDS
        while (self._is_busy or self._beats or self._lookups) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        task, self._task = self._task, None
        if task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._errands.finish()
        self._is_draining = False

    def _start(self) -> None:
        """The task runs and will look at its queues. Raises `Unavailable`."""
        loop = asyncio.get_running_loop()
        if self._is_draining:
            raise Unavailable("The server is stopping; try again.")
        if time.monotonic() < self._away_until:
            raise Unavailable()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._wake, self._conn, self._hinted_at = asyncio.Event(), None, 0.0
            self._beats.clear()
            self._lookups.clear()
            self._task = loop.create_task(self._run(), name="heartbeats")
        self._wake.set()

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._is_busy = True
                # Requests that arrived together are heard in this turn of the loop: let them join the batch.
                await asyncio.sleep(0)
                try:
                    await self._work(await self._connected())
                except (psycopg.OperationalError, psycopg.InterfaceError, OSError, TimeoutError) as error:
                    log.warning("heartbeats.database_away", error=str(error))
                    await self._give_up()
                except Exception:  # a defect here must not leave every node waiting for an answer
                    log.exception("heartbeats.writer_failed")
                    await self._give_up()
                finally:
                    self._is_busy = False
        finally:
            await self._abandon()

    async def _work(self, conn: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        while self._lookups or self._beats:
            if self._lookups:
                await self._answer_lookups(conn)
            if self._beats:
                await self._write_batch(conn)
            await self._hint(conn)
        await self._hint(conn)

    async def _connected(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        if self._conn is None or self._conn.closed:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._conn = await db.async_connect(application_name="hyprbox-heartbeats")
                await self._conn.execute(SESSION, prepare=False)
            self._statement = Prepared(self._conn, "heartbeats", WRITE)
        return self._conn

    async def _answer_lookups(self, conn: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        asked, self._lookups = self._lookups, []
        try:
            with db.cut_after(conn, STATEMENT_SECONDS):
                found = await self.tokens.resolve(conn, [presented for presented, _ in asked])
        except BaseException:
            _fail([answer for _, answer in asked], Unavailable())
            raise
        for (_, answer), token in zip(asked, found, strict=True):
            if not answer.done():
                answer.set_result(token)

    async def _write_batch(self, conn: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        batch = [self._beats.popleft() for _ in range(min(MAX_BATCH, len(self._beats)))]
        try:
            await self._write_or_split(conn, batch)
        finally:  # whatever happened, nobody is left waiting
            _refuse(batch, Unavailable())

    async def _write_or_split(self, conn: psycopg.AsyncConnection[tuple[Any, ...]], batch: list[Beat]) -> None:
        try:
            await self._write(conn, batch)
        except psycopg.Error as error:
            if conn.closed:
                raise
            log.warning("heartbeats.batch_failed", size=len(batch), error=str(error))
            if _lacks_partition(error):
                await in_thread(history.make_partitions)
            await self._write_one_by_one(conn, batch)

    async def _write_one_by_one(self, conn: psycopg.AsyncConnection[tuple[Any, ...]], batch: list[Beat]) -> None:
        deadline = time.monotonic() + STATEMENT_SECONDS
        for beat in batch:
            if time.monotonic() > deadline:
                return
            try:
                await self._write(conn, [beat])
            except psycopg.Error as error:
                if conn.closed:
                    raise
                log.warning("heartbeats.row_failed", node=beat.node_key, error=str(error))
                _refuse([beat], _blame(error))

    async def _write(self, conn: psycopg.AsyncConnection[tuple[Any, ...]], batch: list[Beat]) -> None:
        rows = encode([beat.row() for beat in batch])
        ids = "{" + ",".join([beat.node_key for beat in batch]) + "}"
        assert self._statement is not None  # made with the connection
        with db.cut_after(conn, STATEMENT_SECONDS):
            at, gone, noted = await self._statement.run((rows, ids.encode()))
        written = Written((at or b"").decode(), len(self._beats) > MAX_QUEUED // 2)
        removed = set(gone.decode().split(",")) if gone else ()
        for beat in batch:
            if beat.is_answered():
                continue
            if beat.node_key in removed:
                beat.refuse(BadToken())
            else:
                beat.accept(written)
        self._changed.update([beat.node_key for beat in batch])
        self._errands.note([beat.token for beat in batch])
        if noted:
            self._errands.look_at(to_look_at(noted.decode(), batch))

    async def _hint(self, conn: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        """Tell the viewers which nodes changed, at most four times a second."""
        if not self._changed:
            return
        wait = self._hinted_at + HINT_SECONDS - time.monotonic()
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self._wake.set)
            return
        changed, self._changed = self._changed, set()
        self._hinted_at = time.monotonic()
        few = list(changed) if len(changed) <= services.HINT_NODES else None
        with db.cut_after(conn, STATEMENT_SECONDS):
            await conn.execute("SELECT pg_notify(%s, %s)", (live.CHANNEL, live.payload("nodes", node=few)))

    async def _give_up(self) -> None:
        """The database is away: everybody who waits hears so, and for a moment nobody is let in to wait."""
        self._away_until = time.monotonic() + RETRY_SECONDS
        await self._abandon()

    async def _abandon(self) -> None:
        beats, self._beats = list(self._beats), deque()
        lookups, self._lookups = self._lookups, []
        _refuse(beats, Unavailable())
        _fail([answer for _, answer in lookups], Unavailable())
        await self._disconnect()

    async def _disconnect(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await conn.close()


def _refuse(beats: list[Beat], error: HyprBoxError) -> None:
    """Those that have no answer yet."""
    for beat in beats:
        if not beat.is_answered():
            beat.refuse(error)


def _fail(answers: list[asyncio.Future[Any]], error: HyprBoxError) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(error)


def _lacks_partition(error: psycopg.Error) -> bool:
    return isinstance(error, psycopg.errors.CheckViolation) and error.diag.table_name == history.HEARTBEATS.table


def _blame(error: psycopg.Error) -> HyprBoxError:
    """The sender's fault when its values do not fit, else a moment's."""
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
        return InvalidInput("The database cannot store these values.")
    return Unavailable()


writer = Writer()
