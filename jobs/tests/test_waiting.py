"""The long poll, driven as ASGI."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from accounts.gate import BadBearers
from hyprbox.lib import db, live
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import Unavailable
from jobs import hints, queue, reports, services, together, waiting
from jobs.models import Job
from jobs.reports import Result
from nodes import ingest
from nodes.models import Node
from tests import factories
from tokens import cache
from tokens import services as tokens
from tokens.guesses import Guesses, bad_tokens
from tokens.models import NodeToken

GUESSES = waiting._guesses  # each test has its own

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
async def fresh_lane(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Connections belong to one event loop, and each test has its own."""
    monkeypatch.setattr(live, "hub", live.Hub())
    monkeypatch.setattr(live, "listener", live.Listener(live.hub))
    board, lane = queue.Board(), together.Together()
    board.chore = waiting.recheck_tokens
    boards = [(module, "board", board) for module in (queue, waiting, together)]
    for module, name, value in (*boards, (waiting, "together", lane)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(waiting, "_tokens", waiting.TokenCache(waiting._wake))
    monkeypatch.setattr(waiting, "_guesses", Guesses())
    monkeypatch.setattr(BadBearers, "_schedule", lambda self: None)
    yield
    await live.listener.stop()
    await board.stop()
    await lane.stop()


@pytest.fixture
def count_statements(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the connections of the lanes execute."""

    @contextlib.contextmanager
    def counting() -> Iterator[list[str]]:
        seen: list[str] = []
        execute = psycopg.AsyncConnection.execute

        async def counted(self: Any, query: Any, *args: Any, **more: Any) -> Any:
            seen.append(str(query))
            return await execute(self, query, *args, **more)

        with monkeypatch.context() as patched:
            patched.setattr(psycopg.AsyncConnection, "execute", counted)
            yield seen

    return counting


class Poll:
    """One call of the lane; `leave()` is the client going away."""

    def __init__(self, token: str, method: str = "GET", **query: Any) -> None:
        text = "&".join(f"{key}={value}" for key, value in query.items())
        self._gone = asyncio.Event()
        self._first = True
        self.status = 0
        self.body: dict[str, Any] = {}
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        scope = {
            "type": "http", "method": method, "path": "/api/jobs/pending", "query_string": text.encode(),
            "headers": headers, "client": ("127.0.0.1", 1),
        }  # fmt: skip
        self.task = asyncio.create_task(waiting.waiting_lane(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._first:
            self._first = False
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body = json.loads(message["body"])

    def leave(self) -> None:
        self._gone.set()

    async def done(self, seconds: float = 5.0) -> Poll:
        await asyncio.wait_for(self.task, seconds)
        return self


def poll(token: str, node: str = "web-1", **query: Any) -> Poll:
    return Poll(token, **{"node_id": node, "request_id": uuid.uuid4(), "wait": 0, **query})


@pytest.fixture
async def node(db: None) -> Any:
    return await sync_to_async(factories.make_node)("web-1")


@pytest.fixture
async def token(node: Any) -> str:
    return await sync_to_async(factories.make_token)(node)


async def queue_one(node: Any) -> Job:
    return await sync_to_async(factories.make_job)(node)


async def test_an_empty_poll_says_so(token: str) -> None:
    answer = await poll(token).done()
    assert answer.status == 200
    assert answer.body == {"job": None, "cancel": [], "poll_after_ms": 5000}


async def test_waiting_work_is_handed_out_signed(token: str, node: Any) -> None:
    job = await queue_one(node)
    answer = await poll(token).done()
    assert answer.body["job"]["id"] == str(job.pk)
    assert base64.b64decode(answer.body["job"]["payload"]) == bytes(job.payload)
    assert answer.body["job"]["signature"] == job.signature


async def test_a_sleeping_poll_hears_of_work_at_once(token: str, node: Any) -> None:
    waiting_poll = poll(token, wait=20)
    await asyncio.sleep(0.3)
    assert not waiting_poll.task.done()
    job = await queue_one(node)
    answer = await waiting_poll.done(1.0)
    assert answer.body["job"]["id"] == str(job.pk)


async def test_the_same_request_gets_the_same_claim(token: str, node: Any) -> None:
    await queue_one(node)
    request_id = uuid.uuid4()
    first = await poll(token, request_id=request_id).done()
    again = await poll(token, request_id=request_id, wait=0, reconcile=1).done()
    assert first.body["job"] == again.body["job"]
    assert (await poll(token).done()).body["job"] is None


async def test_one_job_at_a_time(token: str, node: Any) -> None:
    await queue_one(node)
    await queue_one(node)
    answers = [await p.done() for p in [poll(token) for _ in range(10)]]
    assert sum(a.body["job"] is not None for a in answers) == 1


async def test_many_polls_get_each_job_once(token: str, node: Any) -> None:
    await sync_to_async(type(node).objects.filter(pk=node.pk).update)(concurrency=50)
    jobs = {str((await queue_one(node)).pk) for _ in range(20)}
    polls = [poll(token) for _ in range(40)]
    handed_out = [a.body["job"]["id"] for a in [await p.done() for p in polls] if a.body["job"]]
    assert len(handed_out) == len(set(handed_out))
    assert set(handed_out) <= jobs


async def test_nothing_is_claimed_for_a_client_that_left(token: str, node: Any) -> None:
    waiting_poll = poll(token, wait=20)
    await asyncio.sleep(0.2)
    waiting_poll.leave()
    await waiting_poll.done(1.0)
    job = await queue_one(node)
    await asyncio.sleep(0.2)
    assert (await Job.objects.aget(pk=job.pk)).claim_id is None


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many reports and how many polls each transaction of the lane had."""
    seen: list[tuple[int, int]] = []
    write = together.write

    async def noting(statements: Any, told: list[Any], polls: list[Any]) -> Any:
        seen.append((len(told), len(polls)))
        return await write(statements, told, polls)

    monkeypatch.setattr(together, "write", noting)
    return seen


async def started(token: str, node: Any) -> dict[str, Any]:
    """Of a job that runs, what its reports name."""
    await queue_one(node)
    job = (await poll(token).done()).body["job"]
    ids = {"node_pk": node.pk, "job_id": uuid.UUID(job["id"]), "claim_id": uuid.UUID(job["claim_id"])}
    assert await waiting.together.start(**ids)
    return ids


def result() -> Result:
    return Result(**{**factories.ending(), "started_at": None, "finished_at": None})


async def sleeping(token: str) -> Poll:
    made = poll(token, wait=20)
    await asyncio.sleep(0.2)
    assert not made.task.done()
    return made


async def test_a_completion_takes_the_nodes_poll_along(token: str, node: Any, batches: list[tuple[int, int]]) -> None:
    ids = await started(token, node)
    following, patient = await queue_one(node), await sleeping(token)
    batches.clear()
    assert await waiting.together.complete(**ids, result=result())
    assert (await patient.done()).body["job"]["id"] == str(following.pk)
    assert batches == [(1, 1)]


async def test_a_completion_that_is_not_usual_wakes_the_nodes_poll_as_well(token: str, node: Any) -> None:
    ids = await started(token, node)
    following, patient = await queue_one(node), await sleeping(token)
    async with await db.async_connect() as other, other.transaction():
        await other.execute("SELECT FROM jobs_job WHERE id = %s FOR UPDATE", [ids["job_id"]])
        assert not await waiting.together.complete(**ids, result=result())
        await asyncio.sleep(0.2)
        assert not patient.task.done()
    by = Actor.agent(id=str(node.pk), name="web-1")
    given = {"job_id": ids["job_id"], "claim_id": ids["claim_id"], "result": result()}
    await sync_to_async(reports.complete)(by=by, **given)
    assert (await patient.done(1.0)).body["job"]["id"] == str(following.pk)


async def test_a_poll_in_another_process_hears_of_the_room(token: str, node: Any) -> None:
    ids = await started(token, node)
    following = await queue_one(node)
    async with await db.async_connect() as heard:
        await heard.execute(f"LISTEN {live.CHANNEL}")
        assert await waiting.together.complete(**ids, result=result())  # no poll waits in this one
        notes = [json.loads(note.payload) async for note in heard.notifies(timeout=0.5)]
    moved = [live.Event(note.pop("topic"), note) for note in notes if note["topic"] == hints.MOVED]
    told = [hint for event in moved for hint in hints.hints(event)]
    assert [hint.ids["node"] for hint in told if hint.topic == "work"] == [str(node.pk)]
    assert (await poll(token).done()).body["job"]["id"] == str(following.pk)


@pytest.mark.parametrize(("places", "looks_again"), [(1, False), (2, True)])
async def test_who_got_the_last_place_of_a_node_need_not_look_again(
    token: str, node: Any, places: int, looks_again: bool
) -> None:
    await Node.objects.filter(pk=node.pk).aupdate(concurrency=places)
    await queue_one(node)
    assert (await poll(token).done()).body["job"] is not None
    assert queue.board.has_work(node.pk) is looks_again


async def test_a_cancel_reaches_the_agent(token: str, node: Any) -> None:
    job = await queue_one(node)
    await poll(token).done()
    await sync_to_async(Job.objects.filter(pk=job.pk).update)(status="RUNNING", started_at=job.created_at)
    waiting_poll = poll(token, wait=20)
    await asyncio.sleep(0.2)
    await sync_to_async(services.request_cancel)(by=factories.SYSTEM, job_id=job.pk)
    answer = await waiting_poll.done(1.0)
    assert answer.body["cancel"] == [str(job.pk)]


async def test_reconcile_lists_what_the_node_holds(token: str, node: Any) -> None:
    job = await queue_one(node)
    claimed = await poll(token).done()
    answer = await poll(token, reconcile=1).done()
    assert answer.body["holding"] == [
        {
            "id": str(job.pk),
            "claim_id": claimed.body["job"]["claim_id"],
            "status": "QUEUED",
            "cancel_requested": False,
        }
    ]


async def test_another_nodes_token_is_forbidden(token: str) -> None:
    assert (await poll(token, node="db-1").done()).status == 403


async def test_a_revoked_token_ends_an_open_poll(token: str, node: Any) -> None:
    waiting_poll = poll(token, wait=25)
    await asyncio.sleep(0.2)
    row = await NodeToken.objects.aget(node_pk=node.pk)
    await sync_to_async(tokens.revoke_token)(by=factories.SYSTEM, token_id=row.pk)
    assert (await waiting_poll.done(2.0)).status == 401


@pytest.mark.slow
async def test_a_revocation_ends_an_open_poll_even_when_its_hint_is_lost(token: str, node: Any) -> None:
    waiting_poll = poll(token, wait=25)
    await asyncio.sleep(0.2)
    await NodeToken.objects.filter(node_pk=node.pk).aupdate(revoked_at=timezone.now())
    assert (await waiting_poll.done(9.0)).status == 401  # without the recheck it would be 25


@pytest.mark.slow
async def test_a_revoked_token_claims_nothing_even_when_its_hint_is_lost(token: str, node: Any) -> None:
    await poll(token).done()
    await NodeToken.objects.filter(node_pk=node.pk).aupdate(revoked_at=timezone.now())
    await asyncio.sleep(cache.TTL_SECONDS + 0.1)
    job = await queue_one(node)
    assert (await poll(token).done()).status == 401
    assert (await Job.objects.aget(pk=job.pk)).claim_id is None


@pytest.mark.slow
async def test_those_who_wait_are_rechecked_in_one_statement(node: Any, count_statements: Any) -> None:
    tokens_of_many = [await sync_to_async(factories.make_token)(node) for _ in range(20)]
    polls = [poll(token, wait=20) for token in tokens_of_many]
    await asyncio.sleep(0.5)
    with count_statements() as seen:
        await asyncio.sleep(8.5)
    assert not any(p.task.done() for p in polls)
    assert 4 <= len(seen) <= 7, seen
    for p in polls:
        p.leave()
        await p.done()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"node_id": "../etc"}, "node_id"),
        ({"request_id": "not-a-uuid"}, "request_id"),
        ({"wait": 31}, "wait"),
        ({"wait": "nan"}, "wait"),
        ({"reconcile": 2}, "reconcile"),
        ({"extra": 1}, "extra"),
    ],
)
async def test_a_bad_query_is_named(token: str, query: Any, field: str) -> None:
    answer = await poll(token, **query).done()
    assert answer.status == 400
    assert field in answer.body["error"]["fields"]


