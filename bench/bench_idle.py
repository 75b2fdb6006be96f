"""What an idle fleet costs the database: 1,000 agents wait for work at one web process, and PostgreSQL logs each statement.

The agents wait 25 s and ask again, so the 40 s that are counted hold every agent's change from one poll to the next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from bench import servers
from bench.harness import ROOT, Context, Result, at_most, figure
from bench.servers import Server

AGENTS = 1_000
SETTLE_SECONDS = 10
SECONDS = 40


def run(context: Context) -> list[Result]:
    url = context.new_database("idle")
    fleet = servers.make_fleet(context.folder, url, AGENTS)
    (context.folder / "agents").write_text("\n".join(f"{node.node_id} {node.token}" for node in fleet))
    context.postgres.execute("ALTER DATABASE idle SET log_statement = 'all'")
    with servers.web(context, url) as web:
        statements, cpu, statuses = _watch(context, web)
    context.say("\n".join(f"    {statements.count(text)} x {text[:100]}" for text in sorted(set(statements))))
    answered = statuses.pop("200", 0)
    return [
        at_most("idle: statements a second for 1,000 waiting agents", len(statements) / SECONDS, "1/s", 1.0),
        at_most("idle: answers other than 200, lost connections", sum(statuses.values()), "answers", 0),
        figure("idle: polls answered", answered, "polls"),
        figure("idle: CPU of the web process", cpu / SECONDS * 100, "%"),
    ]


def _watch(context: Context, web: Server) -> tuple[list[str], float, dict[str, int]]:
    """The statements of the counted time, the web process' seconds of CPU in it, and what the agents were answered."""
    command = [sys.executable, "-m", "bench.idle_agents", web.url, str(context.folder / "agents")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as agents:
        os.sched_setaffinity(agents.pid, servers.OTHER_CORES)
        assert agents.stdin is not None and agents.stdout is not None
        if agents.stdout.readline().strip() != "waiting":
            raise RuntimeError("the agents did not connect")
        time.sleep(SETTLE_SECONDS)
        log, cpu = context.postgres.place.log, servers.cpu_seconds(web.pid)
        size = log.stat().st_size
        if not _statements(log.read_text(errors="replace")):
            raise RuntimeError("PostgreSQL logs no statements")
        time.sleep(SECONDS)
        spent = servers.cpu_seconds(web.pid) - cpu
        with log.open(errors="replace") as file:
            file.seek(size)
            statements = _statements(file.read())
        agents.stdin.close()
        statuses: dict[str, int] = json.loads(agents.stdout.readline())
    return statements, spent, statuses


def _statements(text: str) -> list[str]:
    """Each statement begins a line `... LOG:  execute NAME: TEXT` or `... LOG:  statement: TEXT`; the text may go on."""
    found: list[str] = []
    for entry in text.replace("\n\t", " ").splitlines():
        _, is_log, rest = entry.partition(" LOG:  ")
        kind, is_statement, statement = rest.partition(": ")
        if is_log and is_statement and kind.split(" ")[0] in ("execute", "statement"):
            found.append(" ".join(statement.split()))
    return found
