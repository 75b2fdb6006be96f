"""What the check jobs of pins found: which nodes drifted, since when, and where the output of each check is."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.utils import timezone

from hyprbox.lib.actors import Actor, Capability, require
from jobs.errors import UnknownPin
from jobs.models import Pin
from nodes.models import Node

DRIFTED, IN_PLACE, FAILED, WAITING, UNCHECKED = "drifted", "in_place", "failed", "waiting", "unchecked"
KNOWN_DAYS = 90

# Of each pin and node: the newest check, the newest that told something, and since when it has told "not so".
_FOUND = f"""
WITH checks AS (
  SELECT c.id, c.pin_id, c.node_id, c.job_id, j.status, j.reason, j.changed, j.finished_at,
         (j.status = 'SUCCEEDED' AND j.changed IS NOT NULL) AS tells
  FROM jobs_driftcheck c JOIN jobs_job j ON j.id = c.job_id
  WHERE c.pin_id = ANY(%(pins)s) AND c.created_at > now() - interval '{KNOWN_DAYS} days'
), newest AS (
  SELECT DISTINCT ON (pin_id, node_id) * FROM checks ORDER BY pin_id, node_id, id DESC
), told AS (
  SELECT DISTINCT ON (pin_id, node_id) * FROM checks WHERE tells ORDER BY pin_id, node_id, finished_at DESC
), fine AS (
  SELECT pin_id, node_id, max(finished_at) AS at FROM checks WHERE tells AND NOT changed GROUP BY 1, 2
), drift AS (
  SELECT c.pin_id, c.node_id, min(c.finished_at) AS since FROM checks c
  LEFT JOIN fine f ON f.pin_id = c.pin_id AND f.node_id = c.node_id
  WHERE c.tells AND c.changed AND (f.at IS NULL OR c.finished_at > f.at) GROUP BY 1, 2
)
SELECT n.pin_id, n.node_id, n.job_id, n.status, n.reason, t.job_id, t.changed, t.finished_at, d.since
FROM newest n
LEFT JOIN told t ON t.pin_id = n.pin_id AND t.node_id = n.node_id
LEFT JOIN drift d ON d.pin_id = n.pin_id AND d.node_id = n.node_id
"""


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node of a pin. `state` is what the newest check that told something said; `failed` when the newest told nothing."""

    node_id: str
    state: str = UNCHECKED
    since: datetime | None = None
    checked_at: datetime | None = None
    job_id: uuid.UUID | None = None
    is_running: bool = False

    @property
    def look(self) -> str:
        return "CHECKING" if self.is_running and self.state in (WAITING, UNCHECKED) else self.state.upper()


@dataclass(frozen=True, slots=True)
class PinState:
    """A pin and its nodes, the drifted ones first."""

    pin: Pin
    nodes: tuple[NodeState, ...]
    now: datetime

    @property
    def drifted(self) -> list[NodeState]:
        return [node for node in self.nodes if node.state == DRIFTED]

    @property
    def failed(self) -> list[NodeState]:
        return [node for node in self.nodes if node.state == FAILED]

    @property
    def since(self) -> datetime | None:
        return min((node.since for node in self.drifted if node.since), default=None)

    @property
    def look(self) -> str:
        if self.pin.paused_because:
            return "PAUSED"
        if self.drifted:
            return "DRIFTED"
        if self.failed:
            return "FAILED"
        return "IN_PLACE" if any(node.state == IN_PLACE for node in self.nodes) else "UNCHECKED"

    @property
    def target(self) -> str:
        return f"tag {self.pin.tag}" if self.pin.tag else (self.nodes[0].node_id if self.nodes else "a removed node")

    @property
    def sentence(self) -> str:
        """Such as `3 of 40 drifted since Tuesday`."""
        return told(self.nodes, self.now)


def of_all(states: list[PinState]) -> str:
    """All of these pins together in one sentence; empty when there is none."""
    return told([node for state in states for node in state.nodes], states[0].now) if states else ""


