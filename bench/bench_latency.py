"""From a heartbeat to its pixel: POST by an agent until the event that carries it has reached a viewer.

A small fleet beats all the time, so that hints coalesce as they do in life.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from bench import servers
from bench.harness import ROOT, Context, Result, at_most, figure
from bench.servers import BenchNode, Server

SAMPLES = 120
FLEET = 100
BEATS_A_SECOND = 50
WAIT_SECONDS = 10.0


def run(context: Context) -> list[Result]:
    url = context.new_database("latency")
    fleet = servers.make_fleet(url, FLEET)
    command = [sys.executable, "-m", "bench.people_probe", "1"]
    done = subprocess.run(command, cwd=ROOT, env=context.environment(url), check=True, capture_output=True, text=True)
    with servers.web(context, url) as web:
        delays = sorted(_measure(web, done.stdout.strip(), fleet))
    part = delays[int(len(delays) * 0.95)]
    return [
        figure("heartbeat to pixel: median", statistics.median(delays), "ms"),
        at_most("heartbeat to pixel: 95th percentile", part, "ms", 1_000),
    ]


def _measure(web: Server, credential: str, fleet: list[BenchNode]) -> list[float]:
    subject, others = fleet[0], fleet[1:]
    viewer = Viewer(web, credential)
    stop = threading.Event()
    background = threading.Thread(target=_beat_on, args=(web, others, stop), daemon=True)
    viewer.start()
    background.start()
    try:
        return [_one(web, subject, viewer, round(random.uniform(1, 99), 6)) for _ in range(SAMPLES)]
    finally:
        stop.set()
        background.join()
        viewer.close()


def _one(web: Server, node: BenchNode, viewer: Viewer, value: float) -> float:
    """A figure that nothing else has, sent; and how long until the viewer sees it."""
    seen = viewer.expect(lambda shown: shown["node_id"] == node.node_id and shown["cpu_percent"] == value)
    started = time.monotonic()
    _post(web, node, value)
    if not seen.wait(WAIT_SECONDS):
        raise RuntimeError("a heartbeat was never shown")
    elapsed = (viewer.seen_at - started) * 1000
    time.sleep(random.uniform(0.05, 0.3))  # at any moment between two hints, and within the node's rate
    return elapsed


def _post(web: Server, node: BenchNode, value: float) -> None:
    address = urlsplit(web.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {node.token}"}
    connection.request("POST", "/api/nodes/heartbeat", node.heartbeat(cpu_percent=value), headers)
    status = connection.getresponse().status
    connection.close()
    if status != 202:
        raise RuntimeError(f"a heartbeat was answered with {status}")


def _beat_on(web: Server, fleet: list[BenchNode], stop: threading.Event) -> None:
    while not stop.wait(1 / BEATS_A_SECOND):
        _post(web, random.choice(fleet), 50)


class Viewer(threading.Thread):
    """One open stream, read line by line."""

    def __init__(self, web: Server, credential: str) -> None:
        super().__init__(daemon=True)
        address = urlsplit(web.url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        self._connection.request("GET", "/api/stream/nodes", headers={"Authorization": f"Bearer {credential}"})
        self._response = self._connection.getresponse()
        self._wanted: Callable[[dict[str, object]], bool] = lambda shown: False
        self._seen = threading.Event()
        self.seen_at = 0.0

    def expect(self, wanted: Callable[[dict[str, object]], bool]) -> threading.Event:
        self._seen.clear()
        self._wanted = wanted
        return self._seen

    def close(self) -> None:
        if self._connection.sock is not None:
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self.join()

    def run(self) -> None:
        while line := self._response.readline():
            if not line.startswith(b"data: "):
                continue
            now = time.monotonic()
            if any(self._wanted(node) for node in json.loads(line[6:]).get("nodes", ())):
                self.seen_at = now
                self._seen.set()
