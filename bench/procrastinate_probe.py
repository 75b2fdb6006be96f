"""Run by `bench_claims` in a process of its own: procrastinate as a queue of jobs. argv: database, workers, jobs."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter

import procrastinate
import uvloop

logging.disable(logging.CRITICAL)


async def main(url: str, workers: int, jobs: int) -> None:
    connector = procrastinate.PsycopgConnector(conninfo=url, min_size=4, max_size=workers + 2)
    app = procrastinate.App(connector=connector)
    seen: Counter[int] = Counter()

    @app.task(name="one")
    async def one(number: int) -> None:
        seen[number] += 1

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for start in range(0, jobs, 1000):
            await one.batch_defer_async(*({"number": n} for n in range(start, min(jobs, start + 1000))))
        began = time.perf_counter()
        await app.run_worker_async(concurrency=workers, wait=False, install_signal_handlers=False, listen_notify=False)
        seconds = time.perf_counter() - began
        query = "SELECT count(*) AS ended FROM procrastinate_jobs WHERE status = 'succeeded'"
        ended = (await app.connector.execute_query_one_async(query))["ended"]
    print(json.dumps({"rate": jobs / seconds, "once": len(seen) == jobs == ended and max(seen.values()) == 1}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
