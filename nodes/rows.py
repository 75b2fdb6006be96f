"""The whole fleet as JSON that PostgreSQL writes. Doors find this in `nodes.selectors`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.db import connection
from django.db.models import F

from nodes import rules
from nodes.models import Node
from nodes.status import Rules

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
