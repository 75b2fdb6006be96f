"""The lane when the database refuses a row, lacks a partition, hangs or is away; and when it stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection

from hyprbox.lib import db
from nodes import ingest, writer
from nodes.models import Heartbeat, Node
from nodes.tests import lane
from tests.factories import make_node, make_token

pytestmark = pytest.mark.django_db(transaction=True)


def pairs(number: int) -> list[tuple[Node, str]]:
    return [(node, make_token(node)) for node in (make_node(f"node-{n}") for n in range(number))]


def requests_of(nodes: list[tuple[Node, str]]) -> list[lane.Request]:
    return [lane.request(lane.beat(node.node_id), token) for node, token in nodes]


@pytest.fixture
def cursed_node() -> Iterator[None]:
    """The database refuses every write to the node called node-1."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'cursed' USING ERRCODE = '22003'; END $$;
            CREATE TRIGGER cursed BEFORE UPDATE OF cpu_percent ON nodes_node FOR EACH ROW
            WHEN (OLD.node_id = 'node-1') EXECUTE FUNCTION refuse();
            """
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER cursed ON nodes_node; DROP FUNCTION refuse")


def test_a_bad_row_does_not_fail_its_neighbours(cursed_node: None) -> None:
    nodes = pairs(5)
    answers = lane.send_at_once(requests_of(nodes))
    assert [answer.status for answer in answers] == [202, 400, 202, 202, 202]
    assert Heartbeat.objects.count() == 4


def test_a_locked_row_is_503_and_its_neighbours_are_written() -> None:
    nodes = pairs(3)
    with psycopg.connect(**db.connection_params()) as other:
        other.execute("SELECT 1 FROM nodes_node WHERE node_id = 'node-1' FOR UPDATE")
        answers = lane.send_at_once(requests_of(nodes))
    assert [answer.status for answer in answers] == [202, 503, 202]
    assert answers[1].headers["retry-after"]
    assert Heartbeat.objects.count() == 2


def test_a_missing_partition_is_made_on_the_way() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'nodes_heartbeat_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
        cursor.execute(f"DROP TABLE {cursor.fetchone()[0]}")
    [(node, token)] = pairs(1)
    assert lane.send(lane.beat(node.node_id), token).status == 202
    assert Heartbeat.objects.count() == 1


def test_a_database_that_is_away_is_503_at_once_and_works_again_without_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [(node, token)] = pairs(1)
    body = lane.request(lane.beat(node.node_id), token)
    connect = db.async_connect

    async def refuse(**over: Any) -> Any:
        raise psycopg.OperationalError("connection refused")

    async def work() -> list[lane.Answer]:
        monkeypatch.setattr(db, "async_connect", refuse)
        started = time.monotonic()
        away = [await lane.call(body) for _ in range(3)]
        assert time.monotonic() - started < 2
        monkeypatch.setattr(db, "async_connect", connect)
        await asyncio.sleep(writer.RETRY_SECONDS + 0.1)
        return [*away, await lane.call(body)]

    answers = lane.run(work)
    assert [answer.status for answer in answers] == [503, 503, 503, 202]
    assert answers[0].headers["retry-after"]
    assert Heartbeat.objects.count() == 1


def test_a_connection_that_breaks_is_replaced() -> None:
    [(node, token)] = pairs(1)
    body = lane.request(lane.beat(node.node_id), token)

    async def work() -> list[lane.Answer]:
        first = await lane.call(body)
        conn = ingest.writer._conn
        assert conn is not None
        db.cut(conn)
        second = await lane.call(body)
        await asyncio.sleep(writer.RETRY_SECONDS + 0.1)
        return [first, second, await lane.call(body)]

    assert [answer.status for answer in lane.run(work)] == [202, 503, 202]
    assert Heartbeat.objects.count() == 2


def test_a_statement_that_hangs_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "STATEMENT_SECONDS", 1.5)
    nodes = pairs(2)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(30); RETURN NEW; END $$;
            CREATE TRIGGER slow BEFORE UPDATE OF cpu_percent ON nodes_node FOR EACH ROW EXECUTE FUNCTION dawdle();
            """
        )
    try:
        started = time.monotonic()
        answers = lane.send_at_once(requests_of(nodes))
        assert {answer.status for answer in answers} == {503}
        assert time.monotonic() - started < 4.5  # PostgreSQL itself would cut it after 5
    finally:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hyprbox-heartbeats'"
            )
            cursor.execute("DROP TRIGGER slow ON nodes_node; DROP FUNCTION dawdle")
    assert not Heartbeat.objects.exists()


def test_a_full_queue_is_503_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_QUEUED", 5)
    nodes = pairs(20)

    async def work() -> list[lane.Answer]:
        for _, token in nodes:  # verified before, so that only the queue of heartbeats fills
            await ingest.writer.look_up(ingest.secrets.parse(token))
        return list(await asyncio.gather(*(lane.call(one) for one in requests_of(nodes))))

    answers = lane.run(work)
    statuses = [answer.status for answer in answers]
    assert statuses.count(202) == 5
    assert statuses.count(503) == 15
    assert all(answer.headers["retry-after"] for answer in answers if answer.status == 503)
    assert Heartbeat.objects.count() == 5


def test_a_crowded_writer_asks_agents_to_slow_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_QUEUED", 8)
    monkeypatch.setattr(writer, "MAX_BATCH", 2)
    nodes = pairs(8)

    async def work() -> list[lane.Answer]:
        for _, token in nodes:
            await ingest.writer.look_up(ingest.secrets.parse(token))
        return list(await asyncio.gather(*(lane.call(one) for one in requests_of(nodes))))

    answers = lane.run(work)
    assert answers[0].json["next_interval_seconds"] == 20
    assert "next_interval_seconds" not in answers[-1].json


def test_a_defect_in_the_writer_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    [(node, token)] = pairs(1)

    async def break_down(*args: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(ingest.writer, "_write_batch", break_down)
    assert lane.send(lane.beat(node.node_id), token).status == 503


def test_what_is_queued_is_written_before_the_process_stops() -> None:
    nodes = pairs(10)

    async def work() -> list[lane.Answer]:
        calls = [asyncio.ensure_future(lane.call(one)) for one in requests_of(nodes)]
        await asyncio.sleep(0.005)
        await ingest.drain()
        return list(await asyncio.gather(*calls))

    answers = lane.run(work)
    accepted = [answer.status for answer in answers].count(202)
    assert {answer.status for answer in answers} <= {202, 503}
    assert Heartbeat.objects.count() == accepted


def test_hints_are_coalesced_to_four_a_second() -> None:
    nodes = pairs(10)
    heard = []

    async def listen(stop: asyncio.Event) -> None:
        async with await db.async_connect() as conn:
            await conn.execute("LISTEN hyprbox")
            while not stop.is_set():
                async for note in conn.notifies(timeout=0.1):
                    if '"topic":"nodes"' in note.payload:
                        heard.append(note.payload)

    async def work() -> None:
        stop = asyncio.Event()
        listener = asyncio.ensure_future(listen(stop))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        for _ in range(5):
            await asyncio.gather(*(lane.call(one) for one in requests_of(nodes)))
            await asyncio.sleep(0.02)
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.5)
        stop.set()
        await listener

    took: list[float] = []
    lane.run(work)
    ours = [hint for hint in heard if all(str(node.pk) in hint for node, _ in nodes)]
    assert 1 <= len(ours) <= 3 + took[0] / writer.HINT_SECONDS
