"""Keeping history: partitions made ahead, heartbeats rolled up, sparklines redrawn, old days dropped.

Everything here may run twice, at once or late: partitions are made under an advisory lock, roll-ups are
upserts of whole buckets, and the roller starts where the newest bucket is, so it catches up by itself.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet

from nodes.models import SPARK_POINTS, StatusFlip
from nodes.series import FLEET, METRICS, SPARK_METRICS

FIVE_MINUTES = timedelta(minutes=5)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# A heartbeat carries the time its statement began; a bucket is closed when no statement can still be under way.
SETTLE = timedelta(seconds=10)
FLIPS_KEPT = timedelta(days=366)
# (age up to which a node's sparkline has this step, step): the first minutes show, and an old node shows 24 hours.
SPARK_STEPS = ((timedelta(minutes=48), 60), (timedelta(hours=4), 300), (None, 1_800))

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Series:
    """A partitioned table, by day or by month, and how long its rows are kept."""

    table: str
    is_monthly: bool
    kept: timedelta

    def start_of(self, moment: datetime) -> datetime:
        midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight.replace(day=1) if self.is_monthly else midnight

    def end_of(self, start: datetime) -> datetime:
        return (start.replace(day=28) + timedelta(days=4)).replace(day=1) if self.is_monthly else start + DAY


HEARTBEATS = Series("nodes_heartbeat", False, timedelta(days=7))
FIVE_MINUTE_ROWS = Series("nodes_fiveminutes", False, timedelta(days=31))
HOUR_ROWS = Series("nodes_hour", True, timedelta(days=366))
ALL_SERIES = (HEARTBEATS, FIVE_MINUTE_ROWS, HOUR_ROWS)
MADE_AHEAD = timedelta(days=3)


def make_partitions(since: datetime | None = None, until: datetime | None = None) -> int:
    """The partitions from `since` (now) to `until` (three days on) that are missing; how many were made."""
    now = datetime.now(UTC)
    made = 0
    for series in ALL_SERIES:
        start = series.start_of(since or now)
        while start <= (until or now + MADE_AHEAD):
            made += _make_partition(series, start)
            start = series.end_of(start)
    return made


def _make_partition(series: Series, start: datetime) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NULL", [f"{series.table}_{start:%Y%m%d}"])
        if not cursor.fetchone()[0]:
            return 0
        cursor.execute("SELECT nodes_make_partition(%s, %s, %s)", [series.table, start, series.end_of(start)])
        return int(cursor.fetchone()[0])


def drop_old(now: datetime | None = None) -> list[str]:
    """Drop the partitions whose every row is past its time, and old status flips; the names of what went."""
    dropped = [name for series, name in _old_partitions(now) if _drop(series, name)]
    forget_old_flips(now)
    return dropped


def old_partitions(now: datetime | None = None) -> list[str]:
    """The partitions that `drop_old` would drop."""
    return [name for _, name in _old_partitions(now)]


def _old_partitions(now: datetime | None) -> list[tuple[Series, str]]:
    now = now or datetime.now(UTC)
    return [
        (series, name)
        for series in ALL_SERIES
        for name, start in _partitions(series)
        if series.end_of(start) <= now - series.kept
    ]


def old_flips(now: datetime | None = None) -> QuerySet[StatusFlip]:
    """Changes of status past their time."""
    return StatusFlip.objects.filter(at__lt=(now or datetime.now(UTC)) - FLIPS_KEPT)


def forget_old_flips(now: datetime | None = None) -> int:
    """At most ten thousand at once; returns how many went."""
    some = old_flips(now).order_by("at").values_list("pk", flat=True)[:10_000]
    return StatusFlip.objects.filter(pk__in=list(some)).delete()[0]


def _partitions(series: Series) -> list[tuple[str, datetime]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass ORDER BY 1", [series.table]
        )
        names = [row[0] for row in cursor.fetchall()]
    return [(name, datetime.strptime(name[-8:], "%Y%m%d").replace(tzinfo=UTC)) for name in names]


def _drop(series: Series, name: str) -> bool:
    """Detaching waits for readers and makes heartbeats wait behind it: give up quickly, the next run tries again."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '300ms'")
            cursor.execute("SELECT nodes_drop_partition(%s, %s)", [series.table, name])
            return bool(cursor.fetchone()[0])
    except OperationalError as error:
        log.warning("history.partition_busy", partition=name, error=str(error))
        return False


# Averages weigh by samples; a metric that was null in some of them weighs as if it had been in all.
_AGGREGATES = ", ".join(
    f"(sum({m}_avg * samples) / NULLIF(sum(samples) FILTER (WHERE {m}_avg IS NOT NULL), 0))::real, max({m}_max)"
    for m in METRICS
)
_COLUMNS = ", ".join(f"{m}_{kind}" for m in METRICS for kind in ("avg", "max"))
_UPSERT = "ON CONFLICT (node, at) DO UPDATE SET samples = excluded.samples, " + ", ".join(
    f"{m}_{kind} = excluded.{m}_{kind}" for m in METRICS for kind in ("avg", "max")
)
_RAW = "SELECT node, at, 1 AS samples, " + ", ".join(f"{m} AS {m}_avg, {m} AS {m}_max" for m in METRICS)


def _rollup(target: str, source: str, key: str = "node", where: str = "true") -> str:
    return f"""
    INSERT INTO {target} (node, at, samples, {_COLUMNS})
    SELECT {key}, date_bin(%(step)s, at, 'epoch') AS bucket, sum(samples), {_AGGREGATES}
    FROM ({source}) AS rows WHERE at >= %(start)s AND at < %(end)s AND {where} GROUP BY 1, 2
    {_UPSERT}"""


