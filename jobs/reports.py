"""What an agent says of its jobs: started, wrote, completed. Every call may be repeated with the same ids."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from audit import services as audit
from audit.actions import Action
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.crash import as_text, crash_point, planted
from hyprbox.lib.errors import InvalidInput
from jobs import batches, output
from jobs.errors import (
    CompletionDiffers,
    JobFinished,
    JobNotStarted,
    MissingOutput,
    OutputConflict,
    StaleClaim,
    UnknownJob,
)
from jobs.models import Job, Transcript
from jobs.moves import move, tell, tell_node
from jobs.states import (
    CLAIMS_LOCK,
    LATE_RESULT_DAYS,
    LOST_AFTER_SECONDS,
    REFUSALS,
    RUNNING_LEASE_SECONDS,
    SERVER_REASONS,
    Mode,
    Reason,
    Status,
)

# A lease is written again only when a sixth of it is gone: output comes more often than that.
LEASE_STEP = timedelta(seconds=10)
_as_json = json.JSONEncoder(sort_keys=True, default=str).encode  # made once: `dumps` with arguments makes one each time


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a job as its agent reports it. `status` is succeeded, failed or cancelled."""

    status: str
    stdout_bytes: int
    stderr_bytes: int
    stdout_sha256: str
    stderr_sha256: str
    started_at: datetime | None
    finished_at: datetime | None
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    phases: list[dict[str, Any]] = field(default_factory=list)
    changed: bool | None = None
    outcome_unknown: bool = False

    def sha256(self) -> str:
        """The same for the same words of an agent, in every version of the control plane."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()

    def as_json(self) -> str:
        plain = {
            name: getattr(self, name) for name in self.__slots__
        }  # `asdict` copies what it finds, in ten times the time
        return _as_json(plain)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the agent hears after output."""

    next_offset: Mapping[str, int]
    cancel_requested: bool
    lease_seconds: int = RUNNING_LEASE_SECONDS
    send_after_ms: int = 1500


def start(*, by: Actor, job_id: uuid.UUID, claim_id: uuid.UUID) -> Job:
    """The agent is about to run it. Raises `UnknownJob`, `StaleClaim`, `JobFinished`."""
    require(by, Capability.REPORT)
    with transaction.atomic():
        job = _own(by, job_id, claim_id)
        if job.status == Status.RUNNING:
            _renew(job, "")
            return job
        if job.is_finished:
            raise JobFinished()
        if not _has_room(job):
            raise StaleClaim("The node's places were given to other jobs after this claim's lease had run out.")
        lease = Now() + timedelta(seconds=RUNNING_LEASE_SECONDS)
        deadline = Now() + timedelta(seconds=job.timeout_seconds + LOST_AFTER_SECONDS)
        fresh = Q(claim_id=claim_id, expires_at__gt=Now())
        if move(job, to=Status.RUNNING, guard=fresh, started_at=Now(), lease_expires_at=lease, deadline_at=deadline):
            return job
        expire(job)
    raise JobFinished("This job expired before it was started.")


def _has_room(job: Job) -> bool:
    """Whether a claim may still start. Within its lease it has a place; past it others may have been given that."""
    if Job.objects.filter(pk=job.pk, lease_expires_at__gt=Now()).exists():
        return True
    with connection.cursor() as cursor:  # nothing is handed out meanwhile
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [CLAIMS_LOCK])
    is_held = Q(status=Status.RUNNING) | Q(status=Status.QUEUED, claim_id__isnull=False, lease_expires_at__gt=Now())
    others = Job.objects.unfinished(node_pk=job.node_id).filter(is_held).exclude(pk=job.pk)
    return others.count() < job.node.concurrency


def expire(job: Job) -> None:
    """End a queued job whose time has passed, in the caller's transaction."""
    if move(job, to=Status.FAILED, guard=Q(expires_at__lte=Now()), reason=Reason.EXPIRED):
        audit.record(
            Action.JOB_EXPIRED, by=Actor.system("deadlines"), target=f"job:{job.pk}", detail={"preset": job.preset}
        )


