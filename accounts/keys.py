"""API keys: making and ending them. What one may do is decided at each use, by its scopes and its owner's role."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from accounts.errors import UnknownKey
from accounts.models import ApiKey
from accounts.selectors import KEY_SCHEME, live_keys
from audit import sealed
from audit import services as audit
from audit.actions import Action
from hyprbox.lib import live, opaque
from hyprbox.lib.actors import CAPABILITIES, SCOPES, Actor, Capability, Scope, require, require_fresh
from hyprbox.lib.db import database_now
from hyprbox.lib.errors import Conflict, InvalidInput

LONGEST = timedelta(days=366)
DEFAULT = timedelta(days=90)
MOST_KEYS = 50


@transaction.atomic
def create_key(*, by: Actor, name: str, scopes: list[str], expires_at: datetime | None = None) -> tuple[ApiKey, str]:
    """A new key and, this once, its plaintext. Without `expires_at` it ends after 90 days."""
    require(by, Capability.OWN_ACCOUNT)
    require_fresh(by)
    ends = expires_at or timezone.now() + DEFAULT
    _check(by, name, scopes, ends)
    if live_keys().filter(user_id=by.id).count() >= MOST_KEYS:
        raise Conflict(f"You have {MOST_KEYS} API keys. Revoke one that nothing uses any more.")
    issued = opaque.issue(KEY_SCHEME)
    key = sealed.create(
        ApiKey(
            user_id=uuid.UUID(by.id),
            name=name.strip(),
            prefix=issued.prefix,
            digest=issued.digest,
            scopes=[scope for scope in Scope.values if scope in scopes],
            expires_at=ends,
        )
    )
    key.refresh_from_db(fields=["created_at"])
    detail = {"name": key.name, "prefix": key.prefix, "scopes": ", ".join(key.scopes), "expires_at": ends.isoformat()}
    audit.record(Action.KEY_CREATED, by=by, target=f"key:{key.pk}", detail=detail, row=key)
    return key, issued.token


def _check(by: Actor, name: str, scopes: list[str], ends: datetime) -> None:
    fields: dict[str, list[str]] = {}
    if not name.strip():
        fields["name"] = ["Give the key a name, so that you know it again."]
    known = ", ".join(scope for scope in Scope.values if may_have(by, scope))
    if not scopes:
        fields["scopes"] = [f"Say what the key is for: {known}."]
    elif wrong := [scope for scope in scopes if not may_have(by, scope)]:
        fields["scopes"] = [f"“{wrong[0]}” is not a scope that your role allows: {known}."]
    if ends <= timezone.now():
        fields["expires_at"] = ["This moment has passed."]
    elif ends > timezone.now() + LONGEST:
        fields["expires_at"] = ["A key lives for a year at most."]
    if fields:
        raise InvalidInput(fields=fields)


def may_have(by: Actor, scope: str) -> bool:
    """Whether a key with this scope would allow the caller's role anything beyond the scopes below it."""
    allowed = CAPABILITIES.get(by.role, frozenset())
    lower = {Scope.RUN: Scope.READ, Scope.ADMIN: Scope.RUN}.get(scope)  # type: ignore[call-overload]
    return bool(allowed & SCOPES.get(scope, frozenset()) - (SCOPES[lower] if lower else frozenset()))


@transaction.atomic
def revoke_key(*, by: Actor, key_id: uuid.UUID) -> ApiKey:
    """End a key at once; an admin ends anyone's. Raises `UnknownKey`."""
    require(by, Capability.OWN_ACCOUNT)
    require_fresh(by)
    keys = live_keys() if by.can(Capability.MANAGE_USERS) else live_keys().filter(user_id=by.id)
    key = keys.filter(pk=key_id).select_related("user").select_for_update(of=("self",)).first()
    if key is None:
        raise UnknownKey()
    # Its seal is not asked: whatever else was done to it, revoked it opens nothing.
    sealed.overrule(key)
    key.revoked_at = database_now()
    sealed.save(key, "revoked_at")
    live.publish(live.CREDENTIALS, user=key.user_id)
    detail = {"name": key.name, "prefix": key.prefix, "owner": key.user.email}
    audit.record(Action.KEY_REVOKED, by=by, target=f"key:{key.pk}", detail=detail, row=key)
    return key


def note_use(key: ApiKey) -> None:
    """At most one write a minute."""
    stale = Q(last_used_at=None) | Q(last_used_at__lt=Now() - timedelta(minutes=1))
    if key.last_used_at is None or key.last_used_at < timezone.now() - timedelta(minutes=1):
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=Now())
