"""GET /api/stream/nodes: a snapshot of the fleet, then what changes, rendered once for all viewers.

`heartbeat` carries the nodes that changed as the snapshot does, `status` a flip with its reasons, `activity`
what happened to a node. There is no replay: a reconnect starts with a snapshot again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import psycopg

from accounts.authentication import actor_from_scope
from hyprbox.lib import db, live
from hyprbox.lib.actors import Capability, require
from hyprbox.lib.sse import EventStream, Feed, frame
from hyprbox.lib.threads import in_thread
from nodes import selectors
from nodes.models import Node
from nodes.selectors import ActivityItem

WAIT_SECONDS = 5.0
MAX_ACTIVE_NODES = 20
# An act is dated by the start of its transaction but seen after its end.
OVERLAP = timedelta(seconds=10)


class Snapshots:
    """The fleet as one frame. Viewers who ask at once share one reading, which began after they asked."""

    def __init__(self) -> None:
        self._current: asyncio.Task[bytes] | None = None
        self._next: asyncio.Task[bytes] | None = None

    async def take(self) -> bytes:
        task = self._next
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            task = self._next = asyncio.create_task(self._read_after(self._current))
        return await asyncio.shield(task)

    async def _read_after(self, running: asyncio.Task[bytes] | None) -> bytes:
        if running is not None and running.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([running])
        self._current, self._next = self._next, None
        return await in_thread(_snapshot)


class Renderer:
    """Hints in, frames out. It remembers until when it has told, and what of the overlap it told already.

    It reads on a connection of its own, on the event loop: a thread would wait for its turn behind a thousand viewers.
    """

    def __init__(self) -> None:
        self._told_until: datetime | None = None
        self._told: dict[tuple[Any, ...], datetime] = {}
        self._conn: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, events: list[live.Event]) -> bytes:
        if any(event.topic == live.RESYNC for event in events):
            return await snapshots.take()
        since = (self._told_until or datetime.now(UTC)) - OVERLAP
        changed = [event.ids.get("node") for event in events if event.topic == "nodes"]
        active = [event.ids.get("node") for event in events if event.topic == "activity"]
        data = await self._heartbeats(changed, since) if changed else b""
        news = await in_thread(self._news, active, since) if active else []
        return data + b"".join(part for node_id, item in news for part in _news_frames(node_id, item))

    async def _heartbeats(self, changed: list[Any], since: datetime) -> bytes:
        node_pks = list({pk for few in changed if few is not None for pk in ([few] if isinstance(few, str) else few)})
        sql, params = selectors.changes_sql(is_by_time=None in changed)
        row = await self._read(sql, (*params, node_pks, since, node_pks))
        self._told_until, nodes, removed = row
        tail = f',"removed":{json.dumps(removed)}' if removed else ""
        return frame("heartbeat", f'{{"nodes":{selectors.one_line(nodes)}{tail}}}')

    async def close(self) -> None:
        """When the last viewer has gone."""
        conn, self._conn = self._conn, None
        if conn is not None and self._loop is asyncio.get_running_loop():
            await conn.close()

    async def _read(self, sql: str, params: tuple[Any, ...]) -> tuple[Any, ...]:
        try:
            if self._conn is None or self._conn.closed or self._loop is not asyncio.get_running_loop():
                self._loop = asyncio.get_running_loop()
                self._conn = await db.async_connect(application_name="hyprbox-nodes-stream")
            row = await (await self._conn.execute(sql, params)).fetchone()
        except psycopg.Error:
            await self.close()  # the feed tries again
            raise
        assert row is not None  # the statement always has one row
        return row

    def _news(self, active: list[Any], since: datetime) -> list[tuple[str, ActivityItem]]:
        """What happened to the hinted nodes and was not told yet, oldest first."""
        pks = {str(pk) for pk in active if pk is not None}
        found = selectors.latest_flips(since) if None in active or len(pks) > MAX_ACTIVE_NODES else []
        if len(pks) <= MAX_ACTIVE_NODES:
            for node in Node.objects.present().filter(pk__in=pks):
                found += [(node.node_id, item) for item in selectors.activity(node, limit=10) if item.at > since]
        self._told = {key: at for key, at in self._told.items() if at > since}
        news = []
        for node_id, item in sorted(found, key=lambda pair: pair[1].at):
            key = (node_id, item.kind, item.ref, item.title, item.at)
            if key not in self._told:
                self._told[key] = item.at
                news.append((node_id, item))
        return news


def _news_frames(node_id: str, item: ActivityItem) -> list[bytes]:
    body = {"node_id": node_id, **asdict(item), "at": item.at.isoformat().replace("+00:00", "Z")}
    frames = [frame("activity", body)]
    if item.kind == "status":
        frames.insert(0, frame("status", {"node_id": node_id, "status": item.status, "at": body["at"], **item.extra}))
    return frames


def _snapshot() -> bytes:
    return frame("snapshot", f'{{"nodes":{selectors.fleet_json()}}}')


snapshots = Snapshots()
renderer = Renderer()
feed = Feed(("nodes", "activity"), renderer)


class NodeStream(EventStream):
    """Everybody who may see the fleet."""

    authenticate: ClassVar = staticmethod(actor_from_scope)
    viewers: ClassVar[int] = 0

    async def authorize(self) -> None:
        require(self.actor, Capability.VIEW_FLEET)

    async def frames(self) -> AsyncGenerator[bytes, None]:
        NodeStream.viewers += 1
        try:
            async with feed.join(self.write_at_once) as box:
                yield await snapshots.take()
                while True:
                    yield await box.take(WAIT_SECONDS)
        finally:
            NodeStream.viewers -= 1
            if not NodeStream.viewers:
                await renderer.close()
