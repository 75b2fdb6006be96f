"""Time-driven work that concerns several apps: the worker runs it, two workers at once do no harm."""

from __future__ import annotations

from procrastinate import JobContext
from procrastinate.contrib.django import app

from hyprbox import integrity
from hyprbox.lib.actors import Actor


@app.periodic(cron="29 * * * *")
@app.task(queueing_lock="hyprbox.verify_integrity", pass_context=False)
def verify_integrity(timestamp: int) -> None:
    integrity.verify(by=Actor.system("hourly check"))


@app.periodic(cron="53 4 * * *")
@app.task(queueing_lock="hyprbox.forget_failed_tasks", pass_context=True)
async def forget_failed_tasks(context: JobContext, timestamp: int) -> None:
    """What succeeded is gone at once (`hyprbox.worker`); what failed can be looked at for a month."""
    await context.app.job_manager.delete_old_jobs(nb_hours=30 * 24, include_failed=True, include_aborted=True)
