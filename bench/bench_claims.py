"""Cycles of claim and complete a second, on one PostgreSQL, beside three job queues: each job is taken and ended once.

In: all statements that an agent's job costs us, the dispatcher that gathers them, hints to viewers, durable COMMITs. A
cycle of ours has three steps, because a start is a promise of its own; the peers have two, fetch and complete. As an agent
polls while its job runs, its next claim is asked for when a completion makes room, and is written together with that. Out, on all
sides alike: HTTP, credentials, the script and its output. Clients have one core, PostgreSQL the others.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from bench import servers
from bench.harness import ROOT, Context, Result, at_least, at_most, figure

POLLERS = (8, 32)
ROUNDS = 3
JOBS = {"ours": 6_000, "graphile-worker": 3_000, "pg-boss": 800, "procrastinate": 800}
BARS = {"graphile-worker": 1.3, "pg-boss": 4.0, "procrastinate": 4.0}


def run(context: Context) -> list[Result]:
    servers.install_peers()
    servers.pin_postgres(context)
    ours = context.new_database("claims", as_owner=True)  # it empties tables between rounds
    results: list[Result] = []
    failures = 0
    for pollers in POLLERS:
        rates: dict[str, list[float]] = {name: [] for name in JOBS}
        for _ in range(ROUNDS):
            for name in JOBS:
                answer = _cycles(context, name, ours, pollers)
                rates[name].append(answer["rate"])
                failures += not answer["once"]
            context.postgres.execute("CHECKPOINT")  # in nobody's turn
        results += _compare(context, pollers, {name: statistics.median(found) for name, found in rates.items()})
    return [*results, at_most("claims: runs with a job lost or doubled", failures, "runs", 0)]


def _compare(context: Context, pollers: int, rates: dict[str, float]) -> list[Result]:
    label = f"{pollers} pollers"
    context.say(f"    {label}: " + ", ".join(f"{name} {rate:,.0f}/s" for name, rate in rates.items()))
    ratios = [
        at_least(f"claims: ours / {name}, {label}", rates["ours"] / rates[name], "times", bar)
        for name, bar in BARS.items()
    ]
    return [figure(f"claims: ours, {label}", rates["ours"], "cycles/s"), *ratios]


def _cycles(context: Context, name: str, ours: str, pollers: int) -> dict[str, Any]:
    numbers = [str(pollers), str(JOBS[name])]
    if name == "ours":
        return _pinned([sys.executable, "-m", "bench.claims_probe", *numbers], context.environment(ours))
    url = context.new_database("claims_peer", migrated=False, as_owner=True)
    commands: dict[str, Callable[[], list[str]]] = {
        "graphile-worker": lambda: ["node", str(servers.PEERS / "claims_graphile.mjs"), *numbers],
        "pg-boss": lambda: ["node", str(servers.PEERS / "claims_boss.mjs"), *numbers],
        "procrastinate": lambda: [sys.executable, "-m", "bench.procrastinate_probe", url, *numbers],
    }
    return _pinned(commands[name](), {**os.environ, "NODE_ENV": "production", "DATABASE_URL": url})


def _pinned(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, servers.SERVER_CORES)
    out, _ = process.communicate(timeout=120)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answer
