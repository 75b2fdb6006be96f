"""Slow senders and slow readers, on real sockets behind a real uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from hyprbox.lib import lanes, patience
from hyprbox.lib.protocol import Protocol

HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"


class Served:
    port = 0
    gone = 0
    heard = b""


@contextlib.asynccontextmanager
async def served(answer: bytes = b"{}") -> AsyncIterator[Served]:
    found = Served()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            found.heard = await lanes.read_body(receive, 1024 * 1024)
        except lanes.ClientGone:
            found.gone += 1
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with contextlib.suppress(asyncio.CancelledError):
            for _ in range(1 if len(answer) < 100 else 400):
                await send({"type": "http.response.body", "body": answer, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        found.gone += 1

    config = uvicorn.Config(app, port=0, http=Protocol, ws="none", lifespan="off", log_config=None, server_header=False)
    config.timeout_keep_alive = 1  # after an answer `talk` waits for this end
    server = uvicorn.Server(config)
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
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (patience.READ_SECONDS, patience.STALLED_SECONDS) == (30, 30)
    monkeypatch.setattr(patience, "READ_SECONDS", 0.3)
    monkeypatch.setattr(patience, "STALLED_SECONDS", 0.3)


async def talk(server: Served, *pieces: bytes, pause: float = 0.0) -> bytes:
    """What comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    heard = bytearray()

    async def listen() -> None:
        with contextlib.suppress(OSError):  # what was on its way when the server closed is refused
            while piece := await reader.read(65_536):
                heard.extend(piece)

    listening = asyncio.create_task(listen())
    for piece in pieces:
        with contextlib.suppress(OSError):
            writer.write(piece)
            await writer.drain()
        await asyncio.sleep(pause)
    await asyncio.wait_for(listening, 5)
    writer.close()
    return bytes(heard)


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
@pytest.mark.parametrize(
    "more", [b"", b"GET /y HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["alone", "with a request as its body"]
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_another_protocol_is_answered_in_this_one(
    protocol: bytes, method: bytes, more: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [method + b" /x HTTP/1.1", b"Host: x", b"Connection: Upgrade", b"Upgrade: " + protocol]
    lines += [b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    head = b"\r\n".join([*lines, b"Content-Length: %d" % len(more), b"", b""])
    async with served() as server:
        for pieces in ([head + more], [head, more]):
            said = await talk(server, *pieces, pause=0.02)
            assert said.startswith(b"HTTP/1.1 200 ") and said.count(b"HTTP/1.1 ") == 1, said
            assert said.count(b"connection: close") == 1 and said.count(b"2\r\n{}") == 1
    assert server.gone == 2
    assert "pgrade" not in caplog.text


@pytest.mark.parametrize("sent", [b"GET /x HT", b"GET /x HTTP/1.1\r\nHost: x\r\n", HEAD, HEAD + b"12345"])
async def test_a_request_that_never_comes_is_not_waited_for(sent: bytes) -> None:
    async with served() as server:
        began = asyncio.get_running_loop().time()
        said = await talk(server, sent)
        assert 0.2 < asyncio.get_running_loop().time() - began < 10
    assert said.startswith(b"HTTP/1.1 408 ") and b'"too_slow"' in said
    assert b"content-security-policy: default-src 'none'" in said and said.count(b"connection: close") == 1
    assert server.heard == b"" and server.gone == (1 if sent.startswith(HEAD) else 0)


async def test_drop_by_drop_is_too_slow_as_well() -> None:
    async with served() as server:
        said = await talk(server, *(bytes([byte]) for byte in b"GET /x HTTP/1.1\r\nA: b"), pause=0.05)
    assert said.startswith(b"HTTP/1.1 408 ")


async def test_who_never_says_a_word_is_hung_up_on() -> None:
    async with served() as server:
        assert await talk(server) == b""


async def test_a_body_that_goes_on_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "BODY_BYTES_PER_SECOND", 2.0)
    async with served() as server:
        said = await talk(server, HEAD, *[b"1"] * 10, pause=0.06)
    assert said.startswith(b"HTTP/1.1 200 ") and server.heard == b"1" * 10


async def test_a_connection_that_is_used_again_is_waited_for_anew() -> None:
    async with served() as server:
        whole = HEAD + b"1234567890"
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(4):
            writer.write(whole)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert (await reader.readexactly(12)).startswith(b"2\r\n{}")
            await asyncio.sleep(0.15)
        writer.close()


async def test_a_head_without_end_is_not_kept() -> None:
    async with served() as server:
        said = await talk(server, b"GET /x HTTP/1.1\r\nA: ", *[b"x" * 8192] * 6, pause=0.01)
    assert said.startswith(b"HTTP/1.1 431 ") and b'"headers_too_large"' in said


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"]
)
async def test_what_is_no_http_hears_so_in_the_one_shape(sent: bytes) -> None:
    async with served() as server:
        said = await talk(server, sent)
    assert said.startswith(b"HTTP/1.1 400 ") and b'"invalid_input"' in said and b"x-request-id: " in said
    assert b"x-content-type-options: nosniff" in said


async def test_who_reads_nothing_is_cut_off() -> None:
    """The application waits in `send`, for ever but for this."""
    async with served(b"x" * 65_536) as server:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", server.port))
            await asyncio.get_running_loop().sock_sendall(client, HEAD + b"1234567890")
            for _ in range(100):
                await asyncio.sleep(0.03)
                if server.gone:
                    break
            assert server.gone == 1


async def test_who_reads_slowly_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "STALLED_SECONDS", 1.0)  # less than all of it takes, more than a busy machine pauses
    began = asyncio.get_running_loop().time()
    async with served(b"x" * 65_536) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=16 * 1024)
        writer.write(HEAD + b"1234567890")
        size = rests = 0
        while size < 400 * 65_536:
            piece = await reader.read(1024 * 1024)
            assert piece, size
            size += len(piece)
            if size > rests * 512 * 1024:
                rests += 1
                await asyncio.sleep(0.03)
        writer.close()
    assert asyncio.get_running_loop().time() - began > 1.2
