"""The audit log as a page."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.views.decorators.http import require_POST, require_safe

from audit import selectors, services
from audit.actions import Action
from audit.downloads import as_file, heavy
from audit.verifying import CannotTell
from hyprbox.lib import pages
from hyprbox.lib.actors import Capability, require
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


def _wanted(request: HttpRequest) -> dict[str, str]:
    names = ("actor", "action", "target", "since", "until")
    return {name: request.GET.get(name, "").replace("\0", "").strip()[:255] for name in names}


def _as_filter(wanted: dict[str, str]) -> dict[str, Any]:
    return {**wanted, "since": _day(wanted["since"]), "until": _day(wanted["until"], end=True)}


def _number(request: HttpRequest, name: str) -> int | None:
    text = request.GET.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


@require_safe
def event_list(request: HttpRequest) -> HttpResponse:
    """Who did what, newest first; operators see what they did themselves."""
    wanted, by = _wanted(request), pages.actor_of(request)
    events = selectors.list_events(by=by, **_as_filter(wanted))
    before, after = _number(request, "before"), _number(request, "after")
    context = {
        "wanted": wanted,
        "actions": Action.choices,
        "page": selectors.slice_of(events, size=PAGE_SIZE, before=before, after=after),
        "is_paged": before is not None or after is not None,
        "verified": selectors.last_verification(by=by),
        "is_own": not by.can(Capability.VIEW_AUDIT),
        "forked": selectors.last_fork() if by.can(Capability.VIEW_AUDIT) else None,
    }
    return pages.show(request, "audit/list.html", context, nav="audit", crumbs=(Crumb("Audit log"),))


@require_safe
def export(request: HttpRequest) -> StreamingHttpResponse:
    """What the filters show, as a file."""
    kind = "csv" if request.GET.get("format") == "csv" else "jsonl"
    by = pages.actor_of(request)
    require(by, Capability.VIEW_OWN_AUDIT)
    return as_file(by, {"format": kind, **_as_filter(_wanted(request))})


@require_POST
def verify(request: HttpRequest) -> HttpResponse:
    """Walk the chain now; the page then says what came of it."""
    try:
        by = pages.actor_of(request)
        require(by, Capability.VIEW_OWN_AUDIT)
        heavy.take(by.id)
        report = services.verify_log(by=by)
    except CannotTell as error:
        messages.error(request, str(error))
    else:
        if report.tampering is not None:
            messages.error(request, f"Entry {report.tampering.n}: {report.tampering.kind}. {report.tampering.why}.")
    return redirect("audit:list")
