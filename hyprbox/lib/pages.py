"""What page views share: who is asking, the shell around a page, safe redirects and lists in pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme, urlencode

from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.paging import LongPaginator


@dataclass(frozen=True, slots=True)
class Crumb:
    """One step of the breadcrumb; the last one has no address."""

    label: str
    href: str = ""
    is_mono: bool = False


def actor_of(request: HttpRequest) -> Actor:
    """The person behind a page; `NotAuthenticated` (the way to the login page) for nobody."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    require(actor, Capability.VIEW_FLEET)
    return actor


def show(
    request: HttpRequest,
    template: str,
    context: dict[str, Any],
    *,
    nav: str = "",
    crumbs: tuple[Crumb, ...] = (),
    topics: tuple[str, ...] | None = (),
    status: int = 200,
) -> HttpResponse:
    """Render a page in its shell. `topics` are what its one live stream carries; None for a page with another stream."""
    events = "" if topics is None else f"{reverse('events')}?{urlencode({'topics': ','.join(('nav', *topics))})}"
    shell = {"nav": nav, "crumbs": crumbs, "events": events}
    return render(request, template, {**shell, **context}, status=status)


def is_fragment(request: HttpRequest) -> bool:
    """Whether htmx asks for a part of the page."""
    return request.headers.get("HX-Request") == "true"


def safe_next(request: HttpRequest, default: str = "/") -> str:
    """Where `next` points to, if that is on this very site; else `default`."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    is_here = url_has_allowed_host_and_scheme(
        wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    # A relative path without a leading slash would depend on where the form stands.
    return wanted if is_here and wanted.startswith("/") else default


def page_of(request: HttpRequest, rows: QuerySet[Any] | list[Any], size: int) -> Page[Any]:
    """The page that `?page=` asks for; the nearest one when there is no such page."""
    return LongPaginator(rows, size).get_page(request.GET.get("page"))
