"""Time-driven work that concerns several apps: the worker runs it, two workers at once do no harm."""

from __future__ import annotations

from procrastinate.contrib.django import app

from hyprbox import integrity
from hyprbox.lib.actors import Actor


@app.periodic(cron="29 * * * *")
@app.task(queueing_lock="hyprbox.verify_integrity", pass_context=False)
def verify_integrity(timestamp: int) -> None:
    integrity.verify(by=Actor.system("hourly check"))
