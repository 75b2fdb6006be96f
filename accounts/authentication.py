"""Who is calling: the middleware for pages, DRF's classes for the API, and the same for streams.

The header wins over cookies. Every request reads `is_active`, the role and `token_version` again.
"""

from __future__ import annotations

from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from rest_framework.authentication import BaseAuthentication, CSRFCheck
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from accounts import jwt
from accounts.models import User
from accounts.selectors import actor_for, find_active
from hyprbox.lib import lanes
from hyprbox.lib.actors import Actor, set_actor
from hyprbox.lib.errors import NotAuthenticated
from hyprbox.lib.threads import in_thread

COOKIE = "hb_token"


def user_of_access_token(text: str) -> User:
    """Raises `NotAuthenticated` for anything but a good token of an active user."""
    user_id, version = jwt.read_access(text)
    user = find_active(user_id)
    if user is None or user.token_version != version:
        raise NotAuthenticated()
    return user


class ActorMiddleware:
    """Fills `request.actor` for pages, from the Django session."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        ip, request_id = getattr(request, "client_ip", ""), getattr(request, "id", "")
        if request.path.startswith(settings.STATIC_URL) or not request.COOKIES.get(settings.SESSION_COOKIE_NAME):
            set_actor(request, Actor.anonymous(ip=ip, request_id=request_id))
            return self.get_response(request)
        user = request.user
        if isinstance(user, User) and user.is_active:
            set_actor(request, actor_for(user, ip=ip, request_id=request_id))
        else:
            set_actor(request, Actor.anonymous(ip=ip, request_id=request_id))
        return self.get_response(request)


def _actor(request: Request, user: User) -> Actor:
    http = request._request
    return actor_for(user, ip=getattr(http, "client_ip", ""), request_id=getattr(http, "id", ""))


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer` with an access token. Node tokens are for agent routes only."""

    def authenticate(self, request: Request) -> tuple[User, Actor] | None:
        text = request.headers.get("Authorization", "")
        if not text:
            return None
        scheme, _, token = text.partition(" ")
        if scheme.lower() != "bearer":
            raise NotAuthenticated("Send the token as “Authorization: Bearer ...”.")
        if token.startswith("hbnt_"):
            raise NotAuthenticated("A node token opens the agents' routes only.")
        user = user_of_access_token(token.strip())
        return user, _actor(request, user)

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class CookieAuthentication(BaseAuthentication):
    """The `hb_token` cookie; unsafe methods need the CSRF token."""

    def authenticate(self, request: Request) -> tuple[User, Actor] | None:
        token = request.COOKIES.get(COOKIE)
        if not token or request.headers.get("Authorization"):
            return None
        try:
            user = user_of_access_token(token)
        except NotAuthenticated:
            return None  # a stale cookie: the page's session may still be good
        enforce_csrf(request)
        return user, _actor(request, user)


class PageSessionAuthentication(BaseAuthentication):
    """The dashboard's session; unsafe methods need the CSRF token."""

    def authenticate(self, request: Request) -> tuple[User, Actor] | None:
        if request.headers.get("Authorization"):
            return None
        user = getattr(request._request, "user", None)
        if not isinstance(user, User) or not user.is_active:
            return None
        enforce_csrf(request)
        return user, _actor(request, user)


def enforce_csrf(request: Request) -> None:
    """Raises `PermissionDenied` when an unsafe, cookie-authenticated request lacks the token."""
    check = CSRFCheck(lambda _request: None)  # type: ignore[arg-type]
    check.process_request(request._request)
    if reason := check.process_view(request._request, None, (), {}):  # type: ignore[arg-type]
        raise PermissionDenied(f"CSRF: {reason}")


def _scope_user(scope: lanes.Scope) -> User:
    authorization = lanes.header(scope, b"authorization")
    if authorization:
        return user_of_access_token(lanes.bearer(scope))
    try:
        cookies = SimpleCookie(lanes.header(scope, b"cookie"))
    except CookieError:
        raise NotAuthenticated() from None
    if COOKIE in cookies:
        try:
            return user_of_access_token(cookies[COOKIE].value)
        except NotAuthenticated:
            pass
    if settings.SESSION_COOKIE_NAME in cookies:
        user = _session_user(cookies[settings.SESSION_COOKIE_NAME].value)
        if user is not None:
            return user
    raise NotAuthenticated()


def _session_user(session_key: str) -> User | None:
    """The same checks that Django's own middleware makes, for a connection that has no request."""
    request: Any = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    if not {SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY} <= set(request.session.keys()):
        return None
    user = get_user(request)
    if not isinstance(user, User) or not user.is_active:
        return None
    stored = request.session.get(HASH_SESSION_KEY, "")
    return user if constant_time_compare(stored, user.get_session_auth_hash()) else None


async def actor_from_scope(scope: lanes.Scope) -> Actor:
    """The person behind a stream. Raises `NotAuthenticated`."""
    user = await in_thread(_scope_user, scope)
    return actor_for(user, ip=lanes.peer_ip(scope), request_id=lanes.request_id_of(scope))
