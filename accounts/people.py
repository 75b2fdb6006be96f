"""The people themselves: making, inviting, changing and removing them."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from accounts import hashing, logins, passwords, rates, services
from accounts.errors import (
    EmailTaken,
    LastAdmin,
    LinkInvalid,
    OwnAccount,
    RegistrationClosed,
    UnknownInvitation,
    UnknownUser,
)
from accounts.models import Invitation, User
from accounts.selectors import find_active, find_by_email
from audit import sealed
from audit import services as audit
from audit.actions import Action
from hyprbox.lib import live, opaque
from hyprbox.lib.actors import Actor, Capability, Role, require, require_fresh
from hyprbox.lib.db import database_now
from hyprbox.lib.errors import InvalidInput, NotAuthenticated
from hyprbox.lib.rowmac import RowTampered

INVITATION_LIFETIME = timedelta(days=7)
MAX_NAME = 120


def create_user(*, by: Actor, email: str, password: str, name: str = "", role: str = Role.VIEWER) -> User:
    """A new person. Raises `InvalidInput` or `EmailTaken`."""
    require(by, Capability.MANAGE_USERS)
    require_fresh(by)
    return _create(by=by, email=email, password=password, name=name, role=role)


def register(
    *, by: Actor, email: str, password: str, name: str, is_open: bool, user_agent: str = ""
) -> services.Session:
    """Someone makes an account for themselves, where that is allowed; the very first one becomes admin."""
    rates.take_from(by.ip, "register")
    if not is_open:
        raise RegistrationClosed()
    draft = _draft(email, password, name, Role.VIEWER)
    digest = hashing.hashed(password)
    with transaction.atomic():
        with connection.cursor() as cursor:  # two first users at once: exactly one becomes admin
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('accounts.first_user'))")
        draft.role = Role.VIEWER if User.objects.exists() else Role.ADMIN
        user = _insert(draft, digest, by=by)
        services.note_login(user=user, by=by, via="registration")
        return services.start_family(user, by=by, user_agent=user_agent)


def _create(*, by: Actor, email: str, password: str, name: str, role: str, **detail: Any) -> User:
    draft = _draft(email, password, name, role)
    return _insert(draft, hashing.hashed(password), by=by, **detail)


def _draft(email: str, password: str, name: str, role: str) -> User:
    email = checked_email(email)
    if role not in Role.values:
        raise InvalidInput(fields={"role": [f"One of {', '.join(Role.values)}."]})
    user = User(email=email, name=_checked_name(name) or email.partition("@")[0][:MAX_NAME], role=role)
    passwords.check_rules(password, user)
    return user


@transaction.atomic
def _insert(user: User, digest: str, *, by: Actor, **detail: Any) -> User:
    user.password = digest
    try:
        with transaction.atomic():
            sealed.create(user)
    except IntegrityError:
        raise EmailTaken() from None
    said = {"role": user.role, **detail}
    audit.record(Action.USER_CREATED, by=by, target=f"user:{user.email}", detail=said, row=user)
    return user


def checked_email(email: str) -> str:
    """The address as it is stored. Raises `InvalidInput`."""
    email = email.strip()
    try:
        validate_email(email)
    except ValidationError:
        raise InvalidInput(fields={"email": [f"“{email}” is not an e-mail address."]}) from None
    return User.objects.normalize_email(email)


def _checked_name(name: str) -> str:
    name = name.strip()
    if len(name) > MAX_NAME:
        raise InvalidInput(fields={"name": [f"At most {MAX_NAME} characters."]})
    return name


# --- invitations ---


@transaction.atomic
def invite(*, by: Actor, email: str, role: str) -> tuple[Invitation, str]:
    """An invitation and, this once, the secret of its link; an earlier one to the same address ends."""
    require(by, Capability.MANAGE_USERS)
    require_fresh(by)
    email = checked_email(email)
    if role not in Role.values:
        raise InvalidInput(fields={"role": [f"One of {', '.join(Role.values)}."]})
    if find_by_email(email) is not None:
        raise EmailTaken()
    for earlier in _open_invitations().filter(email__iexact=email).select_for_update():
        _revoke(earlier, by)
    secret, digest = opaque.issue_link("invitation", email, role)
    invitation = sealed.create(
        Invitation(
            email=email,
            role=role,
            digest=digest,
            invited_by=by.name,
            expires_at=timezone.now() + INVITATION_LIFETIME,
        )
    )
    invitation.refresh_from_db(fields=["created_at"])
    audit.record(Action.USER_INVITED, by=by, target=f"user:{email}", detail={"role": role}, row=invitation)
    return invitation, secret


@transaction.atomic
def revoke_invitation(*, by: Actor, invitation_id: uuid.UUID) -> Invitation:
    """Its link does not work any more. Raises `UnknownInvitation`."""
    require(by, Capability.MANAGE_USERS)
    require_fresh(by)
    found = _open_invitations().filter(pk=invitation_id).select_for_update().first()
    if found is None:
        raise UnknownInvitation()
    _revoke(found, by)
    return found


def _revoke(invitation: Invitation, by: Actor) -> None:
    """Of a locked row. Its seal is not asked: whatever else was done to it, revoked it makes nobody."""
    sealed.overrule(invitation)
    invitation.revoked_at = database_now()
    sealed.save(invitation, "revoked_at")
    audit.record(Action.INVITATION_REVOKED, by=by, target=f"user:{invitation.email}", row=invitation)


def _open_invitations() -> QuerySet[Invitation]:
    return Invitation.objects.filter(accepted_at=None, revoked_at=None)


def find_invitation(secret: str) -> Invitation:
    """Raises `LinkInvalid`."""
    facts = opaque.read_link("invitation", secret, lifetime=INVITATION_LIFETIME)
    found = None
    if facts is not None:
        usable = _open_invitations().filter(expires_at__gt=Now(), digest=opaque.digest_of(secret))
        try:
            found = sealed.first(usable)
        except RowTampered as error:
            audit.note_tampered(error)
    if found is None or facts != [found.email, found.role]:
        raise LinkInvalid()
    return found


def accept_invitation(*, secret: str, name: str, password: str, by: Actor) -> User:
    """Make the account that an admin offered. Raises `LinkInvalid`, `InvalidInput`, `EmailTaken`."""
    rates.take_from(by.ip, "register")
    invitation = find_invitation(secret)
    draft = _draft(invitation.email, password, name, invitation.role)
    digest = hashing.hashed(password)
    with transaction.atomic():
        kept = sealed.lock(_open_invitations().filter(pk=invitation.pk))
        if kept is None:
            raise LinkInvalid()
        kept.accepted_at = database_now()
        sealed.save(kept, "accepted_at")
        user = _insert(draft, digest, by=by, invited_by=kept.invited_by)
        audit.record(Action.INVITATION_ACCEPTED, by=by, target=f"user:{user.email}", row=kept)
    return user


# --- changes ---


@transaction.atomic
def change_user(
    *, by: Actor, user_id: uuid.UUID, role: str | None = None, is_active: bool | None = None, name: str | None = None
) -> User:
    """Change someone; another role or being disabled signs them out everywhere.

    Raises `UnknownUser`, `OwnAccount`, `LastAdmin`, `InvalidInput`.
    """
    require(by, Capability.MANAGE_USERS)
    require_fresh(by)
    _one_at_a_time()
    user = logins.locked(user_id)
    given = {"role": role, "is_active": is_active, "name": name if name is None else _checked_name(name)}
    changed = {key: value for key, value in given.items() if value is not None and value != getattr(user, key)}
    if role is not None and role not in Role.values:
        raise InvalidInput(fields={"role": [f"One of {', '.join(Role.values)}."]})
    if "name" in changed and not changed["name"]:
        raise InvalidInput(fields={"name": ["A name has at least one character."]})
    if not changed:
        return user
    for key, value in changed.items():
        setattr(user, key, value)
    if {"role", "is_active"} & set(changed):
        _check_not_oneself(by, user)
        logins.end_all(user, *changed)
    else:
        user.save(update_fields=list(changed))
    _check_an_admin_is_left()
    user.refresh_from_db()
    audit.record(Action.USER_CHANGED, by=by, target=f"user:{user.email}", detail=changed, row=user)
    return user


@transaction.atomic
def remove_user(*, by: Actor, user_id: uuid.UUID) -> User:
    """Delete someone with their sessions and keys. What they did stays in the audit log under their name."""
    require(by, Capability.MANAGE_USERS)
    require_fresh(by)
    _one_at_a_time()
    user = _locked(user_id)
    _check_not_oneself(by, user)
    User.objects.filter(pk=user.pk).delete()
    live.publish(live.CREDENTIALS, user=user.pk)
    _check_an_admin_is_left()
    detail = {"role": user.role, "id": str(user_id)}
    audit.record(Action.USER_REMOVED, by=by, target=f"user:{user.email}", detail=detail, row=sealed.end(user))
    return user


def change_profile(*, by: Actor, name: str) -> User:
    """One's own name."""
    require(by, Capability.OWN_ACCOUNT)
    name = _checked_name(name)
    if not name:
        raise InvalidInput(fields={"name": ["Enter your name."]})
    with transaction.atomic():
        user = _own(by)
        if name != user.name:
            User.objects.filter(pk=user.pk).update(name=name)
            audit.record(Action.USER_CHANGED, by=by, target=f"user:{user.email}", detail={"name": name})
    return user


