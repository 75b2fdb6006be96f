"""The usual reports, many in one statement: jobs started, jobs completed.

Each is guarded by everything that makes it usual: a claim that starts within its lease, a running job whose whole output is
stored. A report that is not among the rows that come back is none of these, or its row was locked: then `jobs.reports`
finds out what it is, one at a time. Locks are never waited for, so a batch cannot take part in a deadlock, and one job's
trouble does not hold up the others. A row that somebody changed between the statement's snapshot and its lock is locked as it
is now, and not found where it was: what belongs to the end of a job therefore goes by the rows that moved.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from hyprbox.lib.prepared import Call
from jobs.connections import uuid_array
from jobs.reports import Result
from jobs.states import LOST_AFTER_SECONDS, OUTPUT_CAP, RUNNING_LEASE_SECONDS, SERVER_REASONS

START = f"""
WITH usual AS (
  SELECT mine.ctid FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS asked(job, node, claim) CROSS JOIN LATERAL (
    SELECT j.ctid FROM jobs_job j
    WHERE j.id = asked.job AND j.node_id = asked.node AND j.claim_id = asked.claim
      AND j.status = 'QUEUED' AND j.expires_at > statement_timestamp()
      AND j.lease_expires_at > statement_timestamp()
    FOR UPDATE SKIP LOCKED
  ) AS mine
)
UPDATE jobs_job AS j SET status = 'RUNNING', started_at = statement_timestamp(),
  lease_expires_at = statement_timestamp() + interval '{RUNNING_LEASE_SECONDS} seconds',
  deadline_at = statement_timestamp() + make_interval(secs => j.timeout_seconds + {LOST_AFTER_SECONDS})
FROM usual WHERE j.ctid = usual.ctid RETURNING j.id"""
COMPLETE = f"""
WITH usual AS (
  SELECT asked.*, mine.ctid AS job_at, whole.ctid AS transcript_at FROM json_to_recordset($1::json) AS asked(
    job uuid, node uuid, claim uuid, status text, reason text, exit_code int, signal int, phases jsonb, changed bool,
    outcome_unknown bool, digest text, stdout_bytes bigint, stderr_bytes bigint, stdout_sha256 text, stderr_sha256 text
  ) CROSS JOIN LATERAL (
    SELECT j.id, j.ctid FROM jobs_job j
    WHERE j.id = asked.job AND j.node_id = asked.node AND j.claim_id = asked.claim
      AND j.status = 'RUNNING' AND j.completion_sha256 = ''
      AND (asked.status <> 'CANCELLED' OR j.cancel_requested_at IS NOT NULL)
    FOR UPDATE SKIP LOCKED
  ) AS mine CROSS JOIN LATERAL (
    SELECT t.ctid FROM jobs_transcript t
    WHERE t.job_id = mine.id AND t.stdout_bytes = asked.stdout_bytes AND t.stderr_bytes = asked.stderr_bytes
      AND t.stdout_first_offset <= GREATEST(0, asked.stdout_bytes - {OUTPUT_CAP})
      AND t.stderr_first_offset <= GREATEST(0, asked.stderr_bytes - {OUTPUT_CAP})
    FOR UPDATE SKIP LOCKED
  ) AS whole
), moved AS (
  UPDATE jobs_job AS j SET status = usual.status, reason = usual.reason, exit_code = usual.exit_code,
    signal = usual.signal, phases = usual.phases, changed = usual.changed, outcome_unknown = usual.outcome_unknown,
    completion_sha256 = usual.digest, contact_lost_at = NULL, phase = '', finished_at = statement_timestamp()
  FROM usual WHERE j.ctid = usual.job_at
  RETURNING j.id, usual.transcript_at, usual.stdout_sha256, usual.stderr_sha256
), hashed AS (
  UPDATE jobs_transcript AS t SET stdout_sha256 = moved.stdout_sha256, stderr_sha256 = moved.stderr_sha256
  FROM moved WHERE t.ctid = moved.transcript_at
), closed AS (
  DELETE FROM jobs_openjob AS o USING moved WHERE o.job_id = moved.id
)
SELECT id FROM moved"""

_encode = msgspec.json.Encoder().encode


class _Row(msgspec.Struct):
    """What `COMPLETE` takes of one report."""

    job: uuid.UUID
    node: uuid.UUID
    claim: uuid.UUID
    status: str
    reason: str
    exit_code: int | None
    signal: int | None
    phases: list[dict[str, Any]]
    changed: bool | None
    outcome_unknown: bool
    digest: str
    stdout_bytes: int
    stderr_bytes: int
    stdout_sha256: str
    stderr_sha256: str


class Report(msgspec.Struct, frozen=True):
    """`result` is None for a start; `digest` is the result's; `makes_room` unless the node's poll looks anyway."""

    job_id: uuid.UUID
    node_pk: uuid.UUID
    claim_id: uuid.UUID
    result: Result | None
    digest: str
    makes_room: bool = False

    def row(self) -> _Row:
        result = self.result
        assert result is not None
        return _Row(
            self.job_id, self.node_pk, self.claim_id, result.status.upper(), result.reason, result.exit_code,
            result.signal, result.phases, result.changed, result.outcome_unknown, self.digest, result.stdout_bytes,
            result.stderr_bytes, result.stdout_sha256, result.stderr_sha256,
        )  # fmt: skip


def calls(batch: Sequence[Report]) -> list[Call]:
    """What writes them; the rows that come back are the ids of the jobs that moved."""
    started = [report for report in batch if report.result is None]
    ended = [report for report in batch if report.result is not None]
    made: list[Call] = []
    if started:
        jobs, nodes = uuid_array(one.job_id for one in started), uuid_array(one.node_pk for one in started)
        made.append(("start", (jobs, nodes, uuid_array(one.claim_id for one in started))))
    if ended:
        made.append(("complete", (_encode([one.row() for one in ended]),)))
    return made


def is_plain(result: Result) -> bool:
    """Whether nothing about it needs to be judged."""
    if result.status == "succeeded":
        return not result.reason and result.exit_code == 0 and not result.outcome_unknown
    return bool(result.reason) == (result.status == "failed") and result.reason not in SERVER_REASONS
