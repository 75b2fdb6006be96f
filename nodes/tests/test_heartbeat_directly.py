"""The short way for ordinary heartbeats: the same answers as the lane, and everything else left to the lane."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from django.db import connection
from django.utils import timezone

from hyprbox.lib import lanes, protocol
from hyprbox.lib.protocol import Protocol
from nodes import ingest
from nodes.models import Heartbeat, Node
from nodes.tests import lane
from tests.factories import make_node, make_token

pytestmark = pytest.mark.django_db(transaction=True)

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Served:
    """The lane behind a real uvicorn; `by_lane` counts what did not go the short way."""

    def __init__(self) -> None:
        self.by_lane = 0
        self.port = 0
        self.server: uvicorn.Server | None = None

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.by_lane += 1
        await ingest.heartbeat_lane(scope, receive, send)

    async def connect(self) -> Pair:
        pair = await asyncio.open_connection("127.0.0.1", self.port)
        while len(self.connections()) < 1:
            await asyncio.sleep(0)
        return pair

    def connections(self) -> set[Any]:
        assert self.server is not None
        return self.server.server_state.connections


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Served]:
    found = Served()
    config = uvicorn.Config(
        found.app,
        port=0,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        server_header=False,
        proxy_headers=False,
        interface="asgi3",
    )
    found.server = server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    found.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.should_exit = True
        await task


@pytest.fixture(autouse=True)
def directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lanes.direct, lane.PATH, ingest.take_directly)
    protocol._heads.clear()


def raw(node_id: str, token: str, *, more: str = "", **over: Any) -> bytes:
    body = json.dumps(lane.beat(node_id, **over)).encode()
    head = (
        f"POST {lane.PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\n"
    )
    return f"{head}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def read(reader: asyncio.StreamReader) -> lane.Answer:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return lane.Answer(int(lines[0].split()[1]), headers, body)


def run(work: Callable[[Served, Pair], Awaitable[Any]]) -> Served:
    async def whole() -> Served:
        async with served() as server:
            pair = await server.connect()
            try:
                await work(server, pair)
            finally:
                pair[1].close()
                with contextlib.suppress(OSError):
                    await pair[1].wait_closed()
        return server

    found: Served = lane.run(whole)
    return found


async def exchange(pair: Pair, request: bytes) -> lane.Answer:
    pair[1].write(request)
    return await read(pair[0])


def test_only_the_first_one_needs_the_lane_and_all_say_the_same() -> None:
    token = make_token(make_node("web-1"))

    async def work(_: Served, pair: Pair) -> None:
        first, *others = [await exchange(pair, raw("web-1", token, metrics={"cpu_percent": n})) for n in range(4)]
        for answer in others:
            assert answer.status == first.status == 202
            assert set(answer.headers) == set(first.headers) > {"date", "x-request-id", "content-security-policy"}
            assert set(answer.json) == set(first.json)

    assert run(work).by_lane == 1
    assert Heartbeat.objects.count() == 4
    assert Node.objects.get().cpu_percent == 3


def test_headers_over_the_limit_are_left_to_who_refuses_them() -> None:
    token = make_token(make_node("web-1"))

    async def work(server: Served, pair: Pair) -> None:
        for size, by_lane in ((0, 1), (15_000, 1), (16_384, 2), (16_384, 3)):
            await exchange(pair, raw("web-1", token, more=f"X-Long: {'a' * size}\r\n"))
            assert server.by_lane == by_lane, size

    run(work)


def test_the_callers_request_id_comes_back() -> None:
    token = make_token(make_node("web-1"))

    async def work(_: Served, pair: Pair) -> None:
        for _number in range(2):
            answer = await exchange(pair, raw("web-1", token, more="X-Request-Id: mine-1234\r\n"))
            assert answer.headers["x-request-id"] == "mine-1234"

    assert run(work).by_lane == 1


def test_a_request_may_come_in_pieces_and_several_in_one() -> None:
    token = make_token(make_node("web-1"))

    async def work(_: Served, pair: Pair) -> None:
        reader, writer = pair
        await exchange(pair, raw("web-1", token))
        whole = raw("web-1", token)
        for byte in range(0, len(whole), 40):
            writer.write(whole[byte : byte + 40])
            await asyncio.sleep(0.001)
        assert (await read(reader)).status == 202
        writer.write(raw("web-1", token) * 5)
        assert [(await read(reader)).status for _ in range(5)] == [202] * 5

    assert run(work).by_lane == 1
    assert Heartbeat.objects.count() == 7


def test_a_large_body_goes_the_ordinary_way() -> None:
    token = make_token(make_node("web-1"))
    disks = [{"mount": "/" + "x" * 200, "percent": 1.0}] * 200

    async def work(_: Served, pair: Pair) -> None:
        assert (await exchange(pair, raw("web-1", token))).status == 202
        assert (await exchange(pair, raw("web-1", token, metrics={"disks": disks}))).status == 202
        assert (await exchange(pair, raw("web-1", token))).status == 202

    assert run(work).by_lane == 2


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda r: r.replace(b"application/json", b"text/plain"), 415),
        (lambda r: r.replace(b"web-1", b"web-2"), 403),
        (lambda r: r.replace(b"12.5", b"-2.5"), 400),
        (lambda r: r.replace(b"12.5", b"1e99"), 400),
        (lambda r: r.replace(b"Bearer hbnt_", b"Bearer hbnx_"), 401),
        (lambda r: r.replace(b"Authorization", b"X-Other"), 401),
    ],
)
def test_whatever_is_wrong_is_answered_by_the_lane(change: Callable[[bytes], bytes], status: int) -> None:
    token = make_token(make_node("web-1"))

    async def work(_: Served, pair: Pair) -> None:
        await exchange(pair, raw("web-1", token))
        answer = await exchange(pair, change(raw("web-1", token)))
        assert (answer.status, set(answer.json["error"])) == (status, {"code", "message", "fields", "detail"})
        assert (await exchange(pair, raw("web-1", token))).status == 202

    assert run(work).by_lane == 2
    assert Heartbeat.objects.count() == 2


def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_by_token", lanes.TokenBucket(rate=1))  # a slow machine gives back little meanwhile
    token = make_token(make_node("web-1"))

    async def work(_: Served, pair: Pair) -> None:
        await exchange(pair, raw("web-1", token))
        pair[1].write(raw("web-1", token) * 100)
        statuses = [(await read(pair[0])).status for _ in range(100)]
        assert set(statuses) == {202, 429}
        assert 55 <= statuses.count(202) <= 75  # a burst of 60, and what came back meanwhile

    run(work)


def test_a_node_that_was_removed_is_told_so() -> None:
    node = make_node("web-1")
    token = make_token(node)

    async def work(server: Served, pair: Pair) -> None:
        await exchange(pair, raw("web-1", token))
        await asyncio.to_thread(_remove, node)
        answer = await exchange(pair, raw("web-1", token))
        assert (answer.status, server.by_lane) == (401, 1)
        assert (await exchange(pair, raw("web-1", token))).status == 401

    run(work)
    assert Heartbeat.objects.count() == 1


def _remove(node: Node) -> None:
    Node.objects.filter(pk=node.pk).update(removed_at=timezone.now())
    connection.close()


def test_a_row_that_the_database_refuses_is_told_so() -> None:
    token = make_token(make_node("web-1"))
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE nodes_node ADD CONSTRAINT cursed CHECK (cpu_percent <> 13.25)")

    async def work(_: Served, pair: Pair) -> None:
        await exchange(pair, raw("web-1", token))
        assert (await exchange(pair, raw("web-1", token, metrics={"cpu_percent": 13.25}))).code == "invalid_input"
        assert (await exchange(pair, raw("web-1", token))).status == 202

    try:
        assert run(work).by_lane == 1
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE nodes_node DROP CONSTRAINT cursed")


def test_who_wants_it_closed_is_told_so() -> None:
    token = make_token(make_node("web-1"))

    async def work(_: Served, pair: Pair) -> None:
        await exchange(pair, raw("web-1", token))
        answer = await exchange(pair, raw("web-1", token, more="Connection: close\r\n"))
        assert (answer.status, answer.headers["connection"]) == (202, "close")
        assert await pair[0].read() == b""

    run(work)


def test_a_client_that_has_gone_harms_nobody() -> None:
    tokens = {name: make_token(make_node(name)) for name in ("web-1", "web-2")}

    async def work(server: Served, pair: Pair) -> None:
        await exchange(pair, raw("web-1", tokens["web-1"]))
        _, gone = await server.connect()
        half = raw("web-1", tokens["web-1"])
        gone.write(half + half[: len(half) // 2])
        gone.transport.abort()
        assert (await exchange(pair, raw("web-2", tokens["web-2"]))).status == 202
        assert (await exchange(pair, raw("web-2", tokens["web-2"]))).status == 202

    run(work)
    assert Heartbeat.objects.count() >= 3


# --- a head that was read before ---


async def known(pair: Pair, token: str) -> None:
    """Two exchanges: the first by the lane, which learns the token, the second remembers the head."""
    for _ in range(2):
        assert (await exchange(pair, raw("web-1", token))).status == 202
    assert len(protocol._heads) == 1


def test_a_known_head_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    token = make_token(make_node("web-1"))

    async def work(server: Served, pair: Pair) -> None:
        await known(pair, token)
        monkeypatch.setattr(Protocol, "on_message_begin", None)  # the parser would fail here
        for number in range(5):
            answer = await exchange(pair, raw("web-1", token, metrics={"cpu_percent": 10.0 + number}))
            assert answer.status == 202
            assert set(answer.json) - {"audit_checkpoint"} == {"server_time", "work_waiting"}

    assert run(work).by_lane == 1
    assert Heartbeat.objects.count() == 7
    assert Node.objects.get().cpu_percent == 14.0


def test_no_token_lies_among_the_known_heads() -> None:
    token = make_token(make_node("web-1"))

    async def work(_: Served, pair: Pair) -> None:
        await known(pair, token)

    run(work)
    assert token[5:] not in repr(protocol._heads)
    assert all(len(digest) == 32 for digest in protocol._heads)


def test_a_known_head_says_nothing_of_the_token_or_the_body() -> None:
    node = make_node("web-1")
    token = make_token(node)

    async def work(server: Served, pair: Pair) -> None:
        await known(pair, token)
        bad = await exchange(pair, raw("web-1", token).replace(b"12.5", b"-2.5"))
        assert (bad.status, list(bad.json["error"]["fields"])) == (400, ["metrics.cpu_percent"])
        assert (await exchange(pair, raw("web-1", token).replace(b"web-1", b"web-2"))).status == 403
        ingest.writer.tokens.drop(token[5:13])
        assert (await exchange(pair, raw("web-1", token))).status == 202
        assert server.by_lane == 4
        await asyncio.to_thread(_remove, node)
        assert (await exchange(pair, raw("web-1", token))).status == 401

    run(work)
    assert Heartbeat.objects.count() == 3


def test_a_known_head_in_pieces_and_several_in_one_piece() -> None:
    token = make_token(make_node("web-1"))

    async def work(server: Served, pair: Pair) -> None:
        reader, writer = pair
        await known(pair, token)
        whole = raw("web-1", token)
        end = whole.index(b"\r\n\r\n") + 4
        for cut in (3, end - 2, end, end + 5, len(whole) - 1):
            writer.write(whole[:cut])
            await asyncio.sleep(0.01)
            writer.write(whole[cut:])
            assert (await read(reader)).status == 202, cut
        writer.write(whole + whole[:cut])
        await asyncio.sleep(0.01)
        writer.write(whole[cut:] + b"\r\n" + whole)
        assert [(await read(reader)).status for _ in range(3)] == [202] * 3
        assert server.by_lane == 1

    run(work)
    assert Heartbeat.objects.count() == 10


def test_what_comes_while_one_is_answered_waits_its_turn() -> None:
    token = make_token(make_node("web-1"))

    async def work(server: Served, pair: Pair) -> None:
        reader, writer = pair
        await known(pair, token)
        order = asyncio.Event()
        committed = ingest.writer._write_batch

        async def slowly(conn: Any) -> None:
            await order.wait()
            await committed(conn)

        ingest.writer._write_batch = slowly  # type: ignore[method-assign]
        try:
            writer.write(raw("web-1", token, metrics={"cpu_percent": 21.0}))
            await asyncio.sleep(0.05)
            writer.write(raw("web-1", token, metrics={"cpu_percent": 22.0}))
            writer.write(raw("web-1", token, more="X-Request-Id: third-one\r\n", metrics={"cpu_percent": 23.0}))
            await asyncio.sleep(0.05)
            order.set()
            answers = [await read(reader) for _ in range(3)]
        finally:
            del ingest.writer._write_batch
        assert [answer.status for answer in answers] == [202] * 3
        assert answers[2].headers["x-request-id"] == "third-one"

    run(work)
    assert sorted(Heartbeat.objects.values_list("cpu_percent", flat=True))[-3:] == [21.0, 22.0, 23.0]


def test_a_server_that_stops_answers_first_and_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    token = make_token(make_node("web-1"))

    async def work(server: Served, pair: Pair) -> None:
        await known(pair, token)
        made = next(iter(server.connections()))
        pair[1].write(raw("web-1", token))
        while not made._is_answering:
            await asyncio.sleep(0)
        made.shutdown()
        assert (await read(pair[0])).status == 202
        assert await pair[0].read() == b""

        reader, writer = other = await server.connect()
        made = next(iter(server.connections()))
        made.timeout_keep_alive = 1.5
        for _ in range(3):  # longer than the time-out in all, never silent for so long
            assert (await exchange(other, raw("web-1", token))).status == 202
            await asyncio.sleep(0.6)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()

    run(work)
