"""Run by `bench_output` in a process of its own, on a database of its own. Prints its rounds as JSON."""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from datetime import timedelta
from typing import Any

import django

django.setup()

from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from hyprbox.lib.actors import Actor
from jobs import reports, services
from jobs.models import Job
from jobs.output import Piece
from jobs.states import CLAIM_LEASE_SECONDS
from nodes.models import Node

CAP = 4 * 1024 * 1024
ROUNDS = 3
SECONDS_AT_MOST = 8.0  # for the column, which gets slower with every piece


def pieces(size: int) -> list[bytes]:
    """Lines of a log, as a script would write them."""
    source = random.Random(3)
    words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(2, 9))) for _ in range(3000)]
    made = []
    for _ in range(8):
        text = ""
        while len(text) < size:
            text += f"[{source.randint(0, 10**8):08d}] INFO {' '.join(source.choices(words, k=9))}\n"
        made.append(text[:size].encode())
    return made


def wal_position() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn()")
        return str(cursor.fetchone()[0])


def wal_since(start: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s::pg_lsn)", [start])
        return int(cursor.fetchone()[0])


def running_job(node: Node) -> tuple[Job, Actor, uuid.UUID]:
    order = services.Order(preset="system-report", variables={})
    job, _ = services.queue_job(by=Actor.system("bench"), order=order, node_id=node.node_id)
    agent, claim_id = Actor.agent(id=str(node.pk), name=node.node_id), uuid.uuid4()
    lease = Now() + timedelta(seconds=CLAIM_LEASE_SECONDS)
    Job.objects.filter(pk=job.pk).update(claim_id=claim_id, lease_expires_at=lease)
    reports.start(by=agent, job_id=job.pk, claim_id=claim_id)
    return job, agent, claim_id


def ours(node: Node, data: list[bytes], total: int) -> tuple[float, float]:
    """MB/s and WAL bytes a byte, through the verb that an agent's call reaches."""
    job, agent, claim_id = running_job(node)
    size, offset, start, began = len(data[0]), 0, wal_position(), time.perf_counter()
    while offset < total:
        piece = Piece("stdout", offset, data[(offset // size) % len(data)])
        reports.add_output(by=agent, job_id=job.pk, claim_id=claim_id, pieces=[piece], phase="apply")
        offset += size
    seconds = time.perf_counter() - began
    return offset / 1e6 / seconds, wal_since(start) / offset


def column(data: list[bytes], total: int) -> float:
    """MB/s of `stdout = right(stdout || piece)`, the obvious way."""
    text = [piece.decode() for piece in data]
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS bench_column")
        cursor.execute("CREATE TABLE bench_column (id int PRIMARY KEY, stdout text NOT NULL DEFAULT '')")
        cursor.execute("INSERT INTO bench_column (id) VALUES (1)")
        size, offset, began = len(data[0]), 0, time.perf_counter()
        while offset < total and time.perf_counter() - began < SECONDS_AT_MOST:
            piece = text[(offset // size) % len(text)]
            cursor.execute(f"UPDATE bench_column SET stdout = right(stdout || %s, {CAP}) WHERE id = 1", [piece])
            offset += size
        return offset / 1e6 / (time.perf_counter() - began)


def main() -> None:
    node = Node.objects.create(node_id="bench-1", first_seen_at=timezone.now(), last_seen_at=timezone.now())
    rounds: list[dict[str, Any]] = []
    for size, total in ((65536, 8 << 20), (16384, 4 << 20)):
        data = pieces(size)
        ours(node, data, 1 << 20)  # warm
        for _ in range(ROUNDS):
            speed, wal = ours(node, data, total)
            rounds.append({"size": size, "ours": speed, "wal_per_byte": wal, "column": column(data, total)})
    json.dump(rounds, sys.stdout)


if __name__ == "__main__":
    main()
