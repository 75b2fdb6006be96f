"""Reports of many agents in one statement: the same outcome as one at a time, and whatever is unusual goes that way."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from hyprbox.lib import db, live
from hyprbox.lib.errors import Unavailable
from jobs import connections, hints, reports, together
from jobs.models import Job
from jobs.reports import Result
from jobs.states import CLAIMS_LOCK
from tests import factories
from tests.factories import ending

pytestmark = pytest.mark.django_db(transaction=True)


class Attached:
    """A `Together` on an event loop of its own, as a web process has it beside its threads."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.made = self.run(self._make())

    async def _make(self) -> together.Together:
        made = together.Together()
        made.attach()
        return made

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def all_at_once(self, *work: Any) -> list[bool]:
        async def gathered() -> list[bool]:
            return list(await asyncio.gather(*work))

        return list(self.run(gathered()))

    def close(self) -> None:
        self.run(self.made.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> Iterator[Attached]:
    made = Attached()
    monkeypatch.setattr(together, "together", made.made)
    yield made
    made.close()


@pytest.fixture
def agent(api: Any, web_1: Any) -> Any:
    return api.agent(factories.make_token(web_1))


@pytest.fixture
def never_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise AssertionError("this is a usual report")

    monkeypatch.setattr(reports, "start", refuse)
    monkeypatch.setattr(reports, "complete", refuse)


def post(agent: Any, job: Job, verb: str, **body: Any) -> Any:
    return agent.post(f"/api/jobs/{job.pk}/{verb}", {"claim_id": str(job.claim_id), **body})


def claimed(node: Any) -> Job:
    job = factories.make_job(node)
    factories.claim(job)
    return job


def result(**over: Any) -> Result:
    given = {name: value for name, value in ending(**over).items() if name not in ("started_at", "finished_at")}
    return Result(**given, started_at=None, finished_at=None)


def ids(job: Job) -> dict[str, uuid.UUID]:
    assert job.claim_id is not None
    return {"node_pk": job.node_id, "job_id": job.pk, "claim_id": job.claim_id}


def life(agent: Any, job: Job, **end: Any) -> tuple[dict[str, Any], set[str], Any]:
    """Start and complete: what the row says then, what hints were sent, and the answer."""
    with psycopg.connect(**db.connection_params(), autocommit=True) as heard:
        heard.execute(f"LISTEN {live.CHANNEL}")
        assert post(agent, job, "start").status_code == 200
        if end.get("status") == "cancelled":
            Job.objects.filter(pk=job.pk).update(cancel_requested_at=job.created_at)
        answer = post(agent, job, "complete", **ending(**end))
        assert answer.status_code == 200, answer.content
        heard_of = [json.loads(note.payload) for note in heard.notifies(timeout=0.5)]
    unlike = ("id", "created_at", "expires_at", "claim_id", "request_id", "payload", "signature", "completion_sha256")
    times = ("claimed_at", "started_at", "finished_at", "lease_expires_at", "deadline_at", "cancel_requested_at")
    row = Job.objects.values().get(pk=job.pk)
    span = row["deadline_at"] - row["started_at"], row["lease_expires_at"] - row["started_at"]
    row = {name: value for name, value in row.items() if name not in unlike}
    same = {name: value is not None if name in times else value for name, value in row.items()}
    shown = {name: value for name, value in answer.json().items() if not name.endswith("_at") and name != "id"}
    return {**same, "spans": span}, set(told(heard_of, str(job.pk))), shown


def told(payloads: list[dict[str, Any]], job_id: str) -> Iterator[str]:
    """Every hint that viewers get, whether it was sent alone or in one for many jobs."""
    for ids in payloads:
        event = live.Event(ids.pop("topic"), ids)
        for hint in hints.hints(event) if event.topic == hints.MOVED else [event]:
            yield json.dumps([hint.topic, hint.ids], sort_keys=True).replace(job_id, "JOB")


@pytest.mark.usefixtures("attached")
def test_one_hint_tells_of_many_jobs(agent: Any, web_1: Any, attached: Attached) -> None:
    jobs = [claimed(factories.make_node(f"many-{number}")) for number in range(100)]  # more than one hint takes
    with psycopg.connect(**db.connection_params(), autocommit=True) as heard:
        heard.execute(f"LISTEN {live.CHANNEL}")
        started = attached.all_at_once(*(attached.made.start(**ids(job)) for job in jobs))
        notes = list(heard.notifies(timeout=0.5))
    assert all(started)
    assert len(notes) < 10
    events = [live.Event("moved", json.loads(note.payload)) for note in notes]
    named = [hint.ids["job"] for event in events for hint in hints.hints(event) if hint.topic == "jobs"]
    assert sorted(named) == sorted(str(job.pk) for job in jobs)


@pytest.mark.parametrize(
    "end",
    [
        {},
        {"status": "failed", "reason": "exit", "exit_code": 3, "changed": None},
        {"status": "failed", "reason": "signal", "exit_code": None, "signal": 9, "changed": None},
        {"status": "cancelled", "exit_code": None, "signal": 15, "outcome_unknown": True},
    ],
)
def test_it_is_the_same_as_one_at_a_time(agent: Any, web_1: Any, monkeypatch: pytest.MonkeyPatch, end: Any) -> None:
    alone = life(agent, claimed(web_1), **end)
    made = Attached()
    try:
        monkeypatch.setattr(together, "together", made.made)
        monkeypatch.setattr(reports, "complete", None)
        assert life(agent, claimed(web_1), **end) == alone
    finally:
        made.close()


@pytest.mark.usefixtures("attached", "never_one_at_a_time")
def test_usual_reports_take_the_short_way(agent: Any, web_1: Any) -> None:
    job = claimed(web_1)
    assert post(agent, job, "start").status_code == 200
    answer = post(agent, job, "complete", **ending())
    assert (answer.status_code, answer.json()["status"]) == (200, "SUCCEEDED")


@pytest.mark.usefixtures("attached")
def test_repeats_and_contradictions(agent: Any, web_1: Any) -> None:
    job, end = claimed(web_1), ending()
    assert [post(agent, job, "start").status_code for _ in range(2)] == [200, 200]
    assert [post(agent, job, "complete", **end).status_code for _ in range(2)] == [200, 200]
    answer = post(agent, job, "complete", **{**end, "changed": False})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "completion_differs")


