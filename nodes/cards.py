"""Nodes as lists, cards and live fragments show them. Doors find this in `nodes.selectors`."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from django.db.models.fields.json import KeyTextTransform

from nodes import rules
from nodes.models import SPARK_POINTS, NodeQuerySet
from nodes.series import Spark
from nodes.sql import ArrayText, silence
from nodes.status import Facts, Reason, Rules, Status, judge


@dataclass(frozen=True, slots=True)
class NodeCard:
    """One node as lists, cards and live fragments show it."""

    pk: uuid.UUID
    node_id: str
    display_name: str
    group: str
    tags: list[str]
    region: str
    os: str
    agent_version: str
    interval_seconds: int
    status: Status
    reasons: tuple[Reason, ...]
    status_since: datetime | None
    first_seen_at: datetime | None
    last_seen_at: datetime | None
    cpu_percent: float | None
    memory_percent: float | None
    disk_percent: float | None
    spark: Spark | None

    @property
    def label(self) -> str:
        return self.display_name or self.node_id

    @property
    def was_seen(self) -> bool:
        """Whether it ever reported. One that never did may be a name that nobody installs, so it gets no jobs."""
        return self.last_seen_at is not None

    @property
    def is_fresh(self) -> bool:
        """Whether its figures are of now: those of a silent node are only history."""
        return self.status not in (Status.OFFLINE, Status.UNKNOWN)


_CARD_COLUMNS = (
    "silence", "id", "node_id", "display_name", "group", "tags", "region", "os", "os_version", "agent_version",
    "interval_seconds", "announced_status", "announced_at", "first_seen_at", "last_seen_at", "clock_offset_seconds",
    "cpu_percent", "memory_percent", "disk_percent",
    "sparkline__ends_at", "sparkline__step_seconds", "cpu_spark", "spool_problem", "clone_suspected_at",
)  # fmt: skip
_points = msgspec.json.Decoder(list[float | None]).decode


def cards(nodes: NodeQuerySet) -> list[NodeCard]:
    """The nodes of a queryset as cards, each with its CPU as a sparkline, in one statement."""
    in_force = rules.current()
    rows = nodes.annotate(
        silence=silence(),
        os=KeyTextTransform("os", "inventory"),
        spool_problem=KeyTextTransform("spool_unwritable", "metrics"),
        os_version=KeyTextTransform("os_version", "inventory"),
        cpu_spark=ArrayText("sparkline__cpu_percent"),
    )
    return [_card(row, in_force) for row in rows.values_list(*_CARD_COLUMNS)]


def _card(row: tuple[Any, ...], in_force: Rules) -> NodeCard:
    (
        silent, pk, node_id, display_name, group, tags, region, os, os_version, agent_version, interval, announced,
        announced_at, first_seen_at, last_seen_at, clock_offset, cpu, memory, disk,
        ends_at, step, cpu_spark, spool_problem, clone_suspected_at,
    ) = row  # fmt: skip
    metrics = {"cpu_percent": cpu, "memory_percent": memory, "disk_percent": disk}
    is_clone = clone_suspected_at is not None
    judgement = judge(Facts(silent, interval, metrics, clock_offset, announced, spool_problem, is_clone), in_force)
    spark = None
    if ends_at is not None and last_seen_at is not None:
        late = (last_seen_at - ends_at).total_seconds()
        spark = Spark(ends_at, step, _up_to_now(_points(cpu_spark), cpu, late, step))
    elif last_seen_at is not None:
        spark = Spark(last_seen_at, 60, [cpu])
    return NodeCard(
        pk, node_id, display_name, group, tags, region, f"{os or ''} {os_version or ''}".strip(), agent_version,
        interval, judgement.status, judgement.reasons, announced_at if announced == judgement.status else None,
        first_seen_at, last_seen_at, cpu, memory, disk, spark,
    )  # fmt: skip


def _up_to_now(points: list[float | None], newest: float | None, late: float, step: int) -> list[float | None]:
    """Stored points with the newest figure as the last one, so that a sparkline moves with every heartbeat.

    `late` is how many seconds after the end of the stored points that figure was measured.
    """
    if late <= 0:
        return [*points[:-1], newest]
    missed = min(SPARK_POINTS - 1, -int(-late // step) - 1)
    return [*points[missed + 1 :], *([None] * missed), newest]
