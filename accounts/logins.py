"""Where people are signed in: starting, listing and ending it."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.db.models.functions import Now

from accounts import families
from accounts.errors import UnknownSession, UnknownUser
from accounts.models import PageSession, RefreshFamily, User
from audit import sealed
from audit import services as audit
from audit.actions import Action
from hyprbox.lib import live
from hyprbox.lib.actors import Actor, Capability, require, require_fresh


@transaction.atomic
def end_session(*, by: Actor, session_id: uuid.UUID) -> None:
    """End a page session or a family of refresh tokens; an admin ends anyone's. Raises `UnknownSession`."""
    require(by, Capability.OWN_ACCOUNT)
    owned = {"pk": session_id} if by.can(Capability.MANAGE_USERS) else {"pk": session_id, "user_id": by.id}
    row: PageSession | RefreshFamily | None = (
        PageSession.objects.filter(**owned).select_related("user").first()
        or RefreshFamily.objects.filter(**owned, revoked_at=None).select_related("user").first()
    )
    if row is None:
        raise UnknownSession()
    if isinstance(row, PageSession):
        row.delete()
    else:
        RefreshFamily.objects.filter(pk=row.pk).update(revoked_at=Now())
    live.publish(live.CREDENTIALS, user=row.user_id)
    detail = {"session": str(session_id), "ip": row.ip}
    audit.record(Action.SESSION_ENDED, by=by, target=f"user:{row.user or 'anonymous'}", detail=detail)


def end_all(user: User, *changed: str, but: str = "") -> None:
    """Every token and page session of a user dies, all in the caller's transaction; but that of the session `but`.

    The user is locked and checked; fields that were `changed` on it are written along, and the caller's audit entry
    names it as `row`.
    """
    user.token_version += 1
    sealed.save(user, "token_version", *changed)
    kept = uuid.UUID(but) if but else uuid.UUID(int=0)
    PageSession.objects.filter(user=user).exclude(pk=kept).delete()
    signed_in = RefreshFamily.objects.filter(user=user, revoked_at=None)
    signed_in.exclude(pk=kept).update(revoked_at=Now())
    for family in signed_in.filter(pk=kept).select_for_update():
        family.token_version = user.token_version
        families.put_seal(family)
        family.save(update_fields=["token_version", "seal"])
    live.publish(live.CREDENTIALS, user=user.pk)


@transaction.atomic
def end_all_of(*, by: Actor, user_id: uuid.UUID) -> User:
    """An admin signs someone out everywhere. Raises `UnknownUser`."""
    require(by, Capability.MANAGE_USERS)
    require_fresh(by)
    kept = locked(user_id)
    end_all(kept)
    audit.record(Action.LOGOUT_DONE, by=by, target=f"user:{kept.email}", detail={"everywhere": True}, row=kept)
    return kept


def locked(user_id: uuid.UUID | str) -> User:
    """The user, until the transaction ends. Raises `UnknownUser`, `RowTampered`."""
    user = sealed.lock(User.objects.filter(pk=user_id))
    if user is None:
        raise UnknownUser()
    return user
