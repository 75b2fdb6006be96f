"""Run by `bench_polls` in a process of its own, on a database of its own. argv: its address. Prints polls a second."""

from __future__ import annotations

import json
import statistics
import sys
import time
import uuid
from collections.abc import Iterable
from typing import Any

import django

django.setup()

import psycopg
from django.conf import settings
from psycopg import pq

from bench import servers
from jobs import claims, connections

NODES, JOBS = 200, 1_000_000
ROUNDS = 3
SECONDS = 2.0
HISTORY = """
INSERT INTO jobs_job (id, node_id, created_by, created_at, expires_at, preset, preset_title, risk, revision, mode, parts,
    variables, script, script_sha256, payload, signature, key_id, timeout_seconds, status, reason, phase, phases,
    outcome_unknown, completion_sha256, claim_id, request_id, claimed_at, started_at, finished_at)
SELECT gen_random_uuid(), (%(nodes)s::uuid[])[1 + g %% cardinality(%(nodes)s::uuid[])], 'bench', at, at + interval '1 day',
    'bench', 'Bench', 'low', '', 'apply', '[]', '{}', '', '', '', '', '', 60, 'SUCCEEDED', '', '', '[]', false, 'done',
    gen_random_uuid(), gen_random_uuid(), at, at, at
FROM (SELECT g, now() - g * interval '1 second' AS at FROM generate_series(1, %(jobs)s) AS g) AS past
"""
# What a claim would go through if a queue were no more than rows in order: an index on all of them.
WHOLE = "polls_whole"
OPEN = "FROM jobs_openjob o JOIN jobs_job j ON j.id = o.job_id AND j.finished_at IS NULL WHERE o.node_id = w.node"
ALL = "FROM jobs_job j WHERE j.node_id = w.node AND j.finished_at IS NULL"


def definitions(conn: psycopg.Connection[Any], names: Iterable[str]) -> list[str]:
    query = "SELECT indexdef FROM pg_indexes WHERE indexname = ANY(%s)"
    return [str(row[0]) for row in conn.execute(query, (list(names),))]


def prepare(conn: psycopg.Connection[Any], url: str) -> list[uuid.UUID]:
    nodes = [node.pk for node in servers.make_fleet(settings.HYPRBOX_VAR_DIR, url, NODES)]
    # The indexes are made after the rows, and those of the lists not at all: they would take most of the time.
    query = "SELECT indexname FROM pg_indexes WHERE tablename = 'jobs_job' AND indexname NOT LIKE '%pkey'"
    kept = definitions(conn, ["jobs_of_node"])
    for (name,) in conn.execute(query).fetchall():
        conn.execute(f'DROP INDEX "{name}"')
    conn.execute(HISTORY, {"nodes": nodes, "jobs": JOBS})
    for definition in kept:
        conn.execute(definition)
    conn.execute(f"CREATE INDEX {WHOLE} ON jobs_job (node_id, created_at, id)")
    conn.execute("VACUUM ANALYZE jobs_job, jobs_openjob")
    return nodes


def polls(conn: psycopg.Connection[Any], statement: bytes, nodes: list[uuid.UUID]) -> float:
    """Empty polls a second."""
    done, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < SECONDS:
        asked = connections.uuid_array([nodes[done * 7 % len(nodes)]]), connections.uuid_array([uuid.uuid4()])
        found = conn.pgconn.exec_prepared(statement, asked, result_format=pq.Format.BINARY)
        if found.status != pq.ExecStatus.TUPLES_OK or found.ntuples:
            raise RuntimeError(f"an empty poll got {found.ntuples} rows {found.error_message.decode()}")
        done += 1
    return done / seconds


def among_all(claim: str) -> str:
    """The claim as it would be without a table of the open jobs."""
    if OPEN not in claim:
        raise RuntimeError("the claim is another one now: say here what it would be without the table of open jobs")
    return claim.replace(OPEN, ALL).replace("o.created_at, o.job_id", "j.created_at, j.id")


def main(url: str) -> None:
    rates: dict[str, list[float]] = {"open": [], "all": []}
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as conn:
        nodes = prepare(conn, url)
        # A connection like the lane's from here on, and asked as the lane asks.
        conn.execute(connections.session(connections.SETTINGS), prepare=False)
        conn.pgconn.prepare(b"open", claims.CLAIM.encode())
        conn.pgconn.prepare(b"all", among_all(claims.CLAIM).encode())
        for _ in range(ROUNDS):
            for name, found in rates.items():
                found.append(polls(conn, name.encode(), nodes))
    print(json.dumps({name: statistics.median(found) for name, found in rates.items()}))


if __name__ == "__main__":
    main(sys.argv[1])
