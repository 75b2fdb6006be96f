"""How many streams, how long they are silent, how much waits for a slow reader, and what opens one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from accounts import jwt
from accounts.models import User
from hyprbox.lib import lanes, live, sse
from hyprbox.lib.errors import Overloaded
from hyprbox.lib.sse import BUFFER_BYTES, EventStream, Mailbox, chunk_of, frame
from nodes import streams
from nodes.models import Node
from nodes.streams import NodeStream
from nodes.tests import lane
from nodes.tests.test_stream import Viewer, watch
from tests import factories
from tests.plane import Plane, bearer, plane

pytestmark = pytest.mark.django_db(transaction=True)
UUID = "e3e70682-c209-4cac-a29f-6fbed82c07cd"


def test_the_limits_are_what_they_are() -> None:
    assert (sse.MAX_PER_ACTOR, sse.MAX_STREAMS, BUFFER_BYTES) == (20, 2000, 256 * 1024)
    assert sse.KEEPALIVE_SECONDS + streams.WAIT_SECONDS <= 15  # a comment comes at the end of a wait


async def opened(token: str, count: int, viewers: list[Viewer]) -> list[int]:
    viewers += [Viewer(token) for _ in range(count)]
    return [await viewer.open() for viewer in viewers[-count:]]


def whole(work: Any) -> Any:
    """Run with a list for viewers, all of which are closed at the end."""

    async def run() -> Any:
        viewers: list[Viewer] = []
        try:
            return await work(viewers)
        finally:
            for viewer in viewers:
                await viewer.close()
            await live.listener.stop()

    return lane.run(run)


def test_a_person_has_twenty(vera: User, otto: User) -> None:
    async def work(viewers: list[Viewer]) -> None:
        mine, other = jwt.access_token(vera), jwt.access_token(otto)
        assert await opened(mine, 20, viewers) == [200] * 20
        assert len(EventStream._per_actor[str(vera.pk)]) == 20
        refused = Viewer(jwt.access_token(vera))  # another token of the same person
        await refused._app.send_input({"type": "http.request", "body": b""})
        start = await refused._app.receive_output(5)
        headers, body = dict(start["headers"]), (await refused._app.receive_output(5))["body"]
        assert (start["status"], headers[b"retry-after"]) == (503, b"10")
        assert b"close a tab" in body
        assert await opened(other, 1, viewers) == [200]
        await viewers.pop(0).close()
        assert await opened(mine, 1, viewers) == [200]

    whole(work)
    assert EventStream._per_actor == {} and EventStream._open == 0


def test_a_process_has_so_many(vera: User, otto: User, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_STREAMS", 2)

    async def work(viewers: list[Viewer]) -> None:
        statuses = [await opened(jwt.access_token(user), 1, viewers) for user in (vera, otto, ada)]
        assert statuses == [[200], [200], [503]]
        viewers.pop()

    whole(work)


def test_silence_is_broken_by_a_comment(vera: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(sse, "KEEPALIVE_SECONDS", 0.2)

    async def work(viewer: Viewer) -> list[bytes]:
        await viewer.until("snapshot")
        return [(await viewer._app.receive_output(5))["body"] for _ in range(3)]

    assert watch(jwt.access_token(vera), work) == [sse.COMMENT] * 3


def cannot_write(chunk: bytes) -> bool:
    return False


async def test_who_waits_gets_it_at_once_and_in_order() -> None:
    """What comes while something is on its way to the viewer waits behind that."""
    wire: list[bytes] = []
    is_free = True

    def write(chunk: bytes) -> bool:
        if is_free:
            wire.append(chunk)
        return is_free

    box = Mailbox(write)
    box.put(b"one", chunk_of(b"one"))  # nobody waits yet: the viewer is being sent its snapshot
    assert (wire, await box.take(1.0)) == ([], b"one")
    waiting = asyncio.ensure_future(box.take(1.0))
    await asyncio.sleep(0)
    box.put(b"two", chunk_of(b"two"))
    assert (wire, waiting.done()) == ([b"3\r\ntwo\r\n"], False)
    is_free = False  # the wire is full
    box.put(b"three", chunk_of(b"three"))
    is_free = True
    box.put(b"four", chunk_of(b"four"))
    assert (len(wire), await waiting) == (1, b"threefour")


def test_a_credential_in_doubt_is_written_nothing_at_once(vera: User, web_1: Node) -> None:
    wire: list[bytes] = []

    def write(chunk: bytes) -> bool:
        wire.append(chunk)
        return True

    async def work(viewer: Viewer) -> None:
        await viewer.until("snapshot")
        [stream] = EventStream._per_actor[str(vera.pk)]
        await asyncio.sleep(0.1)  # until it waits
        await sync_to_async(publish_change)(web_1)
        await until(lambda: wire)
        live.hub.deliver(live.Event(live.CREDENTIALS, {"user": str(vera.pk)}))
        assert stream._is_in_doubt
        await sync_to_async(publish_change)(web_1)
        await viewer.until("heartbeat")  # the ordinary way, which asks first
        assert len(wire) == 1 and not stream._is_in_doubt

    watch(jwt.access_token(vera), work, **{lanes.CHUNKS: write})


def publish_change(node: Node) -> None:
    live.publish("nodes", node=[str(node.pk)])


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


async def test_what_waits_for_a_slow_reader_is_bounded() -> None:
    box = Mailbox(cannot_write)
    for _ in range(64):
        box.put(b"x" * 4096, b"")
    assert not box.is_overflowing and box._size == BUFFER_BYTES
    for _ in range(1000):
        box.put(b"x" * 4096, b"")
    assert box.is_overflowing and box._size <= BUFFER_BYTES
    with pytest.raises(Overloaded):
        await box.take(1.0)


async def test_one_large_frame_is_no_reason_to_end() -> None:
    box = Mailbox(cannot_write)
    box.put(b"x" * 2 * BUFFER_BYTES, b"")
    assert len(await box.take(1.0)) == 2 * BUFFER_BYTES


def test_who_reads_too_slowly_is_told_and_ended(vera: User, web_1: Node) -> None:
    """`send` waits as uvicorn's does for someone who reads nothing, until more than the buffer has come."""

    async def work() -> list[dict[str, Any]]:
        reads, said = asyncio.Event(), []
        gone: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        asked = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, Any]:
            return asked.pop() if asked else await gone

        async def send(message: dict[str, Any]) -> None:
            said.append(message)
            if b"event: heartbeat" in message.get("body", b""):
                await reads.wait()

        headers = [(b"authorization", f"Bearer {jwt.access_token(vera)}".encode())]
        scope = {"type": "http", "method": "GET", "path": "/api/stream/nodes", "query_string": b"", "headers": headers}
        stream = asyncio.create_task(NodeStream.as_asgi()({**scope, "client": ("127.0.0.1", 1)}, receive, send))
        while not any(b"snapshot" in message.get("body", b"") for message in said):
            await asyncio.sleep(0.01)
        [box] = streams.feed._boxes
        box.put(frame("heartbeat", {}), b"")  # the reader takes this one, and stops
        while not any(b"event: heartbeat" in message.get("body", b"") for message in said):
            await asyncio.sleep(0.01)
        for _ in range(70):
            box.put(frame("heartbeat", {"x": "y" * 4096}), b"")
        assert box.is_overflowing and box._size <= BUFFER_BYTES
        reads.set()
        while said[-1].get("more_body") is not False:
            await asyncio.sleep(0.01)
        gone.set_result({"type": "http.disconnect"})
        await asyncio.wait_for(stream, 2)
        await live.listener.stop()
        return said

    said = lane.run(work)
    assert b"event: error" in said[-2]["body"] and b"reads too slowly" in said[-2]["body"]
    assert said[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert EventStream._open == 0


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    with plane(monkeypatch) as made:
        yield made


@pytest.mark.parametrize("path", ["/api/stream/nodes", f"/api/jobs/{UUID}/stream", "/events/"])
def test_no_credential_in_an_address_opens_a_stream(web: Plane, ada: User, path: str) -> None:
    token = bearer(ada)
    for name in ("token", "access_token", "access", "ticket", "jwt", "authorization", "hb_token"):
        answer = web.get(f"{path}?{name}={token}&topics=nav")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "not_authenticated"), name
    assert web.post(path, token).status_code in (403, 405)


def test_a_node_token_opens_none(web: Plane, web_1: Node) -> None:
    token = factories.make_token(web_1)
    assert [web.get(path, token).status_code for path in ("/api/stream/nodes", "/events/?topics=nav")] == [401, 401]
