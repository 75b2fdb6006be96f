"""Showing the second factor again on pages, before something sensitive.

A form that was refused for it comes back as a page that asks for the factor and carries the form's fields. Sent again, it
goes to the same address with the factor beside them: the middleware looks at that first, then the form does what it was for.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url

from accounts import factors, passkeys, selectors
from accounts.models import User
from accounts.sessions import FRESH
from hyprbox.lib import pages
from hyprbox.lib.actors import Actor, Capability, actor_of, require, set_actor
from hyprbox.lib.errors import HyprBoxError, InvalidInput, RateLimited, SecondFactorRequired, StepUpRequired
from hyprbox.lib.middleware import tell_refusal, with_wait

OTP, PASSKEY = "_otp", "_passkey"
CHALLENGE = "_challenge"
CHALLENGE_SECONDS = 600
# What a page does not carry back and forth: passwords are typed again.
_NOT_CARRIED = frozenset({"csrfmiddlewaretoken", OTP, PASSKEY, "password", "current", "new"})


def new_challenge(request: HttpRequest) -> bytes:
    """What a passkey has to sign; kept in the session for one answer."""
    challenge = secrets.token_bytes(32)
    request.session[CHALLENGE] = [bytes_to_base64url(challenge), time.time() + CHALLENGE_SECONDS]
    return challenge


def take_challenge(request: HttpRequest) -> bytes:
    """The session's challenge, which is none any more; empty when there is none or it is old."""
    challenge, until = request.session.pop(CHALLENGE, ("", 0))
    return base64url_to_bytes(challenge) if until > time.time() else b""


def proof_of(request: HttpRequest) -> factors.Proof:
    answer = request.POST.get(PASSKEY, "")
    challenge = take_challenge(request) if answer else b""
    return factors.Proof(request.POST.get(OTP, "")[:64], answer, challenge)


def question(request: HttpRequest, user: User) -> dict[str, Any]:
    """What accounts/_factor.html asks of this user: `has_totp`, and `passkey` for the browser when there is one."""
    options = ""
    if passkeys.are_possible() and user.passkeys.exists():
        options = json.dumps(passkeys.request_options(user, new_challenge(request)))
    return {"has_totp": user.has_totp, "passkey": options, "otp_name": OTP, "passkey_name": PASSKEY}


def mark(request: HttpRequest, by: Actor, until: datetime) -> None:
    """Note it in the page's session, if the caller came with that; its key changes."""
    store: Any = request.session
    row = getattr(store, "row", None)
    if row is None or str(row.pk) != by.session:
        return
    store[FRESH] = until.isoformat()
    store.cycle_key()
    store.save()  # at once, for the verb that follows
    set_actor(request, dataclasses.replace(by, session=str(store.row.pk), fresh_until=until))


def ask(request: HttpRequest, *, error: str = "", status: int = 403) -> HttpResponse:
    """The page that asks, with the fields of the form that was refused."""
    user = selectors.find_active(actor_of(request).id)
    if user is None:
        return redirect("login")
    is_form = request.method == "POST"
    carried = [(name, value) for name, values in request.POST.lists() for value in values if name not in _NOT_CARRIED]
    context = {
        "action": request.get_full_path() if is_form else reverse("step-up"),
        "carried": carried if is_form else [("next", pages.safe_next(request))],
        "back": _back(request),
        "error": error,
        **question(request, user),
    }
    return render(request, "accounts/step_up.html", context, status=status)


def _back(request: HttpRequest) -> str:
    """The page that the form was on, without doing anything."""
    parts = urlsplit(request.headers.get("Referer", ""))
    is_ours = parts.netloc == request.get_host() and parts.path.startswith("/") and not parts.path.startswith("//")
    return f"{parts.path}{'?' + parts.query if parts.query else ''}" if is_ours else pages.safe_next(request)


class StepUpMiddleware:
    """Innermost: turns the refusal of a page's form into the question, and reads the answer that comes with it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        by = actor_of(request)
        if request.method != "POST" or not by.has_factor or request.path.startswith("/api/"):
            return None
        if not (request.POST.get(OTP) or request.POST.get(PASSKEY)):
            return None
        try:
            until = factors.step_up(by=by, proof=proof_of(request))
        except InvalidInput as error:
            return ask(request, error=next(iter(error.fields.values()))[0], status=400)
        except RateLimited as error:
            return with_wait(ask(request, error=error.message, status=429), error)
        mark(request, by, until)
        return None

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if request.path.startswith("/api/") or not isinstance(error, (StepUpRequired, SecondFactorRequired)):
            return None
        tell_refusal(request, error)
        where = reverse("second-factor" if isinstance(error, SecondFactorRequired) else "step-up")
        if request.headers.get("HX-Request"):
            here = urlsplit(request.headers.get("HX-Current-URL", "")).path or "/"
            return HttpResponse(status=403, headers={"HX-Redirect": f"{where}?{urlencode({'next': here})}"})
        return ask(request) if isinstance(error, StepUpRequired) else redirect(where)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def step_up(request: HttpRequest) -> HttpResponse:
    """Show the factor, then go to `next`. The middleware has looked at what was sent."""
    by = actor_of(request)
    require(by, Capability.OWN_ACCOUNT)
    target = pages.safe_next(request)
    if not by.has_factor:
        return redirect(target)
    is_shown = request.method == "POST" and bool(request.POST.get(OTP) or request.POST.get(PASSKEY))
    return redirect(target) if is_shown else ask(request, status=200)


def refusal_of(error: HyprBoxError) -> str:
    """The first sentence of what was refused."""
    return next((sentence for sentences in error.fields.values() for sentence in sentences), error.message)
