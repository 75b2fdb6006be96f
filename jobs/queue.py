"""Handing out work: claims for many polls in one statement, and the board that lets idle polls sleep.

A claim is a lease of 30 s on a QUEUED job; the script may start only after `start`. All claims of a
process go through one dispatcher, which takes what queued up while the last batch was in flight. An
advisory lock serialises the dispatchers of all processes, so that a node never gets more than its share.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog

from hyprbox.lib import db, live
from hyprbox.lib.asking import Asking
from hyprbox.lib.crash import crash_point, is_test
from hyprbox.lib.errors import Overloaded, Unavailable
from hyprbox.lib.prepared import Pipeline, Row
from jobs.states import CLAIM_LEASE_SECONDS, CLAIMS_LOCK

MAX_BATCH = 256
MAX_QUEUED = 4096
RECHECK_SECONDS = 2.0
ANSWER_SECONDS = 1.5  # what the database has for one batch before it counts as away
RETRY_SECONDS = 0.3

# A request that holds a claim gets it again; the others get their node's next job. Each lookup goes by node through
# a partial index, so that neither a node's history nor other nodes' queues cost anything.
_LOCK = f"SELECT pg_advisory_xact_lock({CLAIMS_LOCK})"
CLAIM = f"""
WITH wanted AS (
  SELECT * FROM unnest($1::uuid[], $2::uuid[]) AS w(node, request)
), again AS (
  SELECT w.node, w.request, held.* FROM wanted w CROSS JOIN LATERAL (
    SELECT j.id, j.claim_id, j.payload, j.signature, j.key_id FROM jobs_job j
    WHERE j.node_id = w.node AND j.request_id = w.request AND j.status = 'QUEUED' AND j.claim_id IS NOT NULL
    UNION ALL
    SELECT j.id, j.claim_id, j.payload, j.signature, j.key_id FROM jobs_job j
    WHERE j.node_id = w.node AND j.request_id = w.request AND j.status = 'RUNNING'
  ) AS held
), pick AS (
  SELECT w.request, q.id FROM wanted w
  JOIN nodes_node n ON n.id = w.node AND n.removed_at IS NULL AND n.clone_suspected_at IS NULL
  CROSS JOIN LATERAL (
    SELECT c.id FROM jobs_job c
    WHERE c.node_id = w.node AND c.status = 'QUEUED' AND NOT c.held AND c.expires_at > now()
      AND (c.claim_id IS NULL OR c.lease_expires_at < now())
    ORDER BY c.created_at, c.id LIMIT 1 FOR UPDATE SKIP LOCKED
  ) q
  WHERE NOT EXISTS (SELECT FROM jobs_stop)
    AND NOT EXISTS (SELECT FROM again WHERE again.node = w.node AND again.request = w.request)
    AND n.concurrency > (SELECT count(*) FROM jobs_job r WHERE r.node_id = w.node AND r.status = 'RUNNING')
                      + (SELECT count(*) FROM jobs_job h WHERE h.node_id = w.node AND h.status = 'QUEUED'
                          AND h.claim_id IS NOT NULL AND h.lease_expires_at >= now())
), claimed AS (
  UPDATE jobs_job AS j SET claim_id = gen_random_uuid(), request_id = pick.request, claimed_at = now(),
    lease_expires_at = now() + interval '{CLAIM_LEASE_SECONDS} seconds'
  FROM pick WHERE j.id = pick.id
  RETURNING j.node_id, j.request_id, j.id, j.claim_id, j.payload, j.signature, j.key_id
)
SELECT * FROM again UNION ALL SELECT * FROM claimed
"""
_WITH_WORK = """
SELECT DISTINCT node_id FROM jobs_job
WHERE (status = 'QUEUED' AND NOT held AND expires_at > now() AND (claim_id IS NULL OR lease_expires_at < now())
       AND NOT EXISTS (SELECT FROM jobs_stop))
   OR (status = 'RUNNING' AND cancel_requested_at IS NOT NULL)
"""
_CANCELS = """
SELECT node_id, id FROM jobs_job WHERE node_id = ANY(%s) AND status = 'RUNNING' AND cancel_requested_at IS NOT NULL
"""
_HOLDING = """
SELECT node_id, id, claim_id, status, cancel_requested_at IS NOT NULL FROM jobs_job
WHERE node_id = ANY(%s) AND (status = 'RUNNING' OR (status = 'QUEUED' AND claim_id IS NOT NULL))
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    job_id: uuid.UUID
    claim_id: uuid.UUID
    payload: bytes
    signature: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Held:
    job_id: uuid.UUID
    claim_id: uuid.UUID
    status: str
    cancel_requested: bool


@dataclass(slots=True)
class _Wanted:
    node_pk: uuid.UUID
    request_id: uuid.UUID
    is_wanted: Callable[[], bool]
    answer: asyncio.Future[Claim | None]


