"""Run by `bench_overview` in a process of its own. Prints medians in milliseconds as JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import django

django.setup()

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from bench import servers
from nodes import history, selectors
from nodes.selectors import NodeFilter

ROUNDS = 7

# The same list, with the sparklines drawn from the heartbeats of a day.
FROM_RAW = """
WITH points AS (
    SELECT node, date_bin('30 minutes', at, 'epoch') AS bucket, avg(cpu_percent) AS cpu
    FROM nodes_heartbeat WHERE at >= now() - interval '1 day' GROUP BY 1, 2
), drawn AS (
    SELECT node, array_agg(cpu ORDER BY bucket) AS cpu FROM points GROUP BY node
)
SELECT json_agg(row)::text FROM (
    SELECT n.node_id, n.display_name, n."group", n.tags, n.region, n.agent_version, n.interval_seconds, n.last_seen_at,
           n.cpu_percent, n.memory_percent, n.disk_percent, drawn.cpu
    FROM nodes_node AS n LEFT JOIN drawn ON drawn.node = n.id WHERE n.removed_at IS NULL ORDER BY n.node_id
) AS row
"""


def write_a_day() -> None:
    """One heartbeat a minute of every node, in time order as they would have come."""
    now = timezone.now()
    history.make_partitions(now - timedelta(days=1), now)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute(
            """
            INSERT INTO nodes_heartbeat (node, at, cpu_percent, memory_percent, disk_percent, load_1)
            SELECT n.id, minute + (row_number() OVER (PARTITION BY minute)) * interval '1 millisecond',
                   50 + 40 * sin(extract(epoch FROM minute) / 3600), 40, 60, 1
            FROM generate_series(now() - interval '1 day', now() - interval '1 minute', '1 minute') AS minute, nodes_node AS n
            ORDER BY 2
            """
        )
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE nodes_heartbeat")


def draw() -> None:
    history.roll_up()
    history.redraw_sparklines()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE nodes_sparkline")


def copy_sparklines() -> None:
    """For the large fleet: rows as the roller writes them, without a day of heartbeats for each node."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO nodes_sparkline (node_id, ends_at, step_seconds, cpu_percent, memory_percent, disk_percent)
            SELECT n.id, s.ends_at, s.step_seconds, s.cpu_percent, s.memory_percent, s.disk_percent
            FROM nodes_node AS n, (SELECT * FROM nodes_sparkline LIMIT 1) AS s ON CONFLICT DO NOTHING
            """
        )
        cursor.execute("VACUUM ANALYZE nodes_sparkline")


def from_raw() -> int:
    with connection.cursor() as cursor:
        cursor.execute(FROM_RAW)
        return len(json.loads(cursor.fetchone()[0]))


def stored() -> int:
    return selectors.fleet_json(with_sparks=True).count('"node_id"')


def page() -> int:
    """What the overview page gets: cards with judged status, reasons and sparklines."""
    return len(selectors.cards(selectors.list_nodes(NodeFilter(ordering="status"))))


def median_ms(work: Callable[[], int], nodes: int, rounds: int = ROUNDS) -> float:
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        found = work()
        times.append((time.perf_counter() - started) * 1000)
        if found != nodes:
            raise RuntimeError(f"{found} nodes instead of {nodes}")
    return statistics.median(times[1:])


def main(url: str) -> None:
    figures: dict[str, Any] = {}
    servers.make_fleet(settings.HYPRBOX_VAR_DIR, url, 1_000)
    write_a_day()
    draw()
    figures["raw_1000"] = median_ms(from_raw, 1_000, 3)
    figures["stored_1000"] = median_ms(stored, 1_000)
    figures["page_1000"] = median_ms(page, 1_000)
    servers.make_fleet(settings.HYPRBOX_VAR_DIR, url, 9_000, first=1_000)
    copy_sparklines()
    figures["stored_10000"] = median_ms(stored, 10_000)
    figures["page_10000"] = median_ms(page, 10_000)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1])
