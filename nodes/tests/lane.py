"""Drive the heartbeat lane as uvicorn does, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nodes import ingest

PATH = "/api/nodes/heartbeat"


@dataclass(frozen=True)
class Request:
    body: bytes
    token: str | None = None
    content_type: str = "application/json"
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


def beat(node_id: str, **over: Any) -> dict[str, Any]:
    """The body of a good heartbeat."""
    metrics = {"cpu_percent": 12.5, "memory_percent": 40.0, "disk_percent": 55.5, **over.pop("metrics", {})}
    return {"node_id": node_id, "agent_version": "0.1.0", "interval_seconds": 10, "metrics": metrics, **over}


def request(body: Any, token: str | None = None, **over: Any) -> Request:
    return Request(body if isinstance(body, bytes) else json.dumps(body).encode(), token, **over)


async def call(one: Request, *, piece: int = 256 * 1024) -> Answer:
    headers = {"content-type": one.content_type, **one.headers}
    if one.token is not None:
        headers["authorization"] = f"Bearer {one.token}"
    scope = {
        "type": "http",
        "method": one.method,
        "path": PATH,
        "headers": [(key.encode(), value.encode()) for key, value in headers.items() if value],
        "client": ("127.0.0.1", 4711),
    }
    pieces = [one.body[at : at + piece] for at in range(0, len(one.body), piece)] or [b""]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not pieces:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await ingest.heartbeat_lane(scope, receive, send)
    start, body = sent
    return Answer(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, body["body"])


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run on a loop of its own; the writer is drained at its end, so that what follows can look at the database."""

    async def whole() -> Any:
        try:
            return await work()
        finally:
            await ingest.drain()

    return asyncio.run(whole())


def send(body: Any, token: str | None = None, **over: Any) -> Answer:
    answer: Answer = run(lambda: call(request(body, token, **over)))
    return answer


def send_at_once(requests: Sequence[Request]) -> list[Answer]:
    """All on their way before the first is written."""

    async def work() -> list[Answer]:
        return list(await asyncio.gather(*(call(one) for one in requests)))

    answers: list[Answer] = run(work)
    return answers
