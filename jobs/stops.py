"""The switch that stops the fleet: while it is on, no agent is handed a job. What runs goes on, what waits goes on waiting."""

from __future__ import annotations

from django.db import transaction

from audit import services as audit
from audit.actions import Action
from hyprbox.lib import live
from hyprbox.lib.actors import Actor, Capability, require
from jobs.models import Stop

ONLY = 1


def current() -> Stop | None:
    return Stop.objects.filter(pk=ONLY).first()


def stop(*, by: Actor, reason: str = "") -> Stop:
    """Hand out nothing from now on. Whoever may run jobs may stop all of them; twice is once."""
    require(by, Capability.RUN_JOBS)
    with transaction.atomic():
        found, is_new = Stop.objects.get_or_create(pk=ONLY, defaults={"stopped_by": by.name, "reason": reason})
        if is_new:
            audit.record(Action.JOBS_STOPPED, by=by, target="jobs", detail={"reason": reason})
            live.publish("jobs")
    found.refresh_from_db()
    return found


def resume(*, by: Actor) -> None:
    """Hand out jobs again: an admin's decision."""
    require(by, Capability.FORCE_CANCEL)
    with transaction.atomic():
        deleted, _ = Stop.objects.filter(pk=ONLY).delete()
        if deleted:
            audit.record(Action.JOBS_RESUMED, by=by, target="jobs")
            live.publish("jobs")
