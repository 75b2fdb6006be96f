"""Whoever queued a job must still be allowed to when an agent comes for it: what waits in the name of others is cancelled."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.db.models import Max
from django.db.models.functions import Now

from accounts.selectors import actor_for, find_active
from hyprbox.lib.actors import Actor, Capability
from jobs import services
from jobs.models import Job
from jobs.moves import move
from jobs.states import Status

BATCH = 200


def why_not(author_id: uuid.UUID | None, name: str) -> str:
    """A sentence when `author_id` was disabled or removed, or may not run jobs any more; or nothing.

    Nothing as well for None, who is a command of the host. `name` is what the author was called when they queued it.
    """
    if author_id is None:
        return ""
    author = find_active(str(author_id))
    if author is None:
        return f"{name}, who queued it, has no active account any more."
    if not actor_for(author).can(Capability.RUN_JOBS):
        return f"{name}, who queued it, may not run jobs any more."
    return ""


def cancel_of_the_rightless() -> int:
    """CANCELLED for what has not started and whose author may not run jobs any more; returns how many.

    What runs goes on: to end a script half way is a decision of its own.
    """
    queued = Job.objects.in_status(Status.QUEUED).filter(author_id__isnull=False)
    authors = queued.order_by("author_id").values_list("author_id").annotate(name=Max("created_by"))
    return sum(_cancel(author_id, why) for author_id, name in authors if (why := why_not(author_id, name)))


def _cancel(author_id: uuid.UUID, why: str) -> int:
    cancelled = 0
    while True:
        with transaction.atomic():
            waiting = Job.objects.light().in_status(Status.QUEUED).filter(author_id=author_id)
            jobs = list(waiting.select_related("node").select_for_update(of=("self",), skip_locked=True)[:BATCH])
            for job in jobs:
                if move(job, to=Status.CANCELLED, cancel_requested_at=Now(), cancelled_because=why):
                    services.note_cancelled(job, by=Actor.system("authors"), why=why)
                    cancelled += 1
        if len(jobs) < BATCH:
            return cancelled
