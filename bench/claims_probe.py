"""Run by `bench_claims` in a process of its own. argv: pollers, jobs. Prints cycles a second and what came of the jobs.

A fleet of 1,000 nodes has the same number of jobs each. A poller is the agent of one node after the other and goes
through what an agent's calls reach: a claim, a start, a completion, each written together with what others ask for. An
agent polls while its job runs, and a completion takes that poll along: so is the next claim asked for here. The process
hears its own hints, as a web process does.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import uuid
from collections import Counter

import django

django.setup()

import uvloop
from django.db import connection

from hyprbox.lib import live
from jobs.claims import Claim
from jobs.queue import board
from jobs.reports import Result
from jobs.together import together

NODES = 1_000
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
FLEET = """
INSERT INTO nodes_node (id, node_id, display_name, "group", tags, notes, concurrency, region, agent_version,
    interval_seconds, metrics, inventory, machine_id, instance_id, announced_status)
SELECT gen_random_uuid(), 'claims-' || g, '', '', '{}', '', 1, '', '', 60, '{}', '{}', '', '', 'ONLINE'
FROM generate_series(1, %s) AS g RETURNING id
"""
QUEUE = """
WITH queued AS (
    INSERT INTO jobs_job (id, node_id, created_by, expires_at, preset, preset_title, risk, revision, mode, parts, variables,
        script, script_sha256, payload, signature, key_id, timeout_seconds, status, reason, phase, phases, outcome_unknown,
        completion_sha256)
    SELECT gen_random_uuid(), (%(nodes)s::uuid[])[1 + g %% cardinality(%(nodes)s::uuid[])], 'bench',
        now() + interval '1 day', 'bench', 'Bench', 'low', repeat('0', 64), 'apply', '["apply"]', '{}',
        'uname -a', repeat('0', 64), convert_to(repeat('x', 800), 'UTF8'), repeat('s', 88), repeat('0', 16), 60, 'QUEUED', '',
        '', '[]', false, ''
    FROM generate_series(1, %(jobs)s) AS g RETURNING id
)
INSERT INTO jobs_transcript (job_id, stdout_bytes, stderr_bytes, stdout_first_offset, stderr_first_offset, stdout_sha256,
    stderr_sha256)
SELECT id, 0, 0, 0, 0, '', '' FROM queued
"""
RESULT = Result("succeeded", 0, 0, EMPTY_SHA256, EMPTY_SHA256, None, None, exit_code=0, changed=True)


def prepare(jobs: int) -> list[uuid.UUID]:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("TRUNCATE nodes_node, jobs_openjob CASCADE")
        cursor.execute(FLEET, [NODES])
        nodes = [row[0] for row in cursor.fetchall()]
        cursor.execute(QUEUE, {"nodes": nodes, "jobs": jobs})
        cursor.execute("VACUUM ANALYZE jobs_job, jobs_openjob, jobs_transcript, nodes_node")
    return nodes


async def poll(node: uuid.UUID, news: asyncio.Event) -> Claim:
    """As the long poll looks: when the node may have work."""
    while True:
        news.clear()
        if board.has_work(node):
            board.settle(node)
            if (claim := await together.claim(node_pk=node, request_id=uuid.uuid4())) is not None:
                if claim.has_room:
                    board.mark(node)
                return claim
        await news.wait()


async def poller(nodes: list[uuid.UUID], jobs: int, ran: Counter[uuid.UUID]) -> None:
    """So many jobs of each node, until no node is left."""
    while nodes:
        node = nodes.pop()
        board.mark(node)
        with board.waiting(node) as news:
            claim = await poll(node, news)
            for left in reversed(range(jobs)):
                ran[claim.job_id] += 1
                following = asyncio.create_task(poll(node, news)) if left else None
                ids = {"node_pk": node, "job_id": claim.job_id, "claim_id": claim.claim_id}
                if not await together.start(**ids) or not await together.complete(**ids, result=RESULT):
                    raise RuntimeError("a report was not taken")
                if following is not None:
                    claim = await following


async def cycles(nodes: list[uuid.UUID], pollers: int, jobs: int) -> tuple[float, Counter[uuid.UUID]]:
    await board.ensure()
    ran: Counter[uuid.UUID] = Counter()
    began = time.perf_counter()
    await asyncio.gather(*(poller(nodes, jobs, ran) for _ in range(pollers)))
    seconds = time.perf_counter() - began
    await board.stop()
    await together.stop()
    await live.listener.stop()
    return seconds, ran


def main(pollers: int, jobs: int) -> None:
    nodes = prepare(jobs)
    gc.freeze()  # as a web process does when it has started
    seconds, ran = uvloop.run(cycles(nodes, pollers, jobs // NODES))
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM jobs_job WHERE status = 'SUCCEEDED' AND completion_sha256 <> ''")
        [ended] = cursor.fetchone()
    once = len(ran) == jobs == ended and max(ran.values()) == 1
    print(json.dumps({"rate": jobs / seconds, "once": once}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