def change_email(*, by: Actor, email: str, password: str) -> tuple[User, str]:
    """One's own address, with the current password. Returns the user and the address that was."""
    require(by, Capability.OWN_ACCOUNT)
    require_fresh(by)  # links to a new password go there
    email = checked_email(email)
    passwords.confirm_current(_own(by), password, by=by, field="password")
    with transaction.atomic():
        user = _own(by, lock=True)
        before = user.email
        try:
            with transaction.atomic():
                user.email = email
                sealed.save(user, "email")
        except IntegrityError:
            raise EmailTaken() from None
        detail = {"email": email, "email_before": before}
        audit.record(Action.USER_CHANGED, by=by, target=f"user:{email}", detail=detail, row=user)
    return user, before


def _own(by: Actor, *, lock: bool = False) -> User:
    user = find_active(by.id)
    if user is not None and lock:
        user = sealed.lock(User.objects.filter(pk=user.pk, is_active=True))
    if user is None:
        raise NotAuthenticated()
    return user


def _locked(user_id: uuid.UUID) -> User:
    user = User.objects.select_for_update().filter(pk=user_id).first()
    if user is None:
        raise UnknownUser()
    return user


def _one_at_a_time() -> None:
    """Two admins who remove each other at once: one of them stays."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('accounts.admins'))")


def _check_not_oneself(by: Actor, user: User) -> None:
    if str(user.pk) == by.id:
        raise OwnAccount()


def _check_an_admin_is_left() -> None:
    if not User.objects.filter(role=Role.ADMIN, is_active=True).exists():
        raise LastAdmin()
