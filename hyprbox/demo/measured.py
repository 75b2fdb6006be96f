"""What the servers measured: weeks of it, as the roller would have kept it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from hyprbox.demo.fleet import GIB, Host
from nodes import history
from nodes.models import Node
from nodes.series import FLEET, METRICS

# (table, step, how far back): what `nodes.history` keeps, and the pages' ranges read.
KEPT = (
    ("nodes_hour", timedelta(hours=1), timedelta(days=35)),
    ("nodes_fiveminutes", timedelta(minutes=5), timedelta(days=8)),
)
BEATS = (timedelta(minutes=1), timedelta(minutes=70))
Figures = tuple[float, ...]


class Gauge:
    """The figures of one server at any time: a day, a week, slow growth, and noise that the dice give."""

    def __init__(self, host: Host, dice: random.Random, now: datetime) -> None:
        self.host, self._dice, self._now = host, dice, now
        self._noise = 0.0
        self._phase = dice.uniform(-0.6, 0.6)

    def at(self, moment: datetime) -> Figures:
        """In the order of METRICS."""
        host, hours = self.host, moment.hour + moment.minute / 60
        day = math.sin((hours - 8) / 24 * 2 * math.pi + self._phase) * (0.55 if moment.weekday() >= 5 else 1.0)
        self._noise = 0.8 * self._noise + self._dice.gauss(0, 1.1)
        cpu = host.cpu + host.busy * (7 * day + self._noise) * (host.cpu / 30 if host.cpu < 90 else 0.2)
        memory = host.memory + host.busy * 1.5 * day + 0.15 * self._noise
        disk = host.disk - (self._now - moment).total_seconds() / 86_400 * 0.11
        cpu, memory, disk = (min(99.6, max(0.6, value)) for value in (cpu, memory, disk))
        traffic = cpu * host.busy * host.cpus * 9_000 * (1 + 0.2 * self._dice.random())
        return cpu, memory, disk, cpu * host.cpus / 100 * 1.08, traffic, traffic * 2.7


def write(nodes: list[tuple[Node, Host]], dice: random.Random, now: datetime) -> None:
    """Roll-ups, heartbeats and sparklines, and each node's newest figures."""
    seen = [(node, host, Gauge(host, dice, now)) for node, host in nodes if node.last_seen_at is not None]
    history.make_partitions(now - KEPT[0][2], now)
    for table, step, span in KEPT:
        kept = _kept_of_fleet(table, now - span - step)  # before the COPY, which has the connection to itself
        _copy(table, _rollups(seen, step, span, now, kept))
    _copy("nodes_heartbeat", _beats(seen, now))
    for node, host, gauge in seen:
        assert node.last_seen_at is not None
        figures = gauge.at(node.last_seen_at)
        node.cpu_percent, node.memory_percent, node.disk_percent = (round(value, 1) for value in figures[:3])
        node.metrics = metrics(host, figures, dice)
    Node.objects.bulk_update(
        [node for node, _, _ in seen], ["cpu_percent", "memory_percent", "disk_percent", "metrics"]
    )
    history.redraw_sparklines(now)


def _copy(table: str, rows: Iterator[tuple[Any, ...]]) -> None:
    kinds = METRICS if table == "nodes_heartbeat" else [f"{m}_{kind}" for m in METRICS for kind in ("avg", "max")]
    columns = ["node", "at", *([] if table == "nodes_heartbeat" else ["samples"]), *kinds]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '120s'")
        with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)


def _rollups(
    seen: list[tuple[Node, Host, Gauge]], step: timedelta, span: timedelta, now: datetime, kept: set[datetime]
) -> Iterator[tuple[Any, ...]]:
    """Each server's closed buckets, and the fleet's: averages over the servers, and the worst one's maximum."""
    size = step.total_seconds()
    moment = datetime.fromtimestamp((now - span).timestamp() // size * size, UTC)
    while moment + step <= now:
        together: list[Figures] = []
        for node, _, gauge in seen:
            if node.first_seen_at < moment and moment + step < node.last_seen_at:  # type: ignore[operator]
                figures = gauge.at(moment)
                together.append(figures)
                yield _bucket(node.pk, moment, int(size // 60), figures, [min(v * 1.06, v + 6) for v in figures])
        if together and moment not in kept:
            columns = list(zip(*together, strict=True))
            means = tuple(sum(column) / len(column) for column in columns)
            yield _bucket(FLEET, moment, len(together) * int(size // 60), means, [max(column) for column in columns])
        moment += step


def _kept_of_fleet(table: str, since: datetime) -> set[datetime]:
    """The times for which the nodes that were here before have made averages of the fleet."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT at FROM {table} WHERE node = %s AND at >= %s", [FLEET, since])
        return {at for (at,) in cursor.fetchall()}


def _bucket(key: UUID, at: datetime, samples: int, means: Figures, most: list[float]) -> tuple[Any, ...]:
    pairs = [figure for pair in zip(means, most, strict=True) for figure in pair]
    return (key, at, samples, *pairs)


def _beats(seen: list[tuple[Node, Host, Gauge]], now: datetime) -> Iterator[tuple[Any, ...]]:
    step, span = BEATS
    for node, _, gauge in seen:
        assert node.last_seen_at is not None
        moment = node.last_seen_at
        while moment > now - span:
            yield (node.pk, moment, *gauge.at(moment))
            moment -= step


def metrics(host: Host, figures: Figures, dice: random.Random) -> dict[str, Any]:
    """All that a heartbeat tells, from the six figures of a `Gauge`."""
    cpu, memory, disk, load, received, sent = (round(value, 2) for value in figures)
    return {
        "cpu_percent": cpu,
        "memory_percent": memory,
        "memory_total_bytes": host.cpus * 4 * GIB,
        "swap_percent": round(dice.uniform(0, 9), 1),
        "disk_percent": disk,
        "disk_total_bytes": host.cpus * 40 * GIB,
        "disks": [{"mount": "/", "percent": disk, "total_bytes": host.cpus * 40 * GIB}],
        "load_1": load,
        "load_5": round(load * 0.97, 2),
        "load_15": round(load * 0.93, 2),
        "net_rx_bps": received,
        "net_tx_bps": sent,
        "uptime_seconds": dice.randrange(200_000, 5_000_000),
        "processes": dice.randrange(90, 340),
    }
