"""Rendering grows with the text and no faster: a preset of 200 lines beside one of 20, with the same variables.

Presets are checked when they are saved or read, so what is measured is what every preview and every queued job pays: checking the values
and building the script.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from bench.harness import Context, Result, at_most, figure
from presets import documents, rendering

ROUNDS = 41
CALLS = 200
VARIABLES: list[dict[str, Any]] = [
    {"name": "SERVER_NAME", "type": "hostname", "required": True},
    {"name": "PORT", "type": "port", "required": True, "default": 443},
    {"name": "ROOT", "type": "path", "required": True, "pattern": "/[A-Za-z0-9._/-]+"},
    {"name": "NOTE", "type": "string"},
]
VALUES = {"SERVER_NAME": "web-1.example.org", "ROOT": "/srv/www/site", "NOTE": 'it\'s "quoted" $(and) `more`'}
LINE = 'printf \'%s listens on %s, below %s: %s\\n\' "$SERVER_NAME" "$PORT" "$ROOT" "$NOTE"'


def run(context: Context) -> list[Result]:
    short, long = _preset(20), _preset(200)
    rendered = rendering.render(long, VALUES)
    if rendered.text.count(LINE) < 190:
        raise RuntimeError("the long preset did not arrive in the script")
    seconds: dict[str, list[float]] = {"short": [], "long": []}
    for _ in range(ROUNDS):
        seconds["short"].append(_seconds(short))
        seconds["long"].append(_seconds(long))
    ratios = [long_one / short_one for short_one, long_one in zip(seconds["short"], seconds["long"], strict=True)]
    return [
        at_most("rendering: 200 lines / 20 lines", statistics.median(ratios), "times", 5.0),
        figure("rendering: 20 lines", statistics.median(seconds["short"]) / CALLS * 1e6, "µs"),
        figure("rendering: 200 lines", statistics.median(seconds["long"]) / CALLS * 1e6, "µs"),
    ]


def _preset(lines: int) -> documents.Preset:
    """A preset whose four parts have so many lines together."""
    each = lines // len(documents.PARTS)
    parts = {part: "\n".join([LINE] * each) + "\n" for part in documents.PARTS}
    about = {"name": f"lines-{lines}", "title": "For measuring", "description": "For measuring.", "category": "bench"}
    return documents.parse({**about, "risk": "safe", "variables": VARIABLES, **parts})


def _seconds(preset: documents.Preset) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        rendering.render(preset, VALUES)
    return time.perf_counter() - began
