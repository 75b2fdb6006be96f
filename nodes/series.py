"""Reading history: the last hour to the last month in at most 500 points, and 48 points for many nodes.

What is rolled up is read from the roll-ups, what is newer than the newest bucket from the heartbeats, so a
chart reaches to now and is right even while no worker runs.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.db.models import TextChoices

from nodes.models import SPARK_POINTS

METRICS = ("cpu_percent", "memory_percent", "disk_percent", "load_1", "net_rx_bps", "net_tx_bps")
SPARK_METRICS = METRICS[:3]
# The whole fleet's buckets are kept under this key: averages over the nodes, and the worst node's maximum.
FLEET = uuid.UUID(int=0)
SMALL_FLEET = 50


class Range(TextChoices):
    HOUR = "1h", "1 h"
    DAY = "24h", "24 h"
    WEEK = "7d", "7 d"
    MONTH = "30d", "30 d"


SPAN_SECONDS = {Range.HOUR: 3_600, Range.DAY: 86_400, Range.WEEK: 604_800, Range.MONTH: 2_592_000}
STEP_SECONDS = {Range.HOUR: 15, Range.DAY: 300, Range.WEEK: 1_800, Range.MONTH: 7_200}

Point = tuple[datetime, float, float]


@dataclass(frozen=True, slots=True)
class History:
    """`series` maps a metric to (start of the bucket, average, maximum); empty buckets are left out."""

    range: Range
    step_seconds: int
    starts_at: datetime
    ends_at: datetime
    series: dict[str, list[Point]]


@dataclass(frozen=True, slots=True)
class Spark:
    """At most 48 averages a metric, oldest first, None for an empty bucket; the last one ends at `ends_at`.

    Cards carry the CPU alone.
    """

    ends_at: datetime
    step_seconds: int
    cpu_percent: list[float | None]
    memory_percent: list[float | None] = field(default_factory=list)
    disk_percent: list[float | None] = field(default_factory=list)


_RAW = "SELECT at, 1 AS samples, " + ", ".join(f"{m} AS {m}_avg, {m} AS {m}_max" for m in METRICS)
_BINNED = "SELECT date_bin(make_interval(secs => %(step)s), at, 'epoch') AS bucket, " + ", ".join(
    f"sum({m}_avg * samples) / NULLIF(sum(samples) FILTER (WHERE {m}_avg IS NOT NULL), 0), max({m}_max)"
    for m in METRICS
)


def _from_raw(condition: str) -> str:
    rows = f"{_RAW} FROM nodes_heartbeat WHERE {condition} at >= %(start)s"
    return f"{_BINNED} FROM ({rows}) AS rows GROUP BY 1 ORDER BY 1"


def _from_rollups(raw_condition: str) -> str:
    columns = ", ".join(f"{m}_{kind}" for m in METRICS for kind in ("avg", "max"))
    return f"""
    WITH edge AS (
        SELECT COALESCE(max(at) + interval '5 minutes', %(start)s) AS at
        FROM nodes_fiveminutes WHERE node = %(node)s AND at >= %(start)s
    ), rows AS (
        SELECT at, samples, {columns} FROM nodes_fiveminutes WHERE node = %(node)s AND at >= %(start)s
        UNION ALL
        {_RAW} FROM nodes_heartbeat WHERE {raw_condition} at >= (SELECT at FROM edge)
    )
    {_BINNED} FROM rows GROUP BY 1 ORDER BY 1"""


_FROM_RAW = _from_raw("node = %(node)s AND")
_FLEET_FROM_RAW = _from_raw("")
_FROM_ROLLUPS = _from_rollups("node = %(node)s AND")
_FLEET_FROM_ROLLUPS = _from_rollups("")


def node_history(node_pk: uuid.UUID, range: Range) -> History:
    return _history(_FROM_RAW if range is Range.HOUR else _FROM_ROLLUPS, node_pk, range, STEP_SECONDS[range])


def fleet_history(range: Range, *, node_count: int) -> History:
    """Averages over all nodes. Past a small fleet the last hour is drawn in 5-minute steps."""
    if range is Range.HOUR and node_count <= SMALL_FLEET:
        return _history(_FLEET_FROM_RAW, FLEET, range, STEP_SECONDS[range])
    return _history(_FLEET_FROM_ROLLUPS, FLEET, range, max(300, STEP_SECONDS[range]))


def _history(sql: str, node_pk: uuid.UUID, range: Range, step: int) -> History:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT date_bin(make_interval(secs => %s), now() - make_interval(secs => %s), 'epoch'), now()",
            [step, SPAN_SECONDS[range]],
        )
        start, end = cursor.fetchone()
        cursor.execute(sql, {"node": node_pk, "start": start, "step": step})
        rows = cursor.fetchall()
    series: dict[str, list[Point]] = {metric: [] for metric in METRICS}
    for bucket, *values in rows:
        for index, metric in enumerate(METRICS):
            average, highest = values[2 * index], values[2 * index + 1]
            if average is not None:
                series[metric].append((bucket, round(average, 2), round(highest, 2)))
    return History(range, step, start, end, series)


_SPARKS = f"""
SELECT wanted.node_id, bucket, {", ".join(f"{m}_avg" for m in SPARK_METRICS)}
FROM nodes_node AS wanted, LATERAL (
    WITH edge AS (
        SELECT COALESCE(max(at) + interval '5 minutes', %(start)s) AS at
        FROM nodes_fiveminutes WHERE node = wanted.id AND at >= %(start)s AND %(rolled)s
    ), rows AS (
        SELECT at, {", ".join(f"{m}_avg" for m in SPARK_METRICS)} FROM nodes_fiveminutes
        WHERE node = wanted.id AND at >= %(start)s AND %(rolled)s
        UNION ALL
        SELECT at, {", ".join(SPARK_METRICS)} FROM nodes_heartbeat
        WHERE node = wanted.id AND at >= (SELECT at FROM edge)
    )
    SELECT floor(extract(epoch FROM at - %(start)s) / %(step)s)::integer AS bucket,
           {", ".join(f"avg({m}_avg) AS {m}_avg" for m in SPARK_METRICS)}
    FROM rows GROUP BY 1
) AS points
WHERE wanted.removed_at IS NULL AND wanted.node_id = ANY(%(node_ids)s)
"""


def sparks(node_ids: Sequence[str], range: Range) -> dict[str, Spark]:
    """48 buckets over the range for each of these nodes, in one query; unknown nodes are left out."""
    step = SPAN_SECONDS[range] / SPARK_POINTS
    end = datetime.now(UTC).timestamp()
    start = datetime.fromtimestamp(end - SPAN_SECONDS[range], UTC)
    found: dict[str, Spark] = {}
    with connection.cursor() as cursor:
        rolled = range is not Range.HOUR
        cursor.execute(_SPARKS, {"node_ids": list(node_ids), "start": start, "step": step, "rolled": rolled})
        for node_id, bucket, *values in cursor.fetchall():
            spark = found.get(node_id)
            if spark is None:
                columns: list[Any] = [[None] * SPARK_POINTS for _ in SPARK_METRICS]
                spark = found[node_id] = Spark(datetime.fromtimestamp(end, UTC), int(step), *columns)
            if 0 <= bucket < SPARK_POINTS:
                for metric, value in zip(SPARK_METRICS, values, strict=True):
                    getattr(spark, metric)[bucket] = None if value is None else round(value, 1)
    return found
