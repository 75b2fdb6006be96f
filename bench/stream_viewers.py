"""Run by `bench_streams` in a process of its own: many viewers of one stream, counting what reaches each of them.

argv: address, file with one credential a line, number of viewers, expected events. A line on stdout says that all
are connected; the next one, when the expected events came or 15 s after stdin closed, is the result as JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

MARK = b'"node_id"'
SAMPLED = 25  # viewers whose every event is timed
_SEEN = re.compile(rb'"last_seen_at":"([^"]+)"')


class Viewer(asyncio.Protocol):
    def __init__(self, request: bytes, is_sampled: bool, connected: asyncio.Event) -> None:
        self.request, self.is_sampled, self.connected = request, is_sampled, connected
        self.count = 0
        self.delays: list[float] = []
        self._tail = b""
        self._is_settled = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        text = self._tail + data
        if not self._is_settled:
            self._tail = text
            if text.startswith(b"HTTP/1.1 200") and b"event: snapshot" in text and text.rstrip().endswith(b"}"):
                self._is_settled, self._tail = True, b""
                self.connected.set()
            return
        cut = text.rfind(b"}")  # what follows may be half a node
        whole, self._tail = text[: cut + 1], text[cut + 1 :]
        self.count += whole.count(MARK)
        if self.is_sampled:
            now = time.time()
            self.delays += [now - datetime.fromisoformat(at.decode()).timestamp() for at in _SEEN.findall(whole)]


async def main(address: str, credentials: list[str], number: int, expected: int) -> None:
    url, loop = urlsplit(address), asyncio.get_running_loop()
    viewers: list[Viewer] = []
    for index in range(number):
        credential = credentials[index % len(credentials)]
        request = f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {credential}\r\n\r\n"
        connected = asyncio.Event()
        viewer = Viewer(request.encode(), index % max(1, number // SAMPLED) == 0, connected)
        viewers.append(viewer)
        await loop.create_connection(lambda viewer=viewer: viewer, url.hostname, url.port)  # type: ignore[misc]
        if index % 20 == 19:
            await asyncio.wait_for(connected.wait(), 30)
    for viewer in viewers:
        await asyncio.wait_for(viewer.connected.wait(), 30)
    print("connected", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    deadline = loop.time() + 15
    while min(viewer.count for viewer in viewers) < expected and loop.time() < deadline:
        await asyncio.sleep(0.1)
    delays = sorted(delay for viewer in viewers for delay in viewer.delays)
    result = {
        "delivered": sum(min(viewer.count, expected) for viewer in viewers) / (number * expected),
        "p50_ms": delays[len(delays) // 2] * 1000,
        "p99_ms": delays[int(len(delays) * 0.99)] * 1000,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], Path(sys.argv[2]).read_text().split(), int(sys.argv[3]), int(sys.argv[4])))