_TO_FIVE = _rollup("nodes_fiveminutes", f"{_RAW} FROM nodes_heartbeat")
_TO_HOUR = _rollup("nodes_hour", f"SELECT node, at, samples, {_COLUMNS} FROM nodes_fiveminutes")
_TO_FLEET = _rollup(
    "nodes_fiveminutes",
    f"SELECT node, at, samples, {_COLUMNS} FROM nodes_fiveminutes",
    "%(fleet)s::uuid",
    "node <> %(fleet)s",
)


def roll_up(now: datetime | None = None) -> None:
    """Roll closed buckets up: heartbeats into five minutes, those into the fleet's and into hours."""
    now = (now or _database_now()) - SETTLE
    for start, end in _spans(_newest("nodes_fiveminutes", FLEET), _oldest_heartbeat(), _floor(now, FIVE_MINUTES), DAY):
        make_partitions(start, end)
        with transaction.atomic():
            _run(_TO_FIVE, start, end, FIVE_MINUTES)
            _run(_TO_FLEET, start, end, FIVE_MINUTES)
    newest_hour = _newest("nodes_hour", FLEET)
    for start, end in _spans(newest_hour, _oldest("nodes_fiveminutes"), _floor(now, HOUR), 30 * DAY):
        make_partitions(start, end)
        _run(_TO_HOUR, start, end, HOUR)


def _spans(
    newest: datetime | None, oldest: datetime | None, end: datetime, longest: timedelta
) -> list[tuple[datetime, datetime]]:
    """From the newest bucket (again: it may have been written by a run that saw half) to `end`, in pieces."""
    start = newest or oldest
    spans = []
    while start is not None and start < end:
        stop = min(start + longest, end)
        spans.append((start, stop))
        start = stop
    return spans


def _floor(moment: datetime, step: timedelta) -> datetime:
    seconds = step.total_seconds()
    return datetime.fromtimestamp(moment.timestamp() // seconds * seconds, UTC)


def _run(sql: str, start: datetime, end: datetime, step: timedelta) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '120s'")
        cursor.execute(sql, {"start": start, "end": end, "step": step, "fleet": FLEET})  # type: ignore[dict-item]


def _database_now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        return cursor.fetchone()[0]  # type: ignore[no-any-return]


def _newest(table: str, node: uuid.UUID) -> datetime | None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT max(at) FROM {table} WHERE node = %s", [node])
        return cursor.fetchone()[0]  # type: ignore[no-any-return]


def _oldest(table: str) -> datetime | None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT min(at) FROM {table}")
        found: datetime | None = cursor.fetchone()[0]
    return _floor(found, HOUR) if found else None


def _oldest_heartbeat() -> datetime | None:
    return _oldest("nodes_heartbeat")


# One row per node: 48 buckets of a step that grows with the node's age. Raw rows for the young, buckets for the rest.
_REDRAW = """
WITH chosen AS (
    SELECT id FROM nodes_node
    WHERE removed_at IS NULL AND first_seen_at <= %(older_than)s AND first_seen_at > %(younger_than)s
), points AS (
    SELECT node, floor(extract(epoch FROM at - %(start)s) / %(step)s)::integer AS bucket, {averages}
    FROM {source} WHERE at >= %(start)s AND at < %(end)s AND node IN (SELECT id FROM chosen) GROUP BY 1, 2
), drawn AS (
    SELECT chosen.id, {arrays}
    FROM chosen CROSS JOIN generate_series(0, {points} - 1) AS slot
    LEFT JOIN points ON points.node = chosen.id AND points.bucket = slot
    GROUP BY chosen.id
)
INSERT INTO nodes_sparkline (node_id, ends_at, step_seconds, {metrics})
SELECT id, %(end)s, %(step)s, {metrics} FROM drawn
ON CONFLICT (node_id) DO UPDATE SET ends_at = excluded.ends_at, step_seconds = excluded.step_seconds, {updates}
"""


def redraw_sparklines(now: datetime | None = None, *, only_young: bool = False) -> None:
    """Rewrite the stored sparklines: every minute those of young nodes, every five minutes all of them."""
    now = now or _database_now()
    youngest = timedelta(0)
    for oldest, step in SPARK_STEPS:
        if only_young and step > 60:
            return
        end = _floor(now if step == 60 else now - SETTLE, timedelta(seconds=min(step, 300)))
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = '120s'")
            cursor.execute(
                _redraw_sql("nodes_heartbeat" if step == 60 else "nodes_fiveminutes"),
                {
                    "older_than": now - youngest,
                    "younger_than": now - oldest if oldest else datetime(2000, 1, 1, tzinfo=UTC),
                    "start": end - timedelta(seconds=step * SPARK_POINTS),
                    "end": end,
                    "step": step,
                },
            )
        youngest = oldest or youngest


def _redraw_sql(source: str) -> str:
    suffix = "" if source == "nodes_heartbeat" else "_avg"
    return _REDRAW.format(
        source=source,
        points=SPARK_POINTS,
        averages=", ".join(f"round(avg({m}{suffix})::numeric, 1)::real AS {m}" for m in SPARK_METRICS),
        arrays=", ".join(f"array_agg(points.{m} ORDER BY slot) AS {m}" for m in SPARK_METRICS),
        metrics=", ".join(SPARK_METRICS),
        updates=", ".join(f"{m} = excluded.{m}" for m in SPARK_METRICS),
    )
