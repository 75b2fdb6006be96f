"""Counting attempts in PostgreSQL: exact across processes, and an attempt counts before it is made."""

from __future__ import annotations

from django.db import connection

from accounts.errors import TooManyLogins

_COUNT = """
INSERT INTO accounts_ratecounter AS c (key, window_started_at, count) VALUES (%(key)s, now(), 1)
ON CONFLICT (key) DO UPDATE SET
  count = CASE WHEN c.window_started_at < now() - make_interval(secs => %(window)s) THEN 1 ELSE c.count + 1 END,
  window_started_at = CASE WHEN c.window_started_at < now() - make_interval(secs => %(window)s) THEN now() ELSE c.window_started_at END
RETURNING count, ceil(extract(epoch FROM window_started_at + make_interval(secs => %(window)s) - now()))::int
"""
_BLOCKED = "SELECT ceil(extract(epoch FROM blocked_until - now()))::int FROM accounts_ratecounter WHERE key = %s AND blocked_until > now()"
_FAIL = """
INSERT INTO accounts_ratecounter AS c (key, window_started_at, count) VALUES (%(key)s, now(), 1)
ON CONFLICT (key) DO UPDATE SET count = c.count + 1, window_started_at = now(),
  blocked_until = CASE WHEN c.count + 1 >= %(free)s
    THEN now() + make_interval(secs => LEAST(900, power(2, LEAST(c.count + 1 - %(free)s, 10)))) END
"""
FREE_FAILURES = 5


def take(key: str, *, limit: int, window_seconds: int = 60) -> None:
    """Count one attempt. Raises `TooManyLogins` from the (limit + 1)th within the window on."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, {"key": key, "window": window_seconds})
        count, remaining = cursor.fetchone()
    if count > limit:
        raise TooManyLogins(retry_after=max(1, remaining))


def refuse_while_blocked(key: str) -> None:
    """Raises `TooManyLogins` while earlier failures still delay this key."""
    with connection.cursor() as cursor:
        cursor.execute(_BLOCKED, [key])
        row = cursor.fetchone()
    if row:
        raise TooManyLogins(retry_after=max(1, row[0]))


def note_failure(key: str) -> None:
    """One more failure: from the fifth on, the key waits 1, 2, 4 .. 900 seconds."""
    with connection.cursor() as cursor:
        cursor.execute(_FAIL, {"key": key, "free": FREE_FAILURES})


def forget(key: str) -> None:
    """A success ends the delay."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM accounts_ratecounter WHERE key = %s", [key])
