"""Heartbeats a second through one web process, beside Fastify with the same work on the same tables.

Each answer leaves after COMMIT. The servers have one core, PostgreSQL and the load generator the rest; the
variants take turns, and the ratio of their medians counts.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench import servers
from bench.harness import Context, Result, at_least, at_most, figure
from bench.servers import BenchNode

NODES = 1_000
ROUNDS = 5
SECONDS = 3
CONNECTIONS = (32, 64)
COUNTED = 20_000
LANE = "/api/nodes/heartbeat"


@dataclass(frozen=True)
class Run:
    rate: float
    p99_ms: float
    errors: int


def run(context: Context) -> list[Result]:
    servers.install_peers()
    url = context.new_database("heartbeats")
    servers.pin_postgres(context)
    fleet = servers.make_fleet(context.folder, url, NODES)
    _write_lists(context.folder, fleet)
    with servers.web(context, url) as ours, servers.peer("heartbeats.mjs", DATABASE_URL=url) as fastify:
        variants = {"ours": f"{ours.url}{LANE}", "one": f"{fastify.url}/one", "three": f"{fastify.url}/three"}
        results = _exactness(context, url, variants["ours"])
        for address in variants.values():
            _load(context, address, 32, 1)
        for connections in CONNECTIONS:
            results += _compare(context, variants, connections)
    return results


def _exactness(context: Context, url: str, address: str) -> list[Result]:
    """Exactly one row for each heartbeat that was accepted, counted over an exact number of requests."""
    before = _rows(url)
    answer = _node_load(context, address, 64, COUNTED, is_counted=True)
    statuses: dict[str, int] = answer["statuses"]
    accepted = statuses.pop("202", 0)
    return [
        at_most("heartbeats: answers other than 202", sum(statuses.values()), "answers", 0),
        at_most("heartbeats: rows missing or doubled", abs(_rows(url) - before - accepted), "rows", 0),
    ]


def _compare(context: Context, variants: dict[str, str], connections: int) -> list[Result]:
    runs: dict[str, list[Run]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, address in variants.items():
            runs[name].append(_load(context, address, connections, SECONDS))
        context.postgres.execute("CHECKPOINT")  # in nobody's turn
    rates = {name: statistics.median(run.rate for run in found) for name, found in runs.items()}
    label = f"{connections} connections"
    context.say("    " + label + ": " + ", ".join(f"{name} {rate:,.0f}/s" for name, rate in rates.items()))
    return [
        figure(f"heartbeats: ours, {label}", rates["ours"], "1/s"),
        figure(f"heartbeats: ours, 99th percentile, {label}", statistics.median(r.p99_ms for r in runs["ours"]), "ms"),
        at_most(f"heartbeats: errors, {label}", sum(r.errors for r in runs["ours"]), "answers", 0),
        at_least(f"heartbeats: ours / Fastify in one statement, {label}", rates["ours"] / rates["one"], "times", 2.0),
        at_least(f"heartbeats: ours / Fastify in three, {label}", rates["ours"] / rates["three"], "times", 4.0),
    ]


def _load(context: Context, address: str, connections: int, seconds: float) -> Run:
    """wrk where it is installed, else the generator of the peers."""
    time.sleep(0.2)
    if not shutil.which("wrk"):
        answer = _node_load(context, address, connections, seconds)
        errors = sum(number for status, number in answer["statuses"].items() if status != "202")
        return Run(answer["rate"], answer["p99_ms"], errors)
    base, _, path = address.removeprefix("http://").partition("/")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(servers.PEERS / "heartbeats.lua")]
    found = _pinned([*command, f"http://{base}", "--", f"/{path}", str(context.folder / "heartbeats.lua")])
    answer = json.loads(found[found.index("RESULT ") + 7 :])
    return Run(answer["requests"] / answer["micros"] * 1e6, answer["p99"] / 1000, answer["errors"])


def _node_load(context: Context, address: str, connections: int, amount: float, *, is_counted: bool = False) -> dict:
    command = ["node", str(servers.PEERS / "load.mjs"), address, str(context.folder / "heartbeats.jsonl")]
    found = _pinned([*command, str(connections), f"{amount:g}"], COUNT=str(int(is_counted)))
    answer: dict = json.loads(found)
    return answer


def _pinned(command: list[str], **environment: str) -> str:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    os.sched_setaffinity(process.pid, servers.OTHER_CORES)
    out, _ = process.communicate(timeout=120)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return out


def _rows(url: str) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT count(*) FROM nodes_heartbeat").fetchone()
    assert row is not None
    return int(row[0])


def _write_lists(folder: Path, fleet: list[BenchNode]) -> None:
    """The prepared requests, for wrk and for the generator in Node."""
    pairs = [(node.token, node.heartbeat(cpu_percent=index % 100)) for index, node in enumerate(fleet)]
    lines = [json.dumps({"token": token, "body": body}) for token, body in pairs]
    (folder / "heartbeats.jsonl").write_text("\n".join(lines))
    entries = [f"{{{json.dumps(token)}, {json.dumps(body)}}}," for token, body in pairs]
    (folder / "heartbeats.lua").write_text("return {\n" + "\n".join(entries) + "\n}\n")
