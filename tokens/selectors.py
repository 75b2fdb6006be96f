"""Reading node tokens."""

from __future__ import annotations

from django.db.models import QuerySet

from audit import sealed
from hyprbox.lib.actors import Actor, Capability, require
from tokens import secrets
from tokens.errors import BadToken
from tokens.models import NodeToken


def list_tokens(*, by: Actor) -> QuerySet[NodeToken]:
    """All tokens, newest first, without what could open anything; admins only."""
    require(by, Capability.MANAGE_TOKENS)
    return NodeToken.objects.defer("digest").order_by("-created_at")


def find_presented(text: str) -> NodeToken:
    """The usable token that `text` is. Raises `BadToken`, the same for unknown, wrong, revoked and expired.

    Raises `RowTampered` for one whose row HyprBox did not leave so.
    """
    return _match(NodeToken.objects.usable(), text)


def find_revoked(text: str) -> NodeToken:
    """The revoked token that `text` is. Raises `BadToken`, `RowTampered`."""
    return _match(NodeToken.objects.filter(revoked_at__isnull=False), text)


def _match(tokens: QuerySet[NodeToken], text: str) -> NodeToken:
    presented = secrets.parse(text)
    for row in sealed.with_newest(tokens.filter(prefix=presented.prefix))[:5]:
        if secrets.matches(row, presented):
            sealed.check(row)
            return row
    raise BadToken()
