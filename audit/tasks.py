"""Time-driven work on the audit log: the worker runs it, two workers at once do no harm."""

from __future__ import annotations

from procrastinate.contrib.django import app

from audit import counting, sequencer


@app.periodic(cron="* * * * *")  # only where no web process is up: those do it at once
@app.task(queueing_lock="audit.sequence", pass_context=False)
def sequence(timestamp: int) -> None:
    sequencer.sequence()


@app.periodic(cron="41 * * * *")
@app.task(queueing_lock="audit.forget_old_counters", pass_context=False)
def forget_old_counters(timestamp: int) -> None:
    counting.forget_old()