def add_output(*, by: Actor, job_id: uuid.UUID, claim_id: uuid.UUID, pieces: list[output.Piece], phase: str) -> Receipt:
    """Store what the script wrote, all of it or nothing, and renew the lease.

    Raises `UnknownJob`, `StaleClaim`, `JobFinished`, `JobNotStarted`, `OutputGap`, `OutputConflict`.
    """
    require(by, Capability.REPORT)
    if planted("text_output"):
        pieces = [replace(piece, data=as_text(piece.data)) for piece in pieces]
    if len(pieces) == 1 and (receipt := _add_next(by, job_id, claim_id, pieces[0], phase)) is not None:
        return receipt
    try:
        with transaction.atomic():
            job = _own(by, job_id, claim_id)  # the job before its transcript, as in `complete`: else they deadlock
            _must_take_output(job)
            transcript = output.lock_transcript(job.pk)
            if transcript.stdout_sha256:  # completed while this call waited for the lock
                raise JobFinished()
            is_new = output.append(transcript, pieces, phase=phase)
            _renew(job, phase)
            if is_new:
                tell(job.pk, job.node_id, kind="output")
    except OutputConflict as conflict:
        with transaction.atomic():
            audit.record(Action.OUTPUT_CONFLICTED, by=by, target=f"job:{job_id}", detail=conflict.detail)
        raise
    return Receipt(output.next_offset(transcript), job.cancel_requested_at is not None)


def _add_next(by: Actor, job_id: uuid.UUID, claim_id: uuid.UUID, piece: output.Piece, phase: str) -> Receipt | None:
    fresh = (timedelta(seconds=RUNNING_LEASE_SECONDS) - LEASE_STEP).total_seconds()
    done = output.append_next(
        job_id=job_id, node_pk=by.id, claim_id=claim_id, piece=piece, phase=phase, fresh_seconds=fresh
    )
    if done is None:
        return None
    if done.lease_is_worn:
        with transaction.atomic():
            _renew(_own(by, job_id, claim_id, lock=False), phase)
    return Receipt(done.next_offset, done.cancel_requested)


def complete(*, by: Actor, job_id: uuid.UUID, claim_id: uuid.UUID, result: Result) -> Job:
    """The job has ended. A repeat gives the same answer; a different result is refused.

    Raises `UnknownJob`, `StaleClaim`, `JobFinished`, `CompletionDiffers`, `MissingOutput`, `InvalidInput`.
    """
    require(by, Capability.REPORT)
    with transaction.atomic():
        job = _own(by, job_id, claim_id)
        _check_result(job, result)
        digest = result.sha256()
        if job.completion_sha256:
            if job.completion_sha256 != digest:
                raise CompletionDiffers()
            return job
        transcript = output.lock_transcript(job.pk)
        if job.is_finished and not takes_late_result(job):
            raise JobFinished()
        if not output.is_complete(transcript, stdout_bytes=result.stdout_bytes, stderr_bytes=result.stderr_bytes):
            raise MissingOutput(detail={"next_offset": output.next_offset(transcript)})
        Transcript.objects.filter(pk=job.pk).update(
            stdout_sha256=result.stdout_sha256, stderr_sha256=result.stderr_sha256
        )
        if job.is_finished and planted("late_overwrites"):
            Job.objects.filter(pk=job.pk).update(
                status=result.status.upper(), reason=result.reason, exit_code=result.exit_code
            )
        elif job.is_finished:
            _keep_late(job, result, digest, by)
        else:
            _finish(job, result, digest, by)
    crash_point("CP15")
    batches.advance(job.batch_id)
    return job


def takes_late_result(job: Job) -> bool:
    """Whether a finished job was given up without its agent's word, not too long ago."""
    given_up = (job.status == Status.FAILED and job.reason == Reason.LOST) or (
        job.status == Status.CANCELLED and job.outcome_unknown
    )
    if not given_up or job.completion_sha256 or job.finished_at is None:
        return False
    return Job.objects.filter(pk=job.pk, finished_at__gt=Now() - timedelta(days=LATE_RESULT_DAYS)).exists()


