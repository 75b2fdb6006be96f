"""What an idle fleet costs the database: 1,000 agents wait for work at one web process, and PostgreSQL logs each statement.

The bar is for what the agents cause: what the web process asks of the database without any agent is counted before, as long,
and subtracted. It stands beside as a figure, and so does the sum. The agents wait 25 s and ask again, so the 40 s that are
counted hold every agent's change from one poll to the next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

from bench import servers
from bench.harness import ROOT, Context, Result, at_most, figure
from bench.servers import Server

AGENTS = 1_000
SETTLE_SECONDS = 10
SECONDS = 40


@dataclass(frozen=True)
class Counted:
    """Of `SECONDS`: the statements that the database got, and the web process' seconds of CPU."""

    statements: list[str]
    cpu: float

    @property
    def rate(self) -> float:
        return len(self.statements) / SECONDS


def run(context: Context) -> list[Result]:
    url = context.new_database("idle")
    fleet = servers.make_fleet(context.folder, url, AGENTS)
    (context.folder / "agents").write_text("\n".join(f"{node.node_id} {node.token}" for node in fleet))
    context.postgres.execute("ALTER DATABASE idle SET log_statement = 'all'")
    with servers.web(context, url) as web:
        alone = _count(context, web)
        both, statuses = _count_with_agents(context, web)
    for name, counted in (("without agents", alone), ("with them", both)):
        lines = [f"{counted.statements.count(text)} x {text[:100]}" for text in sorted(set(counted.statements))]
        context.say("\n        ".join([f"    {name}, in {SECONDS} s:", *lines]))
    answered = statuses.pop("200", 0)
    return [
        at_most("idle: statements a second for 1,000 waiting agents", both.rate - alone.rate, "1/s", 1.0),
        figure("idle: statements a second without any agent", alone.rate, "1/s"),
        figure("idle: statements a second, together", both.rate, "1/s"),
        at_most("idle: answers other than 200, lost connections", sum(statuses.values()), "answers", 0),
        figure("idle: polls answered", answered, "polls"),
        figure("idle: CPU of the web process", both.cpu / SECONDS * 100, "%"),
    ]


def _count_with_agents(context: Context, web: Server) -> tuple[Counted, dict[str, int]]:
    """And what the agents were answered."""
    command = [sys.executable, "-m", "bench.idle_agents", web.url, str(context.folder / "agents")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as agents:
        os.sched_setaffinity(agents.pid, servers.OTHER_CORES)
        assert agents.stdin is not None and agents.stdout is not None
        if agents.stdout.readline().strip() != "waiting":
            raise RuntimeError("the agents did not connect")
        counted = _count(context, web)
        agents.stdin.close()
        statuses: dict[str, int] = json.loads(agents.stdout.readline())
    return counted, statuses


def _count(context: Context, web: Server) -> Counted:
    """Once what has just begun has settled."""
    time.sleep(SETTLE_SECONDS)
    log, cpu = context.postgres.place.log, servers.cpu_seconds(web.pid)
    size = log.stat().st_size
    if not _statements(log.read_text(errors="replace")):
        raise RuntimeError("PostgreSQL logs no statements")
    time.sleep(SECONDS)
    spent = servers.cpu_seconds(web.pid) - cpu
    with log.open(errors="replace") as file:
        file.seek(size)
        return Counted(_statements(file.read()), spent)


def _statements(text: str) -> list[str]:
    """Each statement begins a line `... LOG:  execute NAME: TEXT` or `... LOG:  statement: TEXT`; the text may go on."""
    found: list[str] = []
    for entry in text.replace("\n\t", " ").splitlines():
        _, is_log, rest = entry.partition(" LOG:  ")
        kind, is_statement, statement = rest.partition(": ")
        if is_log and is_statement and kind.split(" ")[0] in ("execute", "statement"):
            found.append(" ".join(statement.split()))
    return found
