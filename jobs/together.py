"""What many agents ask for and report at once, in one transaction: jobs claimed, started, completed.

A process has one lane. It takes what queued up while its last batch was in flight, so the busier it is the more share one
round trip and one COMMIT. A completion takes the poll along that waits for its node to have room. An advisory lock serialises the claims of all processes, so that a node never gets more than its
share; it is taken last of all and held for that one statement.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.crash import crash_point, is_test
from hyprbox.lib.errors import Overloaded, Unavailable
from hyprbox.lib.prepared import Row
from jobs import batches, claims, hints, reports, usual
from jobs.claims import Claim, Wanted
from jobs.connections import Connection, uuid_array
from jobs.models import Job
from jobs.queue import board
from jobs.reports import Result
from jobs.usual import Report

MAX_BATCH = 256
MAX_QUEUED = 4096
WAIT_SECONDS = 5.0
TURNS = 4  # of the event loop, until a poll that was woken has asked for its claim
_STATEMENTS = {
    "start": usual.START,
    "complete": usual.COMPLETE,
    "lock": claims.LOCK,
    "claim": claims.CLAIM,
}

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Waiting:
    """A poll that waits for a claim, or a report that waits for whether it was a usual one."""

    asked: Wanted | Report
    answer: asyncio.Future[Any]

    @property
    def key(self) -> uuid.UUID:
        """One of each in a batch: a node's share is counted before the statement, and a job's second report repeats or
        contradicts the first."""
        return self.asked.node_pk if isinstance(self.asked, Wanted) else self.asked.job_id


class Together:
    """The lane of this process."""

    def __init__(self) -> None:
        self._queue: list[_Waiting] = []
        self._connection = Connection("hyprbox-jobs", _STATEMENTS)
        self._teller = hints.Teller()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._is_awaited = False  # a poll that waited is on its way to the queue

    def attach(self) -> None:
        """From now on, threads of this process report through the running loop."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()

    async def stop(self) -> None:
        """Reports go one at a time again; the next claim opens another connection."""
        self._loop = None
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task], timeout=WAIT_SECONDS)
        await self._teller.stop()
        await self._connection.close()

    async def claim(
        self, *, node_pk: uuid.UUID, request_id: uuid.UUID, is_wanted: Callable[[], bool] = lambda: True
    ) -> Claim | None:
        """A job for the node, or None. The same `request_id` gets the same claim again.

        `is_wanted` is asked last of all: nothing is claimed for a client that has gone. Raises `Overloaded`, `Unavailable`.
        """
        if len(self._queue) >= MAX_QUEUED:
            raise Overloaded(retry_after=2)
        claim: Claim | None = await self._ask(Wanted(node_pk, request_id, is_wanted))
        return claim

    async def start(self, *, node_pk: uuid.UUID, job_id: uuid.UUID, claim_id: uuid.UUID) -> bool:
        """Whether it was a fresh claim and is RUNNING now."""
        return await self._report(Report(job_id, node_pk, claim_id, None, ""))

    async def complete(self, *, node_pk: uuid.UUID, job_id: uuid.UUID, claim_id: uuid.UUID, result: Result) -> bool:
        """Whether it ran, its output is all here, and it has ended now. The node's poll, if it waits here, goes along."""
        if not usual.is_plain(result):
            return False
        is_awaited = board.stir(node_pk)
        self._is_awaited |= is_awaited
        return await self._report(Report(job_id, node_pk, claim_id, result, result.sha256(), not is_awaited))

    def from_thread(self, report: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """Wait for a report in a thread; False where there is no loop to go through."""
        loop = self._loop
        if loop is None or not loop.is_running() or threading.get_ident() == self._thread:
            return False
        asked = asyncio.run_coroutine_threadsafe(report(), loop)
        try:
            return asked.result(WAIT_SECONDS)
        except TimeoutError:  # whatever came of it: asking again tells
            asked.cancel()
            return False

    async def _report(self, report: Report) -> bool:
        if len(self._queue) >= MAX_QUEUED:
            return False
        moved: bool = await self._ask(report)
        return moved

    def _ask(self, asked: Wanted | Report) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(asked, loop.create_future())
        self._queue.append(waiting)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run(), name="jobs-together")
        return waiting.answer

    async def _run(self) -> None:
        while self._queue:
            if self._is_awaited:
                self._is_awaited = False
                for _ in range(TURNS):
                    await asyncio.sleep(0)
            if batch := self._take():
                await self._serve(batch)

    def _take(self) -> list[_Waiting]:
        batch: dict[uuid.UUID, _Waiting] = {}
        rest: list[_Waiting] = []
        for waiting in self._queue:
            if waiting.answer.done():
                continue
            if waiting.key in batch or len(batch) >= MAX_BATCH:
                rest.append(waiting)
            elif isinstance(waiting.asked, Wanted) and not waiting.asked.is_wanted():
                waiting.answer.set_result(None)
            else:
                batch[waiting.key] = waiting
        self._queue = rest
        return list(batch.values())

    async def _serve(self, batch: list[_Waiting]) -> None:
        polls = [waiting.asked for waiting in batch if isinstance(waiting.asked, Wanted)]
        told = [waiting.asked for waiting in batch if isinstance(waiting.asked, Report)]
        try:
            moved, claimed = await write(self._connection, told, polls)
        except Unavailable as error:
            _refuse(batch, error.message)
            return
        except Exception:  # a defect here must not leave every poll waiting for an answer
            log.exception("together.failed")
            _refuse(batch, Unavailable().message)
            return
        if claimed:
            crash_point("CP04")
        for waiting in batch:
            if waiting.answer.done():
                continue
            if isinstance(waiting.asked, Wanted):
                waiting.answer.set_result(claimed.get(waiting.asked.key))
            else:
                waiting.answer.set_result(waiting.asked.job_id.bytes in moved)
        self._teller.tell(report for report in told if report.job_id.bytes in moved)


