"""Who is calling: the middleware for pages, DRF's classes for the API, and the same for streams.

The header wins over cookies. Every request reads `is_active`, the role and `token_version` again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from rest_framework.authentication import BaseAuthentication, CSRFCheck
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from accounts import families, jwt, keys
from accounts.models import User
from accounts.selectors import KEY_SCHEME, actor_for, find_active, find_family, find_key
from accounts.sessions import SessionStore
from hyprbox.lib import lanes
from hyprbox.lib.actors import Actor, set_actor
from hyprbox.lib.errors import NotAuthenticated
from hyprbox.lib.threads import in_thread

COOKIE = "hb_token"


@dataclass(frozen=True, slots=True)
class Proven:
    """A user and what proved it: `session` is a family's or a page session's id, `scopes` and the prefix `key` are a key's."""

    user: User
    session: str = ""
    fresh_until: datetime | None = None
    scopes: tuple[str, ...] | None = None
    key: str = ""

    def actor(self, *, ip: str, request_id: str) -> Actor:
        return actor_for(
            self.user,
            ip=ip,
            request_id=request_id,
            session=self.session,
            fresh_until=self.fresh_until,
            scopes=self.scopes,
            key=self.key,
        )


def prove_bearer(text: str) -> Proven:
    """Raises `NotAuthenticated` for anything but a good access token or key of an active user."""
    if text.startswith(KEY_SCHEME):
        key = find_key(text)
        if key is None:
            raise NotAuthenticated()
        keys.note_use(key)
        return Proven(key.user, scopes=tuple(key.scopes), key=key.prefix)
    return prove_access(text)


def prove_access(text: str) -> Proven:
    """Raises `NotAuthenticated` for anything but a good access token of an active user."""
    access = jwt.read_access(text)
    if access.family:
        family = find_family(access.family, access.user_id)
        if family is None:
            raise NotAuthenticated()
        return Proven(family.user, str(family.pk), families.fresh_until(family))
    user = find_active(access.user_id)
    if user is None or user.token_version != access.version:
        raise NotAuthenticated()
    return Proven(user)


def prove_session(store: SessionStore, user: Any) -> Proven | None:
    """What a page's session proves; None when there is nobody in it."""
    if not isinstance(user, User) or not user.is_active:
        return None
    row = store.row
    return Proven(user, str(row.pk) if row else "", store.fresh_until)


class ActorMiddleware:
    """Fills `request.actor` for pages, from the Django session."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        ip, request_id = getattr(request, "client_ip", ""), getattr(request, "id", "")
        if request.path.startswith(settings.STATIC_URL) or not request.COOKIES.get(settings.SESSION_COOKIE_NAME):
            set_actor(request, Actor.anonymous(ip=ip, request_id=request_id))
            return self.get_response(request)
        store: Any = request.session
        proven = prove_session(store, request.user)
        if proven is None:
            set_actor(request, Actor.anonymous(ip=ip, request_id=request_id))
            return self.get_response(request)
        lanes.prove(_scope_of(request), request.COOKIES[settings.SESSION_COOKIE_NAME])
        store.touch()
        set_actor(request, proven.actor(ip=ip, request_id=request_id))
        return self.get_response(request)


def _scope_of(request: HttpRequest) -> lanes.Scope:
    return getattr(request, "scope", {})  # under ASGI


def _actor(request: Request, proven: Proven, shown: str) -> Actor:
    http = request._request
    lanes.prove(_scope_of(http), shown)
    return proven.actor(ip=getattr(http, "client_ip", ""), request_id=getattr(http, "id", ""))


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer` with an access token or an API key. Node tokens are for agent routes only."""

    def authenticate(self, request: Request) -> tuple[User, Actor] | None:
        text = request.headers.get("Authorization", "")
        if not text:
            return None
        scheme, _, token = text.partition(" ")
        if scheme.lower() != "bearer":
            raise NotAuthenticated("Send the token as “Authorization: Bearer ...”.")
        if token.startswith("hbnt_"):
            raise NotAuthenticated("A node token opens the agents' routes only.")
        proven = prove_bearer(token.strip())
        return proven.user, _actor(request, proven, token.strip())

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class CookieAuthentication(BaseAuthentication):
    """The `hb_token` cookie; unsafe methods need the CSRF token."""

    def authenticate(self, request: Request) -> tuple[User, Actor] | None:
        token = request.COOKIES.get(COOKIE)
        if not token or request.headers.get("Authorization"):
            return None
        try:
            proven = prove_access(token)
        except NotAuthenticated:
            return None  # a stale cookie: the page's session may still be good
        actor = _actor(request, proven, token)
        enforce_csrf(request)
        return proven.user, actor


class PageSessionAuthentication(BaseAuthentication):
    """The dashboard's session; unsafe methods need the CSRF token."""

    def authenticate(self, request: Request) -> tuple[User, Actor] | None:
        if request.headers.get("Authorization"):
            return None
        http: Any = request._request
        proven = prove_session(http.session, getattr(http, "user", None))
        if proven is None:
            return None
        actor = _actor(request, proven, http.COOKIES.get(settings.SESSION_COOKIE_NAME, ""))
        enforce_csrf(request)
        return proven.user, actor


def enforce_csrf(request: Request) -> None:
    """Raises `PermissionDenied` when an unsafe, cookie-authenticated request lacks the token."""
    check = CSRFCheck(lambda _request: None)  # type: ignore[arg-type]
    check.process_request(request._request)
    if reason := check.process_view(request._request, None, (), {}):  # type: ignore[arg-type]
        raise PermissionDenied(f"CSRF: {reason}")


def _scope_proven(scope: lanes.Scope) -> Proven:
    if lanes.header(scope, b"authorization"):
        token = lanes.bearer(scope)
        proven = prove_bearer(token)
        lanes.prove(scope, token)
        return proven
    cookies = lanes.cookies(scope)
    if access := cookies.get(COOKIE):
        try:
            proven = prove_access(access)
            lanes.prove(scope, access)
            return proven
        except NotAuthenticated:
            pass
    if key := cookies.get(settings.SESSION_COOKIE_NAME):
        in_session = _session_proven(key)
        if in_session is not None:
            lanes.prove(scope, key)
            return in_session
    raise NotAuthenticated()


def _session_proven(session_key: str) -> Proven | None:
    """The same checks that Django's own middleware makes, for a connection that has no request.

    An open stream is no sign that someone is there: it does not keep a session from becoming idle.
    """
    request: Any = HttpRequest()
    request.session = SessionStore(session_key)
    if not {SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY} <= set(request.session.keys()):
        return None
    user = get_user(request)
    if not isinstance(user, User):
        return None
    stored = request.session.get(HASH_SESSION_KEY, "")
    is_same = constant_time_compare(stored, user.get_session_auth_hash())
    return prove_session(request.session, user) if is_same else None


async def actor_from_scope(scope: lanes.Scope) -> Actor:
    """The person behind a stream. Raises `NotAuthenticated`."""
    proven = await in_thread(_scope_proven, scope)
    return proven.actor(ip=lanes.peer_ip(scope), request_id=lanes.request_id_of(scope))
