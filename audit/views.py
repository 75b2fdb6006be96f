"""The audit log as a page."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.views.decorators.http import require_safe

from audit import selectors
from audit.actions import Action
from hyprbox.lib import pages
from hyprbox.lib.pages import Crumb

PAGE_SIZE = 100


def _day(text: str, *, end: bool = False) -> datetime | None:
    """Midnight of a day in UTC; with `end` the midnight after it. None for anything that is not a day."""
    try:
        day = parse_date(text)
    except ValueError:
        return None
    if day is None:
        return None
    start = datetime(day.year, day.month, day.day, tzinfo=timezone.get_current_timezone())
    return start + timedelta(days=1) if end else start


@require_safe
def event_list(request: HttpRequest) -> HttpResponse:
    """Who did what, newest first; admins only."""
    actor = pages.actor_of(request)
    names = ("actor", "action", "target", "since", "until")
    wanted = {name: request.GET.get(name, "").replace("\0", "").strip()[:255] for name in names}
    events = selectors.list_events(
        by=actor,
        actor=wanted["actor"],
        action=wanted["action"],
        target=wanted["target"],
        since=_day(wanted["since"]),
        until=_day(wanted["until"], end=True),
    )
    context = {"wanted": wanted, "actions": Action.choices, "page": pages.page_of(request, events, PAGE_SIZE)}
    return pages.show(request, "audit/list.html", context, nav="audit", crumbs=(Crumb("Audit log"),))
