"""An empty poll among 1,000,000 finished jobs of 200 nodes: the claim of a node that has nothing queued.

The same statement, once with the indexes that HyprBox has and once with the obvious one in place of the partial ones:
by node and time, whatever the status.
"""

from __future__ import annotations

import json
import subprocess
import sys

from bench.harness import ROOT, Context, Result, at_least, figure


def run(context: Context) -> list[Result]:
    url = context.new_database("polls", as_owner=True)  # it makes and drops indexes
    command = [sys.executable, "-m", "bench.polls_probe", url]
    done = subprocess.run(
        command, cwd=ROOT, env=context.environment(url), check=True, stdout=subprocess.PIPE, text=True
    )
    rates = json.loads(done.stdout.splitlines()[-1])
    context.postgres.execute('DROP DATABASE "polls" WITH (FORCE)')  # a gigabyte that nobody needs any more
    return [
        figure("polls: empty ones, with 1,000,000 historic jobs", rates["partial"], "1/s"),
        figure("polls: the same with an index on all jobs", rates["whole"], "1/s"),
        at_least("polls: partial index / index on all jobs", rates["partial"] / rates["whole"], "times", 20.0),
    ]