@pytest.mark.parametrize("bad", ["", "hbnt_short", "eyJhbGciOiJIUzI1NiJ9.e30.x", "hbnt_" + "a" * 51])
async def test_bad_tokens_are_401(node: Any, bad: str) -> None:
    answer = await poll(bad).done()
    assert (answer.status, answer.body["error"]["code"]) in [(401, "bad_token"), (401, "not_authenticated")]


async def test_other_methods_are_405(token: str) -> None:
    answer = await Poll(token, method="POST", node_id="web-1", request_id=uuid.uuid4()).done()
    assert answer.status == 405


async def test_a_defect_while_claiming_is_an_answer_and_not_a_hanging_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> Any:
        raise IndexError("a defect")

    lane = together.Together()
    monkeypatch.setattr(together, "write", broken)
    for _ in range(2):  # and the next one is served again
        with pytest.raises(Unavailable):
            async with asyncio.timeout(5):
                await lane.claim(node_pk=uuid.uuid4(), request_id=uuid.uuid4())
    await lane.stop()


async def test_who_asks_comes_before_what_they_ask(token: str) -> None:
    for wrong in ("", "hbnt_" + "x" * 51, "eyJ.not.ours"):
        answer = await poll(wrong, request_id="not-a-uuid").done()
        assert answer.status == 401, wrong
    assert (await poll(token, request_id="not-a-uuid").done()).status == 400