def _own(by: Actor, job_id: uuid.UUID, claim_id: uuid.UUID, *, lock: bool = True) -> Job:
    """The caller's job under that claim; another node's is unknown to it."""
    jobs = Job.objects.light().select_related("node")
    if lock:
        # NO KEY: who stores output holds the transcript and takes a key share of this row; here it is the other way round.
        jobs = jobs.select_for_update(of=("self",), no_key=True)
    job = jobs.filter(pk=job_id, node_id=uuid.UUID(by.id)).first()
    if job is None:
        raise UnknownJob()
    if job.claim_id != claim_id and not planted("claim_ignored"):
        raise StaleClaim() if not (job.is_finished and job.claim_id is None) else JobFinished()
    return job


def _must_take_output(job: Job) -> None:
    if job.status == Status.QUEUED:
        raise JobNotStarted()
    if job.is_finished and not takes_late_result(job):
        raise JobFinished()


def _renew(job: Job, phase: str) -> None:
    if job.status != Status.RUNNING:
        return
    changes: dict[str, Any] = {}
    if job.lease_expires_at is None or job.contact_lost_at is not None or _is_worn(job.lease_expires_at):
        changes |= {"lease_expires_at": Now() + timedelta(seconds=RUNNING_LEASE_SECONDS), "contact_lost_at": None}
    if phase and phase != job.phase:
        changes["phase"] = phase
    if not changes:
        return
    Job.objects.filter(pk=job.pk, status=Status.RUNNING).update(**changes)
    if "phase" in changes or job.contact_lost_at is not None:
        tell(job.pk, job.node_id, kind="status")


def _is_worn(lease_expires_at: datetime) -> bool:
    # The web host's clock only decides whether the row is written a little earlier or later.
    remaining = lease_expires_at - timezone.now()
    return not timedelta(0) < remaining < timedelta(seconds=RUNNING_LEASE_SECONDS) or remaining < (
        timedelta(seconds=RUNNING_LEASE_SECONDS) - LEASE_STEP
    )


def _check_result(job: Job, result: Result) -> None:
    problems: dict[str, list[str]] = {}
    if result.status == "failed" and not result.reason:
        problems["reason"] = ["A failed job has a reason."]
    if result.status != "failed" and result.reason:
        problems["reason"] = ["Only a failed job has a reason."]
    if result.reason in SERVER_REASONS:
        problems["reason"] = ["Only the server gives this reason."]
    good = (0, 1) if job.mode == Mode.CHECK else (0,)  # a check says with 1 that an apply would change something
    if result.status == "succeeded" and (result.outcome_unknown or result.exit_code not in good):
        problems["exit_code"] = ["A job succeeds with exit code 0, and knows it."]
    if problems:
        raise InvalidInput(fields=problems)
    if job.status == Status.QUEUED and not (result.status == "failed" and result.reason in REFUSALS):
        raise JobNotStarted()


def _finish(job: Job, result: Result, digest: str, by: Actor) -> None:
    if result.status == "cancelled" and job.cancel_requested_at is None:
        # Nobody asked for it, so it is none: the agent ended the script, for a reason that only its log knows.
        result = replace(result, status="failed", reason=Reason.AGENT_ERROR)
    status = {"succeeded": Status.SUCCEEDED, "failed": Status.FAILED, "cancelled": Status.CANCELLED}[result.status]
    was_queued = job.status == Status.QUEUED
    changes: dict[str, Any] = {
        "reason": result.reason,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "phases": result.phases,
        "changed": result.changed,
        "outcome_unknown": result.outcome_unknown,
        "contact_lost_at": None,
        "completion_sha256": digest,
    }
    if not move(job, to=status, guard=Q(claim_id=job.claim_id), **changes):
        raise StaleClaim()
    tell_node(job.node_id)  # its next job may have waited for this one
    if was_queued:
        detail = {"node_id": job.node.node_id, "preset": job.preset, "reason": result.reason}
        audit.record(Action.JOB_REFUSED, by=by, target=f"job:{job.pk}", detail=detail)


def _keep_late(job: Job, result: Result, digest: str, by: Actor) -> None:
    late = json.loads(result.as_json())
    Job.objects.filter(pk=job.pk, completion_sha256="").update(late_result=late, completion_sha256=digest)
    job.refresh_from_db(fields=["late_result", "completion_sha256"])
    detail = {"node_id": job.node.node_id, "status": result.status, "exit_code": result.exit_code}
    audit.record(Action.JOB_RESULT_LATE, by=by, target=f"job:{job.pk}", detail=detail)
    tell(job.pk, job.node_id, kind="status")
