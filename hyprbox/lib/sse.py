"""Server-sent events. A stream is a Channels consumer with a sender task on the in-process hub.

`EventStream` authenticates, sends headers, runs `frames()` and ends when the client goes or its credential
dies (checked every 15 s, and when it is told that one did). `Feed` renders one frame for all viewers of the same thing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import zlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, ClassVar

import structlog
from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer

from hyprbox.lib import headers, lanes, live, refusals
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import HyprBoxError, MethodNotAllowed, Overloaded

# A line at least every 15 s: the look at the clock comes up to 5 s late, as a stream may wait so long for something to send.
KEEPALIVE_SECONDS = 10.0
# A credential that died ends its streams within 15 s: an answer may be 2.5 s old, the next look comes after 7.5 s and the
# 5 s that a stream may wait for something to send.
RECHECK_SECONDS = 7.5
SHARED_SECONDS = 2.5
BUFFER_BYTES = 256 * 1024
MAX_STREAMS = 2000
MAX_PER_ACTOR = 20
COMMENT = b": keep-alive\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-store"),
    (b"x-accel-buffering", b"no"),
    *headers.RAW,
]

log = structlog.get_logger(__name__)
Authenticate = Callable[[lanes.Scope], Awaitable[Actor]]


def frame(event: str, data: Any, *, id: str | None = None) -> bytes:
    """One SSE event. `data` is JSON unless it is text already."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"), default=str)
    head = (f"id: {id}\n" if id is not None else "") + f"event: {event}\n"
    return (head + "".join(f"data: {line}\n" for line in text.split("\n")) + "\n").encode("utf-8", "replace")


def chunk_of(data: bytes) -> bytes:
    """`data` as one chunk of an HTTP/1.1 body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Mailbox:
    """Frames on their way to one viewer: at most 256 KiB, then the viewer is too slow and has to reconnect.

    `write` may put a chunk on the viewer's wire at once; False when that cannot be. It is asked only while nothing waits
    and everything before has been sent, so that the order stays.
    """

    def __init__(self, write: Callable[[bytes], bool]) -> None:
        self._write = write
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_overflowing = False

    def put(self, data: bytes, chunk: bytes) -> None:
        """One frame, and the same as a chunk."""
        if self._is_idle() and self._write(chunk):
            return
        if self._size + len(data) > BUFFER_BYTES and self._frames:
            self.is_overflowing = True
        else:
            self._frames.append(data)
            self._size += len(data)
        self._wake()

    async def take(self, wait_seconds: float) -> bytes:
        """Everything that waits, joined; empty when nothing came for a while. Raises `Overloaded` on overflow.

        A thousand viewers wait here twenty times a second: one timer goes on over many calls, so that a wait may
        also end early.
        """
        if not self._frames and not self.is_overflowing:
            loop = asyncio.get_running_loop()
            if self._timer is None:
                self._timer = loop.call_later(wait_seconds, self._time_out)
            self._waiter = loop.create_future()
            await self._waiter
        if self.is_overflowing:
            raise Overloaded("This viewer reads too slowly.")
        data = self._frames.popleft() if len(self._frames) == 1 else b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        return data

    def _is_idle(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _wake(self) -> None:
        if self._waiter is not None and self._is_idle():
            self._waiter.set_result(None)

    def _time_out(self) -> None:
        self._timer = None
        self._wake()


class Rechecks:
    """Whether credentials still hold. The streams of one credential share an answer for a few seconds."""

    def __init__(self) -> None:
        self._answers: dict[Any, tuple[float, asyncio.Task[Actor]]] = {}

    def forget(self) -> None:
        """What was asked before a credential ended is not good for after it."""
        self._answers.clear()

    async def actor(self, authenticate: Any, scope: lanes.Scope) -> Actor:
        """Raises what `authenticate` raises."""
        key = authenticate, lanes.header(scope, b"authorization"), lanes.header(scope, b"cookie")
        now, loop = time.monotonic(), asyncio.get_running_loop()
        at, task = self._answers.get(key, (0.0, None))
        if task is None or now - at > SHARED_SECONDS or task.get_loop() is not loop:
            self._answers = {k: (t, old) for k, (t, old) in self._answers.items() if now - t <= SHARED_SECONDS}
            task = loop.create_task(authenticate(scope), name="recheck")
            self._answers[key] = now, task
        return await asyncio.shield(task)


class Feed:
    """One rendered stream for many viewers: hints come in, `render(events)` makes one frame, all mailboxes get it.

    A thousand viewers, twenty times a second: who waits gets it on the wire in the feed's own turn of the event loop.
    """

    def __init__(self, topics: tuple[str, ...], render: Callable[[list[live.Event]], Awaitable[bytes]]) -> None:
        self.topics = topics
        self.render = render
        self._boxes: set[Mailbox] = set()
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def join(self, write: Callable[[bytes], bool]) -> AsyncIterator[Mailbox]:
        """A viewer's mailbox; `write` as it says."""
        await live.listener.ensure()
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._boxes = set()
            self._task = loop.create_task(self._run(), name=f"feed-{'-'.join(self.topics)[:60]}")
            await asyncio.sleep(0)  # so that it has subscribed before the viewer takes its snapshot
        box = Mailbox(write)
        self._boxes.add(box)
        try:
            yield box
        finally:
            self._boxes.discard(box)
            if not self._boxes and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        with live.hub.subscribe(*self.topics) as subscription:
            while True:
                events = await subscription.batch()
                try:
                    data = await self.render(events)
                except Exception as error:  # noqa: BLE001 - a broken read must not end the stream of a thousand viewers
                    log.warning("sse.render_failed", topics=self.topics, error=repr(error))
                    await asyncio.sleep(1)
                    data = await self._resync()
                if data:
                    chunk = chunk_of(data)
                    for box in self._boxes:
                        box.put(data, chunk)

    async def _resync(self) -> bytes:
        try:
            return await self.render([live.Event(live.RESYNC)])
        except Exception:  # noqa: BLE001 - the database is still away; the listener's return brings the next resync
            return b""


