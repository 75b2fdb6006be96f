"""Passwords: the rules, changing one, and a new one by a link when it was forgotten."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from accounts import hashing, logins, rates
from accounts.errors import LinkInvalid, WrongCredentials
from accounts.models import PasswordReset, User
from accounts.selectors import find_active, find_by_email
from audit import services as audit
from audit.actions import Action
from hyprbox.lib import opaque
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.errors import InvalidInput

RESET_LIFETIME = timedelta(hours=1)
RESETS_PER_HOUR = 5


def check_rules(password: str, user: User | None = None, *, field: str = "password") -> None:
    """Raises `InvalidInput` naming every rule that `password` breaks."""
    if problems := problems_of(password, user):
        raise InvalidInput(fields={field: problems})


def problems_of(password: str, user: User | None = None) -> list[str]:
    """The rules that a password breaks, as sentences."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        return list(error.messages)
    return []


def confirm_current(user: User, password: str, *, by: Actor, field: str = "current") -> None:
    """Raises `InvalidInput` unless it is the user's password, `TooManyLogins` after many wrong ones."""
    counter = rates.account_key(str(user.pk))
    rates.reserve(counter)
    if not hashing.is_right(password, user):
        with transaction.atomic():
            audit.record(Action.PASSWORD_NOT_CONFIRMED, by=by, target=f"user:{user.email}")
        raise InvalidInput(fields={field: ["This is not your current password."]})
    rates.forget(counter)


def change_password(*, by: Actor, current: str, new: str) -> User:
    """Set a new password; every other token and session of the user dies, the one that asks stays."""
    require(by, Capability.OWN_ACCOUNT)
    user = find_active(by.id)
    if user is None:
        raise WrongCredentials()
    confirm_current(user, current, by=by)
    check_rules(new, user, field="new")
    return _store(user, new, by=by, action=Action.PASSWORD_CHANGED, but=by.session)


def set_password(*, by: Actor, email: str, password: str) -> User:
    """Someone on the host sets another's password."""
    require(by, Capability.MANAGE_USERS)
    user = find_by_email(email)
    if user is None:
        raise InvalidInput(fields={"email": [f"There is no user “{email}”."]})
    check_rules(password, user)
    return _store(user, password, by=by, action=Action.PASSWORD_CHANGED)


def _store(user: User, password: str, *, by: Actor, action: Action, but: str = "") -> User:
    digest = hashing.hashed(password)
    with transaction.atomic():
        kept = logins.locked(user.pk)
        kept.password = digest
        logins.end_all(kept, "password", but=but)
        PasswordReset.objects.filter(user=kept, used_at=None).update(used_at=Now())
        audit.record(action, by=by, target=f"user:{kept.email}", row=kept)
    rates.forget(rates.account_key(str(kept.pk)))
    return kept


def issue_reset(*, email: str, by: Actor) -> tuple[User, str] | None:
    """The user and the secret of a new link, or None when there is nobody to send one to. The worker calls it.

    At most 5 links an hour and account, so that nobody's mailbox can be filled.
    """
    user = find_by_email(email)
    if user is None or not user.is_active:
        return None
    recent = PasswordReset.objects.filter(user=user, created_at__gt=Now() - RESET_LIFETIME)
    if recent.count() >= RESETS_PER_HOUR:
        return None
    secret, digest = opaque.issue_link("reset", *_facts(user))
    with transaction.atomic():
        PasswordReset.objects.create(user=user, digest=digest, expires_at=timezone.now() + RESET_LIFETIME)
        audit.record(Action.PASSWORD_RESET_REQUESTED, by=by, target=f"user:{user.email}")
    return user, secret


def find_reset(secret: str) -> PasswordReset:
    """Raises `LinkInvalid`."""
    facts = opaque.read_link("reset", secret, lifetime=RESET_LIFETIME)
    found = None
    if facts is not None:
        usable = PasswordReset.objects.filter(used_at=None, expires_at__gt=Now(), user__is_active=True)
        found = usable.filter(digest=opaque.digest_of(secret)).select_related("user").first()
    if found is None or facts != _facts(found.user):
        raise LinkInvalid()
    return found


def _facts(user: User) -> list[str]:
    """What a link says: a password that was set since has raised the version, whatever the link's row claims."""
    return [str(user.pk), str(user.token_version)]


def confirm_reset(*, secret: str, new: str, by: Actor) -> User:
    """Set a new password with a link, which then is used up; all sessions and tokens of the user die."""
    rates.take_from(by.ip, "reset")
    reset = find_reset(secret)
    check_rules(new, reset.user, field="new")
    digest = hashing.hashed(new)
    with transaction.atomic():
        if not PasswordReset.objects.filter(pk=reset.pk, used_at=None).update(used_at=Now()):
            raise LinkInvalid()
        user = logins.locked(reset.user_id)
        user.password = digest
        logins.end_all(user, "password")
        PasswordReset.objects.filter(user=user, used_at=None).update(used_at=Now())
        audit.record(Action.PASSWORD_RESET, by=by, target=f"user:{user.email}", row=user)
    rates.forget(rates.account_key(str(user.pk)))
    return user
