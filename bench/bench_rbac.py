"""What permissions cost a list: the statements of each list page and call, with every check and without any."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.harness import ROOT, Context, Result, at_most, figure


def run(context: Context) -> list[Result]:
    url = context.new_database("rbac")
    command = [sys.executable, "-m", "bench.rbac_probe"]
    done = subprocess.run(command, cwd=ROOT, env=context.environment(url), check=True, capture_output=True, text=True)
    found: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    added = {path: one["checked"] - one["unchecked"] for path, one in found.items()}
    grown = {path: one["checked"] - one["short"] for path, one in found.items()}
    for path, one in found.items():
        context.say(f"    {path}: {one['checked']} statements, {one['unchecked']} without checks")
    return [
        figure("lists: how many were asked", len(found), "lists"),
        figure("lists: statements of the largest", max(one["checked"] for one in found.values()), "statements"),
        at_most("lists: statements that permissions add, most", max(added.values()), "statements", 0),
        at_most("lists: statements more for 20 rows than for 2, most", max(grown.values()), "statements", 0),
    ]
