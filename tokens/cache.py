"""Verified tokens in this process' memory, for the lanes.

Rows are kept by prefix for at most 4 s and dropped at once when NOTIFY says that a token changed, so a
revocation reaches every process within 5 s even when its NOTIFY is lost. The digest is compared in
constant time on every call, cached or not.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from hyprbox.lib import live
from tokens import secrets
from tokens.errors import BadToken
from tokens.secrets import Presented

TTL_SECONDS = 4.0
MAX_PREFIXES = 50_000
_SELECT = """
SELECT prefix, id, digest, node_id, node_pk, expires_at, replaces_id
FROM tokens_nodetoken WHERE prefix = ANY(%s) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """One usable row. `node_id` is empty while the token is not pinned."""

    id: uuid.UUID
    digest: bytes
    node_id: str
    node_pk: uuid.UUID | None
    expires_at: datetime | None
    replaces: uuid.UUID | None


class TokenCache:
    def __init__(self) -> None:
        self._rows: dict[str, tuple[float, tuple[VerifiedToken, ...]]] = {}
        live.hub.on("token", self._forget)
        live.hub.on("tokens", self._forget)

    def _forget(self, event: live.Event) -> None:
        prefix = event.ids.get("prefix")
        if prefix is None:
            self._rows.clear()
        else:
            self._rows.pop(prefix, None)

    def drop(self, prefix: str) -> None:
        """After this process itself pinned the token."""
        self._rows.pop(prefix, None)

    def peek(self, presented: Presented) -> VerifiedToken | BadToken | None:
        """The answer from memory, or None when the database has to be asked."""
        entry = self._rows.get(presented.prefix)
        if entry is None or entry[0] < time.monotonic():
            return None
        return _match(entry[1], presented)

    async def resolve(
        self, conn: psycopg.AsyncConnection[tuple[object, ...]], presented: list[Presented]
    ) -> list[VerifiedToken | BadToken]:
        """One answer for each token shown, with at most one statement for all of them."""
        now = time.monotonic()
        missing = {p.prefix for p in presented if (self._rows.get(p.prefix) or (0.0,))[0] < now}
        if missing:
            await self._load(conn, missing, now)
        return [_match(self._rows.get(p.prefix, (0.0, ()))[1], p) for p in presented]

    async def _load(
        self, conn: psycopg.AsyncConnection[tuple[object, ...]], prefixes: Iterable[str], now: float
    ) -> None:
        wanted = list(prefixes)
        if len(self._rows) > MAX_PREFIXES:
            self._rows.clear()
        found: dict[str, list[VerifiedToken]] = {prefix: [] for prefix in wanted}
        rows = await (await conn.execute(_SELECT, (wanted,), binary=True)).fetchall()
        for prefix, *values in rows:
            found[str(prefix)].append(VerifiedToken(*values))  # type: ignore[arg-type]
        for prefix, tokens in found.items():
            self._rows[prefix] = (now + TTL_SECONDS, tuple(tokens[:5]))


def _match(rows: Iterable[VerifiedToken], presented: Presented) -> VerifiedToken | BadToken:
    for row in rows:
        if secrets.matches(row, presented):
            if row.expires_at is not None and row.expires_at <= datetime.now(UTC):
                return BadToken()
            return row
    return BadToken()
