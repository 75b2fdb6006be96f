"""Access and refresh tokens for the API. Page sessions are in `accounts.sessions`.

HS256 and nothing else; signature, exp, nbf, iss, aud and the token's own type are checked, with 30 s of leeway.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

from django.utils.crypto import salted_hmac
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

from accounts.errors import RefreshTokenInvalid
from accounts.models import RefreshFamily, User
from hyprbox.lib.errors import NotAuthenticated

ABSOLUTE_LIFETIME = dt.timedelta(days=30)
REFRESH_LIFETIME = dt.timedelta(days=7)
LEEWAY_SECONDS = 30  # as in `SIMPLE_JWT`


@dataclass(frozen=True, slots=True)
class Pair:
    access: str
    refresh: str


@dataclass(frozen=True, slots=True)
class Access:
    """What a good access token says. One without a family lives by itself until it expires."""

    user_id: str
    version: int
    family: str


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a good refresh token says."""

    user_id: str
    family: uuid.UUID


def access_token(user: User, family: uuid.UUID | None = None) -> str:
    token = AccessToken()
    token["sub"] = str(user.pk)
    token["ver"] = user.token_version
    token["nbf"] = token["iat"]
    if family is not None:
        token["fam"] = str(family)
    return str(token)


def first_refresh(family: RefreshFamily) -> str:
    """The token that starts a family at its `rotated_at`."""
    return _refresh(family, uuid.uuid4().hex, family.rotated_at)


def successor(family: RefreshFamily, token: str, at: dt.datetime) -> str:
    """What follows `token` in its family: for the same moment (whole seconds) always the same."""
    return _refresh(family, salted_hmac("accounts.refresh", token, algorithm="sha256").hexdigest(), at)


def _refresh(family: RefreshFamily, jti: str, at: dt.datetime) -> str:
    token = RefreshToken()
    token["jti"] = jti
    token["sub"] = str(family.user_id)
    token["fam"] = str(family.pk)
    token.set_iat(at_time=at)
    token["nbf"] = token["iat"]
    token.set_exp(from_time=at, lifetime=min(REFRESH_LIFETIME, family.expires_at - at))
    return str(token)


def read_access(text: str) -> Access:
    """Raises `NotAuthenticated` for anything but a good access token."""
    try:
        token = AccessToken(text)  # type: ignore[arg-type]
        return Access(str(token["sub"]), int(token["ver"]), str(token.get("fam", "")))
    except (TokenError, KeyError, ValueError, TypeError) as error:
        raise NotAuthenticated() from error


def read_refresh(text: str) -> Refresh:
    """Raises `RefreshTokenInvalid` for anything but a good refresh token."""
    try:
        token = RefreshToken(text)  # type: ignore[arg-type]
        return Refresh(str(token["sub"]), uuid.UUID(str(token["fam"])))
    except (TokenError, KeyError, ValueError, TypeError) as error:
        raise RefreshTokenInvalid() from error
