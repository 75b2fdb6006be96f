"""How often something happened within a minute, exact across processes, and undone with the transaction that counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

# An upsert waits for the row, so of many processes exactly one is the first of a minute. Keys go in one order: no deadlock.
_COUNT = """
INSERT INTO audit_denial AS d (key, minute, count, last_count)
SELECT key, date_trunc('minute', clock_timestamp()), n, 0
FROM unnest(%s::text[], %s::bigint[]) AS given(key, n) ORDER BY key
ON CONFLICT (key) DO UPDATE SET
  last_minute = CASE WHEN d.minute < excluded.minute THEN d.minute ELSE d.last_minute END,
  last_count = CASE WHEN d.minute < excluded.minute THEN d.count ELSE d.last_count END,
  count = CASE WHEN d.minute < excluded.minute THEN excluded.count ELSE d.count + excluded.count END,
  minute = greatest(d.minute, excluded.minute)
RETURNING key, count, last_minute, last_count
"""


@dataclass(frozen=True, slots=True)
class Count:
    """Of this minute, and of the last one that had any."""

    now: int
    last_minute: datetime | None
    last: int

    def before(self) -> dict[str, Any]:
        return {"last_minute": f"{self.last_minute:%Y-%m-%dT%H:%MZ}", "times_then": self.last} if self.last else {}


def count_minute(times: Mapping[str, int]) -> dict[str, Count]:
    """Add so many times to each key; in the order of the keys, so that two callers do not wait for each other."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, [list(times), list(times.values())])
        return {key: Count(*counts) for key, *counts in cursor.fetchall()}


def is_first(key: str) -> bool:
    """Whether nobody else asked this about this key in this minute."""
    return count_minute({key: 1})[key].now == 1


def forget_old() -> None:
    """Drop counters that say nothing any more."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_denial WHERE minute < now() - interval '1 day'")