# One plan for ever, made of index look-ups: planning would cost more than the work, and a plan from the days when the
# table was small would read all of it.
SESSION = (
    "SELECT set_config(name, value, false) FROM (VALUES ('plan_cache_mode', 'force_generic_plan'), "
    "('enable_seqscan', 'off'), ('jit', 'off')) AS setting (name, value)"
)


class Connection:
    """One autocommit connection, used by one task at a time; a broken one is replaced on the next use.

    One that does not answer in time is cut off, and for a moment nobody else tries: those in line hear at once.
    With `statements` (by name, parameters as $1, $2, ...) it is for those alone, through `pipeline()`.
    """

    def __init__(self, name: str, statements: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._statements = statements
        self._away_until = 0.0
        self._conn: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._pipeline: Pipeline | None = None
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[psycopg.AsyncConnection[tuple[Any, ...]]]:
        """Yields the connection. Raises `Unavailable` when the database is away."""
        async with self._lock:
            if time.monotonic() < self._away_until:
                raise Unavailable()
            try:
                if self._conn is None or self._conn.closed:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        self._conn = await db.async_connect(application_name=self.name)
                    with db.cut_after(self._conn, ANSWER_SECONDS):
                        await self._conn.execute(SESSION, prepare=False)
                    self._pipeline = Pipeline(self._conn, self._statements) if self._statements else None
                with db.cut_after(self._conn, ANSWER_SECONDS):
                    yield self._conn
            except (psycopg.Error, OSError, TimeoutError) as error:
                log.warning("lane.database_error", lane=self.name, error=str(error) or "no answer in time")
                if self._conn is None or self._conn.closed:
                    self._away_until = time.monotonic() + RETRY_SECONDS
                await self.close()
                raise Unavailable() from error
            except asyncio.CancelledError:  # its answer is still on the way, and would be taken for the next one's
                await self.close()
                raise

    @contextlib.asynccontextmanager
    async def pipeline(self) -> AsyncIterator[Pipeline]:
        """Yields the connection's statements. Raises `Unavailable` when the database is away."""
        async with self.use():
            assert self._pipeline is not None  # made with the connection
            yield self._pipeline

    async def close(self) -> None:
        conn, self._conn, self._pipeline = self._conn, None, None
        if conn is not None:
            await conn.close()


class Dispatcher:
    """Claims for this process' polls, many in one statement."""

    def __init__(self) -> None:
        self._queue: list[_Wanted] = []
        self._connection = Connection("hyprbox-claims", {"lock": _LOCK, "claim": CLAIM})
        self._task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Close the connection; the next claim opens another."""
        await self._connection.close()

    async def claim(
        self, *, node_pk: uuid.UUID, request_id: uuid.UUID, is_wanted: Callable[[], bool] = lambda: True
    ) -> Claim | None:
        """A job for the node, or None. The same `request_id` gets the same claim again.

        `is_wanted` is asked last of all: nothing is claimed for a client that has gone.
        """
        if len(self._queue) >= MAX_QUEUED:
            raise Overloaded(retry_after=2)
        wanted = _Wanted(node_pk, request_id, is_wanted, asyncio.get_running_loop().create_future())
        self._queue.append(wanted)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="claims")
        return await wanted.answer

    async def _run(self) -> None:
        while self._queue:
            batch: list[_Wanted] = []
            rest: list[_Wanted] = []
            nodes: set[uuid.UUID] = set()
            for wanted in self._queue:
                if wanted.answer.done():
                    continue
                # One claim for a node in a batch: its share is counted before the statement, not within it.
                if wanted.node_pk in nodes or len(batch) >= MAX_BATCH:
                    rest.append(wanted)
                elif wanted.is_wanted():
                    nodes.add(wanted.node_pk)
                    batch.append(wanted)
                else:
                    wanted.answer.set_result(None)
            self._queue = rest
            if batch:
                await self._serve(batch)

    async def _serve(self, batch: list[_Wanted]) -> None:
        try:
            async with self._connection.pipeline() as statements:
                claims = await _claim_batch(statements, batch)
        except Unavailable as error:
            _refuse(batch, error)
            return
        except Exception:  # a defect here must not leave every poll waiting for an answer
            log.exception("claims.failed")
            _refuse(batch, Unavailable())
            return
        if claims:
            crash_point("CP04")
        for wanted in batch:
            if not wanted.answer.done():
                wanted.answer.set_result(claims.get((wanted.node_pk.bytes, wanted.request_id.bytes)))


async def _claim_batch(statements: Pipeline, batch: list[_Wanted]) -> dict[tuple[bytes, bytes], Claim]:
    """The claims by node and request, both as bytes."""
    columns = uuid_array([w.node_pk for w in batch]), uuid_array([w.request_id for w in batch])
    # Two statements, because the second one must see what other dispatchers committed before the lock was ours.
    _, rows = await statements.run([("lock", ()), ("claim", columns)], _crash_if_claimed if is_test() else None)
    return {(row[0], row[1]): _claim(row) for row in rows}  # type: ignore[misc]


def _crash_if_claimed(rows: list[list[Row]]) -> None:
    if rows[-1]:
        crash_point("CP03")


def uuid_array(ids: Iterable[uuid.UUID]) -> bytes:
    """As a parameter of a prepared statement."""
    return ("{" + ",".join(map(str, ids)) + "}").encode()


def _refuse(batch: list[_Wanted], error: Unavailable) -> None:
    for wanted in batch:
        if not wanted.answer.done():
            wanted.answer.set_exception(Unavailable(error.message))


def _claim(row: list[Any]) -> Claim:
    return Claim(uuid.UUID(bytes=row[2]), uuid.UUID(bytes=row[3]), row[4], row[5].decode(), row[6].decode())


class Board:
    """Which nodes have something waiting, in memory: NOTIFY sets it, a slow re-check mends what was missed."""

    def __init__(self) -> None:
        self.connection = Connection("hyprbox-board")
        self._cancels, self._holding = self._by_node(_CANCELS), self._by_node(_HOLDING)
        self._with_work: set[str] = set()
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self.checked_at = 0.0
        # What else every process looks after, at every other re-check.
        self.chore: Callable[[psycopg.AsyncConnection[tuple[Any, ...]]], Awaitable[None]] | None = None
        live.hub.on("work", self._hear)

    async def ensure(self) -> None:
        await live.listener.ensure()
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._recheck_for_ever(), name="work-board")
            await self.recheck()

    async def stop(self) -> None:
        """End the re-check and close the connection."""
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.connection.close()

    def has_work(self, node_pk: uuid.UUID | str) -> bool:
        """A hint, not a promise."""
        return str(node_pk) in self._with_work

    @contextlib.contextmanager
    def waiting(self, node_pk: uuid.UUID) -> Any:
        """An event that is set when the node may have work."""
        event = asyncio.Event()
        waiters = self._waiters.setdefault(str(node_pk), set())
        waiters.add(event)
        try:
            yield event
        finally:
            waiters.discard(event)
            if not waiters:
                self._waiters.pop(str(node_pk), None)

    def settle(self, node_pk: uuid.UUID) -> None:
        """A poll is about to look."""
        self._with_work.discard(str(node_pk))

    def mark(self, node_pk: uuid.UUID) -> None:
        self._with_work.add(str(node_pk))

    def _hear(self, event: live.Event) -> None:
        if event.topic == live.RESYNC:
            for node in list(self._waiters):
                self._wake(node)
        elif isinstance(named := event.ids.get("node"), str):
            self._with_work.add(named)
            self._wake(named)

    def wake(self, node_pk: uuid.UUID) -> None:
        """Let the node's polls look, without saying that there is work."""
        self._wake(str(node_pk))

    def _wake(self, node: str) -> None:
        for event in self._waiters.get(node, ()):
            event.set()

    async def recheck(self) -> None:
        """Ask the database which nodes have work: one statement for the whole fleet."""
        try:
            async with self.connection.use() as conn:
                rows = await (await conn.execute(_WITH_WORK)).fetchall()
        except Unavailable:
            return
        self._with_work = {str(row[0]) for row in rows}
        self.checked_at = time.monotonic()
        for node in self._with_work:
            self._wake(node)

    async def _recheck_for_ever(self) -> None:
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            await self.recheck()
            await asyncio.sleep(RECHECK_SECONDS)
            await self.recheck()
            if self.chore is not None:
                with contextlib.suppress(Unavailable):
                    async with self.connection.use() as conn:
                        await self.chore(conn)

    async def cancels(self, node_pk: uuid.UUID) -> list[str]:
        return [str(job_id) for (job_id,) in await self._cancels.one(node_pk)]

    async def holding(self, node_pk: uuid.UUID) -> list[Held]:
        return [Held(*row) for row in await self._holding.one(node_pk)]

    def _by_node(self, statement: str) -> Asking[uuid.UUID, list[tuple[Any, ...]]]:
        """`statement` takes nodes; its rows begin with one."""

        async def ask(nodes: list[uuid.UUID]) -> dict[uuid.UUID, list[tuple[Any, ...]]]:
            async with self.connection.use() as conn:
                rows = await (await conn.execute(statement, (nodes,))).fetchall()
            found: dict[uuid.UUID, list[tuple[Any, ...]]] = {node: [] for node in nodes}
            for node, *row in rows:
                found[node].append(tuple(row))
            return found

        return Asking(ask)


board = Board()
dispatcher = Dispatcher()
