"""Reading the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import QuerySet

from audit.actions import Action
from audit.models import Event
from hyprbox.lib.actors import Actor, Capability, Kind, require

# An entry's time is that of its transaction's beginning, its number of when it was inserted: hours apart at most.
SLACK = timedelta(hours=1)
# The first number from which on the entries are not older than a moment, found by halving: some twenty look-ups.
_FIRST_SINCE = """
WITH RECURSIVE search (low, high) AS (
  SELECT min(id), max(id) FROM audit_event
  UNION ALL
  SELECT CASE WHEN found.at < %(moment)s THEN middle + 1 ELSE low END, CASE WHEN found.at < %(moment)s THEN high ELSE middle END
  FROM (SELECT low, high, (low + high) / 2 AS middle FROM search WHERE low < high) AS half,
    LATERAL (SELECT at FROM audit_event WHERE id >= half.middle ORDER BY id LIMIT 1) AS found
)
SELECT min(low) FROM search WHERE low >= high
"""


@dataclass(frozen=True, slots=True)
class LastVerification:
    """What the newest run said: `intact` is None when it could not tell. `by` is empty for whoever may not know."""

    at: datetime
    by: str
    intact: bool | None
    checked: int
    first_bad: dict[str, Any] | None
    why: str


@dataclass(frozen=True, slots=True)
class Slice:
    """Entries, newest first, and the numbers where the newer and the older ones begin; None at the ends of the log."""

    events: list[Event]
    newer_than: int | None
    older_than: int | None


def last_verification(*, by: Actor) -> LastVerification | None:
    """None when nobody has verified the log yet."""
    require(by, Capability.VIEW_OWN_AUDIT)
    event = Event.objects.filter(action=Action.AUDIT_VERIFIED).order_by("-id").first()
    if event is None:
        return None
    said = event.detail
    return LastVerification(
        event.at,
        event.actor_name if by.can(Capability.VIEW_AUDIT) else "",
        said.get("intact"),
        said.get("checked", 0),
        said.get("first_bad"),
        said.get("why", ""),
    )


@dataclass(frozen=True, slots=True)
class Fork:
    """What a node's agent told: it kept a checkpoint of entry `n` that a later one contradicts.

    `log_has` says which of the two the log agrees with now: `kept`, `refused` (what the agent kept was written anew),
    or `neither`.
    """

    at: datetime
    node_id: str
    n: int
    log_has: str


def last_fork(*, since: datetime | None = None) -> Fork | None:
    """The newest one, or None when no agent has told of any (`since` then)."""
    told = Event.objects.filter(action=Action.AUDIT_FORKED).order_by("-id")
    event = (told.filter(at__gte=since) if since else told).first()
    if event is None:
        return None
    return Fork(event.at, event.actor_name, event.detail["kept"]["n"], event.detail["log_has"])


def newest(action: Action) -> Event | None:
    return Event.objects.filter(action=action).order_by("-id").first()


def count(action: Action) -> int:
    return Event.objects.filter(action=action).count()


def list_events(
    *,
    by: Actor,
    actor: str = "",
    action: str = "",
    target: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> QuerySet[Event]:
    """Entries that match, newest first: all of them for admins, for operators what they did themselves."""
    require(by, Capability.VIEW_OWN_AUDIT)
    events = Event.objects.order_by("-id")
    if not by.can(Capability.VIEW_AUDIT):
        events = events.filter(actor_kind=Kind.USER.value, actor_id=by.id)
    if actor:
        events = events.filter(actor_name=actor)
    if action:
        events = events.filter(action=action)
    if target:
        events = events.filter(target=target)
    if since:
        events = events.filter(at__gte=since, id__gte=_first_since(since - SLACK))
    if until:
        events = events.filter(at__lt=until, id__lte=_first_since(until + SLACK))
    return events


def slice_of(events: QuerySet[Event], *, size: int, before: int | None = None, after: int | None = None) -> Slice:
    """So many entries below the number `before`, or above `after`, or the newest. Whatever the length of the log, it
    reads no more than it shows: no offsets, and nobody counts."""
    if after is not None and before is None:
        found = list(events.filter(id__gt=after).order_by("id")[: size + 1])
        has_newer, found = len(found) > size, found[:size][::-1]
        has_older = bool(found) and events.filter(id__lt=found[-1].pk).exists()
    else:
        found = list((events if before is None else events.filter(id__lt=before))[: size + 1])
        has_older, found = len(found) > size, found[:size]
        has_newer = bool(found) and before is not None and events.filter(id__gt=found[0].pk).order_by("id").exists()
    return Slice(found, found[0].pk if has_newer else None, found[-1].pk if has_older else None)


def _first_since(moment: datetime) -> int:
    with connection.cursor() as cursor:
        cursor.execute(_FIRST_SINCE, {"moment": moment})
        found = cursor.fetchone()[0]
    return int(found or 0)