async def test_an_address_that_shows_bad_tokens_again_and_again_is_told_to_wait(token: str) -> None:
    bad = "hbnt_" + "x" * 51
    answers = [await poll(bad).done() for _ in range(31)]
    assert [answer.status for answer in answers] == [401] * 30 + [429]
    assert answers[-1].body["error"]["code"] == "rate_limited"
    assert (await poll(token).done()).status == 200


def test_the_lanes_count_bad_tokens_together() -> None:
    assert (GUESSES.bad, ingest._guesses.bad) == (bad_tokens, bad_tokens)


async def test_an_address_that_guesses_is_refused_before_the_database(
    token: str, count_statements: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await poll(token).done()).status == 200
    with count_statements() as seen:
        answers = [await poll("hbnt_" + f"{number:08}" + "x" * 43).done() for number in range(200)]
    assert [answer.status for answer in answers[:30]] == [401] * 30
    assert {answer.status for answer in answers[32:]} == {429}
    assert sum("tokens_nodetoken" in statement for statement in seen) <= 100
    monkeypatch.setattr(waiting._guesses._looked_up, "rate", 0.0)  # nothing is left for guesses
    for known in waiting._tokens._entries.values():
        known.fresh_until = 0.0
    assert (await poll(token).done()).status == 200  # a token that was good here is no guess
