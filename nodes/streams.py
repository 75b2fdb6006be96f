"""GET /api/stream/nodes: a snapshot of the fleet, then what changes, rendered once for all viewers.

`heartbeat` carries the nodes that changed as the snapshot does, `status` a flip with its reasons, `activity`
what happened to a node. There is no replay: a reconnect starts with a snapshot again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, ClassVar

from accounts.authentication import actor_from_scope
from hyprbox.lib import live
from hyprbox.lib.actors import Capability, require
from hyprbox.lib.sse import EventStream, Feed, frame
from nodes import selectors
from nodes.models import Node
from nodes.selectors import ActivityItem
from nodes.threads import in_thread

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
    """Hints in, frames out. It remembers until when it has told, and what of the overlap it told already."""

    def __init__(self) -> None:
        self._told_until: datetime | None = None
        self._told: dict[tuple[Any, ...], datetime] = {}

    async def __call__(self, events: list[live.Event]) -> bytes:
        if any(event.topic == live.RESYNC for event in events):
            return await snapshots.take()
        return await in_thread(self._render, events)

    def _render(self, events: list[live.Event]) -> bytes:
        now = selectors.database_now()
        since = (self._told_until or now) - OVERLAP
        changed = [event.ids.get("node") for event in events if event.topic == "nodes"]
        active = [event.ids.get("node") for event in events if event.topic == "activity"]
        frames = [self._heartbeats(changed, since)] if changed else []
        frames += [data for node_id, item in self._news(active, since) for data in _news_frames(node_id, item)]
        self._told_until = now
        return b"".join(frames)

    def _heartbeats(self, changed: list[Any], since: datetime) -> bytes:
        node_pks = {pk for few in changed if few is not None for pk in ([few] if isinstance(few, str) else few)}
        all_since = since if None in changed else None
        nodes = selectors.fleet_json(selectors.touched(since=all_since, node_pks=node_pks))
        removed = selectors.removed_names(node_pks)
        tail = f',"removed":{json.dumps(removed)}' if removed else ""
        return frame("heartbeat", f'{{"nodes":{nodes}{tail}}}')

    def _news(self, active: list[Any], since: datetime) -> list[tuple[str, ActivityItem]]:
        """What happened to the hinted nodes and was not told yet, oldest first."""
        if not active:
            return []
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
feed = Feed(("nodes", "activity"), Renderer())


class NodeStream(EventStream):
    """Everybody who may see the fleet."""

    authenticate: ClassVar = staticmethod(actor_from_scope)

    async def authorize(self) -> None:
        require(self.actor, Capability.VIEW_FLEET)

    async def frames(self) -> AsyncGenerator[bytes, None]:
        async with feed.join() as box:
            yield await snapshots.take()
            while True:
                yield await box.take(WAIT_SECONDS)
