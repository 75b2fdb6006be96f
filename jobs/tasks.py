"""Time-driven work: the worker runs it, two workers at once do no harm."""

from __future__ import annotations

from procrastinate.contrib.django import app

from jobs import authors, batches, deadlines, drift, retention, services
from jobs.models import OpenJob


@app.periodic(cron="* * * * * */10")  # the sixth field is the seconds
@app.task(queueing_lock="jobs.enforce_deadlines", pass_context=False)
def enforce_deadlines(timestamp: int) -> None:
    has_open_jobs = OpenJob.objects.exists()  # an idle fleet costs the database one question
    if has_open_jobs:
        deadlines.enforce()
    batches.advance_all()
    if has_open_jobs:
        authors.cancel_of_the_rightless()  # after the batches: those say themselves why their waves do not come


@app.periodic(cron="17 * * * *")
@app.task(queueing_lock="jobs.forget_old_keys", pass_context=False)
def forget_old_keys(timestamp: int) -> None:
    services.forget_old_keys()


@app.periodic(cron="47 3 * * *")
@app.task(queueing_lock="jobs.forget_old_output", pass_context=False)
def forget_old_output(timestamp: int) -> None:
    retention.mend_open_jobs()
    retention.forget_old_output()


@app.periodic(cron="*/10 * * * *")
@app.task(queueing_lock="jobs.check_drift", pass_context=False)
def check_drift(timestamp: int) -> None:
    drift.queue_due()
