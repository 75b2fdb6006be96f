"""What time does to jobs, judged by the database's clock: expiry, lost contact, and the last deadline."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from audit import services as audit
from audit.actions import Action
from hyprbox.lib.actors import Actor
from jobs import reports
from jobs.models import Job
from jobs.moves import move, tell
from jobs.states import Reason, Status

BATCH = 200


@dataclass(frozen=True, slots=True)
class Gauges:
    """For /metrics. `past_deadline` must be 0: nothing may outlive its deadline by more than a minute."""

    past_deadline: int
    queued_oldest_seconds: float
    contact_lost: int


def expire_queued() -> int:
    """FAILED(expired) for what no agent came for in time."""
    with transaction.atomic():
        due = Job.objects.light().in_status(Status.QUEUED).filter(expires_at__lte=Now())
        jobs = list(due.select_related("node").select_for_update(of=("self",), skip_locked=True)[:BATCH])
        for job in jobs:
            reports.expire(job)
    return len(jobs)


def note_lost_contact() -> int:
    """A running job whose lease ran out shows it; its state does not change."""
    with transaction.atomic():
        silent = Job.objects.light().in_status(Status.RUNNING).filter(lease_expires_at__lte=Now(), contact_lost_at=None)
        jobs = list(silent.select_for_update(of=("self",), skip_locked=True)[:BATCH])
        Job.objects.filter(pk__in=[job.pk for job in jobs]).update(contact_lost_at=Now())
        for job in jobs:
            tell(job.pk, job.node_id, kind="status")
    return len(jobs)


def give_up_lost() -> int:
    """FAILED(lost), outcome unknown, for what is past its deadline without contact."""
    with transaction.atomic():
        due = Job.objects.light().in_status(Status.RUNNING).filter(deadline_at__lte=Now(), lease_expires_at__lte=Now())
        jobs = list(due.select_related("node").select_for_update(of=("self",), skip_locked=True)[:BATCH])
        for job in jobs:
            guard = Q(deadline_at__lte=Now(), lease_expires_at__lte=Now())
            if move(job, to=Status.FAILED, guard=guard, reason=Reason.LOST, outcome_unknown=True):
                detail = {"node_id": job.node.node_id, "preset": job.preset}
                audit.record(Action.JOB_LOST, by=Actor.system("deadlines"), target=f"job:{job.pk}", detail=detail)
    return len(jobs)


def enforce() -> int:
    """All of them, until nothing is due; returns how many jobs were touched."""
    touched = 0
    for step in (expire_queued, note_lost_contact, give_up_lost):
        while (count := step()) > 0:
            touched += count
            if count < BATCH:
                break
    return touched


def gauges() -> Gauges:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*) FILTER (WHERE (status = 'QUEUED' AND expires_at < now() - interval '1 minute')
                                       OR (status = 'RUNNING' AND deadline_at < now() - interval '1 minute'
                                           AND lease_expires_at < now() - interval '1 minute')),
                   COALESCE(extract(epoch FROM now() - min(j.created_at) FILTER (WHERE status = 'QUEUED')), 0),
                   count(*) FILTER (WHERE status = 'RUNNING' AND contact_lost_at IS NOT NULL)
            FROM jobs_openjob o JOIN jobs_job j ON j.id = o.job_id WHERE finished_at IS NULL
            """
        )
        past, oldest, lost = cursor.fetchone()
    return Gauges(int(past), float(oldest), int(lost))
