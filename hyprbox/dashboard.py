"""GET /events/?topics=...: the dashboard's one stream per tab, as escaped HTML fragments of the pages' own partials.

    event: fragment   data: {"id": "card-...", "html": "<li ...", "list": "nodes"}   replaces the element with that id
    event: line       data: {"html": "<li ..."}                                      goes on top of the live feed
    event: resync     the page fetches itself again: hints may have been missed

A page names its topics; viewers with the same topics and capabilities share one feed, so each change is
read and rendered once for all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any, ClassVar
from urllib.parse import parse_qs

from accounts.authentication import actor_from_scope
from hyprbox import fragments
from hyprbox.fragments import Source
from hyprbox.lib import live
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.errors import InvalidInput
from hyprbox.lib.sse import EventStream, Feed, frame
from hyprbox.lib.threads import in_thread

MAX_TOPICS = 6
RENDER_EVERY_SECONDS = 0.25
WAIT_SECONDS = 5.0
Key = tuple[tuple[str, ...], frozenset[str]]


class Channel:
    """What viewers of the same page share: their sources and the feed that renders them."""

    def __init__(self, sources: list[Source]) -> None:
        self.sources = sources
        self.feed = Feed(tuple({topic for source in sources for topic in source.topics}), self.render)
        self.viewers = 0
        self._rendered_at = 0.0

    async def render(self, events: list[live.Event]) -> bytes:
        """One flush. What happens while it waits or renders is in the next one."""
        await asyncio.sleep(max(0.0, self._rendered_at + RENDER_EVERY_SECONDS - time.monotonic()))
        self._rendered_at = time.monotonic()
        if any(event.topic == live.RESYNC for event in events):
            return frame("resync", {})
        return await in_thread(self._changes, events)

    def _changes(self, events: list[live.Event]) -> bytes:
        frames = []
        for source in self.sources:
            mine = [event for event in events if event.topic in source.topics]
            if mine:
                frames += [frame(name, data) for name, data in source.changes(mine)]
        return b"".join(frames)

    def snapshot(self) -> bytes:
        """What a viewer gets at once: it may have changed since the page was rendered."""
        return b"".join(frame(name, data) for source in self.sources for name, data in source.snapshot())


class Dashboard(EventStream):
    authenticate: ClassVar = staticmethod(actor_from_scope)
    channels: ClassVar[dict[Key, Channel]] = {}

    async def authorize(self) -> None:
        require(self.actor, Capability.VIEW_FLEET)
        self.topics = _topics(self.scope)
        self.channel = self.channels.get(_key(self.topics, self.actor)) or Channel(
            [fragments.source(topic, by=self.actor) for topic in self.topics]
        )

    async def frames(self) -> AsyncGenerator[bytes]:
        key = _key(self.topics, self.actor)
        channel = self.channels.setdefault(key, self.channel)
        channel.viewers += 1
        try:
            async with channel.feed.join(self.write_at_once) as box:
                yield await in_thread(channel.snapshot)
                while True:
                    yield await box.take(WAIT_SECONDS)
        finally:
            channel.viewers -= 1
            if not channel.viewers:
                self.channels.pop(key, None)


def _key(topics: tuple[str, ...], actor: Actor) -> Key:
    return topics, frozenset(actor.capabilities)


def _topics(scope: dict[str, Any]) -> tuple[str, ...]:
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    topics = tuple(dict.fromkeys(topic for topic in (query.get("topics") or [""])[0].split(",") if topic))
    if not 1 <= len(topics) <= MAX_TOPICS:
        raise InvalidInput(fields={"topics": [f"From 1 to {MAX_TOPICS} topics, separated by commas."]})
    return topics
