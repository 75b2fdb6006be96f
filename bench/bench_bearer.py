"""A bad bearer token against a good request: CPU of the web process for each."""

from __future__ import annotations

import http.client
import secrets
import statistics
import subprocess
import sys

from bench import servers
from bench.harness import ROOT, Context, Result, at_most, figure

GOOD = 100
PEOPLE = 20  # who share the good requests: one alone would soon be told to wait, and that costs less
BAD = 1_000
ROUNDS = 3


def run(context: Context) -> list[Result]:
    url = context.new_database("bearer")
    command = [sys.executable, "-m", "bench.people_probe", str(PEOPLE)]
    done = subprocess.run(command, cwd=ROOT, env=context.environment(url), check=True, capture_output=True, text=True)
    good = done.stdout.split()
    head, _, rest = good[0].partition(".")
    bad = {
        "not a token": ["x" * 40],
        "forged": [f"{head}.{rest.partition('.')[0]}.{secrets.token_urlsafe(32)}"],
        "a key that nobody has": [f"hbak_{secrets.token_hex(4)}{secrets.token_urlsafe(32)}"],
    }
    with servers.web(context, url, HYPRBOX_PUBLIC_URL="http://127.0.0.1") as server:
        costs: dict[str, list[float]] = {name: [] for name in ("good", *bad)}
        for tokens in (good, *bad.values()):
            _send(server, tokens, 50)
        for _ in range(ROUNDS):  # in turns, so that what else the machine does meets all of them
            costs["good"].append(_send(server, good, GOOD))
            for name, tokens in bad.items():
                costs[name].append(_send(server, tokens, BAD))
    each = statistics.median(costs.pop("good"))
    results = [figure("a good DRF request", each * 1000, "ms CPU")]
    for name, found in costs.items():
        results.append(at_most(f"bad bearer / good request: {name}", statistics.median(found) / each, "times", 0.05))
    return results


def _send(server: servers.Server, tokens: list[str], number: int) -> float:
    """CPU seconds of the server for one such request. All of them are good, or none is."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    before = servers.cpu_seconds(server.pid)
    for each in range(number):
        connection.request("GET", "/api/auth/me", headers={"Authorization": f"Bearer {tokens[each % len(tokens)]}"})
        answer = connection.getresponse()
        answer.read()
        if (answer.status == 200) is not (len(tokens) > 1):
            raise RuntimeError(f"answered {answer.status}")
    connection.close()
    return (servers.cpu_seconds(server.pid) - before) / number
