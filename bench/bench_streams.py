"""1,000 viewers of the fleet's stream on one web process, at 100 events a second, beside a Node server that coalesces alike.

Ours hears each event from PostgreSQL and reads the node before it tells; the peer makes its events itself.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from bench import servers
from bench.harness import ROOT, Context, Result, at_least, at_most, figure
from bench.servers import BenchNode, Server

VIEWERS = 1_000
PER_PERSON = 20  # streams that one person may have open
RATE = 100
SECONDS = 8
EVENTS = RATE * SECONDS
ROUNDS = 2


@dataclass(frozen=True)
class Run:
    delivered: float
    p50_ms: float
    p99_ms: float
    cpu_percent: float


def run(context: Context) -> list[Result]:
    servers.install_peers()
    url = context.new_database("streams")
    servers.pin_postgres(context)
    fleet = servers.make_fleet(context.folder, url, 100)
    _write_credentials(context, url)
    ours, node = [], []
    for _ in range(ROUNDS):
        with servers.web(context, url) as web:
            ours.append(_watch(context, web, "/api/stream/nodes", lambda: _publish(url, fleet)))
        with servers.peer("streams.mjs") as peer:
            address = f"{peer.url}/start?events={EVENTS}&rate={RATE}"
            node.append(_watch(context, peer, "/stream", lambda address=address: _start(address)))  # type: ignore[misc]
    for one, other in zip(ours, node, strict=True):
        context.say(f"    ours {one}\n    Node {other}")
    mine, theirs = _middle(ours), _middle(node)
    return [
        at_least("streams: delivered to 1,000 viewers", min(run.delivered for run in ours) * 100, "%", 100),
        figure("streams: 99th percentile, ours", mine.p99_ms, "ms"),
        figure("streams: CPU, ours", mine.cpu_percent, "%"),
        at_most("streams: 99th percentile, ours / Node", mine.p99_ms / theirs.p99_ms, "times", 2.0),
        at_most("streams: CPU, ours / Node", mine.cpu_percent / theirs.cpu_percent, "times", 1.5),
    ]


def _middle(runs: list[Run]) -> Run:
    names = ("delivered", "p50_ms", "p99_ms", "cpu_percent")
    return Run(*(statistics.median(getattr(run, name) for run in runs) for name in names))


def _write_credentials(context: Context, url: str) -> None:
    command = [sys.executable, "-m", "bench.people_probe", str(VIEWERS // PER_PERSON)]
    done = subprocess.run(command, cwd=ROOT, env=context.environment(url), check=True, capture_output=True, text=True)
    (context.folder / "credentials").write_text(done.stdout)


def _watch(context: Context, server: Server, path: str, publish: Callable[[], None]) -> Run:
    command = [sys.executable, "-m", "bench.stream_viewers", f"{server.url}{path}", str(context.folder / "credentials")]
    with subprocess.Popen(
        [*command, str(VIEWERS), str(EVENTS)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as viewers:
        os.sched_setaffinity(viewers.pid, servers.OTHER_CORES)
        assert viewers.stdin is not None and viewers.stdout is not None
        if viewers.stdout.readline().strip() != "connected":
            raise RuntimeError("the viewers did not connect")
        time.sleep(1)
        cpu, started = servers.cpu_seconds(server.pid), time.monotonic()
        publish()
        busy = (servers.cpu_seconds(server.pid) - cpu) / (time.monotonic() - started) * 100
        viewers.stdin.close()
        answer = json.loads(viewers.stdout.readline())
    return Run(answer["delivered"], answer["p50_ms"], answer["p99_ms"], busy)


def _publish(url: str, fleet: list[BenchNode]) -> None:
    """What another process' writes look like: a changed row and a hint, in one transaction."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as conn:
        started = time.monotonic()
        for number in range(EVENTS):
            time.sleep(max(0.0, started + number / RATE - time.monotonic()))
            node = fleet[number % len(fleet)]
            conn.execute(
                """
                WITH beat AS (UPDATE nodes_node SET last_seen_at = clock_timestamp() WHERE id = %s RETURNING id)
                SELECT pg_notify('hyprbox', json_build_object('topic', 'nodes', 'node', json_build_array(id))::text) FROM beat
                """,
                (node.pk,),
            )


def _start(address: str) -> None:
    with urllib.request.urlopen(address):
        time.sleep(SECONDS)
