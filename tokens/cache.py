"""Verified tokens in this process' memory, for the lanes.

What NOTIFY says to have changed is dropped at once. So that a revocation reaches every process within 5 s even when its
NOTIFY is lost, no answer is older than 4.5 s: one statement looks which of all the tokens in memory are not as they
were, and renews the others. The digest is compared in constant time on every call, cached or not.
"""

from __future__ import annotations

import asyncio
import heapq
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
import structlog

from audit import sealed
from audit import services as audit
from hyprbox.lib import lanes, live, rowmac
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import NotAuthenticated
from hyprbox.lib.threads import in_thread
from tokens import secrets
from tokens.errors import BadToken
from tokens.secrets import Presented

TTL_SECONDS = 4.5
UNUSED_SECONDS = 90.0  # a poll waits for 30 s at most; what nobody shows any more is forgotten
MAX_PREFIXES = 50_000
MAX_ABSENT = 10_000

log = structlog.get_logger(__name__)
_TABLE = "tokens_nodetoken"
_SELECT = f"""
SELECT prefix, id, digest, node_id, node_pk, expires_at, replaces_id, revoked_at, mac, row_version,
  {sealed.NEWEST.format(table_pk=f"'{_TABLE}:' || {_TABLE}.id")}
FROM {_TABLE} WHERE prefix = ANY(%s) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""
# Of the prefixes in memory, those whose tokens are not as they were, and those that have one more.
_CHANGED = """
SELECT k.prefix
FROM unnest(%(prefixes)s::text[], %(ids)s::uuid[], %(node_ids)s::text[], %(node_pks)s::uuid[])
  AS k(prefix, id, node_id, node_pk)
LEFT JOIN tokens_nodetoken t ON t.id = k.id AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
  AND t.prefix = k.prefix AND t.node_id = k.node_id AND t.node_pk = k.node_pk
WHERE t.id IS NULL
UNION ALL
SELECT t.prefix FROM tokens_nodetoken t
WHERE t.prefix = ANY(%(prefixes)s::text[]) AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
  AND t.id <> ALL(%(ids)s::uuid[])
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
    # The two ids as text, made once: they are looked up with every call, and a string knows its hash.
    key: str = field(init=False, repr=False, compare=False)
    node_key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", str(self.id))
        object.__setattr__(self, "node_key", str(self.node_pk or ""))


@dataclass(slots=True)
class _Entry:
    """What the database said of a prefix. `fresh_until` and `used_at` are monotonic."""

    tokens: tuple[VerifiedToken, ...]
    fresh_until: float
    used_at: float

    @property
    def can_be_renewed(self) -> bool:
        """A lack may end with any new token, and a token without a node is about to be pinned: those are read anew."""
        return bool(self.tokens) and all(token.node_pk is not None for token in self.tokens)


