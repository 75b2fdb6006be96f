"""What many agents report at once, in one statement and one COMMIT: jobs started, jobs completed.

These are the usual reports, each guarded by everything that makes it usual: a claim that starts within its lease, a running job
whose whole output is stored. A report that is not among the rows that come back is none of these, or its row was
locked: then `jobs.reports` finds out what it is, one at a time. Locks are never waited for, so a batch cannot take
part in a deadlock, and one job's trouble does not hold up the others.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from hyprbox.lib import live
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.crash import crash_point
from hyprbox.lib.errors import Unavailable
from hyprbox.lib.prepared import Call, Pipeline
from jobs import batches, reports
from jobs.models import Job
from jobs.queue import Connection, uuid_array
from jobs.reports import Result
from jobs.states import LOST_AFTER_SECONDS, OUTPUT_CAP, RUNNING_LEASE_SECONDS, SERVER_REASONS

CONNECTIONS = 3
MIN_BATCH = 4
MAX_BATCH = 256
MAX_QUEUED = 4096
WAIT_SECONDS = 5.0

# One NOTIFY tells of many jobs that moved: what a hint for each would cost at both ends is most of what a move costs.
MOVED = "moved"
_PER_HINT = 90  # two ids of 36 characters each; NOTIFY takes 8,000 bytes
_TELL = f"""
SELECT id, NULL FROM moved
UNION ALL
SELECT NULL, pg_notify('{live.CHANNEL}', json_build_object(
  'topic', '{MOVED}', 'ended', bool_or(ended), 'jobs', string_agg(id || ' ' || node_id, ','))::text)
