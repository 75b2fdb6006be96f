"""Signing in and out, and the theme."""

from __future__ import annotations

import time
from urllib.parse import urlencode, urlsplit

from django.conf import settings
from django.contrib.auth import login as start_session
from django.contrib.auth import logout as end_session
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from accounts import factors, services, step_up
from accounts.errors import TooManyLogins, WrongCredentials
from accounts.forms import LoginForm
from accounts.models import User
from accounts.selectors import find_active
from accounts.sessions import CLIENT, FRESH
from hyprbox.lib import pages
from hyprbox.lib.actors import actor_of
from hyprbox.lib.db import database_now
from hyprbox.lib.errors import RateLimited
from hyprbox.lib.middleware import tell_refusal, with_wait

NEXT_THEME = {"": "dark", "auto": "dark", "dark": "light", "light": "auto"}
WRONG = "The e-mail address and the password do not match."
PENDING = "_pending"  # who has shown their password and has still to show a second factor
PENDING_SECONDS = 600
THEME_SECONDS = 365 * 24 * 3600


@never_cache
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def login(request: HttpRequest) -> HttpResponse:
    """The sign-in page. One sentence for every wrong pair, so that it tells nobody which accounts exist."""
    target = pages.safe_next(request)
    if request.method != "POST":
        return redirect(target) if actor_of(request).is_known else _login_page(request, LoginForm(), target)
    form = LoginForm(request.POST)
    if not form.is_valid():
        return _login_page(request, form, target, status=400)
    try:
        user = services.check_password(by=actor_of(request), **form.cleaned_data)
    except WrongCredentials:
        form.add_error(None, WRONG)
        return _login_page(request, form, target, status=401)
    except (RateLimited, TooManyLogins) as error:
        tell_refusal(request, error)
        form.add_error(None, error.message)
        return with_wait(_login_page(request, form, target, status=429), error)
    if user.has_factor:
        until = time.time() + PENDING_SECONDS
        request.session[PENDING] = {"user": str(user.pk), "version": user.token_version, "until": until}
        return redirect(f"{reverse('login-second')}?{urlencode({'next': target})}")
    return _start(request, user, target, via="page")


@never_cache
@sensitive_post_parameters(step_up.OTP, step_up.PASSKEY)
@require_http_methods(["GET", "HEAD", "POST"])
def login_second(request: HttpRequest) -> HttpResponse:
    """After the right password: the second factor, within ten minutes."""
    target, user = pages.safe_next(request), _pending(request)
    if user is None:
        return redirect(f"{reverse('login')}?{urlencode({'next': target})}")
    if request.method != "POST":
        return _second_page(request, user, target)
    by = actor_of(request)
    proof = step_up.proof_of(request)
    try:
        is_proven = factors.is_proven(user, proof, by=by)
    except RateLimited as error:
        return with_wait(_second_page(request, user, target, error=error.message, status=429), error)
    if not is_proven:
        services.note_failure(by=by, email=user.email, why="second factor")
        wrong = factors.WRONG_PASSKEY if proof.passkey else factors.WRONG
        return _second_page(request, user, target, error=wrong, status=401)
    via = "page and passkey" if proof.passkey else "page and code"
    return _start(request, user, target, via=via)


def _pending(request: HttpRequest) -> User | None:
    """Who has shown their password in this session a moment ago."""
    found = request.session.get(PENDING)
    if not found or found["until"] < time.time():
        return None
    user = find_active(found["user"])
    return user if user is not None and user.token_version == found["version"] and user.has_factor else None


def _second_page(request: HttpRequest, user: User, target: str, *, error: str = "", status: int = 200) -> HttpResponse:
    context = {"next": target, "error": error, **step_up.question(request, user)}
    return render(request, "accounts/login_second.html", context, status=status)


def _start(request: HttpRequest, user: User, target: str, *, via: str) -> HttpResponse:
    services.note_login(user=user, by=actor_of(request), via=via)
    request.session.pop(PENDING, None)
    start_session(request, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    request.session[CLIENT] = [actor_of(request).ip, request.headers.get("User-Agent", "")[:200]]
    if user.has_factor:
        request.session[FRESH] = (database_now() + factors.FRESH_FOR).isoformat()
    if user.needs_factor:
        return redirect("second-factor")
    return redirect(target)


def _login_page(request: HttpRequest, form: LoginForm, target: str, status: int = 200) -> HttpResponse:
    host = urlsplit(settings.HYPRBOX_PUBLIC_URL).netloc
    return render(request, "accounts/login.html", {"form": form, "next": target, "host": host}, status=status)


@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    if actor_of(request).is_known:
        services.log_out(by=actor_of(request))
    end_session(request)
    return redirect("login")


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """auto, dark, light, auto: what js/actions.js does without a reload."""
    response = redirect(pages.safe_next(request))
    chosen = NEXT_THEME.get(request.COOKIES.get("hb_theme", ""), "dark")
    response.set_cookie("hb_theme", chosen, max_age=THEME_SECONDS, samesite="Lax", secure=request.is_secure())
    return response
