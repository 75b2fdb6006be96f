"""The claim: a lease of 30 s on a QUEUED job, handed out to many nodes in one statement."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobs.states import CLAIM_LEASE_SECONDS, CLAIMS_LOCK

# A request that holds a claim gets it again; the others get their node's next job. Each lookup goes by node through
# a partial index, so that neither a node's history nor other nodes' queues cost anything.
LOCK = f"SELECT pg_advisory_xact_lock({CLAIMS_LOCK})"
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


@dataclass(frozen=True, slots=True)
class Claim:
    job_id: uuid.UUID
    claim_id: uuid.UUID
    payload: bytes
    signature: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A node's poll that wants a job. `is_wanted` says at the last moment whether its client is still there."""

    node_pk: uuid.UUID
    request_id: uuid.UUID
    is_wanted: Callable[[], bool]


def of_row(row: list[Any]) -> tuple[bytes, Claim]:
    """Of a row of `CLAIM` in binary: who asked, as node and request, and the claim."""
    return row[0] + row[1], Claim(
        uuid.UUID(bytes=row[2]), uuid.UUID(bytes=row[3]), row[4], row[5].decode(), row[6].decode()
    )
