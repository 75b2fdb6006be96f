"""Reading the audit log."""

from __future__ import annotations

from datetime import datetime

from django.db.models import QuerySet

from audit.models import Event
from hyprbox.lib.actors import Actor, Capability, require


def list_events(
    *,
    by: Actor,
    actor: str = "",
    action: str = "",
    target: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> QuerySet[Event]:
    """Rows that match, newest first; admins only."""
    require(by, Capability.VIEW_AUDIT)
    events = Event.objects.order_by("-id")
    if actor:
        events = events.filter(actor_name=actor)
    if action:
        events = events.filter(action=action)
    if target:
        events = events.filter(target=target)
    if since:
        events = events.filter(at__gte=since)
    if until:
        events = events.filter(at__lt=until)
    return events
