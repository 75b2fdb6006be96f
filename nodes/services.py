"""Every write to nodes but the heartbeat itself, which is `nodes.ingest`."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from django.db import IntegrityError, transaction
from django.db.models import F, Model
from django.db.models.functions import Now

from audit import services as audit
from audit.actions import Action
from hyprbox.lib import live
from hyprbox.lib.actors import Actor, Capability, require, require_fresh
from hyprbox.lib.errors import InvalidInput
from nodes import names, rules, selectors
from nodes.errors import NodeTaken, UnknownNode
from nodes.models import Node, StatusFlip
from nodes.status import judge
from tokens import services as tokens
from tokens.errors import OtherNode
from tokens.models import NodeToken

MAX_TAGS = 32
HINT_NODES = 150  # 37 bytes each: a NOTIFY carries at most 8,000
_TAG = re.compile(r"[^\s,\x00-\x1f\x7f]{1,63}")

# A higher app does its part of a removal here, in the same transaction: jobs cancels what is queued.
removal_hooks: list[Callable[[Actor, Node], None]] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChanges:
    """What an operator changes; None leaves a field as it is."""

    display_name: str | None = None
    group: str | None = None
    tags: Sequence[str] | None = None
    notes: str | None = None


@transaction.atomic
def ensure_node(*, by: Actor, node_id: str) -> Node:
    """The node by that name, made as UNKNOWN when there is none. Raises `InvalidInput`."""
    require(by, Capability.MANAGE_TOKENS)
    return _get_or_create(by, node_id)


@transaction.atomic
def enrol(*, by: Actor, token_id: uuid.UUID, node_id: str) -> uuid.UUID:
    """The first heartbeat with a token that is not pinned: pin it, and make the node if need be.

    Of many first uses at once exactly one wins; the others get `OtherNode` and leave nothing behind. A node
    that has a usable token is not handed to the next one that claims its name: `NodeTaken`.
    """
    require(by, Capability.REPORT)
    node = _get_or_create(by, node_id)
    if NodeToken.objects.filter(node_pk=node.pk, revoked_at=None).exclude(expires_at__lte=Now()).exists():
        raise NodeTaken()
    if not tokens.pin_token(by=by, token_id=token_id, node_id=node_id, node_pk=node.pk):
        raise OtherNode()
    return node.pk


@transaction.atomic
def update_node(*, by: Actor, node_id: str, changes: NodeChanges) -> Node:
    """Change what people say about a node. Raises `UnknownNode`, `InvalidInput`."""
    require(by, Capability.EDIT_NODES)
    node = _locked(node_id)
    wanted = _validated(changes)
    before = {name: getattr(node, name) for name in wanted}
    changed = {name: value for name, value in wanted.items() if value != before[name]}
    if not changed:
        return node
    for name, value in changed.items():
        setattr(node, name, value)
    node.save(update_fields=list(changed))
    detail = {name: {"before": before[name], "after": value} for name, value in changed.items()}
    audit.record(Action.NODE_CHANGED, by=by, target=f"node:{node.node_id}", detail=detail)
    publish_nodes([node.pk])
    return node


@transaction.atomic
def remove_node(*, by: Actor, node_id: str) -> Node:
    """End a node: its tokens die, its name is free again, its history stays. Raises `UnknownNode`."""
    require(by, Capability.REMOVE_NODES)
    require_fresh(by)
    node = _locked(node_id)
    # The moment of the transaction, as its tokens have it: that tells them from those that were revoked by hand.
    Node.objects.filter(pk=node.pk).update(removed_at=selectors.database_now())
    tokens.revoke_tokens_of_node(by=by, node_pk=node.pk)
    for hook in removal_hooks:
        hook(by, node)
    audit.record(Action.NODE_REMOVED, by=by, target=f"node:{node.node_id}", detail={"id": str(node.pk)})
    publish_nodes([node.pk])
    live.publish("work", node=node.pk)
    node.refresh_from_db(fields=["removed_at"])
    return node


@transaction.atomic
def announce_flips(node_pks: Iterable[uuid.UUID] | None = None) -> int:
    """Write down each node whose effective status is not the announced one, and tell the viewers.

    Two that run at once notice a flip once: the UPDATE names the status it replaces.
    """
    in_force = rules.current()
    nodes = Node.objects.present().judged(in_force).exclude(effective_status=F("announced_status"))  # type: ignore[misc]
    if node_pks is not None:
        nodes = nodes.filter(pk__in=list(node_pks))
    now = selectors.database_now()
    flips = []
    for node in nodes.order_by("pk"):
        judgement = judge(selectors.facts_of(node, now), in_force)
        before, after = node.announced_status, judgement.status
        if before == after:
            continue
        moved = Node.objects.filter(pk=node.pk, announced_status=before).update(
            announced_status=after, announced_at=now
        )
        if moved:
            reasons = [reason.as_dict() for reason in judgement.reasons]
            flips.append(StatusFlip(node=node, at=now, before=before, after=after, reasons=reasons))
    StatusFlip.objects.bulk_create(flips)
    if flips:
        publish_nodes([flip.node.pk for flip in flips])
        live.publish("activity", node=str(flips[0].node.pk) if len(flips) == 1 else None)
    return len(flips)


def note_token_use(token_ids: list[uuid.UUID], successors: list[uuid.UUID]) -> None:
    """Bookkeeping after heartbeats were accepted: last use, and the end of a rotated token's predecessor."""
    tokens.mark_used(token_ids)
    if successors:
        tokens.retire_predecessors(successors)


def publish_nodes(node_pks: Sequence[uuid.UUID]) -> None:
    """Hint that these nodes changed. `node` is null when they are too many for one hint."""
    few = [str(pk) for pk in node_pks] if len(node_pks) <= HINT_NODES else None
    live.publish("nodes", node=few)


def _get_or_create(by: Actor, node_id: str) -> Node:
    if not names.is_node_id(node_id):
        raise InvalidInput(fields={"node_id": [names.HINT]})
    present = Node.objects.present().called(node_id)
    if (node := present.first()) is not None:
        return node
    try:
        with transaction.atomic():
            node = Node.objects.create(node_id=node_id)
    except IntegrityError:  # somebody else made it between the two statements
        return present.get()
    audit.record(Action.NODE_CREATED, by=by, target=f"node:{node_id}", detail={"id": str(node.pk)})
    publish_nodes([node.pk])
    return node


def _locked(node_id: str) -> Node:
    node = Node.objects.present().called(node_id).select_for_update(no_key=True).first()
    if node is None:
        raise UnknownNode()
    return node


def _validated(changes: NodeChanges) -> dict[str, str | list[str]]:
    fields: dict[str, list[str]] = {}
    wanted: dict[str, str | list[str]] = {}
    for name in ("display_name", "group", "notes"):
        value = getattr(changes, name)
        if value is None:
            continue
        wanted[name] = value.strip()
        if len(wanted[name]) > (limit := _max_length(Node, name)):
            fields[name] = [f"At most {limit} characters."]
    if changes.tags is not None:
        wanted["tags"] = list(dict.fromkeys(tag.strip() for tag in changes.tags))
        if len(wanted["tags"]) > MAX_TAGS:
            fields["tags"] = [f"At most {MAX_TAGS} tags."]
        elif not all(_TAG.fullmatch(tag) for tag in wanted["tags"]):
            fields["tags"] = ["A tag has 1 to 63 characters, without spaces or commas."]
    if fields:
        raise InvalidInput(fields=fields)
    return wanted


def _max_length(model: type[Model], field: str) -> int:
    return int(model._meta.get_field(field).max_length or 0)  # type: ignore[union-attr]
