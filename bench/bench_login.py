"""Failed logins take the same time: an address that nobody has, a wrong password, a disabled account, and a right password
without the second factor, or with a wrong code of the app, or with a wrong recovery code."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.harness import ROOT, Context, Result, at_most, figure


def run(context: Context) -> list[Result]:
    url = context.new_database("login")
    command = [sys.executable, "-m", "bench.login_probe"]
    done = subprocess.run(command, cwd=ROOT, env=context.environment(url), check=True, capture_output=True, text=True)
    ms: dict[str, tuple[float, float]] = json.loads(done.stdout.splitlines()[-1])
    results = [figure(f"failed login, {name}", clock, "ms") for name, (clock, _) in ms.items()]
    work = [cpu for _, cpu in ms.values()]  # the clock of a busy machine says little
    spread = max(work) / min(work)
    return [*results, at_most("failed logins: CPU of the slowest / fastest kind", spread, "times", 1.1)]
