"""The claim: a lease of 30 s on a QUEUED job, handed out to many nodes in one statement."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from jobs.states import CLAIM_LEASE_SECONDS, CLAIMS_LOCK

LOCK = f"SELECT pg_advisory_xact_lock({CLAIMS_LOCK})"
# A request that holds a claim gets it again; the others get their node's next job. A node's open jobs are read once,
# from a table of their own, so that neither its history nor other nodes' queues cost anything. The job is locked where it
# stands, and judged again, for it may have changed since; one that somebody else holds is left for the next look.
CLAIM = f"""
WITH look AS MATERIALIZED (
  SELECT w.request, n.removed_at IS NULL AND n.clone_suspected_at IS NULL AND open.taken < n.concurrency AS may,
    open.taken + 1 < n.concurrency AS has_room, open.*
  FROM unnest($1::uuid[], $2::uuid[]) AS w(node, request) JOIN nodes_node n ON n.id = w.node
  CROSS JOIN LATERAL (
    SELECT (array_agg(j.ctid ORDER BY o.created_at, o.job_id) FILTER (WHERE j.status = 'QUEUED' AND NOT j.held
        AND j.expires_at > now() AND (j.claim_id IS NULL OR j.lease_expires_at < now())))[1] AS next,
      count(*) FILTER (WHERE j.status = 'RUNNING' OR (j.claim_id IS NOT NULL AND j.lease_expires_at >= now())) AS taken,
      (array_agg(j.ctid) FILTER (WHERE j.request_id = w.request AND j.claim_id IS NOT NULL))[1] AS again
    FROM jobs_openjob o JOIN jobs_job j ON j.id = o.job_id AND j.finished_at IS NULL WHERE o.node_id = w.node
  ) AS open
), given AS (
  UPDATE jobs_job AS j SET claim_id = gen_random_uuid(), request_id = pick.request, claimed_at = now(),
    lease_expires_at = now() + interval '{CLAIM_LEASE_SECONDS} seconds'
  FROM (
    SELECT look.request, look.has_room, mine.ctid FROM look CROSS JOIN LATERAL (
      SELECT c.ctid FROM jobs_job c
      WHERE c.ctid = look.next AND c.status = 'QUEUED' AND NOT c.held AND c.expires_at > now()
        AND (c.claim_id IS NULL OR c.lease_expires_at < now())
      FOR UPDATE SKIP LOCKED
    ) AS mine
    WHERE look.may AND look.again IS NULL AND NOT EXISTS (SELECT FROM jobs_stop)
  ) AS pick WHERE j.ctid = pick.ctid
  RETURNING j.node_id, j.request_id, j.id, j.claim_id, j.payload, j.signature, j.key_id, pick.has_room
)
SELECT * FROM given
UNION ALL
SELECT j.node_id, j.request_id, j.id, j.claim_id, j.payload, j.signature, j.key_id, true
FROM look JOIN jobs_job j ON j.ctid = look.again
"""


class Claim(msgspec.Struct, frozen=True):
    """`has_room`: the node may take another job beside this one."""

    job_id: uuid.UUID
    claim_id: uuid.UUID
    payload: bytes
    signature: str
    key_id: str
    has_room: bool


class Wanted(msgspec.Struct, frozen=True):
    """A node's poll that wants a job. `is_wanted` says at the last moment whether its client is still there."""

    node_pk: uuid.UUID
    request_id: uuid.UUID
    is_wanted: Callable[[], bool]

    @property
    def key(self) -> bytes:
        """As `of_row` names who asked."""
        return self.node_pk.bytes + self.request_id.bytes


def of_row(row: list[Any]) -> tuple[bytes, Claim]:
    """Of a row of `CLAIM` in binary: who asked, as node and request, and the claim."""
    return row[0] + row[1], Claim(
        uuid.UUID(bytes=row[2]), uuid.UUID(bytes=row[3]), row[4], row[5].decode(), row[6].decode(), row[7] == b"\1"
    )