async def write(
    connection: Connection, told: list[Report], polls: list[Wanted]
) -> tuple[set[bytes], dict[bytes, Claim]]:
    """The ids of the jobs that moved, and the claims by node and request, all as bytes. What is written commits together.

    Reports come first: a job that ends makes room for the next one. The lock is a statement of its own, because the claim
    must see what other processes committed before the lock was ours.
    """
    calls = usual.calls(told)
    reports_end = len(calls)
    if polls:
        nodes, requests = uuid_array(poll.node_pk for poll in polls), uuid_array(poll.request_id for poll in polls)
        calls += [("lock", ()), ("claim", (nodes, requests))]
    rows = await connection.run(calls, _crash_if_claimed if polls and is_test() else None)
    moved = {row[0] or b"" for found in rows[:reports_end] for row in found}
    return moved, dict(map(claims.of_row, rows[-1])) if polls else {}


def _crash_if_claimed(rows: list[list[Row]]) -> None:
    if rows[-1]:
        crash_point("CP03")


def _refuse(batch: list[_Waiting], message: str) -> None:
    """Polls hear it; reports are tried one at a time, where they may succeed or hear why not."""
    for waiting in batch:
        if waiting.answer.done():
            continue
        if isinstance(waiting.asked, Wanted):
            waiting.answer.set_exception(Unavailable(message))
        else:
            waiting.answer.set_result(False)


together = Together()


def start(*, by: Actor, job_id: uuid.UUID, claim_id: uuid.UUID) -> None:
    """The agent is about to run it. Raises what `reports.start` raises."""
    require(by, Capability.REPORT)
    node_pk = uuid.UUID(by.id)
    if not together.from_thread(lambda: together.start(node_pk=node_pk, job_id=job_id, claim_id=claim_id)):
        reports.start(by=by, job_id=job_id, claim_id=claim_id)


def complete(*, by: Actor, job_id: uuid.UUID, claim_id: uuid.UUID, result: Result) -> Job:
    """The job has ended. Raises what `reports.complete` raises."""
    require(by, Capability.REPORT)
    node_pk = uuid.UUID(by.id)
    if together.from_thread(
        lambda: together.complete(node_pk=node_pk, job_id=job_id, claim_id=claim_id, result=result)
    ):
        crash_point("CP15")
        job = Job.objects.light().select_related("node", "transcript").get(pk=job_id)
        batches.advance(job.batch_id)
        return job
    return reports.complete(by=by, job_id=job_id, claim_id=claim_id, result=result)