@pytest.mark.usefixtures("attached")
def test_what_is_missing_or_wrong_is_said(agent: Any, web_1: Any) -> None:
    job = claimed(web_1)
    assert post(agent, job, "complete", **ending()).json()["error"]["code"] == "job_not_started"
    assert agent.post(f"/api/jobs/{job.pk}/start", {"claim_id": str(uuid.uuid4())}).status_code == 409
    assert post(agent, job, "start").status_code == 200
    assert post(agent, job, "complete", **ending(stdout_bytes=1)).json()["error"]["code"] == "missing_output"
    assert post(agent, job, "complete", **ending(exit_code=2)).status_code == 400
    job.refresh_from_db()
    assert job.status == "RUNNING"


@pytest.mark.usefixtures("attached")
def test_another_nodes_job_is_unknown(api: Any, web_1: Any, db_1: Any) -> None:
    job = claimed(web_1)
    assert post(api.agent(factories.make_token(db_1)), job, "start").status_code == 404
    job.refresh_from_db()
    assert job.status == "QUEUED"


def test_an_expired_job_does_not_start(attached: Attached, web_1: Any) -> None:
    job = claimed(web_1)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE jobs_job SET expires_at = now() - interval '1 second' WHERE id = %s", [job.pk])
    assert attached.all_at_once(attached.made.start(**ids(job))) == [False]


def test_one_that_is_wrong_does_not_hold_up_the_others(attached: Attached, web_1: Any) -> None:
    jobs = [claimed(web_1) for _ in range(12)]
    wrong = {**ids(jobs[5]), "claim_id": uuid.uuid4()}
    answers = attached.all_at_once(*(attached.made.start(**(wrong if job is jobs[5] else ids(job))) for job in jobs))
    assert answers == [job is not jobs[5] for job in jobs]
    assert Job.objects.filter(status="RUNNING").count() == 11


def test_of_many_completions_one_counts(attached: Attached, web_1: Any) -> None:
    job = claimed(web_1)
    assert attached.all_at_once(attached.made.start(**ids(job))) == [True]
    codes = range(1, 21)
    ends = [result(status="failed", reason="exit", exit_code=code, changed=None) for code in codes]
    answers = attached.all_at_once(*(attached.made.complete(**ids(job), result=end) for end in ends))
    assert sum(answers) == 1
    job.refresh_from_db()
    assert job.exit_code == codes[answers.index(True)]


def test_a_locked_job_is_not_waited_for(attached: Attached, web_1: Any) -> None:
    locked, free = claimed(web_1), claimed(web_1)
    with transaction.atomic():
        Job.objects.select_for_update().get(pk=locked.pk)
        starts = [attached.made.start(**ids(job)) for job in (locked, free)]
        assert attached.all_at_once(*starts) == [False, True]


def test_a_job_that_ends_makes_room_for_one_that_is_asked_for_with_it(attached: Attached, web_1: Any) -> None:
    running, following = claimed(web_1), factories.make_job(web_1)
    assert attached.all_at_once(attached.made.start(**ids(running))) == [True]
    asked = attached.made.claim(node_pk=web_1.pk, request_id=uuid.uuid4())
    [claim, ended] = attached.all_at_once(asked, attached.made.complete(**ids(running), result=result()))
    assert ended is True
    assert claim.job_id == following.pk


def test_while_others_hand_out_jobs_reports_are_taken_one_at_a_time(
    attached: Attached, agent: Any, web_1: Any, db_1: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = claimed(web_1)
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 1.5)  # as it is: less than a lock is waited for
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [CLAIMS_LOCK])
        poll = asyncio.run_coroutine_threadsafe(
            attached.made.claim(node_pk=db_1.pk, request_id=uuid.uuid4()), attached.loop
        )
        assert attached.all_at_once(attached.made.start(**ids(job))) == [
            False
        ]  # it was in the poll's batch, or next in line
        with pytest.raises(Unavailable):
            poll.result(20)
    assert post(agent, job, "start").status_code == 200


def test_a_result_has_the_digest_that_older_versions_stored() -> None:
    """An agent may repeat a result across an upgrade; another digest would call it a different one."""
    end = result(phases=[{"name": "apply", "exit_code": 0}])
    before = json.dumps(dataclasses.asdict(end), sort_keys=True, default=str)
    assert end.sha256() == hashlib.sha256(before.encode()).hexdigest()
