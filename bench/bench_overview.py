"""The overview's data with sparklines: from the stored row of each node, against its heartbeats of a day."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.harness import ROOT, Context, Result, at_least, at_most, figure


def run(context: Context) -> list[Result]:
    url = context.new_database("overview", as_owner=True)  # it calls VACUUM
    command = [sys.executable, "-m", "bench.overview_probe", url]
    done = subprocess.run(command, cwd=ROOT, env=context.environment(url), check=True, capture_output=True, text=True)
    ms = json.loads(done.stdout.splitlines()[-1])
    return [
        figure("overview, 1,000 nodes: sparklines from heartbeats", ms["raw_1000"], "ms"),
        figure("overview, 1,000 nodes: stored", ms["stored_1000"], "ms"),
        figure("overview, 1,000 nodes: stored, as the page's cards", ms["page_1000"], "ms"),
        figure("overview, 10,000 nodes: stored", ms["stored_10000"], "ms"),
        at_least("overview, 1,000 nodes: heartbeats / stored", ms["raw_1000"] / ms["stored_1000"], "times", 50.0),
        at_most("overview: 10,000 nodes / 1,000 nodes", ms["stored_10000"] / ms["stored_1000"], "times", 12.0),
    ]
