"""Pages of the roof: their addresses, error pages, the palette, the style guide."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, URLResolver, include, path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from hyprbox import finding, installer, styleguide, token_pages
from hyprbox.fleet import editing
from hyprbox.fleet import views as fleet
from hyprbox.lib import pages, searching
from hyprbox.lib.errors import Forbidden, InvalidInput, NotFound, defect
from hyprbox.lib.middleware import as_hyprbox_error, error_response, tell_refusal
from hyprbox.lib.pages import Crumb


@require_safe
def palette(request: HttpRequest) -> HttpResponse:
    """Find a node, a job or a preset: a fragment for the palette, a page without JavaScript."""
    q = request.GET.get("q", "").replace("\0", "").strip()[:120]
    context = {"q": q, "found": finding.find(q, by=pages.actor_of(request))}
    context["hint"] = searching.HINT if searching.is_too_short(q) else ""
    if pages.is_fragment(request):
        return render(request, "partials/_palette_found.html", context)
    return pages.show(request, "palette.html", context, crumbs=(Crumb("Find or run"),))


def events_unavailable(request: HttpRequest) -> HttpResponse:
    """The stream itself is mounted before Django; this names its address and answers under a plain WSGI server."""
    return HttpResponse(status=406)


@csrf_exempt  # nothing happens here, and a program that mistyped an address is told so
def api_not_found(request: HttpRequest) -> HttpResponse:
    error = NotFound("There is no such address in this API.")
    return JsonResponse(error.as_dict(), status=error.status)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return error_response(request, InvalidInput("The request cannot be understood."))


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return error_response(request, Forbidden())


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return error_response(request, NotFound())


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The form's token is missing or old: most often a page that was open for too long."""
    error = Forbidden("This form was open for too long. Go back, reload the page and try again.")
    tell_refusal(request, error)
    return error_response(request, error)


def server_error(request: HttpRequest) -> HttpResponse:
    """What a middleware could not take: a database that is away says so, everything else is a defect."""
    error = sys.exc_info()[1]
    known = None if error is None else as_hyprbox_error(error)
    return error_response(request, known or defect())


def _folder(place: str) -> Callable[[HttpRequest], HttpResponse]:
    """Who shortens an address to a folder of others is led to the page that lists them."""

    @require_safe
    def lead(request: HttpRequest) -> HttpResponse:
        pages.actor_of(request)
        return redirect(place)

    return lead


# The folders of pages that are no page themselves; a test finds one that is missing here.
FOLDERS = {
    "settings/": "profile",
    "settings/people/invitations/": "people",
    "profile/sessions/": "profile",
    "nodes/": "nodes:overview",
    "jobs/new/": "presets:list",
    "jobs/batches/": "jobs:list",
    "drift/presets/": "jobs:drift",
    "invitation/": "login",
}
_fleet: list[URLPattern | URLResolver] = [
    path("", fleet.overview, name="overview"),
    path("nodes/<str:node_id>/", fleet.node, name="detail"),
    path("nodes/<str:node_id>/edit/", editing.edit, name="edit"),
    path("nodes/<str:node_id>/remove/", editing.remove, name="remove"),
    path("nodes/<str:node_id>/confirm-machine/", fleet.confirm_machine, name="confirm_machine"),
]
_tokens: list[URLPattern | URLResolver] = [
    path("settings/tokens/", token_pages.token_list, name="list"),
    path("settings/tokens/<uuid:token_id>/revoke/", token_pages.revoke, name="revoke"),
    path("settings/tokens/<uuid:token_id>/rotate/", token_pages.rotate, name="rotate"),
]
urlpatterns: list[Any] = [
    path("", include((_fleet, "nodes"))),
    path("", include((_tokens, "tokens"))),
    *(path(folder, _folder(place)) for folder, place in FOLDERS.items()),
    path("live/", fleet.live, name="live"),
    path("palette/", palette, name="palette"),
    path("events/", events_unavailable, name="events"),
    path("install.sh", installer.install_sh, name="install-script"),
    path("agent/hyprnode.pyz", installer.agent_pyz, name="agent-file"),
]
if settings.DEBUG:
    urlpatterns.append(path("styleguide/", styleguide.page, name="styleguide"))
