"""Making and ending node tokens."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from audit import sealed
from audit import services as audit
from audit.actions import Action
from hyprbox.lib import live
from hyprbox.lib.actors import Actor, Capability, require, require_fresh
from hyprbox.lib.db import database_now
from hyprbox.lib.errors import InvalidInput
from tokens import secrets
from tokens.errors import TokenRevoked, UnknownToken
from tokens.models import NodeToken

ROTATION_GRACE = timedelta(hours=24)


@transaction.atomic
def issue_token(
    *,
    by: Actor,
    name: str,
    node_id: str = "",
    node_pk: uuid.UUID | None = None,
    expires_at: datetime | None = None,
) -> tuple[NodeToken, str]:
    """A new token and, this once, its plaintext. With a node it is pinned from the start."""
    require(by, Capability.MANAGE_TOKENS)
    require_fresh(by)
    if not name.strip():
        raise InvalidInput(fields={"name": ["Give the token a name, so that you know it again."]})
    if expires_at is not None and expires_at <= timezone.now():
        raise InvalidInput(fields={"expires_at": ["This moment has passed."]})
    issued = secrets.issue()
    token = sealed.create(
        NodeToken(
            name=name.strip(),
            prefix=issued.prefix,
            digest=issued.digest,
            node_id=node_id,
            node_pk=node_pk,
            created_by=by.name,
            expires_at=expires_at,
        )
    )
    token.refresh_from_db(fields=["created_at"])
    detail = {"name": token.name, "prefix": token.prefix, "node_id": node_id}
    audit.record(Action.TOKEN_CREATED, by=by, target=f"token:{token.pk}", detail=detail, row=token)
    live.publish("tokens", token=token.pk)
    return token, issued.token


@transaction.atomic
def revoke_token(*, by: Actor, token_id: uuid.UUID | str) -> NodeToken:
    """End a token in every process. Raises `UnknownToken`, `TokenRevoked`."""
    require(by, Capability.MANAGE_TOKENS)
    require_fresh(by)
    token = _locked(token_id)
    if token.revoked_at is not None:
        raise TokenRevoked()
    _revoke(token, by)
    return token


def revoke_tokens_of_node(*, by: Actor, node_pk: uuid.UUID) -> int:
    """End all tokens of a node that is being removed; the caller has checked that `by` may."""
    tokens = list(NodeToken.objects.select_for_update().filter(node_pk=node_pk, revoked_at=None).order_by("pk"))
    for token in tokens:
        _revoke(token, by)
    return len(tokens)


@transaction.atomic
def rotate_token(*, by: Actor, token_id: uuid.UUID | str) -> tuple[NodeToken, str]:
    """A successor for a token. The old one works until the new one was used once, at most 24 hours."""
    require(by, Capability.MANAGE_TOKENS)
    require_fresh(by)
    old = _locked(token_id)
    sealed.check(old)
    if old.revoked_at is not None:
        raise TokenRevoked()
    new, plaintext = issue_token(
        by=by, name=old.name, node_id=old.node_id, node_pk=old.node_pk, expires_at=old.expires_at
    )
    NodeToken.objects.filter(pk=new.pk).update(replaces=old)
    new.replaces = old
    end = database_now() + ROTATION_GRACE
    if old.expires_at is None or old.expires_at > end:
        old.expires_at = end
        sealed.save(old, "expires_at")
    _tell(old, by, Action.TOKEN_ROTATED)
    return new, plaintext


def pin_token(*, by: Actor, token_id: uuid.UUID, node_id: str, node_pk: uuid.UUID) -> bool:
    """Tie a token to the node of the first heartbeat that uses it. Of many at once, exactly one gets True.

    Runs in the caller's transaction.
    """
    require(by, Capability.REPORT)
    free = NodeToken.objects.filter(pk=token_id, node_pk=None, node_id__in=["", node_id], revoked_at=None)
    token = sealed.lock(free)
    if token is None:
        return False
    token.node_id, token.node_pk = node_id, node_pk
    sealed.save(token, "node_id", "node_pk")
    _tell(token, by, Action.TOKEN_PINNED)
    return True


def mark_used(token_ids: list[uuid.UUID]) -> None:
    """Note that these tokens were used; at most one write a minute for each. Whoever looks at them hears of a first use."""
    used = NodeToken.objects.filter(pk__in=token_ids)
    if used.filter(last_used_at=None).update(last_used_at=Now()):
        live.publish("uses")
    used.filter(last_used_at__lt=Now() - timedelta(minutes=1)).update(last_used_at=Now())


def retire_predecessors(token_ids: list[uuid.UUID]) -> None:
    """The new token of a rotation was used: its predecessor ends now."""
    for pk in NodeToken.objects.filter(successors__in=token_ids, revoked_at=None).values_list("pk", flat=True):
        with transaction.atomic():
            token = NodeToken.objects.select_for_update().filter(pk=pk, revoked_at=None).first()
            if token is not None:
                _revoke(token, Actor.system("rotation"))


def _locked(token_id: uuid.UUID | str) -> NodeToken:
    try:
        return NodeToken.objects.select_for_update().get(pk=uuid.UUID(str(token_id)))
    except (ValueError, NodeToken.DoesNotExist):
        raise UnknownToken() from None


def _revoke(token: NodeToken, by: Actor) -> None:
    """Of a locked row. Its seal is not asked: whatever else was done to it, revoked it opens nothing."""
    sealed.overrule(token)
    token.revoked_at = database_now()
    sealed.save(token, "revoked_at")
    _tell(token, by, Action.TOKEN_REVOKED)


def _tell(token: NodeToken, by: Actor, action: Action) -> None:
    detail = {"name": token.name, "prefix": token.prefix, "node_id": token.node_id}
    audit.record(action, by=by, target=f"token:{token.pk}", detail=detail, row=token)
    live.publish("token", token=token.pk, prefix=token.prefix)
    live.publish("tokens", token=token.pk)
