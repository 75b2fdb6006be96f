"""Run by `bench_auditpages` in a process of its own. argv: how many entries. Prints medians in milliseconds as JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time
from datetime import timedelta

import django

django.setup()

from django.db import connection
from django.utils import timezone

from audit.models import Event
from audit.selectors import list_events, slice_of
from hyprbox.lib.actors import Actor

ROUNDS = 15
SYSTEM = Actor.system("bench")
OPERATOR = Actor.user(id="operator", name="otto@example.com", role="operator")
# A year of entries; a rare action, a rare person, and everything else in equal shares.
_FILL = """
INSERT INTO audit_event (at, action, actor_kind, actor_id, actor_name, target, detail, ip, request_id, subject, canonical, n)
SELECT now() - (%(count)s - i) * interval '31 seconds',
  CASE WHEN i %% 50000 = 7 THEN 'token.revoked' ELSE (ARRAY['job.queued', 'job.cancelled', 'login.succeeded'])[1 + i %% 3] END,
  'user', CASE WHEN i %% 20000 = 11 THEN 'operator' ELSE 'admin-' || i %% 5 END,
  CASE WHEN i %% 20000 = 11 THEN 'otto@example.com' ELSE 'admin-' || i %% 5 || '@example.com' END,
  'node:web-' || i %% 1000, '{"preset": "system-update"}', '192.0.2.1', 'bench', '', '', i
FROM generate_series(1, %(count)s) AS i
"""


def fill(count: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("ALTER TABLE audit_event DISABLE TRIGGER USER")
        cursor.execute(_FILL, {"count": count})
        cursor.execute("ALTER TABLE audit_event ENABLE TRIGGER USER")
        cursor.execute("VACUUM ANALYZE audit_event")


def main(count: int) -> None:
    fill(count)
    oldest = Event.objects.earliest("id").pk + 150
    halfway = timezone.now() - timedelta(seconds=31 * count // 2)
    day = {"since": halfway, "until": halfway + timedelta(days=1)}
    pages = {
        "the newest": lambda: slice_of(list_events(by=SYSTEM), size=100),
        "the oldest": lambda: slice_of(list_events(by=SYSTEM), size=100, before=oldest),
        "one person, the oldest": lambda: slice_of(
            list_events(by=SYSTEM, actor="admin-1@example.com"), size=100, before=oldest
        ),
        "a common action, the oldest": lambda: slice_of(
            list_events(by=SYSTEM, action="job.queued"), size=100, before=oldest
        ),
        "a rare action": lambda: slice_of(list_events(by=SYSTEM, action="token.revoked"), size=100),
        "one node": lambda: slice_of(list_events(by=SYSTEM, target="node:web-7"), size=100),
        "an operator's own": lambda: slice_of(list_events(by=OPERATOR), size=100),
        "one day, in the middle": lambda: slice_of(list_events(by=SYSTEM, **day), size=100),
    }
    found = {}
    for name, page in pages.items():
        times = []
        for _ in range(ROUNDS + 1):
            started = time.perf_counter()
            if not page().events:
                raise RuntimeError(f"{name}: nothing found")
            times.append((time.perf_counter() - started) * 1000)
        found[name] = statistics.median(times[1:])
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