def told(nodes: Iterable[NodeState], now: datetime) -> str:
    """Nodes of one or many pins in one sentence without a full stop."""
    every = list(nodes)
    if not every:
        return "no node to check"
    drifted = [node for node in every if node.state == DRIFTED]
    unknown = sum(node.state == FAILED for node in every)
    untold = sum(node.state in (WAITING, UNCHECKED) for node in every)
    since = min((node.since for node in drifted if node.since), default=None)
    if drifted:
        text = f"{len(drifted)} of {len(every)} drifted" + (f" since {_day(since, now)}" if since else "")
    elif untold == len(every):
        return "not checked yet"
    elif len(every) - unknown - untold:
        text = f"{len(every) - unknown - untold} of {len(every)} as wanted"
    else:
        return "the last check failed" if len(every) == 1 else f"the last check failed on {unknown} of {len(every)}"
    return f"{text}, {unknown} could not be checked" if unknown else text


def _day(at: datetime, now: datetime) -> str:
    """`today`, `yesterday`, `Tuesday`, `3 Nov`."""
    days = (now.date() - at.date()).days
    if days <= 1:
        return "today" if days <= 0 else "yesterday"
    return f"{at:%A}" if days < 7 else f"{at.day} {at:%b}"


def list_states(*, by: Actor, preset: str = "", node: Node | None = None) -> list[PinState]:
    """Every pin, or those of a preset, or those that a node is under; the drifted ones first."""
    require(by, Capability.VIEW_FLEET)
    pins = Pin.objects.select_related("node").order_by("preset", "created_at")
    if preset:
        pins = pins.filter(preset=preset)
    chosen = [pin for pin in pins if node is None or pin.node_id == node.pk or (pin.tag and pin.tag in node.tags)]
    states = _states(chosen)
    return sorted(states, key=lambda state: (not state.drifted, not state.pin.paused_because, state.pin.preset))


def state_of(*, by: Actor, pin_id: uuid.UUID | str) -> PinState:
    """Raises `UnknownPin`."""
    require(by, Capability.VIEW_FLEET)
    pin = Pin.objects.select_related("node").filter(pk=pin_id).first()
    if pin is None:
        raise UnknownPin()
    return _states([pin])[0]


def of_node(*, by: Actor, node: Node) -> list[tuple[PinState, NodeState]]:
    """What a node is watched for, and how it stands there."""
    states = list_states(by=by, node=node)
    return [(state, each) for state in states for each in state.nodes if each.node_id == node.node_id]


def _states(pins: list[Pin]) -> list[PinState]:
    if not pins:
        return []
    found, now = _found(pins), timezone.now()
    present = list(Node.objects.present().only("pk", "node_id", "tags"))
    states = []
    for pin in pins:
        nodes = [node for node in present if (node.pk == pin.node_id if pin.node_id else pin.tag in node.tags)]
        each = [found.get((pin.pk, node.pk), NodeState(node.node_id)) for node in nodes]
        order = [DRIFTED, FAILED, WAITING, UNCHECKED, IN_PLACE]
        each.sort(key=lambda state: (order.index(state.state), state.node_id))
        states.append(PinState(pin, tuple(each), now))
    return states


def _found(pins: list[Pin]) -> dict[tuple[uuid.UUID, uuid.UUID], NodeState]:
    with connection.cursor() as cursor:
        cursor.execute(_FOUND, {"pins": [pin.pk for pin in pins]})
        rows = cursor.fetchall()
    names = dict(Node.objects.filter(pk__in={row[1] for row in rows}).values_list("pk", "node_id"))
    return {(row[0], row[1]): _node_state(names[row[1]], row) for row in rows}


def _node_state(node_id: str, row: tuple[Any, ...]) -> NodeState:
    _, _, newest_job, status, _, told_job, changed, told_at, since = row
    is_running = status in ("QUEUED", "RUNNING")
    if not is_running and status != "SUCCEEDED":
        return NodeState(node_id, FAILED, None, told_at, newest_job)
    if told_job is None:
        return NodeState(node_id, WAITING, None, None, newest_job, is_running)
    state = DRIFTED if changed else IN_PLACE
    return NodeState(node_id, state, since if changed else None, told_at, told_job, is_running)
