"""Access and refresh tokens for the API. Page sessions are Django's own."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

from accounts.errors import RefreshTokenInvalid
from accounts.models import User
from hyprbox.lib.errors import NotAuthenticated

ABSOLUTE_LIFETIME = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Pair:
    access: str
    refresh: str


def access_token(user: User) -> str:
    token = AccessToken()
    token["sub"] = str(user.pk)
    token["ver"] = user.token_version
    return str(token)


def refresh_token(user: User, family: Any) -> RefreshToken:
    token = RefreshToken()
    token["sub"] = str(user.pk)
    token["ver"] = user.token_version
    token["fam"] = str(family)
    return token


def read_access(text: str) -> tuple[str, int]:
    """`(user id, token_version)` of a valid access token. Raises `NotAuthenticated`."""
    try:
        token = AccessToken(text)  # type: ignore[arg-type]
        return str(token["sub"]), int(token["ver"])
    except (TokenError, KeyError, ValueError, TypeError) as error:
        raise NotAuthenticated() from error


def read_refresh(text: str) -> tuple[str, int, str, str]:
    """`(user id, token_version, family, jti)`. Raises `RefreshTokenInvalid`."""
    try:
        token = RefreshToken(text)  # type: ignore[arg-type]
        return str(token["sub"]), int(token["ver"]), str(token["fam"]), str(token["jti"])
    except (TokenError, KeyError, ValueError, TypeError) as error:
        raise RefreshTokenInvalid() from error