FROM (SELECT *, row_number() OVER () / {_PER_HINT} AS part FROM moved) AS told GROUP BY part
"""
_START = f"""
WITH usual AS (  -- IS TRUE: found by its id, not among all that have this status
  SELECT mine.id FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS asked(job, node, claim) CROSS JOIN LATERAL (
    SELECT j.id FROM jobs_job j
    WHERE j.id = asked.job AND j.node_id = asked.node AND j.claim_id = asked.claim
      AND (j.status = 'QUEUED') IS TRUE AND j.expires_at > statement_timestamp()
      AND j.lease_expires_at > statement_timestamp()
    FOR UPDATE SKIP LOCKED
  ) AS mine
), moved AS (
  UPDATE jobs_job AS j SET status = 'RUNNING', started_at = statement_timestamp(),
    lease_expires_at = statement_timestamp() + interval '{RUNNING_LEASE_SECONDS} seconds',
    deadline_at = statement_timestamp() + make_interval(secs => j.timeout_seconds + {LOST_AFTER_SECONDS})
  FROM usual WHERE j.id = usual.id AND j.id = ANY($1::uuid[]) RETURNING j.id, j.node_id, false AS ended
)
{_TELL}"""
_COMPLETE = f"""
WITH usual AS (
  SELECT asked.* FROM jsonb_to_recordset($1::jsonb) AS asked(
    job uuid, node uuid, claim uuid, status text, reason text, exit_code int, signal int, phases jsonb, changed bool,
    outcome_unknown bool, digest text, stdout_bytes bigint, stderr_bytes bigint, stdout_sha256 text, stderr_sha256 text
  ) CROSS JOIN LATERAL (
    SELECT j.id FROM jobs_job j
    WHERE j.id = asked.job AND j.node_id = asked.node AND j.claim_id = asked.claim
      AND (j.status = 'RUNNING') IS TRUE AND j.completion_sha256 = ''
      AND (asked.status <> 'CANCELLED' OR j.cancel_requested_at IS NOT NULL)
    FOR UPDATE SKIP LOCKED
  ) AS mine CROSS JOIN LATERAL (
    SELECT t.job_id FROM jobs_transcript t
    WHERE t.job_id = mine.id AND t.stdout_bytes = asked.stdout_bytes AND t.stderr_bytes = asked.stderr_bytes
      AND t.stdout_first_offset <= GREATEST(0, asked.stdout_bytes - {OUTPUT_CAP})
      AND t.stderr_first_offset <= GREATEST(0, asked.stderr_bytes - {OUTPUT_CAP})
    FOR UPDATE SKIP LOCKED
  ) AS whole
), hashed AS (
  UPDATE jobs_transcript AS t SET stdout_sha256 = usual.stdout_sha256, stderr_sha256 = usual.stderr_sha256
  FROM usual WHERE t.job_id = usual.job AND t.job_id = ANY($2::uuid[])
), moved AS (
  UPDATE jobs_job AS j SET status = usual.status, reason = usual.reason, exit_code = usual.exit_code,
    signal = usual.signal, phases = usual.phases, changed = usual.changed, outcome_unknown = usual.outcome_unknown,
    completion_sha256 = usual.digest, contact_lost_at = NULL, phase = '', finished_at = statement_timestamp()
  FROM usual WHERE j.id = usual.job AND j.id = ANY($2::uuid[]) RETURNING j.id, j.node_id, true AS ended
)
{_TELL}"""
_STATEMENTS = {"start": _START, "complete": _COMPLETE}
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Report:
    job_id: uuid.UUID
    node_pk: uuid.UUID
    claim_id: uuid.UUID
    result: Result | None  # None: started
    digest: str
    answer: asyncio.Future[bool]

    def row(self) -> dict[str, Any]:
        assert self.result is not None
        return {
            "job": self.job_id, "node": self.node_pk, "claim": self.claim_id, "status": self.result.status.upper(),
            "reason": self.result.reason, "exit_code": self.result.exit_code, "signal": self.result.signal,
            "phases": self.result.phases, "changed": self.result.changed,
            "outcome_unknown": self.result.outcome_unknown, "digest": self.digest,
            "stdout_bytes": self.result.stdout_bytes, "stderr_bytes": self.result.stderr_bytes,
            "stdout_sha256": self.result.stdout_sha256, "stderr_sha256": self.result.stderr_sha256,
        }  # fmt: skip


class Together:
    """Writes what queued up while the last batches were in flight."""

    def __init__(self) -> None:
        self._queue: list[_Report] = []
        self._connections = [Connection("hyprbox-reports", _STATEMENTS) for _ in range(CONNECTIONS)]
        self._idle = list(self._connections)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0

    def attach(self) -> None:
        """From now on, threads of this process report through the running loop."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()

    async def stop(self) -> None:
        """Reports go one at a time again."""
        self._loop = None
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=WAIT_SECONDS)
        for connection in self._connections:
            await connection.close()

    async def start(self, *, node_pk: uuid.UUID, job_id: uuid.UUID, claim_id: uuid.UUID) -> bool:
        """Whether it was a fresh claim and is RUNNING now."""
        return await self._write(job_id, node_pk, claim_id, None)

    async def complete(self, *, node_pk: uuid.UUID, job_id: uuid.UUID, claim_id: uuid.UUID, result: Result) -> bool:
        """Whether it ran, its output is all here, and it has ended now."""
        return _is_plain(result) and await self._write(job_id, node_pk, claim_id, result)

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

    async def _write(self, job_id: uuid.UUID, node_pk: uuid.UUID, claim_id: uuid.UUID, result: Result | None) -> bool:
        if len(self._queue) >= MAX_QUEUED:
            return False
        loop = asyncio.get_running_loop()
        digest = "" if result is None else result.sha256()
        report = _Report(job_id, node_pk, claim_id, result, digest, loop.create_future())
        if not self._queue:
            loop.call_soon(self._send)  # with what else is reported in this turn of the loop
        self._queue.append(report)
        return await report.answer

    def _send(self) -> None:
        """Share out what is queued among the connections that are idle."""
        while self._queue and self._idle:
            batch = self._take(max(MIN_BATCH, -(-len(self._queue) // len(self._idle))))
            if not batch:
                return
            task = asyncio.get_running_loop().create_task(self._serve(self._idle.pop(), batch), name="reports")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _take(self, most: int) -> dict[uuid.UUID, _Report]:
        batch: dict[uuid.UUID, _Report] = {}
        rest: list[_Report] = []
        for report in self._queue:
            # One report of a job in a batch: the second one is a repeat, or contradicts the first.
            if report.job_id in batch or len(batch) >= min(most, MAX_BATCH):
                rest.append(report)
            elif not report.answer.done():
                batch[report.job_id] = report
        self._queue = rest
        return batch

    async def _serve(self, connection: Connection, batch: dict[uuid.UUID, _Report]) -> None:
        moved: set[bytes | None] = set()
        try:
            async with connection.pipeline() as statements:
                moved = await _write_batch(statements, list(batch.values()))
        except Unavailable:
            pass  # one at a time they may succeed, and hear why not
        finally:
            for report in batch.values():
                if not report.answer.done():
                    report.answer.set_result(report.job_id.bytes in moved)
            self._idle.append(connection)
            self._send()


async def _write_batch(statements: Pipeline, batch: list[_Report]) -> set[bytes | None]:
    """The ids of the jobs that moved, as bytes. Both statements are sent at once, and commit together."""
    started = [report for report in batch if report.result is None]
    ended = [report for report in batch if report.result is not None]
    calls: list[Call] = []
    if started:
        nodes, claims = [report.node_pk for report in started], [report.claim_id for report in started]
        jobs = [report.job_id for report in started]
        calls.append(("start", (uuid_array(jobs), uuid_array(nodes), uuid_array(claims))))
    if ended:
        rows = _encode([report.row() for report in ended])
        calls.append(("complete", (rows, uuid_array(report.job_id for report in ended))))
    return {row[0] for rows in await statements.run(calls) for row in rows}


def hints(moved: live.Event) -> Iterator[live.Event]:
    """What one hint tells of many jobs, as `jobs.moves` tells it of each."""
    for pair in str(moved.ids["jobs"]).split(","):
        job, _, node = pair.partition(" ")
        yield live.Event(f"job.{job}", {"kind": "status"})
        yield live.Event("jobs", {"job": job, "node": node})
        if moved.ids["ended"]:
            yield live.Event("work", {"node": node})


def _hear(event: live.Event) -> None:
    if event.topic == MOVED:  # and not a resync, which everybody hears anyway
        for hint in hints(event):
            live.hub.deliver(hint)


live.hub.on(MOVED, _hear)


def _is_plain(result: Result) -> bool:
    """Whether nothing about it needs to be judged."""
    if result.status == "succeeded":
        return not result.reason and result.exit_code == 0 and not result.outcome_unknown
    return bool(result.reason) == (result.status == "failed") and result.reason not in SERVER_REASONS


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
