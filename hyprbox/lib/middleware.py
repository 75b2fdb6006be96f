"""Request ids, headers and the one place where an error becomes an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import DataError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode

from hyprbox.lib import lanes, refusals
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import (
    BodyTooLarge,
    Forbidden,
    HyprBoxError,
    InvalidInput,
    MethodNotAllowed,
    NotAuthenticated,
    NotFound,
    Unavailable,
    defect,
)
from hyprbox.lib.headers import EVERYWHERE
from hyprbox.lib.ids import client_ip, new_request_id

GetResponse = Callable[[HttpRequest], HttpResponse]
log = structlog.get_logger(__name__)


class RequestIdMiddleware:
    """Gives each request its id and the client's address, and returns the id in `X-Request-Id`."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = new_request_id(request.headers.get("X-Request-Id"))
        request.id = request_id  # type: ignore[attr-defined]
        request.client_ip = client_ip(  # type: ignore[attr-defined]
            request.META.get("REMOTE_ADDR", ""),
            request.headers.get("X-Forwarded-For", ""),
            settings.HYPRBOX_TRUSTED_PROXIES,
        )
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            response = self.get_response(request)
        response.headers["X-Request-Id"] = request_id
        return response


class SecurityHeadersMiddleware:
    """The headers of every answer, those included that a middleware gives. Outermost, so that none is left out."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        for name, value in EVERYWHERE.items():
            response.headers[name] = value
        if not request.path.startswith(settings.STATIC_URL):
            response.headers.setdefault("Cache-Control", "no-store")
        return response


def as_hyprbox_error(error: BaseException) -> HyprBoxError | None:
    """The error that a caller may see for what was raised, or None for a defect."""
    match error:
        case HyprBoxError():
            return error
        case Http404():
            return NotFound()
        case PermissionDenied():
            return Forbidden()
        case RequestDataTooBig():
            return BodyTooLarge()
        case SuspiciousOperation():
            return InvalidInput("The request cannot be understood.")
        case OperationalError() | InterfaceError():
            return Unavailable()
        case DataError() if "NUL" in str(error):
            return InvalidInput("There is a NUL character in what was sent, which no field takes.")
    return None


def error_response(request: HttpRequest, error: HyprBoxError) -> HttpResponse:
    """The error as JSON under /api/, else as a page."""
    if request.path.startswith("/api/"):
        response: HttpResponse = JsonResponse(error.as_dict(), status=error.status)
    elif error.status == 401 and request.method == "GET":
        return redirect(f"{reverse('login')}?{urlencode({'next': request.get_full_path()})}")
    else:
        context = {"error": error, "status": error.status, "request_id": getattr(request, "id", "")}
        response = render(request, "errors/error.html", context, status=error.status)
    return with_wait(response, error)


def with_wait(response: HttpResponse, error: HyprBoxError) -> HttpResponse:
    """The answer to `error`, with the seconds after which it is worth to try again."""
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def tell_refusal(request: HttpRequest, error: HyprBoxError, proven: object = None) -> None:
    """Tell the audit log that a request was refused. `proven` is the actor whom another credential than the page's named."""
    counted = getattr(request, "scope", {}).get(lanes.BEARER_IS_COUNTED)
    if not error.is_refusal or (error.status == 401 and counted):
        return
    ip, request_id = getattr(request, "client_ip", ""), getattr(request, "id", "")
    by = proven if isinstance(proven, Actor) else getattr(request, "actor", None)
    match = request.resolver_match
    refusals.tell(
        error,
        by=by or Actor.anonymous(ip=ip, request_id=request_id),
        route=(match.view_name or match.route) if match else "none",
        method=request.method or "",
    )


class ErrorMiddleware:
    """Innermost: turns known errors of page views into pages, defects into a page with the request id."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if isinstance(response, HttpResponseNotAllowed) and not response.content:
            return self._not_allowed(request, response)
        return response

    def _not_allowed(self, request: HttpRequest, empty: HttpResponse) -> HttpResponse:
        """A browser that comes back to the address of a form asks for it with GET, and would show an empty page."""
        response = error_response(request, MethodNotAllowed("This address only takes what a form sends."))
        response.headers["Allow"] = empty.headers["Allow"]
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        known = as_hyprbox_error(error)
        if known is None:
            log.error("request.failed", path=request.path, exc_info=error)
            if settings.DEBUG and not request.path.startswith("/api/"):
                return None
            known = defect()
        if isinstance(known, NotAuthenticated) and request.headers.get("HX-Request"):
            return HttpResponse(status=401, headers={"HX-Redirect": reverse("login")})
        response = error_response(request, known)
        if response.status_code != 302:  # to be shown the way to the log-in is no refusal
            tell_refusal(request, known)
        return response


def page_context(request: HttpRequest) -> dict[str, Any]:
    """What every template may use: the actor, the theme, the request id."""
    theme = request.COOKIES.get("hb_theme", "")
    return {
        "actor": getattr(request, "actor", None),
        "theme": theme if theme in ("dark", "light") else "",
        "request_id": getattr(request, "id", ""),
        "public_url": settings.HYPRBOX_PUBLIC_URL,
    }
