"""Letters to people. Their links start with the public URL from the settings, never with what a request said."""

from __future__ import annotations

import structlog
from django.conf import settings
from django.core.mail import send_mail

from accounts.models import Invitation, User

log = structlog.get_logger(__name__)
_CONSOLE = "django.core.mail.backends.console.EmailBackend"


def reset_address(secret: str) -> str:
    return f"{settings.HYPRBOX_PUBLIC_URL}/reset/{secret}/"


def invitation_address(secret: str) -> str:
    return f"{settings.HYPRBOX_PUBLIC_URL}/invitation/{secret}/"


def reaches_people() -> bool:
    """Whether letters leave this machine: the console back end only prints them."""
    return bool(settings.EMAIL_BACKEND != _CONSOLE)


def send_invitation(invitation: Invitation, secret: str) -> bool:
    """Whether it was handed to a mail server."""
    text = (
        f"{invitation.invited_by} invites you to HyprBox at {settings.HYPRBOX_PUBLIC_URL}.\n\n"
        f"Choose a name and a password here:\n\n{invitation_address(secret)}\n\n"
        f"The link works once, until {invitation.expires_at:%d %B %Y, %H:%M} UTC.\n"
    )
    return _send("Your invitation to HyprBox", text, invitation.email) and reaches_people()


def send_reset(user: User, secret: str) -> None:
    text = (
        f"Someone, hopefully you, asked for a new password at {settings.HYPRBOX_PUBLIC_URL}.\n\n"
        f"Choose it here:\n\n{reset_address(secret)}\n\n"
        "The link works once, for an hour. If it was not you, there is nothing to do: your password stays as it is.\n"
    )
    _send("A new password for HyprBox", text, user.email)


def send_email_changed(user: User, before: str) -> None:
    text = (
        f"The e-mail address of your account at {settings.HYPRBOX_PUBLIC_URL} was changed to {user.email}.\n\n"
        "If it was not you, tell an admin at once.\n"
    )
    _send("Your e-mail address was changed", text, before)


def send_password_changed(user: User) -> None:
    text = (
        f"The password of your account at {settings.HYPRBOX_PUBLIC_URL} was changed.\n\n"
        f"If it was not you, choose a new one at once: {settings.HYPRBOX_PUBLIC_URL}/reset/\n"
    )
    _send("Your password was changed", text, user.email)


def send_refresh_reused(user: User, ip: str) -> None:
    """`ip`: of who showed the old token, be that the thief or the one who was robbed."""
    text = (
        f"A program that is signed in to your account at {settings.HYPRBOX_PUBLIC_URL} showed a token, from {ip}, that had been "
        "replaced before.\n\nEither two copies of the program use one login, or somebody has copied it. That login has ended, for "
        "whoever had it.\n\nIf you do not know what it was, choose a new password, which ends all others as well: "
        f"{settings.HYPRBOX_PUBLIC_URL}/reset/\n"
    )
    _send("A login of yours was used twice and has ended", text, user.email)


def _send(subject: str, text: str, to: str) -> bool:
    try:
        send_mail(subject, text, None, [to])
    except OSError as error:  # smtplib's errors are among them
        log.warning("mail.not_sent", subject=subject, error=repr(error))
        return False
    return True
