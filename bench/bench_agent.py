"""What the agent costs the server it is a guest on: memory and CPU when idle, and the way from queue to first line."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import httpx
import psutil

from bench.harness import Context, Result, at_most, figure
from tests.house import EMAIL, PASSWORD, SEEN, House, house, wait_for

IDLE_SECONDS = 60
JOBS = 21
VARIABLES = {"SHOW_UPDATES": "false", "SHOW_NETWORK": "false"}


def run(context: Context) -> list[Result]:
    folder = context.folder / "house"
    with house(folder, HYPRBOX_INTERVAL="10s") as made:
        made.start()
        http = httpx.Client(base_url=made.url, timeout=30)
        access = http.post("/api/auth/login", json={"email": EMAIL, "password": PASSWORD}).json()["access"]
        http.headers["Authorization"] = f"Bearer {access}"
        node = http.get("/api/nodes").json()["results"][0]["node_id"]
        wait_for(lambda: http.get(f"/api/nodes/{node}").json()["status"] in SEEN)
        context.say(f"watching an idle agent for {IDLE_SECONDS} s")
        results = idle(made)
        context.say(f"{JOBS} jobs from queue to first line")
        return results + latency(http, node)


def idle(made: House) -> list[Result]:
    agent = next(p for p in _family(made) if any("hyprnode" in part for part in p.cmdline()))
    time.sleep(5)  # past its start
    before = _cpu_seconds(agent.pid)
    time.sleep(IDLE_SECONDS)
    spent = _cpu_seconds(agent.pid) - before
    resident = agent.memory_info().rss / 1024 / 1024
    return [
        at_most("agent: resident when idle", resident, "MiB", 40.0),
        at_most("agent: CPU of an hour at 10 s", spent * 3600 / IDLE_SECONDS, "s", 8.0),
    ]


def _family(made: House) -> list[psutil.Process]:
    assert made.process is not None
    return psutil.Process(made.process.pid).children(recursive=True)


def _cpu_seconds(pid: int) -> float:
    """The scheduler's own count of all threads, in nanoseconds: clock ticks are too coarse for so little."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def latency(http: httpx.Client, node: str) -> list[Result]:
    """From the moment a person's request leaves to the first byte of output on the job's stream."""
    taken = []
    for _ in range(JOBS):
        began = time.perf_counter()
        body = {"preset": "system-report", "variables": VARIABLES, "node_id": node}
        job = http.post("/api/jobs", json=body).raise_for_status().json()["id"]
        with http.stream("GET", f"/api/jobs/{job}/stream") as events:
            first = 0.0
            for line in events.iter_lines():
                if line == "event: stdout" and not first:
                    first = time.perf_counter() - began
                if line == "event: done":
                    break
        assert first, "a job ended without a line"
        status = http.get(f"/api/jobs/{job}").json()
        assert status["status"] == "SUCCEEDED", json.dumps(status)[:500]
        taken.append(first * 1000)
    p95 = statistics.quantiles(taken, n=20)[-1]
    return [
        figure("queue to first line: median", statistics.median(taken), "ms"),
        at_most("queue to first line: p95", p95, "ms", 1000.0),
    ]
