"""Finding people, and what they show to prove who they are."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from django.conf import settings
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from accounts import families
from accounts.models import ApiKey, Invitation, PageSession, Passkey, RefreshFamily, User
from accounts.programs import program_of
from audit import sealed
from audit import services as audit
from hyprbox.lib import opaque
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.rowmac import RowTampered, Sealed

KEY_SCHEME = "hbak_"


def find_active(user_id: str) -> User | None:
    """The user, unless there is none or it was disabled."""
    try:
        return _sound(sealed.with_newest(User.objects.filter(pk=uuid.UUID(user_id), is_active=True)).first())
    except ValueError:
        return None


def find_by_email(email: str) -> User | None:
    if "\0" in email:
        return None
    return _sound(sealed.with_newest(User.objects.filter(email__iexact=email.strip())).first())


S = TypeVar("S", bound=Sealed)


def _sound(row: S | None) -> S | None:
    """The row, unless it is not as HyprBox left it: then there is none, and the log is told."""
    if row is None:
        return None
    try:
        sealed.check(row)
    except RowTampered as error:
        audit.note_tampered(error)
        return None
    return row


def _owner(row: RefreshFamily | ApiKey) -> User | None:
    """The user that came with the row, with `user_version` for the seal."""
    row.user.newest_version = row.user_version  # type: ignore[union-attr, attr-defined]
    return _sound(row.user)


def find_family(family_id: str, user_id: str) -> RefreshFamily | None:
    """A family that still holds, with its user: neither ended nor expired, and of no earlier `token_version`."""
    try:
        found = live_families().filter(pk=uuid.UUID(family_id), user_id=uuid.UUID(user_id))
    except ValueError:
        return None
    family = found.annotate(user_version=sealed.newest_of(User, "user_id")).first()
    if family is None or _owner(family) is None:
        return None
    if not families.is_sound(family):
        audit.note_tampered(RowTampered(f"{RefreshFamily._meta.db_table}:{family.pk}", "its seal does not fit"))
        return None
    return family


def live_families() -> QuerySet[RefreshFamily]:
    return RefreshFamily.objects.select_related("user").filter(
        revoked_at=None, expires_at__gt=Now(), user__is_active=True, user__token_version=F("token_version")
    )


def live_page_sessions() -> QuerySet[PageSession]:
    """Neither over nor idle for too long."""
    return PageSession.objects.filter(expires_at__gt=Now(), last_used_at__gt=Now() - settings.HYPRBOX_SESSION_IDLE)


def live_keys() -> QuerySet[ApiKey]:
    return ApiKey.objects.filter(revoked_at=None, expires_at__gt=Now())


def find_key(token: str) -> ApiKey | None:
    """The key that was shown, with its active owner. Raises `RowTampered` for a row that HyprBox did not leave so."""
    prefix = opaque.prefix_of(KEY_SCHEME, token)
    if not prefix:
        return None
    found = live_keys().filter(prefix=prefix, user__is_active=True).select_related("user")
    found = sealed.with_newest(found.annotate(user_version=sealed.newest_of(User, "user_id")))
    key = next((key for key in found if opaque.matches(key.digest, token)), None)
    return key if _sound(key) is not None and key is not None and _owner(key) is not None else None


def actor_for(
    user: User,
    *,
    ip: str = "",
    request_id: str = "",
    session: str = "",
    fresh_until: datetime | None = None,
    scopes: Iterable[str] | None = None,
    key: str = "",
) -> Actor:
    return Actor.user(
        id=str(user.pk),
        name=user.email,
        role=user.role,
        ip=ip,
        request_id=request_id,
        session=session,
        fresh_until=fresh_until,
        scopes=scopes,
        key=key,
        has_factor=user.has_factor,
        needs_factor=user.needs_factor,
    )


@dataclass(frozen=True, slots=True)
class LoginRow:
    """One place where someone is signed in: a browser ("page") or a program with tokens ("api")."""

    id: uuid.UUID
    kind: str
    ip: str
    user_agent: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    is_current: bool

    @property
    def program(self) -> str:
        return program_of(self.user_agent)


def list_logins(*, by: Actor, user_id: uuid.UUID | str = "") -> list[LoginRow]:
    """Where the caller is signed in, or with `user_id` where that person is; last used first."""
    require(by, Capability.MANAGE_USERS if user_id and str(user_id) != by.id else Capability.OWN_ACCOUNT)
    owner = str(user_id) or by.id
    rows: list[tuple[str, PageSession | RefreshFamily]] = [
        ("page", row) for row in live_page_sessions().filter(user_id=owner)
    ]
    rows += [("api", family) for family in live_families().filter(user_id=owner)]
    found = [
        LoginRow(
            row.pk,
            kind,
            row.ip,
            row.user_agent,
            row.created_at,
            row.last_used_at,
            row.expires_at,
            str(row.pk) == by.session,
        )
        for kind, row in rows
    ]
    return sorted(found, key=lambda row: row.last_used_at, reverse=True)


def list_keys(*, by: Actor) -> QuerySet[ApiKey]:
    """The caller's keys that work, newest first."""
    require(by, Capability.OWN_ACCOUNT)
    return live_keys().filter(user_id=by.id)


def list_users(*, by: Actor) -> QuerySet[User]:
    require(by, Capability.MANAGE_USERS)
    return User.objects.order_by("email")


def list_invitations(*, by: Actor) -> QuerySet[Invitation]:
    """Those that nobody accepted yet, newest first."""
    require(by, Capability.MANAGE_USERS)
    return Invitation.objects.filter(accepted_at=None, revoked_at=None, expires_at__gt=Now())


def list_passkeys(*, by: Actor) -> QuerySet[Passkey]:
    """The caller's own, oldest first."""
    require(by, Capability.OWN_ACCOUNT)
    return Passkey.objects.filter(user_id=by.id)
