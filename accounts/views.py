"""Signing in and out, and the theme."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import login as start_session
from django.contrib.auth import logout as end_session
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from accounts import services
from accounts.errors import TooManyLogins, WrongCredentials
from accounts.forms import LoginForm
from accounts.sessions import CLIENT
from hyprbox.lib import pages
from hyprbox.lib.actors import actor_of
from hyprbox.lib.errors import RateLimited
from hyprbox.lib.middleware import tell_refusal

NEXT_THEME = {"": "dark", "auto": "dark", "dark": "light", "light": "auto"}
WRONG = "The e-mail address and the password do not match."
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
        user = services.check_credentials(by=actor_of(request), **form.cleaned_data)
    except WrongCredentials:
        form.add_error(None, WRONG)
        return _login_page(request, form, target, status=401)
    except (RateLimited, TooManyLogins) as error:
        tell_refusal(request, error)
        form.add_error(None, error.message)
        return _login_page(request, form, target, status=429)
    services.note_login(user=user, by=actor_of(request), via="page")
    start_session(request, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    request.session[CLIENT] = [actor_of(request).ip, request.headers.get("User-Agent", "")[:200]]
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
