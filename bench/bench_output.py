"""Storing a job's output: chunk rows, as the product does it, against one growing text column."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from bench.harness import ROOT, Context, Result, at_least, at_most, figure


def run(context: Context) -> list[Result]:
    url = context.new_database("output", as_owner=True)  # it makes a table to compare with
    command = [sys.executable, "-m", "bench.output_probe"]
    done = subprocess.run(command, cwd=ROOT, env=context.environment(url), check=True, capture_output=True, text=True)
    rounds = json.loads(done.stdout.splitlines()[-1])
    results: list[Result] = []
    for size in (65536, 16384):
        mine = [r for r in rounds if r["size"] == size]
        ours = statistics.median(r["ours"] for r in mine)
        column = statistics.median(r["column"] for r in mine)
        wal = statistics.median(r["wal_per_byte"] for r in mine)
        label = f"output, {size // 1024} KiB pieces"
        results += [
            figure(f"{label}: ours, through the agent's verb", ours, "MB/s"),
            figure(f"{label}: one text column", column, "MB/s"),
            at_least(f"{label}: ours / text column", ours / column, "times", 10.0),
            at_most(f"{label}: WAL", wal, "bytes a byte", 1.5),
        ]
    return results
