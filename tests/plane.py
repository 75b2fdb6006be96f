"""The whole control plane inside a test: the real ASGI application on an event loop of its own, called as over HTTP.

Requests that are sent together really run together, each on a thread and a database connection of its own.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import pytest

from accounts import jwt
from accounts.gate import BadBearers
from accounts.models import User
from hyprbox.asgi import application
from hyprbox.lib import lanes, live
from jobs import queue, waiting
from jobs.together import together
from nodes import ingest, writer

T = TypeVar("T")
ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Call:
    """One request. `token` is a bearer of any kind."""

    method: str
    path: str
    token: str = ""
    json: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class Plane:
    def __init__(self) -> None:
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="plane", daemon=True)
        self._thread.start()
        self._client = self.run(self._open())

    async def _open(self) -> httpx.AsyncClient:
        together.attach()
        transport = httpx.ASGITransport(app=application, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the plane's loop and wait for the result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_SECONDS)

    async def send(self, call: Call) -> httpx.Response:
        headers = {**call.headers, **({"authorization": f"Bearer {call.token}"} if call.token else {})}
        body = {"json": call.json} if call.method != "GET" and not isinstance(call.json, bytes) else {}
        if isinstance(call.json, bytes):
            body = {"content": call.json}
            headers.setdefault("content-type", "application/json")
        return await self._client.request(call.method, call.path, headers=headers, timeout=None, **body)

    def together(self, calls: Sequence[Call]) -> list[httpx.Response]:
        """All at once; the answers in the order of the calls."""

        async def all_of_them() -> list[httpx.Response]:
            return list(await asyncio.gather(*map(self.send, calls)))

        return self.run(all_of_them())

    def get(self, path: str, token: str = "") -> httpx.Response:
        return self.run(self.send(Call("GET", path, token)))

    def post(self, path: str, token: str = "", json: Any = None, **headers: str) -> httpx.Response:
        dashed = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.run(self.send(Call("POST", path, token, {} if json is None else json, dashed)))

    def delete(self, path: str, token: str = "") -> httpx.Response:
        return self.run(self.send(Call("DELETE", path, token)))

    def poll(self, node_id: str, token: str, request_id: uuid.UUID | None = None, **query: Any) -> httpx.Response:
        """The agents' long poll; without `wait` it answers at once."""
        return self.get(pending(node_id, request_id, **query), token)

    def restart(self) -> None:
        """Forget what the web process keeps in memory, as a new one would."""
        self.run(self._restart())

    async def _restart(self) -> None:
        await queue.board.stop()
        await together.stop()
        together.attach()
        _forget(setattr)

    def close(self) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        await self._client.aclose()
        await ingest.drain()
        await together.stop()
        await live.listener.stop()
        await queue.board.stop()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.get_running_loop().shutdown_default_executor()


def pending(node_id: str, request_id: uuid.UUID | None = None, **query: Any) -> str:
    given = {"node_id": node_id, "request_id": request_id or uuid.uuid4(), "wait": 0, **query}
    return "/api/jobs/pending?" + "&".join(f"{name}={value}" for name, value in given.items())


def bearer(user: User) -> str:
    return jwt.access_token(user)


def _forget(put: Callable[[Any, str, Any], None]) -> None:
    board = queue.Board()
    board.chore = waiting.recheck_tokens
    for module in (queue, waiting):
        put(module, "board", board)
    put(waiting, "_tokens", waiting.TokenCache())
    put(waiting, "_resolving", waiting.Asking(waiting._resolve))
    put(ingest, "work_waiting", board.has_work)


@contextmanager
def plane(patch: pytest.MonkeyPatch) -> Iterator[Plane]:
    """A plane that remembers nothing: what a web process keeps in memory is new, and no rate is limited."""
    patch.setattr(live, "hub", live.Hub())
    patch.setattr(live, "listener", live.Listener(live.hub))
    beats = writer.Writer()
    patch.setattr(writer, "writer", beats)
    patch.setattr(ingest, "writer", beats)
    _forget(patch.setattr)
    patch.setattr(lanes.TokenBucket, "take", lambda self, key: None)
    patch.setattr(BadBearers, "blocked", lambda self, key: 0)
    made = Plane()
    try:
        yield made
    finally:
        made.close()
