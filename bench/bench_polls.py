"""An empty poll among 1,000,000 finished jobs of 200 nodes: the claim of a node that has nothing queued.

The same statement, once with the table of open jobs that HyprBox has and once with the obvious index in its place: by node
and time, whatever the status.
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
        figure("polls: empty ones, with 1,000,000 historic jobs", rates["open"], "1/s"),
        figure("polls: the same with an index on all jobs", rates["all"], "1/s"),
        at_least("polls: open jobs / index on all jobs", rates["open"] / rates["all"], "times", 20.0),
    ]
