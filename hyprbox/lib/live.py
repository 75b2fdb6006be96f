"""The live bus: what one process writes, the viewers of every process see.

`publish()` sends a hint by `pg_notify` inside the writing transaction, so a rolled-back write says
nothing. One listener per web process (its own autocommit connection) hands hints to the in-process hub,
which passes on what came within 50 ms together, and at once after a pause. A
hint carries ids, never data: whoever hears it reads the database.
When the listener reconnects, everybody is told to `resync`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import structlog
from django.db import connection

from hyprbox.lib import db

CHANNEL = "hyprbox"
COALESCE_SECONDS = 0.05
QUEUE_LIMIT = 1000
RESYNC = "resync"
CREDENTIALS = "credentials"  # some of a `user`'s have ended: who holds a stream open asks again

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """One hint: a topic such as `nodes` or `job.7f3...`, and ids."""

    topic: str
    ids: dict[str, Any] = field(default_factory=dict)


def payload(topic: str, **ids: Any) -> str:
    """A hint as NOTIFY carries it. PostgreSQL takes at most 8,000 bytes."""
    text = json.dumps({"topic": topic, **ids}, separators=(",", ":"), default=str)
    if len(text.encode()) >= 8000:
        raise ValueError(f"a hint on {topic} is too long for NOTIFY: send fewer ids")
    return text


def publish(topic: str, **ids: Any) -> None:
    """Tell every process, when the current transaction commits."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, payload(topic, **ids)])


class Subscription:
    """One viewer's bounded queue of hints. When it overflows, what it holds becomes one `resync`."""

    def __init__(self, topics: Iterable[str]) -> None:
        self.topics = frozenset(topics)
        self._events: deque[Event] = deque()
        self._ready = asyncio.Event()

    def put(self, events: Iterable[Event]) -> None:
        self._events.extend(events)
        if len(self._events) > QUEUE_LIMIT:
            self._events.clear()
            self._events.append(Event(RESYNC))
        self._ready.set()

    async def batch(self, wait_seconds: float | None = None) -> list[Event]:
        """All hints since the last call; an empty list when none came within `wait_seconds`."""
        if not self._events:
            self._ready.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._ready.wait()
        events = list(self._events)
        self._events.clear()
        return events


class Hub:
    """Fan-out within one process."""

    def __init__(self) -> None:
        self._by_topic: dict[str, set[Subscription]] = {}
        self._callbacks: dict[str, list[Callable[[Event], None]]] = {}
        self._pending: list[Event] = []
        self._flush: asyncio.TimerHandle | None = None
        self._flushed_at = float("-inf")

    def on(self, topic: str, callback: Callable[[Event], None]) -> None:
        """Call `callback` at once, uncoalesced, for each hint on `topic` and for each resync."""
        callbacks = self._callbacks.setdefault(topic, [])
        if callback not in callbacks:
            callbacks.append(callback)

    @contextlib.contextmanager
    def subscribe(self, *topics: str) -> Iterator[Subscription]:
        subscription = Subscription(topics)
        for topic in subscription.topics:
            self._by_topic.setdefault(topic, set()).add(subscription)
        try:
            yield subscription
        finally:
            for topic in subscription.topics:
                members = self._by_topic.get(topic)
                if members is not None:
                    members.discard(subscription)
                    if not members:
                        del self._by_topic[topic]

    def is_heard(self, topic: str) -> bool:
        """Whether to deliver on it would reach anybody."""
        return topic in self._by_topic or topic in self._callbacks

    def deliver(self, event: Event) -> None:
        """Called by the listener, and by lanes for what this process itself just committed."""
        if event.topic == RESYNC:
            for callbacks in self._callbacks.values():
                for callback in callbacks:
                    callback(event)
        for callback in self._callbacks.get(event.topic, ()):
            callback(event)
        if event.topic != RESYNC and event.topic not in self._by_topic:
            return
        self._pending.append(event)
        if self._flush is None:
            loop = asyncio.get_running_loop()
            is_quiet = loop.time() - self._flushed_at > COALESCE_SECONDS  # then nobody has to wait for more
            self._flush = loop.call_later(0 if is_quiet else COALESCE_SECONDS, self._send_pending)

    def _send_pending(self) -> None:
        self._flush = None
        self._flushed_at = asyncio.get_running_loop().time()
        events, self._pending = self._pending, []
        by_subscription: dict[Subscription, list[Event]] = {}
        for event in events:
            if event.topic == RESYNC:
                members: Iterable[Subscription] = {s for group in self._by_topic.values() for s in group}
            else:
                members = self._by_topic.get(event.topic, ())
            for subscription in members:
                by_subscription.setdefault(subscription, []).append(event)
        for subscription, mine in by_subscription.items():
            subscription.put(mine)


class Listener:
    """The one LISTEN connection of this process; it reconnects for ever, with back-off."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.is_connected = False
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()

    async def ensure(self) -> None:
        """Start listening unless this loop already does, and wait up to 2 s for the connection."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._connected = asyncio.Event()
            self._task = loop.create_task(self._run(), name="live-listener")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._connected.wait()

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        delay, connected_before = 0.1, False
        while True:
            try:
                async with await db.async_connect(application_name="hyprbox-live") as conn:
                    await conn.execute(f"LISTEN {CHANNEL}")
                    self.is_connected, delay = True, 0.1
                    self._connected.set()
                    if connected_before:
                        self.hub.deliver(Event(RESYNC))
                    connected_before = True
                    async for notification in conn.notifies():
                        self._hear(notification.payload)
            except (psycopg.Error, OSError) as error:
                log.warning("live.listener_lost", error=str(error))
            finally:
                self.is_connected = False
            connected_before = True
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)

    def _hear(self, text: str) -> None:
        try:
            ids = json.loads(text)
            topic = ids.pop("topic")
        except (ValueError, KeyError, AttributeError, TypeError):
            log.warning("live.malformed_hint", payload=text[:200])
            return
        self.hub.deliver(Event(topic, ids))


hub = Hub()
listener = Listener(hub)
