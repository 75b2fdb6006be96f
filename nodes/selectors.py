"""Reading nodes: lists, counts, cards, one node in full, and what happened to it.

Pages get frozen dataclasses; the number of statements never depends on the number of nodes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

import msgspec
from django.db import connection
from django.db.models import Avg, Case, Count, F, Q, Value, When
from django.db.models.expressions import OrderBy
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Now

from hyprbox.lib.errors import InvalidInput
from nodes import rules
from nodes.errors import UnknownNode
from nodes.models import SPARK_POINTS, Node, NodeQuerySet, StatusFlip
from nodes.series import Spark
from nodes.sql import ArrayText, silence
from nodes.status import METRICS, WORST_FIRST, Facts, Judgement, Reason, Rules, Status, judge, silence_between
from tokens.models import NodeToken

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
    def is_fresh(self) -> bool:
        """Whether its figures are of now: those of a silent node are only history."""
        return self.status not in (Status.OFFLINE, Status.UNKNOWN)


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


@dataclass(frozen=True, slots=True)
class ActivityItem:
    """One thing that happened to a node. `kind` is status, token, job, backup; `status` colours it if it has one."""

    at: datetime
    kind: str
    title: str
    detail: str = ""
    status: str = ""
    ref: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


# Higher apps add their part of a node's activity here: (node, before, limit) -> items, newest first.
ActivitySource = Callable[[Node, datetime | None, int], Iterable[ActivityItem]]
activity_sources: list[ActivitySource] = []


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
    for word in wanted.q.split():
        kind, colon, rest = word.partition(":")
        if colon and rest and kind == "tag":
            nodes = nodes.tagged(rest)
        elif colon and rest and kind == "group":
            nodes = nodes.in_group(rest)
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


_CARD_COLUMNS = (
    "silence", "id", "node_id", "display_name", "group", "tags", "region", "os", "os_version", "agent_version",
    "interval_seconds", "announced_status", "announced_at", "first_seen_at", "last_seen_at", "clock_offset_seconds",
    "cpu_percent", "memory_percent", "disk_percent",
    "sparkline__ends_at", "sparkline__step_seconds", "cpu_spark",
)  # fmt: skip
_points = msgspec.json.Decoder(list[float | None]).decode


def cards(nodes: NodeQuerySet) -> list[NodeCard]:
    """The nodes of a queryset as cards, each with its CPU as a sparkline, in one statement."""
    in_force = rules.current()
    rows = nodes.annotate(
        silence=silence(),
        os=KeyTextTransform("os", "inventory"),
        os_version=KeyTextTransform("os_version", "inventory"),
        cpu_spark=ArrayText("sparkline__cpu_percent"),
    )
    return [_card(row, in_force) for row in rows.values_list(*_CARD_COLUMNS)]


def _card(row: tuple[Any, ...], in_force: Rules) -> NodeCard:
    (
        silent, pk, node_id, display_name, group, tags, region, os, os_version, agent_version, interval, announced,
        announced_at, first_seen_at, last_seen_at, clock_offset, cpu, memory, disk,
        ends_at, step, cpu_spark,
    ) = row  # fmt: skip
    metrics = {"cpu_percent": cpu, "memory_percent": memory, "disk_percent": disk}
    judgement = judge(Facts(silent, interval, metrics, clock_offset, announced), in_force)
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


def activity(node: Node, *, before: datetime | None = None, limit: int = 50) -> list[ActivityItem]:
    """What happened to a node, newest first: status flips, token events and what higher apps add."""
    items = [*_flip_items(node, before, limit), *_token_items(node, before)]
    for source in activity_sources:
        items.extend(source(node, before, limit))
    items.sort(key=lambda item: item.at, reverse=True)
    return items[:limit]


def _flip_items(node: Node, before: datetime | None, limit: int) -> list[ActivityItem]:
    flips = StatusFlip.objects.filter(node=node).order_by("-at")
    if before is not None:
        flips = flips.filter(at__lt=before)
    return [flip_item(flip) for flip in flips[:limit]]


def flip_item(flip: StatusFlip) -> ActivityItem:
    after, earlier = Status(flip.after), Status(flip.before)
    detail = " ".join(str(reason["message"]) for reason in flip.reasons) or f"It was {earlier.label.lower()} before."
    return ActivityItem(flip.at, "status", f"{after.label}", detail, after, str(flip.pk), {"before": str(earlier)})


def _token_items(node: Node, before: datetime | None) -> list[ActivityItem]:
    items = []
    for token in NodeToken.objects.filter(node_pk=node.pk).defer("digest"):
        ref = str(token.pk)
        items.append(ActivityItem(token.created_at, "token", "Token created", token.name, ref=ref))
        if token.revoked_at is not None:
            items.append(ActivityItem(token.revoked_at, "token", "Token revoked", token.name, ref=ref))
    return [item for item in items if before is None or item.at < before]


def latest_flips(since: datetime, limit: int = 200) -> list[tuple[str, ActivityItem]]:
    """(node_id, flip) of the whole fleet after `since`, oldest first."""
    flips = StatusFlip.objects.filter(at__gt=since).select_related("node").order_by("at")[:limit]
    return [(flip.node.node_id, flip_item(flip)) for flip in flips]


_PUBLIC = (
    "node_id", "display_name", "group", "tags", "region", "agent_version", "interval_seconds", "last_seen_at",
    "cpu_percent", "memory_percent", "disk_percent",
)  # fmt: skip
_SPARK_COLUMNS = {
    "spark_ends_at": F("sparkline__ends_at"),
    "spark_step_seconds": F("sparkline__step_seconds"),
    "spark_cpu_percent": F("sparkline__cpu_percent"),
}


def fleet_json(*, with_sparks: bool = False) -> str:
    """A JSON list of all nodes, written by PostgreSQL: for a whole fleet a serializer would take most of the time.

    With `with_sparks` each has the stored sparkline of its CPU.
    """
    sql, params = _rows_sql(rules.current(), with_sparks)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {_JSON_LIST} FROM (SELECT {_columns(with_sparks)} FROM ({sql}) AS n) AS row", params)
        return one_line(cursor.fetchone()[0])


def changes_sql(*, is_by_time: bool) -> tuple[str, tuple[Any, ...]]:
    """A statement for the fleet's stream, which runs it on a connection of its own; and its first parameters.

    Its other parameters are node keys and a time. One row: now, a JSON list of the present nodes among the keys
    (with `is_by_time` also of those heard after the time), the names of the removed ones among the keys.
    """
    sql, params = _rows_sql(rules.current(), False)
    heard = " OR n.last_seen_at >= %s" if is_by_time else " AND %s::timestamptz IS NOT NULL"
    changed = f"SELECT {_columns(False)} FROM ({sql}) AS n WHERE n.id = ANY(%s::uuid[]){heard}"
    removed = "SELECT node_id FROM nodes_node WHERE removed_at IS NOT NULL AND id = ANY(%s::uuid[])"
    return f"SELECT now(), (SELECT {_JSON_LIST} FROM ({changed}) AS row), ARRAY({removed})", params


def one_line(text: str) -> str:
    """PostgreSQL puts line ends between the items of a JSON list; an event stream would have to escape them."""
    return text.replace("\n", "")


_JSON_LIST = "COALESCE(json_agg(row), '[]')::text"


def _columns(with_sparks: bool) -> str:
    names = [*_PUBLIC, "status", *(_SPARK_COLUMNS if with_sparks else ())]
    return ", ".join(f'n."{name}"' for name in names)


@lru_cache(maxsize=8)
def _rows_sql(in_force: Rules, with_sparks: bool) -> tuple[str, tuple[Any, ...]]:
    """Present nodes with judged status as SQL: building it takes longer than running it for a few nodes."""
    rows = (
        Node.objects.present()
        .judged(in_force)
        .order_by("node_id")
        .annotate(status=F("effective_status"))
        .values("id", *_PUBLIC, "status", **(_SPARK_COLUMNS if with_sparks else {}))
    )
    sql, params = rows.query.sql_with_params()
    return sql, tuple(params)


def touched(*, since: datetime | None = None, node_pks: Iterable[uuid.UUID | str] = ()) -> NodeQuerySet:
    """Present nodes of these keys, or with a heartbeat after `since`."""
    wanted = Q(pk__in=list(node_pks))
    return Node.objects.present().filter(wanted | Q(last_seen_at__gte=since) if since else wanted)
