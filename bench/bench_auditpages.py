"""Pages of an audit log with 1,000,000 entries: the newest, the oldest, and by each filter."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.harness import ROOT, Context, Result, at_most, figure

ENTRIES, MILLISECONDS = 1_000_000, 25


def run(context: Context) -> list[Result]:
    url = context.new_database("auditpages", as_owner=True)  # it fills the log past its triggers
    command = [sys.executable, "-m", "bench.auditpages_probe", str(ENTRIES)]
    done = subprocess.run(command, cwd=ROOT, env=context.environment(url), check=True, capture_output=True, text=True)
    ms: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    worst = max(ms.values())
    return [
        *(figure(f"audit, {ENTRIES:,} entries: {name}", value, "ms") for name, value in ms.items()),
        at_most(f"audit, {ENTRIES:,} entries: the slowest page", worst, "ms", MILLISECONDS),
    ]
