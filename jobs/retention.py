"""What jobs wrote is kept for 90 days; what remains says how long it was and what its SHA-256 is.

And each night the notes of open jobs are made what the jobs say.
"""

from __future__ import annotations

import structlog
from django.db import connection, transaction

OUTPUT_DAYS = 90
BATCH_JOBS = 100
BATCH_ROWS = 1000

log = structlog.get_logger(__name__)

_FORGET = """
WITH due AS (
  SELECT id FROM jobs_job j
  WHERE created_at < now() - make_interval(days => %(days)s) AND finished_at < now() - make_interval(days => %(days)s)
    AND EXISTS (SELECT FROM jobs_outputchunk c WHERE c.job_id = j.id)
  ORDER BY created_at LIMIT %(jobs)s
), gone AS (
  DELETE FROM jobs_outputchunk c USING (
    SELECT job_id, stream, "offset" FROM jobs_outputchunk WHERE job_id IN (SELECT id FROM due) LIMIT %(rows)s
  ) AS old
  WHERE c.job_id = old.job_id AND c.stream = old.stream AND c."offset" = old."offset"
  RETURNING 1
), emptied AS (
  UPDATE jobs_transcript SET stdout_first_offset = stdout_bytes, stderr_first_offset = stderr_bytes
  WHERE job_id IN (SELECT id FROM due)
)
SELECT count(*) FROM gone
"""


_DUE = """
SELECT count(*) FROM jobs_outputchunk c JOIN jobs_job j ON j.id = c.job_id
WHERE j.created_at < now() - make_interval(days => %(days)s) AND j.finished_at < now() - make_interval(days => %(days)s)
"""


# Of a job that ended in another way than `jobs.moves` and `jobs.usual` know.
_LEFT_BEHIND = """
DELETE FROM jobs_openjob o WHERE NOT EXISTS (SELECT FROM jobs_job j WHERE j.id = o.job_id AND j.finished_at IS NULL)
"""
# The trigger notes every job; this is for what was done to the table by hand.
_MISSING = """
INSERT INTO jobs_openjob (job_id, node_id, created_at)
SELECT id, node_id, created_at FROM jobs_job j
WHERE finished_at IS NULL AND NOT EXISTS (SELECT FROM jobs_openjob o WHERE o.job_id = j.id)
ON CONFLICT DO NOTHING
"""


def mend_open_jobs() -> tuple[int, int]:
    """Make the notes of open jobs what the jobs say; how many were left behind, and how many were missing."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '120s'")  # no index knows which jobs are open
        cursor.execute(_LEFT_BEHIND)
        left = int(cursor.rowcount)
        cursor.execute(_MISSING)
        missing = int(cursor.rowcount)
    if missing:
        log.error("jobs.not_noted", jobs=missing)
    return left, missing


def count_old_output() -> int:
    """How many chunks `forget_old_output` would delete."""
    with connection.cursor() as cursor:
        cursor.execute(_DUE, {"days": OUTPUT_DAYS})
        return int(cursor.fetchone()[0])


def forget_old_output() -> int:
    """Delete the output of jobs that ended long ago, a batch a transaction; returns how many chunks went."""
    deleted = 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = '120s'")  # it walks past all that was forgotten before
            cursor.execute(_FORGET, {"days": OUTPUT_DAYS, "jobs": BATCH_JOBS, "rows": BATCH_ROWS})
            count = int(cursor.fetchone()[0])
        deleted += count
        if count == 0:
            return deleted
