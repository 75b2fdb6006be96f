"""All seals at once: how long `integrity_verify` takes for 100,000 rows, which the worker does every hour."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.harness import ROOT, Context, Result, at_most, figure

ROWS, SECONDS = 100_000, 60


def run(context: Context) -> list[Result]:
    url = context.new_database("integrity", as_owner=True)  # it calls VACUUM
    command = [sys.executable, "-m", "bench.integrity_probe", str(ROWS)]
    done = subprocess.run(command, cwd=ROOT, env=context.environment(url), check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return [
        figure("integrity: rows", found["checked"], "rows"),
        at_most(f"integrity: {ROWS:,} rows", found["seconds"] * ROWS / found["checked"], "s", SECONDS),
    ]
