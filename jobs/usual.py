"""The usual reports, many in one statement: jobs started, jobs completed.

Each is guarded by everything that makes it usual: a claim that starts within its lease, a running job whose whole output is
stored. A report that is not among the rows that come back is none of these, or its row was locked: then `jobs.reports`
finds out what it is, one at a time. Locks are never waited for, so a batch cannot take part in a deadlock, and one job's
trouble does not hold up the others.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hyprbox.lib.prepared import Call
from jobs.connections import uuid_array
from jobs.reports import Result
from jobs.states import LOST_AFTER_SECONDS, OUTPUT_CAP, RUNNING_LEASE_SECONDS, SERVER_REASONS

START = f"""
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
  FROM usual WHERE j.id = usual.id AND j.id = ANY($1::uuid[]) RETURNING j.id
)
SELECT id FROM moved"""
COMPLETE = f"""
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
  FROM usual WHERE j.id = usual.job AND j.id = ANY($2::uuid[]) RETURNING j.id
)
SELECT id FROM moved"""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Report:
    """`result` is None for a start; `digest` is the result's."""

    job_id: uuid.UUID
    node_pk: uuid.UUID
    claim_id: uuid.UUID
    result: Result | None
    digest: str

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


def calls(batch: Sequence[Report]) -> list[Call]:
    """What writes them; the rows that come back are the ids of the jobs that moved."""
    started = [report for report in batch if report.result is None]
    ended = [report for report in batch if report.result is not None]
    made: list[Call] = []
    if started:
        jobs, nodes = uuid_array(one.job_id for one in started), uuid_array(one.node_pk for one in started)
        made.append(("start", (jobs, nodes, uuid_array(one.claim_id for one in started))))
    if ended:
        made.append(("complete", (_encode([one.row() for one in ended]), uuid_array(one.job_id for one in ended))))
    return made


def is_plain(result: Result) -> bool:
    """Whether nothing about it needs to be judged."""
    if result.status == "succeeded":
        return not result.reason and result.exit_code == 0 and not result.outcome_unknown
    return bool(result.reason) == (result.status == "failed") and result.reason not in SERVER_REASONS
