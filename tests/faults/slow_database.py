"""A proxy in front of PostgreSQL that adds a delay to each statement, as a disk or a network does that is too slow."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_ASKS = (80877102, 80877103, 80877104)  # cancel, TLS, GSS: they come before the start-up message, in its form
_STATEMENTS = b"QE"  # a simple query, or Execute in the extended protocol


class SlowDatabase:
    """Listens on loopback for the server behind the Unix socket. `seconds` may be changed while it runs."""

    def __init__(self, socket: Path) -> None:
        self.seconds = 0.0
        self.statements = 0  # that were delayed
        self._socket = socket
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slow-database", daemon=True)

    def start(self) -> SlowDatabase:
        self._thread.start()
        self._server = self._wait(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def url(self, direct: str) -> str:
        """What DATABASE_URL is when it goes this way."""
        return f"{direct.partition('@')[0]}@127.0.0.1:{self.port}{urlsplit(direct).path}"

    def stop(self) -> None:
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            answers, server = await asyncio.open_unix_connection(str(self._socket))
            back = asyncio.ensure_future(_copy(answers, writer))
            try:
                await self._ask(reader, server)
            finally:
                server.close()
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
        writer.close()

    async def _ask(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        """Every message of the client to the server, each statement later than it came."""
        has_begun = False
        while True:
            kind = await client.readexactly(1) if has_begun else b""
            length = await client.readexactly(4)
            body = await client.readexactly(struct.unpack("!I", length)[0] - 4)
            has_begun = has_begun or struct.unpack("!I", body[:4])[0] not in _ASKS
            if kind and kind in _STATEMENTS and self.seconds:
                self.statements += 1
                await asyncio.sleep(self.seconds)
            server.write(kind + length + body)
            await server.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
