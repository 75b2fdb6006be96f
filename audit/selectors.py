"""Reading the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from audit.actions import Action
from audit.models import Event
from hyprbox.lib.actors import Actor, Capability, require


@dataclass(frozen=True, slots=True)
class LastVerification:
    """What the newest run said: `intact` is None when it could not tell."""

    at: datetime
    by: str
    intact: bool | None
    checked: int
    first_bad: dict[str, Any] | None
    why: str


def last_verification() -> LastVerification | None:
    """None when nobody has verified the log yet."""
    event = Event.objects.filter(action=Action.AUDIT_VERIFIED).order_by("-id").first()
    if event is None:
        return None
    said = event.detail
    return LastVerification(
        event.at,
        event.actor_name,
        said.get("intact"),
        said.get("checked", 0),
        said.get("first_bad"),
        said.get("why", ""),
    )


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
