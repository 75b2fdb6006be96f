"""Reading nodes: lists, counts, cards, one node in full, and what happened to it.

Pages get frozen dataclasses; the number of statements never depends on the number of nodes. Cards, the timeline and the
fleet as JSON have files of their own.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django.db import connection
from django.db.models import Avg, Case, Count, F, Q, Value, When
from django.db.models.expressions import OrderBy
from django.db.models.functions import Now

from hyprbox.lib.errors import InvalidInput
from nodes import rules
from nodes.cards import NodeCard, cards
from nodes.errors import UnknownNode
from nodes.models import Node, NodeQuerySet
from nodes.rows import changes_sql, fleet_json, one_line
from nodes.status import METRICS, WORST_FIRST, Facts, Judgement, Status, judge, silence_between
from nodes.timeline import ActivityItem, ActivitySource, activity, activity_sources, flip_item, latest_flips

__all__ = [
    "ActivityItem", "ActivitySource", "Counts", "Facets", "NodeCard", "NodeDetail", "NodeFilter", "activity",
    "activity_sources", "cards", "changes_sql", "count_by_status", "count_clones", "counts", "database_now", "facets", "facts_of",
    "find_node", "fleet_json", "flip_item", "judge_node", "latest_flips", "list_nodes", "node_card", "node_cards",
    "node_detail", "one_line", "touched",
]  # fmt: skip

ORDERINGS = (
    "node_id", "display_name", "group", "status", "last_seen_at", "created_at",
    "cpu_percent", "memory_percent", "disk_percent",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFilter:
    """What a list shows. `q` searches names, addresses, systems; `tag:web` and `group:acme` in it narrow the list."""

    statuses: Sequence[str] = ()
    group: str = ""
    tag: str = ""
    q: str = ""
    ordering: str = "node_id"

    @property
    def words(self) -> str:
        """What of `q` is searched for in names, which is what costs."""
        return " ".join(word for kind, word in self.parts() if not kind)

    def parts(self) -> Iterator[tuple[str, str]]:
        """(`tag`, `group` or nothing, the word), for each word of `q`."""
        for word in self.q.split():
            kind, _, rest = word.partition(":")
            yield (kind, rest) if rest and kind in ("tag", "group") else ("", word)


@dataclass(frozen=True, slots=True)
class NodeDetail:
    """One node in full."""

    card: NodeCard
    notes: str
    metrics: dict[str, Any]
    inventory: dict[str, Any]
    clock_offset_seconds: float | None
    concurrency: int
    created_at: datetime
    is_clone_suspected: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """The whole fleet in figures. `cpu_percent` and `memory_percent` are averages over the nodes that report."""

    by_status: dict[Status, int]
    cpu_percent: float | None
    memory_percent: float | None

    @property
    def total(self) -> int:
        return sum(self.by_status.values())

    @property
    def online(self) -> int:
        """Nodes that report, whatever they report."""
        return self.total - self.by_status[Status.OFFLINE] - self.by_status[Status.UNKNOWN]

    @property
    def needing_attention(self) -> int:
        return sum(self.by_status[s] for s in (Status.WARNING, Status.CRITICAL, Status.OFFLINE))


@dataclass(frozen=True, slots=True)
class Facets:
    """What lists can be filtered by."""

    groups: list[str]
    tags: list[str]


def database_now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        return cast(datetime, cursor.fetchone()[0])


def find_node(node_id: str) -> Node:
    """The node by that name. Raises `UnknownNode`."""
    node = Node.objects.present().called(node_id).first()
    if node is None:
        raise UnknownNode()
    return node


def facts_of(node: Node, now: datetime) -> Facts:
    return Facts(
        silence_seconds=silence_between(node.last_seen_at, now),
        interval_seconds=node.interval_seconds,
        metrics={metric: getattr(node, metric) for metric in METRICS},
        clock_offset_seconds=node.clock_offset_seconds,
        announced=node.announced_status,
        spool_problem=node.metrics.get("spool_unwritable"),
        is_clone_suspected=node.clone_suspected_at is not None,
    )


def judge_node(node: Node, *, now: datetime | None = None) -> Judgement:
    """The effective status of one node, with its reasons."""
    return judge(facts_of(node, now or database_now()), rules.current())


def list_nodes(wanted: NodeFilter) -> NodeQuerySet:
    """Present nodes with `effective_status`, filtered and ordered. Raises `InvalidInput`."""
    in_force = rules.current()
    nodes = Node.objects.present().judged(in_force)
    if wanted.statuses:
        nodes = nodes.with_status(in_force, wanted.statuses)
    if wanted.group:
        nodes = nodes.in_group(wanted.group)
    if wanted.tag:
        nodes = nodes.tagged(wanted.tag)
    for kind, word in wanted.parts():
        if kind == "tag":
            nodes = nodes.tagged(word)
        elif kind == "group":
            nodes = nodes.in_group(word)
        else:
            nodes = nodes.matching(word)
    return nodes.annotate(now=Now()).order_by(*_ordering(wanted.ordering))


def _ordering(text: str) -> list[OrderBy | str]:
    name = text.removeprefix("-")
    if name not in ORDERINGS:
        raise InvalidInput(fields={"ordering": [f"One of {', '.join(ORDERINGS)}, with a minus for the reverse."]})
    rank = Case(*(When(effective_status=s, then=Value(i)) for i, s in enumerate(WORST_FIRST)))
    key = OrderBy(rank if name == "status" else F(name), descending=text.startswith("-"), nulls_last=True)
    return [key] if name == "node_id" else [key, "node_id"]


def node_card(node_id: str) -> NodeCard:
    """Raises `UnknownNode`."""
    found = cards(Node.objects.present().called(node_id))
    if not found:
        raise UnknownNode()
    return found[0]


def node_cards(node_pks: Iterable[uuid.UUID | str]) -> list[NodeCard]:
    """The cards of these nodes, without those that were removed."""
    return cards(Node.objects.present().filter(pk__in=list(node_pks)))


def node_detail(node_id: str) -> NodeDetail:
    """Raises `UnknownNode`."""
    card, node = node_card(node_id), find_node(node_id)
    return NodeDetail(
        card, node.notes, node.metrics, node.inventory, node.clock_offset_seconds, node.concurrency, node.created_at,
        node.clone_suspected_at is not None,
    )  # fmt: skip


def counts() -> Counts:
    """Figures of the whole fleet, in one statement."""
    rows = (
        Node.objects.present()  # type: ignore[misc]
        .judged(rules.current())
        .order_by()
        .values("effective_status")
        .annotate(n=Count("id"), cpu=Avg("cpu_percent"), memory=Avg("memory_percent"))
        .values_list("effective_status", "n", "cpu", "memory")
    )
    by_status = dict.fromkeys(Status, 0)
    cpu: list[tuple[float, int]] = []
    memory: list[tuple[float, int]] = []
    for status, number, cpu_mean, memory_mean in rows:
        by_status[Status(status)] = number
        if status not in (Status.OFFLINE, Status.UNKNOWN):
            cpu += [(cpu_mean, number)] if cpu_mean is not None else []
            memory += [(memory_mean, number)] if memory_mean is not None else []
    return Counts(by_status, _mean(cpu), _mean(memory))


def count_by_status() -> dict[Status, int]:
    return counts().by_status


def count_clones() -> int:
    """Nodes behind which two machines are suspected."""
    return Node.objects.present().filter(clone_suspected_at__isnull=False).count()


def _mean(parts: list[tuple[float, int]]) -> float | None:
    weight = sum(number for _, number in parts)
    return sum(mean * number for mean, number in parts) / weight if weight else None


def facets() -> Facets:
    """All groups and tags in use, in one statement."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT COALESCE(array_agg(DISTINCT "group" ORDER BY "group") FILTER (WHERE "group" <> ''), '{}'),
                   COALESCE((SELECT array_agg(DISTINCT tag ORDER BY tag) FROM nodes_node AS n, unnest(n.tags) AS tag
                             WHERE n.removed_at IS NULL), '{}')
            FROM nodes_node WHERE removed_at IS NULL
            """
        )
        groups, tags = cursor.fetchone()
    return Facets(groups, tags)


def touched(*, since: datetime | None = None, node_pks: Iterable[uuid.UUID | str] = ()) -> NodeQuerySet:
    """Present nodes of these keys, or with a heartbeat after `since`."""
    wanted = Q(pk__in=list(node_pks))
    return Node.objects.present().filter(wanted | Q(last_seen_at__gte=since) if since else wanted)