class TokenCache:
    """`on_change` hears the node of each token that was found to have changed."""

    def __init__(self, on_change: Callable[[uuid.UUID], None] | None = None) -> None:
        self._entries: dict[str, _Entry] = {}
        self._absent: OrderedDict[str, _Entry] = OrderedDict()  # apart: what is made up pushes out nothing that is good
        self._on_change = on_change
        self._hints = 0
        self._telling: set[asyncio.Task[None]] = set()
        live.hub.on("token", self._hear)
        live.hub.on("tokens", self._hear)

    def _hear(self, event: live.Event) -> None:
        self._hints += 1
        prefix = event.ids.get("prefix")
        if prefix is not None:
            self._forget(prefix)
            return
        # Some token is new or other, or hints were lost: everything has to be looked at again, in one statement.
        for entry in self._entries.values():
            entry.fresh_until = 0.0
        self._absent.clear()

    def _forget(self, prefix: str) -> None:
        self._absent.pop(prefix, None)
        entry = self._entries.pop(prefix, None)
        for token in entry.tokens if entry is not None and self._on_change is not None else ():
            if token.node_pk is not None and self._on_change is not None:
                self._on_change(token.node_pk)

    def drop(self, prefix: str) -> None:
        """After this process itself pinned the token."""
        self._absent.pop(prefix, None)
        self._entries.pop(prefix, None)

    def peek(self, presented: Presented) -> VerifiedToken | BadToken | None:
        """The answer from memory, or None when the database has to be asked."""
        entry, now = self._entries.get(presented.prefix) or self._absent.get(presented.prefix), time.monotonic()
        if entry is None or entry.fresh_until < now:
            return None
        entry.used_at = now
        return _match(entry.tokens, presented)

    def remembers(self, presented: Presented) -> bool:
        """Whether this very token was good when the database was asked last, however long ago."""
        entry = self._entries.get(presented.prefix)
        return entry is not None and any(secrets.matches(token, presented) for token in entry.tokens)

    def caller(self, scope: lanes.Scope) -> Actor:
        """Who was refused, as far as memory tells: the node of the token that was shown, else a stranger."""
        ip, request_id = lanes.peer_ip(scope), lanes.request_id_of(scope)
        try:
            token = self.peek(secrets.parse(lanes.bearer(scope)))
        except NotAuthenticated:
            token = None
        if isinstance(token, VerifiedToken) and token.node_pk is not None:
            return Actor.agent(id=token.node_key, name=token.node_id, ip=ip, request_id=request_id)
        return Actor.anonymous(ip=ip, request_id=request_id)

    async def resolve(
        self, conn: psycopg.AsyncConnection[tuple[object, ...]], presented: list[Presented]
    ) -> list[VerifiedToken | BadToken]:
        """One answer for each token shown: one statement renews what is in memory, one reads what is not."""
        prefixes = {p.prefix for p in presented}
        if any(self._is_stale(prefix) for prefix in prefixes):
            await self.recheck(conn)
        now = time.monotonic()
        missing = [p for p in prefixes if (entry := self._held(p)) is None or entry.fresh_until < now]
        if missing:
            await self._load(conn, missing)
        return [_match(entry.tokens, p) if (entry := self._held(p.prefix)) else BadToken() for p in presented]

    def _held(self, prefix: str) -> _Entry | None:
        return self._entries.get(prefix) or self._absent.get(prefix)

    def _is_stale(self, prefix: str) -> bool:
        entry = self._entries.get(prefix)
        return entry is not None and entry.fresh_until < time.monotonic() and entry.can_be_renewed

    async def recheck(self, conn: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        """Renew every token in memory that is as it was, and forget the others. At most one statement."""
        now = time.monotonic()
        self._entries = {p: e for p, e in self._entries.items() if now - e.used_at < UNUSED_SECONDS}
        held = {prefix: entry for prefix, entry in self._entries.items() if entry.can_be_renewed}
        if not held:
            return
        known = [(prefix, token) for prefix, entry in held.items() for token in entry.tokens]
        columns = {
            "prefixes": [prefix for prefix, _ in known],
            "ids": [token.id for _, token in known],
            "node_ids": [token.node_id for _, token in known],
            "node_pks": [token.node_pk for _, token in known],
        }
        hints = self._hints
        rows = await (await conn.execute(_CHANGED, columns, binary=True)).fetchall()
        changed = {str(row[0]) for row in rows}
        for prefix, entry in held.items():
            if self._entries.get(prefix) is not entry:  # a hint was faster
                continue
            if prefix in changed:
                self._forget(prefix)
            else:
                entry.fresh_until = self._fresh_until(now, hints)

    async def _load(self, conn: psycopg.AsyncConnection[tuple[object, ...]], wanted: list[str]) -> None:
        now, hints = time.monotonic(), self._hints
        found: dict[str, list[VerifiedToken]] = {prefix: [] for prefix in wanted}
        rows = await (await conn.execute(_SELECT, (wanted,), binary=True)).fetchall()
        for prefix, *values in rows:
            token = VerifiedToken(*values[:6])  # type: ignore[arg-type]
            if why := _tampered(str(prefix), token, *values[6:]):
                self._refuse(token, why)
            else:
                found[str(prefix)].append(token)
        for prefix, tokens in found.items():
            self._keep(prefix, _Entry(tuple(tokens[:5]), self._fresh_until(now, hints), now))

    def _keep(self, prefix: str, entry: _Entry) -> None:
        self._entries.pop(prefix, None)
        self._absent.pop(prefix, None)
        if not entry.tokens:
            self._absent[prefix] = entry
            if len(self._absent) > MAX_ABSENT:
                self._absent.popitem(last=False)
            return
        if len(self._entries) >= MAX_PREFIXES:  # many at once, or each new one would have to look for the oldest
            oldest = heapq.nsmallest(MAX_PREFIXES // 10 + 1, self._entries, key=lambda p: self._entries[p].used_at)
            for each in oldest:
                del self._entries[each]
        self._entries[prefix] = entry

    def _refuse(self, token: VerifiedToken, why: str) -> None:
        """A row that HyprBox did not leave so is no token; the log is told on a thread."""
        error = rowmac.RowTampered(f"{_TABLE}:{token.id}", why)
        task = asyncio.get_running_loop().create_task(in_thread(audit.note_tampered, error), name="tampered-token")
        self._telling.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._telling.discard(task)
        if not task.cancelled() and task.exception() is not None:  # the database is away: it is refused all the same
            log.error("row.tampered_unrecorded", error=str(task.exception()))

    def _fresh_until(self, asked_at: float, hints: int) -> float:
        """For what was asked then. A hint that came meanwhile may be about what the answer does not know yet."""
        return asked_at + TTL_SECONDS if hints == self._hints else 0.0


def _tampered(prefix: str, token: VerifiedToken, revoked_at: Any, mac: Any, version: Any, newest: Any) -> str:
    """What is wrong with a row, or ""."""
    fields = {
        "prefix": prefix,
        "digest": token.digest,
        "node_id": token.node_id,
        "node_pk": token.node_pk,
        "expires_at": token.expires_at,
        "revoked_at": revoked_at,
    }
    return rowmac.problem_of(_TABLE, token.id, version, fields, mac=mac, newest=newest)


def _match(rows: Iterable[VerifiedToken], presented: Presented) -> VerifiedToken | BadToken:
    for row in rows:
        if secrets.matches(row, presented):
            if row.expires_at is not None and row.expires_at <= datetime.now(UTC):
                return BadToken()
            return row
    return BadToken()
