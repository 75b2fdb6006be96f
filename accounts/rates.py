"""Counting attempts in PostgreSQL: exact across processes, and an attempt counts before it is made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from django.db import connection

from accounts.errors import TooManyAttempts, TooManyLogins
from hyprbox.lib.errors import RateLimited
from hyprbox.lib.ids import rate_key

PER_MINUTE: Mapping[str, int] = {"login": 10, "register": 5, "refresh": 30, "reset": 30, "bearer": 30, "node": 30}
FREE_FAILURES = 5
MAX_DELAY_SECONDS = 900
# A window of failures that nobody added to for so long is over.
FORGIVEN_AFTER_SECONDS = 24 * 3600

_COUNT = """
INSERT INTO accounts_ratecounter AS c (key, window_started_at, count)
SELECT key, clock_timestamp(), n FROM unnest(%(keys)s::text[], %(ns)s::int[]) AS given(key, n) ORDER BY key
ON CONFLICT (key) DO UPDATE SET
  count = CASE WHEN c.window_started_at < clock_timestamp() - make_interval(secs => %(window)s)
    THEN excluded.count ELSE c.count + excluded.count END,
  window_started_at = CASE WHEN c.window_started_at < clock_timestamp() - make_interval(secs => %(window)s)
    THEN clock_timestamp() ELSE c.window_started_at END
RETURNING key, count,
  ceil(extract(epoch FROM window_started_at + make_interval(secs => %(window)s) - clock_timestamp()))::int
"""
# Of many attempts at once, each waits for the row and then sees what the one before it left: from the fifth on, the
# next one is refused for 1, 2, 4 .. 900 seconds.
_RESERVE = """
INSERT INTO accounts_ratecounter AS c (key, window_started_at, count) VALUES (%(key)s, clock_timestamp(), 1)
ON CONFLICT (key) DO UPDATE SET window_started_at = clock_timestamp(),
  count = CASE WHEN c.window_started_at < clock_timestamp() - make_interval(secs => %(forgiven)s)
    THEN 1 ELSE c.count + 1 END,
  blocked_until = CASE WHEN c.count + 1 >= %(free)s
      AND c.window_started_at >= clock_timestamp() - make_interval(secs => %(forgiven)s)
    THEN clock_timestamp() + make_interval(secs => LEAST(%(most)s, power(2, LEAST(c.count + 1 - %(free)s, 10)))) END
WHERE c.blocked_until IS NULL OR c.blocked_until <= clock_timestamp()
RETURNING 1
"""
_REMAINING = """
SELECT ceil(extract(epoch FROM blocked_until - clock_timestamp()))::int FROM accounts_ratecounter WHERE key = %s
"""


def add(counts: Mapping[str, int], *, window_seconds: int = 60) -> dict[str, tuple[int, int]]:
    """Add to several counters at once: each key's count within the window, and the seconds that are left of it."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, {"keys": list(counts), "ns": list(counts.values()), "window": window_seconds})
        return {key: (count, max(1, remaining)) for key, count, remaining in cursor.fetchall()}


def take(key: str, *, limit: int, window_seconds: int = 60, error: type[RateLimited] = TooManyAttempts) -> None:
    """Count one attempt. Raises `error` from the (limit + 1)th within the window on."""
    count, remaining = add({key: 1}, window_seconds=window_seconds)[key]
    if count > limit:
        raise error(retry_after=remaining)


def take_from(ip: str, what: str) -> None:
    """Count one attempt of an address. Raises `TooManyLogins` or `TooManyAttempts`."""
    error = TooManyLogins if what == "login" else TooManyAttempts
    take(address_key(ip, what), limit=PER_MINUTE[what], error=error)


def address_key(ip: str, what: str) -> str:
    return f"{what}-ip:{rate_key(ip)}"


def account_key(account: str) -> str:
    """The counter of an account, by the user's id or by an address that nobody has."""
    return f"account:{hashlib.sha256(account.encode('utf-8', 'replace')).hexdigest()}"


def reserve(key: str) -> None:
    """Count one attempt as a failure before it is made. Raises `TooManyLogins` while earlier ones delay this key."""
    given: dict[str, str | int] = {
        "key": key,
        "free": FREE_FAILURES,
        "most": MAX_DELAY_SECONDS,
        "forgiven": FORGIVEN_AFTER_SECONDS,
    }
    with connection.cursor() as cursor:
        cursor.execute(_RESERVE, given)
        if cursor.fetchone():
            return
        cursor.execute(_REMAINING, [key])
        row = cursor.fetchone()
    raise TooManyLogins(retry_after=max(1, row[0] or 1) if row else 1)


def forget(key: str) -> None:
    """A success ends the delay."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM accounts_ratecounter WHERE key = %s", [key])


def forget_old() -> None:
    """Drop counters that say nothing any more."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM accounts_ratecounter WHERE window_started_at < now() - make_interval(secs => %s)",
            [FORGIVEN_AFTER_SECONDS],
        )
