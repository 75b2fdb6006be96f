"""What can go wrong with people and their credentials."""

from __future__ import annotations

from hyprbox.lib.errors import Conflict, Forbidden, NotAuthenticated, RateLimited


class WrongCredentials(NotAuthenticated):
    """The e-mail address or the password is not right."""


class TooManyLogins(RateLimited):
    """Too many attempts. Wait a little, then try again."""


class RefreshTokenInvalid(NotAuthenticated):
    """This refresh token is not valid any more. Log in again."""


class EmailTaken(Conflict):
    """Someone with this e-mail address exists already."""


class RegistrationClosed(Forbidden):
    """Registration is closed here. Ask an admin for an account."""


class ForeignOrigin(Forbidden):
    """This request came from another site."""
