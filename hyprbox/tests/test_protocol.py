"""Answers in one piece are HTTP like any other: keep-alive, pipelining, closing, a client that has gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from hyprbox.lib import lanes
from hyprbox.lib.protocol import Protocol

REQUEST = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n%s\r\nhi"
WENT_WHOLE: list[bool] = []


async def _app(scope: dict[str, Any], receive: lanes.Receive, send: lanes.Send) -> None:
    body = await lanes.read_body(receive, 100)
    WENT_WHOLE.append(lanes.answer_whole(scope, 202, body, "request-1"))
    if not WENT_WHOLE[-1]:
        await lanes.answer(send, 202, body, "request-1")


@contextlib.asynccontextmanager
async def _served(protocol: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(_app, port=0, http=protocol, lifespan="off", log_config=None, server_header=False)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    WENT_WHOLE.clear()
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await task


async def _read(reader: asyncio.StreamReader) -> tuple[list[str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = [line for line in head.split("\r\n") if line and not line.startswith("date:")]
    return lines, await reader.readexactly(2)


async def test_it_says_what_the_ordinary_way_says() -> None:
    answers = []
    for protocol in (Protocol, "httptools"):
        async with _served(protocol) as (reader, writer):
            writer.write(REQUEST % b"")
            answers.append(await _read(reader))
            assert [protocol is Protocol] == WENT_WHOLE
    assert answers[0][0][0] == "HTTP/1.1 202 Accepted"
    assert answers[0][1] == answers[1][1] == b"hi"
    assert sorted(answers[0][0]) == sorted(answers[1][0])


async def test_a_date_is_in_it() -> None:
    async with _served(Protocol) as (reader, writer):
        writer.write(REQUEST % b"")
        assert b"\r\ndate: " in await reader.readuntil(b"\r\n\r\n")


async def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_order() -> None:
    async with _served(Protocol) as (reader, writer):
        writer.write(b"".join((REQUEST % b"").replace(b"hi", body) for body in (b"aa", b"bb", b"cc")))
        assert [(await _read(reader))[1] for _ in range(3)] == [b"aa", b"bb", b"cc"]
        writer.write(REQUEST % b"")
        assert (await _read(reader))[1] == b"hi"
    assert WENT_WHOLE == [True] * 4


async def test_who_wants_it_closed_is_told_so() -> None:
    async with _served(Protocol) as (reader, writer):
        writer.write(REQUEST % b"Connection: close\r\n")
        lines, _ = await _read(reader)
        assert "connection: close" in lines
        assert await reader.read() == b""
    assert WENT_WHOLE == [False]
