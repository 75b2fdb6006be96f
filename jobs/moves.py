"""The only writer of a job's status: one guarded UPDATE, and the hints that go with it.

But for `jobs.usual`, whose statements make two of these moves for many jobs at once.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.db.models import Q
from django.db.models.functions import Now

from hyprbox.lib import live
from jobs.models import Job, OpenJob
from jobs.states import TERMINAL, can_move


def move(job: Job, *, to: str, guard: Q | None = None, **changes: Any) -> bool:
    """Move `job` from the status it was read with; False when somebody else was faster.

    Runs in the caller's transaction. The row is written only where id, status and `guard` still hold.
    """
    if not can_move(job.status, to):
        raise ValueError(f"a job cannot move from {job.status} to {to}")
    if to in TERMINAL:
        changes.setdefault("finished_at", Now())
        changes["phase"] = ""
    where = Q(pk=job.pk, status=job.status)
    if guard is not None:
        where &= guard
    if Job.objects.filter(where).update(status=to, **changes) != 1:
        return False
    if to in TERMINAL:
        OpenJob.objects.filter(pk=job.pk).delete()
    tell(job.pk, job.node_id, kind="status")
    job.refresh_from_db(fields=["status", "phase", "finished_at", *changes])
    return True


def tell(job_id: uuid.UUID, node_pk: uuid.UUID, *, kind: str) -> None:
    """Hint at the job to its own viewers, and for anything but output to lists and the node's timeline."""
    live.publish(f"job.{job_id}", kind=kind)
    if kind != "output":
        live.publish("jobs", job=job_id, node=node_pk)


def tell_node(node_pk: uuid.UUID) -> None:
    """There is work, or a cancel, for this node: wake its long poll."""
    live.publish("work", node=node_pk)