def _head_start(actor: Actor) -> float:
    """Seconds by which an actor's streams are looked at earlier: after a restart everybody is back at the same moment."""
    return RECHECK_SECONDS * (zlib.crc32(actor.id.encode()) % 100) / 100


rechecks = Rechecks()


class EventStream(AsyncConsumer):  # type: ignore[misc]
    """Base of every stream. A subclass writes `frames()` and may narrow `authorize()`."""

    authenticate: ClassVar[Any]  # an Authenticate, as a staticmethod
    _open: ClassVar[int] = 0
    _per_actor: ClassVar[dict[str, set[EventStream]]] = {}

    actor: Actor
    _task: asyncio.Task[None] | None = None
    _is_in_doubt = False

    async def authorize(self) -> None:
        """Raises when `self.actor` may not see this stream; called at the start and every 15 s."""

    def frames(self) -> AsyncGenerator[bytes]:
        """The stream's bytes; yields b"" when there was nothing for a while."""
        raise NotImplementedError

    def write_at_once(self, chunk: bytes) -> bool:
        """For `Feed.join`: not while the credential is in doubt, and not under a server that cannot."""
        write: Callable[[bytes], bool] | None = self.scope.get(lanes.CHUNKS)
        return write is not None and not self._is_in_doubt and write(chunk)

    async def http_request(self, message: dict[str, Any]) -> None:
        if self._task is not None:
            return
        self.request_id = lanes.request_id_of(self.scope)
        try:
            if self.scope["method"] != "GET":
                raise MethodNotAllowed("A stream is read with GET.")
            self.actor = await type(self).authenticate(self.scope)
            await self.authorize()
            self._admit()
        except HyprBoxError as error:
            lanes.refuse(self.scope, error.status)
            ip = lanes.peer_ip(self.scope)
            by = getattr(self, "actor", None) or Actor.anonymous(ip=ip, request_id=self.request_id)
            refusals.tell_soon(error, by=by, route=f"stream:{type(self).__name__}", method=self.scope["method"])
            await lanes.answer_error(self.send, error, self.request_id)
            raise StopConsumer() from None
        sent = [*HEADERS, (b"x-request-id", self.request_id.encode())]
        await self.send({"type": "http.response.start", "status": 200, "headers": sent})
        self._task = asyncio.create_task(self._pump(), name="sse")

    async def http_disconnect(self, message: dict[str, Any]) -> None:
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        raise StopConsumer()

    def _admit(self) -> None:
        if EventStream._open >= MAX_STREAMS:
            raise Overloaded("This server shows as many live streams as it can.", retry_after=10)
        if len(EventStream._per_actor.get(self.actor.id, ())) >= MAX_PER_ACTOR:
            raise Overloaded("You have too many live streams open; close a tab.", retry_after=10)
        EventStream._open += 1
        EventStream._per_actor.setdefault(self.actor.id, set()).add(self)
        live.hub.on(live.CREDENTIALS, doubt)

    def _leave(self) -> None:
        mine = EventStream._per_actor[self.actor.id]
        EventStream._open -= 1
        mine.discard(self)
        if not mine:
            del EventStream._per_actor[self.actor.id]

    async def _pump(self) -> None:
        try:
            await self._send_frames()
        except HyprBoxError as error:
            await self._body(frame("expired" if error.status in (401, 403) else "error", error.as_dict()["error"]))
        except (asyncio.CancelledError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - the viewer reconnects and resumes; the log has the reason
            log.warning("sse.stream_failed", error=repr(error), request_id=self.request_id)
        finally:
            self._leave()
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_frames(self) -> None:
        await self._body(b": ok\nretry: 2000\n\n")
        sent_at = time.monotonic()
        checked_at = sent_at - _head_start(self.actor)
        async with contextlib.aclosing(self.frames()) as frames:
            async for data in frames:
                now = time.monotonic()
                if self._is_in_doubt or now - checked_at >= RECHECK_SECONDS:
                    checked_at, self._is_in_doubt = now, False
                    found = await rechecks.actor(type(self).authenticate, self.scope)
                    self.actor = replace(found, ip=self.actor.ip, request_id=self.actor.request_id)
                    await self.authorize()
                if data:
                    await self._body(data)
                    sent_at = now
                elif now - sent_at >= KEEPALIVE_SECONDS:
                    await self._body(COMMENT)
                    sent_at = now

    async def _body(self, data: bytes) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": True})


def doubt(event: live.Event) -> None:
    """Someone's credential ended: their streams look, before the next thing they send and within the 5 s that they wait."""
    rechecks.forget()
    for stream in EventStream._per_actor.get(str(event.ids.get("user")), ()):
        stream._is_in_doubt = True
