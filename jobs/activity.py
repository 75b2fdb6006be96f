"""A node's jobs as part of its activity; registered with nodes when Django starts."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from hyprbox.lib.templatetags.ui import look_of
from jobs import summary
from jobs.models import Job
from nodes.models import Node
from nodes.selectors import ActivityItem


def of_node(node: Node, before: datetime | None, limit: int) -> list[ActivityItem]:
    """The node's latest jobs, each at the moment of its latest change."""
    jobs = Job.objects.light().filter(node=node).newest_first()
    if before is not None:
        jobs = jobs.filter(created_at__lt=before)
    now = timezone.now()
    return [_item(summary.of(job, now)) for job in jobs[:limit]]


def _item(told: summary.Summary) -> ActivityItem:
    job = told.job
    word = look_of(told.look).word.lower()
    result = f", {told.result}" if told.result else ""
    at = job.finished_at or job.started_at or job.created_at
    title, detail = f"{job.preset_title}: {word}", f"By {job.created_by}{result}"
    return ActivityItem(at, "job", title, detail, told.look, str(job.pk))
