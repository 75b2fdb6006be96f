"""Profile, Second factor: the app, passkeys and recovery codes."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import segno
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.safestring import mark_safe
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from accounts import factors, passkeys, selectors, services, step_up
from accounts.models import User
from accounts.sessions import FRESH
from hyprbox.lib import pages, secretbox
from hyprbox.lib.actors import Actor, Capability, actor_of, require
from hyprbox.lib.db import database_now
from hyprbox.lib.errors import Conflict, InvalidInput, RateLimited
from hyprbox.lib.middleware import with_wait
from hyprbox.lib.pages import Crumb

SEED = "_seed"  # a seed that was shown and is still to be confirmed: [key id, encrypted, until]
PASSKEY_BEGUN = "_passkey_begun"  # until when the caller may register a passkey
SETUP_SECONDS = 900


@never_cache
@require_safe
def second_factor(request: HttpRequest) -> HttpResponse:
    return _page(request)


def _caller(request: HttpRequest) -> Actor:
    """Anyone who is signed in: who needs a factor first may do this alone."""
    by = actor_of(request)
    require(by, Capability.OWN_ACCOUNT)
    return by


def _page(request: HttpRequest, status: int = 200, **context: Any) -> HttpResponse:
    by = _caller(request)
    user = services.whoami(by=by)
    shown = {
        "person": user,
        "can_passkey": passkeys.are_possible(),
        "codes_left": len(user.recovery_codes),
        "must": user.needs_factor,
        **context,
    }
    problems = shown.setdefault("problems", {})
    shown["passkeys"] = [(one, problems.get(f"remove-{one.pk}", "")) for one in selectors.list_passkeys(by=by)]
    crumbs = (Crumb("Profile", reverse("profile")), Crumb("Second factor"))
    return pages.show(
        request, "accounts/second_factor.html", shown, nav="profile", crumbs=crumbs, topics=None, status=status
    )


def _try(request: HttpRequest, place: str, verb: Callable[[], Any], **context: Any) -> tuple[Any, HttpResponse | None]:
    """What `verb` gives, or the page that says at `place` why not."""
    _caller(request)
    try:
        return verb(), None
    except (InvalidInput, Conflict, RateLimited) as error:
        problems = {place: step_up.refusal_of(error)}
        return None, with_wait(_page(request, error.status, problems=problems, **context), error)


@never_cache
@sensitive_post_parameters("password")
@require_POST
def begin_app(request: HttpRequest) -> HttpResponse:
    """A new seed to scan, after the password or a fresh factor. Nothing changes until a code of it was entered."""
    by = _caller(request)
    user, refusal = _try(request, "app", lambda: factors.confirm(by=by, password=request.POST.get("password", "")))
    if refusal:
        return refusal
    seed = factors.new_seed()
    key_id, box = secretbox.encrypt(seed.encode(), place=_place(by))
    until = time.time() + SETUP_SECONDS
    request.session[SEED] = [key_id, base64.b64encode(box).decode(), until]
    return _page(request, setup=_setup(seed, user))


def _place(by: Actor) -> str:
    return f"totp-draft:{by.id}"


@sensitive_variables("seed")
def _setup(seed: str, user: User) -> dict[str, Any]:
    host = urlsplit(settings.HYPRBOX_PUBLIC_URL).hostname or ""
    address = factors.address_of(seed, user, host)
    # No style attributes and no scripts in it: the page's Content-Security-Policy holds.
    code = segno.make(address, error="m").svg_inline(scale=4, border=4, dark="#000", light="#fff", omitsize=True)
    spaced = " ".join(seed[at : at + 4] for at in range(0, len(seed), 4))
    return {"seed": spaced, "address": address, "qr": mark_safe(code)}


def _draft(request: HttpRequest, by: Actor) -> str:
    """The seed that was shown. Raises `Conflict` when that was too long ago."""
    key_id, box, until = request.session.get(SEED, ("", "", 0))
    try:
        seed = secretbox.decrypt(key_id, base64.b64decode(box), place=_place(by)) if until > time.time() else b""
    except secretbox.SecretsKeyUnusable:  # its key was replaced meanwhile
        seed = b""
    if not seed:
        raise Conflict("That code was shown too long ago: begin again.")
    return seed.decode()


@never_cache
@require_POST
def confirm_app(request: HttpRequest) -> HttpResponse:
    by = _caller(request)
    seed, refusal = _try(request, "app", lambda: _draft(request, by))
    if refusal:
        return refusal
    context = {"setup": _setup(seed, services.whoami(by=by))}
    code = request.POST.get("code", "")
    added, refusal = _try(request, "code", lambda: factors.add_totp(by=by, seed=seed, code=code), **context)
    if refusal:
        return refusal
    request.session.pop(SEED, None)
    return _added(request, added, "The app is your second factor now.")


@never_cache
@sensitive_post_parameters("password")
@require_POST
def begin_passkey(request: HttpRequest) -> HttpResponse:
    """What the browser is asked to make, after the password or a fresh factor."""
    by = _caller(request)
    user, refusal = _try(request, "passkey", lambda: factors.confirm(by=by, password=request.POST.get("password", "")))
    if refusal:
        return refusal
    name = request.POST.get("name", "").strip()[:120]
    if not name:
        return _page(request, 400, problems={"passkey": "Give the passkey a name, so that you know it again."})
    request.session[PASSKEY_BEGUN] = time.time() + SETUP_SECONDS
    options = passkeys.creation_options(user, step_up.new_challenge(request))
    return _page(request, creation={"name": name, "options": json.dumps(options)})


@never_cache
@require_POST
def confirm_passkey(request: HttpRequest) -> HttpResponse:
    by = _caller(request)
    challenge, begun = step_up.take_challenge(request), request.session.pop(PASSKEY_BEGUN, 0)

    def add() -> Any:
        if not challenge or begun < time.time():
            raise Conflict("That was asked for too long ago: begin again.")
        given = request.POST
        return factors.add_passkey(
            by=by, name=given.get("name", "")[:120], answer=given.get("answer", ""), challenge=challenge
        )

    added, refusal = _try(request, "passkey", add)
    return refusal or _added(request, added, "The passkey is registered.")


def _added(request: HttpRequest, added: tuple[User, list[str]], sentence: str) -> HttpResponse:
    """Who has just shown a factor is fresh; the recovery codes are on this page and never again."""
    user, codes = added
    request.session[FRESH] = (database_now() + factors.FRESH_FOR).isoformat()
    return _changed(request, user, sentence, codes)


def _changed(request: HttpRequest, user: User, sentence: str, codes: list[str] | None = None) -> HttpResponse:
    update_session_auth_hash(request, user)
    if codes:
        return _page(request, codes=codes, said=sentence)
    messages.success(request, sentence)
    return redirect("second-factor")


@sensitive_post_parameters("password")
@require_POST
def remove_app(request: HttpRequest) -> HttpResponse:
    by, password = _caller(request), request.POST.get("password", "")
    user, refusal = _try(request, "remove_app", lambda: factors.remove_totp(by=by, password=password))
    return refusal or _changed(request, user, "The app is no second factor any more.")


@sensitive_post_parameters("password")
@require_POST
def remove_passkey(request: HttpRequest, passkey_id: uuid.UUID) -> HttpResponse:
    by, password = _caller(request), request.POST.get("password", "")
    user, refusal = _try(
        request,
        f"remove-{passkey_id}",
        lambda: factors.remove_passkey(by=by, passkey_id=passkey_id, password=password),
    )
    return refusal or _changed(request, user, "The passkey is removed.")


@never_cache
@require_POST
def renew_codes(request: HttpRequest) -> HttpResponse:
    by = _caller(request)
    made, refusal = _try(request, "codes", lambda: factors.renew_codes(by=by))
    return refusal or _page(request, codes=made[1], said="These are your new recovery codes.")
