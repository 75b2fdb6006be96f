"""Run by `bench_idle` in a process of its own: many agents that wait for work, as hyprnode does when there is none.

argv: address, file with `node_id token` a line. A line on stdout says that all wait; when stdin closes, the next one says
as JSON what they were answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

WAIT_SECONDS = 25


class Agent(asyncio.Protocol):
    """One connection, on which a poll follows the other."""

    def __init__(self, host: str, node_id: str, token: str, statuses: Counter[str]) -> None:
        self.host, self.node_id, self.token, self.statuses = host, node_id, token, statuses
        self._text = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.statuses["closed"] += 1

    def data_received(self, data: bytes) -> None:
        self._text += data
        head, found, body = self._text.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) >= length:
            self._text = b""
            self.statuses[head.split(b" ", 2)[1].decode()] += 1
            self._ask()

    def _ask(self) -> None:
        path = f"/api/jobs/pending?node_id={self.node_id}&request_id={uuid.uuid4()}&wait={WAIT_SECONDS}"
        text = f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {self.token}\r\n\r\n"
        self._transport.write(text.encode())


async def main(address: str, agents: list[str]) -> None:
    url, loop = urlsplit(address), asyncio.get_running_loop()
    statuses: Counter[str] = Counter()
    for index, agent in enumerate(agents):
        node_id, token = agent.split()
        made = Agent(url.netloc, node_id, token, statuses)
        await loop.create_connection(lambda made=made: made, url.hostname, url.port)  # type: ignore[misc]
        if index % 20 == 19:
            await asyncio.sleep(0.05)  # a fleet's polls end and begin at all times, not at one
    print("waiting", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(json.dumps(statuses), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], Path(sys.argv[2]).read_text().splitlines()))
