"""What the audit log costs those who write, and how fast it is read back.

Eight writers change a row each, one commit a change, with and without an entry of the log in the same transaction, in
turns, while the sequencer chains what they wrote. Each turn is compared with the one beside it, and the median counts. Then
the whole log is verified.
"""

from __future__ import annotations

import json
import subprocess
import sys

from bench.harness import ROOT, Context, Result, at_least, figure

SHARE, VERIFIED, TIMES = 0.7, 50_000, 50


def run(context: Context) -> list[Result]:
    environment = context.environment(context.new_database("audit"), HYPRBOX_LOG_LEVEL="WARNING")
    command = [sys.executable, "-m", "bench.audit_probe"]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    context.say(
        f"    {found['without']:,.0f} commits/s, {found['with']:,.0f} with an entry; {found['entries']:,} verified"
    )
    return [
        figure("audit: commits without entries, 8 writers", found["without"], "commits/s"),
        figure("audit: commits with an entry each", found["with"], "commits/s"),
        at_least("audit: with an entry / without", found["share"], "times", SHARE),
        at_least("audit: entries verified", found["verified"], "entries/s", VERIFIED),
        at_least("audit: verified / appended", found["verified"] / found["with"], "times", TIMES),
    ]
