"""How soon `hyprbox` is there: its help, against the interpreter with the two libraries that any such tool would load."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from bench.harness import ROOT, Context, Result, at_most, figure

ROUNDS = 15
COMMANDS = {
    "bare": [sys.executable, "-c", "import click, requests"],
    "help": [sys.executable, "-m", "agent.cli", "--help"],
    "nodes": [sys.executable, "-m", "agent.cli", "nodes", "list", "--help"],
    "local": [sys.executable, "-m", "agent.cli", "preset", "list", "--local"],
}


def run(context: Context) -> list[Result]:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - began)
    ms = {name: statistics.median(values) * 1000 for name, values in seconds.items()}
    return [
        figure("cli: python -c 'import click, requests'", ms["bare"], "ms"),
        figure("cli: hyprbox --help", ms["help"], "ms"),
        figure("cli: hyprbox nodes list --help", ms["nodes"], "ms"),
        figure("cli: hyprbox preset list --local", ms["local"], "ms"),
        at_most("cli: hyprbox --help / python with click and requests", ms["help"] / ms["bare"], "times", 2.5),
    ]
