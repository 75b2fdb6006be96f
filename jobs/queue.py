"""The board: which nodes have something waiting, so that idle polls sleep and cost the database nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from hyprbox.lib import live
from hyprbox.lib.asking import Asking
from hyprbox.lib.errors import Unavailable
from jobs.connections import Connection

RECHECK_SECONDS = 2.0

_WITH_WORK = """
SELECT DISTINCT o.node_id FROM jobs_openjob o JOIN jobs_job j ON j.id = o.job_id
WHERE finished_at IS NULL AND (
  (status = 'QUEUED' AND NOT held AND expires_at > now() AND (claim_id IS NULL OR lease_expires_at < now())
   AND NOT EXISTS (SELECT FROM jobs_stop))
  OR (status = 'RUNNING' AND cancel_requested_at IS NOT NULL))
"""
_CANCELS = """
SELECT o.node_id, id FROM jobs_openjob o JOIN jobs_job j ON j.id = o.job_id
WHERE o.node_id = ANY(%s) AND finished_at IS NULL AND status = 'RUNNING' AND cancel_requested_at IS NOT NULL
"""
_HOLDING = """
SELECT o.node_id, id, claim_id, status, cancel_requested_at IS NOT NULL
FROM jobs_openjob o JOIN jobs_job j ON j.id = o.job_id
WHERE o.node_id = ANY(%s) AND finished_at IS NULL AND (status = 'RUNNING' OR claim_id IS NOT NULL)
"""


@dataclass(frozen=True, slots=True)
class Held:
    job_id: uuid.UUID
    claim_id: uuid.UUID
    status: str
    cancel_requested: bool


class Board:
    """Which nodes have something waiting, in memory: NOTIFY sets it, a slow re-check mends what was missed."""

    def __init__(self) -> None:
        self.connection = Connection("hyprbox-board")
        self._cancels, self._holding = self._by_node(_CANCELS), self._by_node(_HOLDING)
        self._with_work: set[int] = (
            set()
        )  # nodes, by the number of their id: a UUID is slow to hash, and slower as text
        self._waiters: dict[int, set[asyncio.Event]] = {}
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

    def has_work(self, node_pk: uuid.UUID) -> bool:
        """A hint, not a promise."""
        return node_pk.int in self._with_work

    @contextlib.contextmanager
    def waiting(self, node_pk: uuid.UUID) -> Any:
        """An event that is set when the node may have work."""
        event = asyncio.Event()
        waiters = self._waiters.setdefault(node_pk.int, set())
        waiters.add(event)
        try:
            yield event
        finally:
            waiters.discard(event)
            if not waiters:
                self._waiters.pop(node_pk.int, None)

    def settle(self, node_pk: uuid.UUID) -> None:
        """A poll is about to look."""
        self._with_work.discard(node_pk.int)

    def mark(self, node_pk: uuid.UUID) -> None:
        self._with_work.add(node_pk.int)

    def _hear(self, event: live.Event) -> None:
        if event.topic == live.RESYNC:
            for node in list(self._waiters):
                self._wake(node)
            return
        with contextlib.suppress(ValueError, KeyError, AttributeError, TypeError):  # what is no node's id wakes nobody
            node = uuid.UUID(event.ids["node"]).int
            self._with_work.add(node)
            self._wake(node)

    def wake(self, node_pk: uuid.UUID) -> None:
        """Let the node's polls look, without saying that there is work."""
        self._wake(node_pk.int)

    def stir(self, node_pk: uuid.UUID) -> bool:
        """There is about to be room on the node: its poll may look at once. Whether one waits in this process."""
        node = node_pk.int
        if node not in self._waiters:
            return False
        self._with_work.add(node)
        self._wake(node)
        return True

    def _wake(self, node: int) -> None:
        for event in self._waiters.get(node, ()):
            event.set()

    async def recheck(self) -> None:
        """Ask the database which nodes have work: one statement for the whole fleet."""
        try:
            async with self.connection.use() as conn:
                rows = await (await conn.execute(_WITH_WORK)).fetchall()
        except Unavailable:
            return
        self._with_work = {row[0].int for row in rows}
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
