"""A proxy on loopback between agents and server that does to their calls what networks do, and worse.

The worst is the dropped answer: the server has done it, the agent does not know. Seeded: the same seed makes the same
choices, one for each call in the order in which they come.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from agent.tests.ports import free_port

KINDS = ("delay", "cut", "drop", "duplicate", "replay", "truncate")
READ_SECONDS = 60.0
REPLAY_SECONDS = 3.0


@dataclass(frozen=True)
class Call:
    """One request as it came."""

    method: str
    path: str
    raw: bytes


@dataclass(frozen=True)
class Rates:
    """How likely each fault is, for calls whose path matches `only`."""

    delay: float = 0.0
    cut: float = 0.0  # the call never arrives
    drop: float = 0.0  # it arrives; its answer does not
    duplicate: float = 0.0  # it arrives twice
    replay: float = 0.0  # it arrives, and once more later
    truncate: float = 0.0  # half of the answer comes back
    delay_seconds: float = 1.0
    only: str = ""

    def choose(self, chance: random.Random, path: str) -> str:
        picked = chance.random()
        if not re.search(self.only, path):
            return ""
        for kind in KINDS:
            picked -= getattr(self, kind)
            if picked < 0:
                return kind
        return ""


Tamper = Callable[[Call, bytes], bytes]


@dataclass
class Proxy:
    """Start it, change `rates` and `tamper` while it runs, stop it."""

    target_port: int
    seed: int = 0
    second_port: int = 0  # every other connection goes there, or to whoever is left
    rates: Rates = field(default_factory=Rates)
    tamper: Tamper | None = None
    is_cut_off: bool = False  # nothing gets through at all
    port: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    calls: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._next: list[tuple[str, str]] = []
        self._ports = [port for port in (self.target_port, self.second_port) if port]
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Proxy:
        self._thread.start()
        self._server = self._wait(asyncio.start_server(self._serve, "127.0.0.1", self.port or free_port(), limit=2**22))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        if self._thread.is_alive():
            self._wait(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
        self._loop.close()

    def once(self, kind: str, path: str) -> None:
        """The next call whose path matches gets this fault."""
        with self._lock:
            self._next.append((kind, path))

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _choose(self, call: Call) -> str:
        with self._lock:
            self.calls += 1
            for planned in self._next:
                if re.search(planned[1], call.path):
                    self._next.remove(planned)
                    kind = planned[0]
                    break
            else:
                kind = self.rates.choose(self._chance, call.path)
            if kind:
                self.counts[kind] += 1
            return kind

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To the servers in turn; one that is down is passed over, as a load balancer does."""
        self._ports.append(self._ports.pop(0))
        for port in self._ports[:-1]:
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        return await asyncio.open_connection("127.0.0.1", self._ports[-1], limit=2**22)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError):
                if not self.is_cut_off:
                    await self._one_call(await _read_call(reader), reader, writer)
        finally:
            writer.close()

    async def _one_call(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = self._choose(call)
        if kind == "cut":
            return
        if kind == "delay":
            await asyncio.sleep(self._chance.uniform(0, self.rates.delay_seconds))
        if kind == "duplicate":
            await self._forward(call, None)
        answer = await self._forward(call, reader)
        if kind == "replay":
            self._spawn(self._again(call))
        if kind == "drop" or self.is_cut_off:
            return
        if self.tamper is not None:
            answer = self.tamper(call, answer)
        writer.write(answer[: len(answer) // 2] if kind == "truncate" else answer)
        await writer.drain()

    async def _again(self, call: Call) -> None:
        await asyncio.sleep(self._chance.uniform(0.2, REPLAY_SECONDS))
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._forward(call, None), REPLAY_SECONDS)

    async def _forward(self, call: Call, client: asyncio.StreamReader | None) -> bytes:
        """The whole answer. When the client hangs up first, so do we."""
        upstream, out = await self._connect()
        try:
            out.write(call.raw)
            await out.drain()
            answer = asyncio.ensure_future(upstream.read(-1))
            gone = asyncio.ensure_future(client.read(1)) if client else None
            waiting = {answer, gone} if gone else {answer}
            try:
                await asyncio.wait(waiting, timeout=READ_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    raise ConnectionResetError("the client hung up, or the server did not answer")
                return answer.result()
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
        finally:
            out.close()


async def _read_call(reader: asyncio.StreamReader) -> Call:
    """One HTTP/1.1 request. One per connection is enough: both ends are told to close it."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(b"connection:")]
    length = next((int(line.split(b":")[1]) for line in kept if line.lower().startswith(b"content-length:")), 0)
    body = await reader.readexactly(length)
    method, path, _ = first.decode("latin-1").split(" ", 2)
    return Call(method, path, b"\r\n".join([first, *kept, b"Connection: close", b"", body]))
