"""A job's output: contiguous pieces at their true offsets, the last 4 MiB of each stream.

At every moment what is stored of a stream is one piece of what the script wrote. It only moves forward.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import connection

from hyprbox.lib import live
from jobs.errors import OutputConflict, OutputGap
from jobs.models import Transcript
from jobs.states import OUTPUT_CAP, Stream

# Deleting what fell out of the kept tail is done once per so many bytes, not for every chunk.
TRIM_STEP = 256 * 1024
_INSERT = """
INSERT INTO jobs_outputchunk (job_id, stream, "offset", data, phase) VALUES (%s, %s, %s, %s, %s)
"""
_OVERLAPPING = """
SELECT "offset", data FROM jobs_outputchunk
WHERE job_id = %(job)s AND stream = %(stream)s AND "offset" < %(end)s
  AND "offset" >= COALESCE((SELECT max("offset") FROM jobs_outputchunk
                            WHERE job_id = %(job)s AND stream = %(stream)s AND "offset" <= %(start)s), 0)
ORDER BY "offset"
"""


# The usual call, a piece that begins where the stored output ends, in one statement: claim checked, tail moved on, chunk
# stored, viewers told. It finds no row when anything is unusual; then the long way finds out what.
_APPEND_NEXT = """
WITH j AS (
  SELECT id, cancel_requested_at IS NOT NULL AS cancelled,
         contact_lost_at IS NOT NULL OR lease_expires_at < now() + make_interval(secs => %(fresh)s) AS worn
  FROM jobs_job WHERE id = %(job)s AND node_id = %(node)s AND claim_id = %(claim)s AND status = 'RUNNING'
                  AND phase = %(phase)s
), t AS (
  UPDATE jobs_transcript SET {stream}_bytes = %(end)s,
         {stream}_first_offset = GREATEST({stream}_first_offset, %(end)s - %(cap)s)
  FROM j WHERE job_id = j.id AND {stream}_bytes = %(offset)s
    AND stdout_sha256 = '' -- read again after a wait for the row: the job may have been completed meanwhile
    AND GREATEST({stream}_first_offset, %(end)s - %(cap)s) / %(step)s = {stream}_first_offset / %(step)s
  RETURNING stdout_bytes, stderr_bytes, j.cancelled, j.worn
), c AS (
  INSERT INTO jobs_outputchunk (job_id, stream, "offset", data, phase)
  SELECT %(job)s, %(name)s, %(offset)s, %(data)s, %(phase)s FROM t
)
SELECT stdout_bytes, stderr_bytes, cancelled, worn, pg_notify(%(channel)s, %(hint)s) FROM t
"""
_NEXT = {stream: _APPEND_NEXT.replace("{stream}", stream) for stream in ("stdout", "stderr")}


@dataclass(frozen=True, slots=True)
class Appended:
    """What the short way tells. `lease_is_worn`: it is time to renew it."""

    next_offset: dict[str, int]
    cancel_requested: bool
    lease_is_worn: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk as an agent sends it. `skipped`: the bytes between what is stored and `offset` are lost."""

    stream: str
    offset: int
    data: bytes
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes of one stream. `first_offset`..`total` is what can be read at all."""

    offset: int
    data: bytes
    first_offset: int
    total: int


def append_next(
    *, job_id: uuid.UUID, node_pk: str, claim_id: uuid.UUID, piece: Piece, phase: str, fresh_seconds: float
) -> Appended | None:
    """Store a piece that continues a running job's output; None when it is not as simple as that."""
    if piece.skipped or not piece.data:
        return None
    values: dict[str, Any] = {
        "job": job_id, "node": node_pk, "claim": claim_id, "phase": phase, "name": piece.stream, "offset": piece.offset,
        "end": piece.offset + len(piece.data), "data": piece.data, "cap": OUTPUT_CAP, "step": TRIM_STEP,
        "fresh": fresh_seconds, "channel": live.CHANNEL, "hint": live.payload(f"job.{job_id}", kind="output"),
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(_NEXT[piece.stream], values)
        row = cursor.fetchone()
    return None if row is None else Appended({"stdout": row[0], "stderr": row[1]}, row[2], row[3])


def lock_transcript(job_id: uuid.UUID) -> Transcript:
    """The job's transcript, locked until the transaction ends: one writer at a time."""
    return Transcript.objects.select_for_update().get(job_id=job_id)


def append(transcript: Transcript, pieces: Iterable[Piece], *, phase: str) -> bool:
    """Store all pieces or none (the caller's transaction). True if anything was new.

    Raises `OutputGap` (416, with `next_offset`) and `OutputConflict`.
    """
    before = (transcript.stdout_bytes, transcript.stderr_bytes)
    with connection.cursor() as cursor:
        for piece in pieces:
            _append_one(cursor, transcript, piece, phase)
    if (transcript.stdout_bytes, transcript.stderr_bytes) == before:
        return False
    transcript.save(update_fields=["stdout_bytes", "stderr_bytes", "stdout_first_offset", "stderr_first_offset"])
    return True


def _append_one(cursor: Any, transcript: Transcript, piece: Piece, phase: str) -> None:
    total: int = getattr(transcript, f"{piece.stream}_bytes")
    first: int = getattr(transcript, f"{piece.stream}_first_offset")
    offset, data = piece.offset, piece.data
    if offset > total:
        if not piece.skipped:
            raise OutputGap(detail={"next_offset": next_offset(transcript)})
        _delete_before(cursor, transcript, piece.stream, offset)
        total = first = offset
    elif offset < total:
        _compare(cursor, transcript, piece, max(first, offset), min(total, offset + len(data)))
        data = data[total - offset :]
        offset = total
    if data:
        cursor.execute(_INSERT, [transcript.job_id, piece.stream, offset, data, phase])
    total = max(total, offset + len(data))
    new_first = max(first, total - OUTPUT_CAP)
    if new_first // TRIM_STEP > first // TRIM_STEP:
        _delete_before(cursor, transcript, piece.stream, new_first)
    setattr(transcript, f"{piece.stream}_bytes", total)
    setattr(transcript, f"{piece.stream}_first_offset", new_first)


def _delete_before(cursor: Any, transcript: Transcript, stream: str, offset: int) -> None:
    cursor.execute(
        'DELETE FROM jobs_outputchunk WHERE job_id = %s AND stream = %s AND "offset" + length(data) <= %s',
        [transcript.job_id, stream, offset],
    )


def _compare(cursor: Any, transcript: Transcript, piece: Piece, start: int, end: int) -> None:
    """The part that is stored already must be the same, as far as it is still kept."""
    if start >= end:
        return
    cursor.execute(_OVERLAPPING, {"job": transcript.job_id, "stream": piece.stream, "start": start, "end": end})
    for offset, data in cursor.fetchall():
        low, high = max(start, offset), min(end, offset + len(data))
        if (
            low < high
            and bytes(data[low - offset : high - offset]) != piece.data[low - piece.offset : high - piece.offset]
        ):
            raise OutputConflict(detail={"stream": piece.stream, "offset": low})


def next_offset(transcript: Transcript) -> dict[str, int]:
    return {"stdout": transcript.stdout_bytes, "stderr": transcript.stderr_bytes}


def is_complete(transcript: Transcript, *, stdout_bytes: int, stderr_bytes: int) -> bool:
    """Whether the kept tail of both streams is all there."""
    given = {Stream.STDOUT: stdout_bytes, Stream.STDERR: stderr_bytes}
    for stream, length in given.items():
        total = getattr(transcript, f"{stream}_bytes")
        first = getattr(transcript, f"{stream}_first_offset")
        if total != length or first > max(0, length - OUTPUT_CAP):
            return False
    return True


def read(job_id: uuid.UUID, stream: str, *, start: int = 0, limit: int = OUTPUT_CAP) -> Stored:
    """Up to `limit` stored bytes of a stream from the true offset `start` on."""
    transcript = Transcript.objects.get(job_id=job_id)
    total: int = getattr(transcript, f"{stream}_bytes")
    first: int = getattr(transcript, f"{stream}_first_offset")
    start = max(start, first)
    end = min(total, start + limit)
    if start >= end:
        return Stored(min(start, total), b"", first, total)
    with connection.cursor() as cursor:
        cursor.execute(_OVERLAPPING, {"job": job_id, "stream": stream, "start": start, "end": end})
        rows = cursor.fetchall()
    if not rows:
        return Stored(start, b"", first, total)
    base = rows[0][0]
    joined = b"".join(bytes(data) for _, data in rows)
    start = max(start, base)  # the tail may have moved on since the transcript was read
    return Stored(start, joined[start - base : end - base], first, total)
