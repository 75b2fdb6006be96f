"""What can go wrong with people and their credentials."""

from __future__ import annotations

import uuid

from hyprbox.lib.errors import Conflict, Forbidden, InvalidInput, NotAuthenticated, NotFound, RateLimited


class WrongCredentials(NotAuthenticated):
    """The e-mail address or the password is not right."""

    is_refusal = False  # the failed login is an entry of its own


class TooManyLogins(RateLimited):
    """Too many attempts. Wait a little, then try again."""

    is_refusal = True


class TooManyAttempts(RateLimited):
    """Too many attempts from this address. Wait a minute, then try again."""

    is_refusal = True


class RefreshTokenInvalid(NotAuthenticated):
    """This refresh token is not valid any more. Log in again."""

    ended_for: uuid.UUID | None = None  # whose login ended over it; for the door, which tells them


class EmailTaken(Conflict):
    """Someone with this e-mail address exists already."""


class RegistrationClosed(Forbidden):
    """Registration is closed here. Ask an admin for an account."""


class ForeignOrigin(Forbidden):
    """This request came from another site."""


class OwnAccount(Forbidden):
    """Nobody changes their own role, disables or removes themselves: another admin does."""


class LastAdmin(Conflict):
    """This is the last active admin: make someone else an admin first."""


class UnknownUser(NotFound):
    """There is no user with that id."""


class UnknownSession(NotFound):
    """There is no session with that id."""


class UnknownKey(NotFound):
    """There is no API key with that id."""


class UnknownPasskey(NotFound):
    """You have no passkey with that id."""


class NoFactor(Conflict):
    """You have no second factor."""


class FactorNeeded(Conflict):
    """Your role needs a second factor: add another one before you remove this one."""


class StepUpImpossible(Forbidden):
    """This token belongs to no session that could remember it: log in, and use the token from there."""


class UnknownInvitation(NotFound):
    """There is no open invitation with that id."""


class LinkInvalid(InvalidInput):
    """This link is not valid any more. It works once and for a limited time."""

    is_refusal = True
