"""The worker process: runs what time starts, and outlives its database.

procrastinate's worker ends when PostgreSQL goes away. Here it is then run again as soon as PostgreSQL answers, so that an
outage costs no restart by a supervisor, and nothing that is due waits for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal

import psycopg
import structlog
from procrastinate.contrib.django import app
from procrastinate.contrib.django.utils import connector_params
from procrastinate.exceptions import ConnectorException
from procrastinate.psycopg_connector import PsycopgConnector

from hyprbox.lib import db

RETRY_SECONDS = 1.0
ANSWER_SECONDS = 5.0  # for a connection of the pool; a stopping worker must not wait for longer either

log = structlog.get_logger(__name__)


async def work() -> None:
    """Until SIGTERM or SIGINT, which let the task that runs come to its end."""
    stop = asyncio.Event()
    running = asyncio.create_task(_work_until(stop), name="worker")

    def end() -> None:
        stop.set()
        running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def _work_until(stop: asyncio.Event) -> None:
    while not stop.is_set():  # a worker that is cancelled while its database is away ends with that error instead
        await _database()
        with app.replace_connector(PsycopgConnector(kwargs=connector_params(), timeout=ANSWER_SECONDS)):
            try:
                async with app.open_async():
                    # Twenty thousand tasks a day succeed: their rows say nothing to anybody, and would be kept for ever.
                    await app.run_worker_async(install_signal_handlers=False, delete_jobs="successful")
            except (ConnectorException, psycopg.Error, OSError) as error:
                log.warning("worker.database_away", error=str(error.__cause__ or error).strip())
        if not stop.is_set():
            log.warning("worker.starts_again")
            await asyncio.sleep(RETRY_SECONDS)


async def _database() -> None:
    """Wait until it answers."""
    while True:
        with contextlib.suppress(psycopg.Error, OSError):
            async with await db.async_connect(application_name="hyprbox-worker") as conn:
                await conn.execute("SELECT 1")
                return
        await asyncio.sleep(RETRY_SECONDS)
