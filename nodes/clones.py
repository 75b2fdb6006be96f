"""Two machines that report as one node: noticed from heartbeats that do not fit, and settled by a person.

While it is suspected the node is handed no new jobs, whichever of the two asks (`jobs.queue`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import structlog
from django.db import transaction
from django.db.models.functions import Now

from audit import services as audit
from audit.actions import Action
from hyprbox.lib import live
from hyprbox.lib.actors import Actor, Capability, require, require_fresh
from nodes import identity, selectors, services
from nodes.errors import NoCloneSuspected, UnknownNode
from nodes.identity import Known, Sighting
from nodes.models import Node
from tokens.models import NodeToken

_HEARTBEATS = Actor.system("heartbeats")

log = structlog.get_logger(__name__)


def note(node_pk: uuid.UUID, seen: Sighting) -> bool:
    """What a heartbeat that did not fit means for its node; whether it makes two machines of it. Repeatable."""
    return False if _pin_first(node_pk, seen) else _compare(node_pk, seen)


def note_all(found: Iterable[tuple[uuid.UUID, Sighting]]) -> None:
    for node_pk, seen in found:
        note(node_pk, seen)


def _pin_first(node_pk: uuid.UUID, seen: Sighting) -> bool:
    """The first heartbeat of all tells which machine it is.

    One statement by itself: a whole fleet may be new, and no heartbeat is to wait for a lock that a thread holds.
    """
    unknown = Node.objects.filter(pk=node_pk, machine_id="", instance_id="", clone_suspected_at=None)
    return bool(
        unknown.update(
            machine_id=seen.machine_id, instance_id=seen.instance_id, beat=seen.beat, identified_at=Now(), sightings={}
        )
    )


def _compare(node_pk: uuid.UUID, seen: Sighting) -> bool:
    with transaction.atomic():
        node = Node.objects.present().select_for_update(no_key=True).filter(pk=node_pk).first()
        if node is None or node.clone_suspected_at is not None:
            return False
        now = selectors.database_now()
        known = identity.recalled(node.machine_id, node.instance_id, node.beat, node.sightings)
        verdict = identity.judge(
            known,
            seen,
            now=now.timestamp(),
            interval_seconds=node.interval_seconds,
            is_expected=_is_expected(node, seen),
        )
        changes = _columns(verdict.known) if verdict.known != known else {}
        if (verdict.known.machine_id, verdict.known.instance_id) != (known.machine_id, known.instance_id):
            changes["identified_at"] = now
        if verdict.why:
            changes["clone_suspected_at"] = now
            detail = {"why": verdict.why, "known": _told(known), "seen": _told(seen)}
            audit.record(Action.NODE_CLONE_SUSPECTED, by=_HEARTBEATS, target=f"node:{node.node_id}", detail=detail)
        if changes:
            Node.objects.filter(pk=node.pk).update(**changes)
        if verdict.why:
            services.announce_flips([node.pk])
            services.publish_nodes([node.pk])
            log.error("node.clone_suspected", node=node.node_id, why=verdict.why)
    return bool(verdict.why)


@transaction.atomic
def confirm_machine(*, by: Actor, node_id: str) -> Node:
    """There is one machine now: the next heartbeat tells which, and jobs are handed out again.

    Raises `UnknownNode`, `NoCloneSuspected`.
    """
    require(by, Capability.MANAGE_TOKENS)
    require_fresh(by)
    node = Node.objects.present().called(node_id).select_for_update(no_key=True).first()
    if node is None:
        raise UnknownNode()
    if node.clone_suspected_at is None:
        raise NoCloneSuspected()
    known = identity.recalled(node.machine_id, node.instance_id, node.beat, node.sightings)
    Node.objects.filter(pk=node.pk).update(
        clone_suspected_at=None, machine_id="", instance_id="", beat=None, identified_at=None, misfit=None, sightings={}
    )
    audit.record(
        Action.NODE_MACHINE_CONFIRMED, by=by, target=f"node:{node.node_id}", detail={"forgotten": _told(known)}
    )
    services.announce_flips([node.pk])
    services.publish_nodes([node.pk])
    live.publish("work", node=node.pk)
    node.refresh_from_db()
    return node


def _is_expected(node: Node, seen: Sighting) -> bool:
    """Its token was given out after the node was identified, is no successor of an older one, and is the only one."""
    if seen.token_id is None or node.identified_at is None:
        return False
    usable = list(NodeToken.objects.usable().filter(node_pk=node.pk).defer("digest"))
    return [token.pk for token in usable] == [seen.token_id] and all(
        token.replaces_id is None and token.created_at > node.identified_at for token in usable
    )


def _columns(known: Known) -> dict[str, Any]:
    return {
        "machine_id": known.machine_id,
        "instance_id": known.instance_id,
        "beat": known.beat,
        "sightings": known.memory(),
    }


def _told(one: Known | Sighting) -> dict[str, Any]:
    return {"machine_id": one.machine_id, "instance_id": one.instance_id, "beat": one.beat}
