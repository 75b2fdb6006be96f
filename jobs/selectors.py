"""Reading jobs. What a viewer may not see is left out here, for every door alike."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import Count, Q, QuerySet
from django.db.models.functions import Now

from hyprbox.lib.actors import Actor, Capability, require
from jobs import output
from jobs.errors import UnknownBatch, UnknownJob
from jobs.models import Batch, Job
from jobs.states import TERMINAL, Status
from tokens.models import NodeToken

LATEST_JOBS = 5_000


@dataclass(frozen=True, slots=True)
class Wave:
    """How far one wave of a batch is, in jobs."""

    number: int
    jobs: int
    held: int
    open: int
    started: int
    failed: int
    cancelled: int

    @property
    def state(self) -> str:
        """`waiting`, `running` or `done`."""
        return "waiting" if self.held else "running" if self.open else "done"

    @property
    def look(self) -> str:
        """As a job would show it: a wave whose nodes have not come yet is queued, and cancelled when all of it was."""
        if self.state == "running" and not self.started:
            return "QUEUED"
        if self.cancelled == self.jobs:
            return "CANCELLED"
        return {"waiting": "QUEUED", "running": "RUNNING", "done": "ENDED"}[self.state]


def list_jobs(
    *,
    by: Actor,
    status: Iterable[str] = (),
    node_id: str = "",
    preset: str = "",
    batch: uuid.UUID | None = None,
    created_by: str = "",
    since: datetime | None = None,
) -> QuerySet[Job]:
    """Jobs that match, newest first, without scripts and output."""
    require(by, Capability.VIEW_FLEET)
    jobs = Job.objects.light().select_related("node", "transcript").newest_first()
    statuses = list(status)
    if statuses:
        jobs = jobs.in_status(*statuses)
    if node_id:
        jobs = jobs.filter(node__node_id=node_id)
    if preset:
        jobs = jobs.filter(preset=preset)
    if batch:
        jobs = jobs.filter(batch_id=batch)
    if created_by:
        jobs = jobs.filter(created_by=created_by)
    if since:
        jobs = jobs.filter(created_at__gte=since)
    return jobs


def may_still_report(token: NodeToken, *, job_id: uuid.UUID) -> bool:
    """Whether a token that was revoked with its node may tell of this job: it runs, or ended within the last hour."""
    if token.node_pk is None:
        return False
    theirs = Job.objects.filter(pk=job_id, node_id=token.node_pk, node__removed_at=token.revoked_at)
    ended = Q(cancel_requested_at__isnull=False, finished_at__gt=Now() - timedelta(hours=1))
    return theirs.filter(Q(status=Status.RUNNING) | ended).exists()


def find_jobs(*, by: Actor, q: str) -> QuerySet[Job]:
    """Jobs whose preset, node or id holds each word of `q`, newest first."""
    jobs = list_jobs(by=by)
    for word in q.split():
        matches = Q(preset__icontains=word) | Q(preset_title__icontains=word) | Q(node__node_id__icontains=word)
        if re.fullmatch(r"[0-9a-fA-F-]{4,36}", word):
            matches |= Q(id__startswith=word.lower())
        jobs = jobs.filter(matches)
    return jobs


def jobs_by_id(*, by: Actor, job_ids: Iterable[uuid.UUID | str]) -> list[Job]:
    """Those of these jobs that exist, newest first."""
    return list(list_jobs(by=by).filter(pk__in=list(job_ids)))


def people(*, by: Actor) -> list[str]:
    """Everybody who has queued one of the latest jobs: to look through all of them would take longer every day."""
    require(by, Capability.VIEW_FLEET)
    latest = Job.objects.newest_first().values("created_by")[:LATEST_JOBS]
    with connection.cursor() as cursor:
        sql, params = latest.query.sql_with_params()
        cursor.execute(f"SELECT DISTINCT created_by FROM ({sql}) AS latest ORDER BY 1 LIMIT 50", params)
        return [row[0] for row in cursor.fetchall()]


def runs_of_preset(*, by: Actor, job: Job, limit: int = 5) -> list[Job]:
    """The latest other jobs with the same preset."""
    return list(list_jobs(by=by, preset=job.preset).exclude(pk=job.pk)[:limit])


def jobs_of_node(*, by: Actor, node_pk: uuid.UUID, limit: int = 20) -> list[Job]:
    require(by, Capability.VIEW_FLEET)
    jobs = Job.objects.light().select_related("node", "transcript").newest_first()
    return list(jobs.filter(node_id=node_pk)[:limit])


def job_detail(*, by: Actor, job_id: uuid.UUID | str) -> Job:
    """Raises `UnknownJob`."""
    require(by, Capability.VIEW_FLEET)
    return find_job(job_id)


def read_output(*, by: Actor, job_id: uuid.UUID | str, stream: str) -> tuple[Job, output.Stored]:
    """All that is kept of one stream; not for viewers."""
    require(by, Capability.VIEW_OUTPUT)
    job = find_job(job_id)
    return job, output.read(job.pk, stream)


def counts_by_status(*, by: Actor, since: datetime | None = None) -> dict[str, int]:
    require(by, Capability.VIEW_FLEET)
    if since is None:
        found = _by_status(Job.objects.all())
    else:  # an index for each
        open_before = Job.objects.unfinished().filter(created_at__lt=since)
        found = _by_status(Job.objects.filter(created_at__gte=since)).union(_by_status(open_before), all=True)
    return _counted(found)


def _counted(rows: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Of every status, also of those that none has; a status may come in several rows."""
    counted = dict.fromkeys(Status.values, 0)
    for status, count in rows:
        counted[status] += count
    return counted


def _by_status(jobs: QuerySet[Job]) -> QuerySet[Job, tuple[str, int]]:
    return jobs.order_by().values_list("status").annotate(Count("id"))


def find_job(job_id: uuid.UUID | str) -> Job:
    """One job, for any caller. Raises `UnknownJob`."""
    try:
        return Job.objects.select_related("node", "transcript").get(pk=uuid.UUID(str(job_id)))
    except (ValueError, Job.DoesNotExist):
        raise UnknownJob() from None


def find_batch(*, by: Actor, batch_id: uuid.UUID | str) -> Batch:
    """Raises `UnknownBatch`."""
    require(by, Capability.VIEW_FLEET)
    try:
        return Batch.objects.get(pk=uuid.UUID(str(batch_id)))
    except (ValueError, Batch.DoesNotExist):
        raise UnknownBatch() from None


def waves(batch: Batch) -> list[Wave]:
    """In order; one when there are no waves."""
    rows = (
        Job.objects.filter(batch=batch)
        .values_list("wave")
        .annotate(
            all=Count("id"),
            waiting=Count("id", filter=Q(held=True, status=Status.QUEUED)),
            open=Count("id", filter=~Q(status__in=TERMINAL)),
            started=Count("id", filter=~Q(status=Status.QUEUED)),
            failed=Count("id", filter=Q(status=Status.FAILED)),
            cancelled=Count("id", filter=Q(status=Status.CANCELLED)),
        )
        .order_by("wave")
    )
    return [Wave(number + 1, *counted) for number, *counted in rows]


def counts_of_batch(*, by: Actor, batch: Batch) -> dict[str, int]:
    """Jobs by status."""
    require(by, Capability.VIEW_FLEET)
    return _counted(_by_status(Job.objects.filter(batch=batch)))
