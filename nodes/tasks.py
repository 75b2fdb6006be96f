"""Time-driven work on nodes: the worker runs it, two workers at once do no harm."""

from __future__ import annotations

from procrastinate.contrib.django import app

from nodes import history, services


@app.periodic(cron="* * * * * */15")  # the sixth field is the seconds
@app.task(queueing_lock="nodes.announce_flips", pass_context=False)
def announce_flips(timestamp: int) -> None:
    services.announce_flips()


@app.periodic(cron="* * * * *")
@app.task(queueing_lock="nodes.draw_young_sparklines", pass_context=False)
def draw_young_sparklines(timestamp: int) -> None:
    history.redraw_sparklines(only_young=True)


@app.periodic(cron="*/5 * * * * 15")
@app.task(queueing_lock="nodes.roll_up", pass_context=False)
def roll_up(timestamp: int) -> None:
    history.roll_up()
    history.redraw_sparklines()


@app.periodic(cron="41 * * * *")
@app.task(queueing_lock="nodes.keep_partitions", pass_context=False)
def keep_partitions(timestamp: int) -> None:
    history.make_partitions()
    history.drop_old()
