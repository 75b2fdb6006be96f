"""Many at once: of everything that only one may win there is exactly one winner, and nobody gets an error of ours."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.contrib.postgres.functions import RandomUUID
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from audit.models import Event
from hyprbox.lib.threads import in_thread
from jobs import deadlines
from jobs.models import Job
from nodes.models import Node
from tests import factories
from tests.factories import ending
from tests.plane import Call, Plane, bearer, pending, plane
from tokens.models import NodeToken

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
MANY = 50
TOGETHER = 25  # races that are run at once


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[Plane]:
    with plane(monkeypatch) as made:
        yield made


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    assert not [a.text for a in answers if a.status_code >= 500]
    return Counter(answer.status_code for answer in answers)


def order(**over: Any) -> dict[str, Any]:
    return {"preset": "system-report", "variables": {}, "node_id": "web-1", **over}


def test_one_key_makes_one_job(up: Plane, otto: Any, web_1: Node) -> None:
    call = Call("POST", "/api/jobs", bearer(otto), order(), {"idempotency-key": "once"})
    up.get("/api/presets", bearer(otto))  # a process that has just started has not read its presets yet
    answers = up.together([call] * MANY)
    assert statuses(answers) == {201: 1, 200: MANY - 1}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert Job.objects.count() == Event.objects.filter(action="job.queued").count() == 1


def test_one_key_and_two_bodies_make_one_job(up: Plane, otto: Any, web_1: Node) -> None:
    calls = [
        Call("POST", "/api/jobs", bearer(otto), order(timeout_seconds=60 + number % 2), {"idempotency-key": "once"})
        for number in range(MANY)
    ]
    found = statuses(up.together(calls))
    assert found[201] == 1
    assert found[200] + found[422] == MANY - 1
    assert found[422] == MANY // 2
    assert Job.objects.count() == 1


def test_fifty_agents_of_one_node_claim_two_hundred_jobs_once(up: Plane, web_1: Node) -> None:
    Node.objects.filter(pk=web_1.pk).update(concurrency=1000)
    token = factories.make_token(web_1)
    jobs = [str(factories.make_job(web_1).pk) for _ in range(200)]
    handed: list[str] = []
    for _ in range(20):
        answers = up.together([Call("GET", pending("web-1", reconcile=1), token) for _ in range(MANY)])
        assert statuses(answers) == {200: MANY}
        handed += [a.json()["job"]["id"] for a in answers if a.json()["job"]]
        if len(handed) >= len(jobs):
            break
    assert sorted(handed) == sorted(jobs)


def test_one_request_id_sent_by_many_gets_one_claim(up: Plane, web_1: Node) -> None:
    Node.objects.filter(pk=web_1.pk).update(concurrency=1000)
    token = factories.make_token(web_1)
    for _ in range(5):
        factories.make_job(web_1)
    request_id = uuid.uuid4()
    answers = up.together([Call("GET", pending("web-1", request_id, reconcile=1), token)] * MANY)
    assert len({answer.json()["job"]["claim_id"] for answer in answers}) == 1
    assert Job.objects.exclude(claim_id=None).count() == 1


def test_a_node_never_holds_more_than_its_share(up: Plane, web_1: Node) -> None:
    Node.objects.filter(pk=web_1.pk).update(concurrency=3)
    token = factories.make_token(web_1)
    for _ in range(20):
        factories.make_job(web_1)
    up.together([Call("GET", pending("web-1", reconcile=1), token) for _ in range(MANY)])
    assert Job.objects.exclude(claim_id=None).count() == 3


def test_one_start_counts_and_all_are_told_so(up: Plane, web_1: Node) -> None:
    token, job = factories.make_token(web_1), factories.make_job(web_1)
    body = {"claim_id": str(factories.claim(job))}
    answers = up.together([Call("POST", f"/api/jobs/{job.pk}/start", token, body)] * MANY)
    assert statuses(answers) == {200: MANY}
    others = up.together([Call("POST", f"/api/jobs/{job.pk}/start", token, {"claim_id": str(uuid.uuid4())})] * MANY)
    assert statuses(others) == {409: MANY}


def test_fifty_different_endings_leave_one(up: Plane, web_1: Node) -> None:
    token, job = factories.make_token(web_1), running(up, web_1)
    calls = [
        Call("POST", f"/api/jobs/{job.pk}/complete", token, {"claim_id": str(job.claim_id), **failed(number)})
        for number in range(1, MANY + 1)
    ]
    answers = up.together(calls)
    assert statuses(answers) == {200: 1, 409: MANY - 1}
    job.refresh_from_db()
    [winner] = [answer.json() for answer in answers if answer.status_code == 200]
    assert (job.status, job.exit_code) == ("FAILED", winner["exit_code"])


def test_fifty_same_endings_all_hear_yes(up: Plane, web_1: Node) -> None:
    token, job = factories.make_token(web_1), running(up, web_1)
    body = {"claim_id": str(job.claim_id), **ending()}
    answers = up.together([Call("POST", f"/api/jobs/{job.pk}/complete", token, body)] * MANY)
    assert statuses(answers) == {200: MANY}
    assert {answer.json()["status"] for answer in answers} == {"SUCCEEDED"}


@pytest.mark.slow
@pytest.mark.parametrize("force", [False, True])
def test_a_cancel_and_an_ending_meet(up: Plane, ada: Any, web_1: Node, force: bool) -> None:
    """Whoever is first, the job ends once, and the answers tell the same story as the row. 500 times in all."""
    token, admin = factories.make_token(web_1), bearer(ada)
    for _ in range(250 // TOGETHER):
        jobs = many_running(web_1)
        if force:  # it seems to be out of reach
            Job.objects.update(lease_expires_at=F("created_at"))
        cancels = [Call("POST", f"/api/jobs/{job.pk}/cancel", admin, {"force": force}) for job in jobs]
        ends = [
            Call("POST", f"/api/jobs/{job.pk}/complete", token, {"claim_id": str(job.claim_id), **ending()})
            for job in jobs
        ]
        answers = up.together([call for pair in zip(cancels, ends, strict=True) for call in pair])
        for job, cancel, complete in zip(jobs, answers[::2], answers[1::2], strict=True):
            job.refresh_from_db()
            assert complete.status_code == 200
            assert cancel.status_code in (200, 409)
            if job.status == "CANCELLED":
                assert (cancel.status_code, job.outcome_unknown) == (200, True)
                assert job.late_result is not None
            else:
                assert job.status == "SUCCEEDED"
                assert job.late_result is None
            if cancel.status_code == 409:
                assert job.status == "SUCCEEDED"


def test_a_cancel_and_a_start_meet(up: Plane, otto: Any, web_1: Node) -> None:
    """An agent that was told to start never has a job that was cancelled before it ran."""
    token, operator = factories.make_token(web_1), bearer(otto)
    for _ in range(60):
        job = factories.make_job(web_1)
        body = {"claim_id": str(factories.claim(job))}
        cancel, start = up.together(
            [
                Call("POST", f"/api/jobs/{job.pk}/cancel", operator, {}),
                Call("POST", f"/api/jobs/{job.pk}/start", token, body),
            ]
        )
        job.refresh_from_db()
        assert cancel.status_code == 200
        assert (start.status_code, job.status) in [(200, "RUNNING"), (409, "CANCELLED")]
        assert job.cancel_requested_at is not None
        Job.objects.filter(pk=job.pk, status="RUNNING").update(status="CANCELLED", finished_at=job.created_at)


def test_a_hundred_first_uses_of_a_token_pin_one_node(up: Plane) -> None:
    token = factories.make_token()
    metrics = {"cpu_percent": 1.0, "memory_percent": 1.0, "disk_percent": 1.0}
    calls = [
        Call(
            "POST",
            "/api/nodes/heartbeat",
            token,
            {"node_id": f"racer-{number}", "agent_version": "1", "interval_seconds": 10, "metrics": metrics},
        )
        for number in range(100)
    ]
    assert statuses(up.together(calls)) == {202: 1, 403: 99}
    answers = up.together(calls)  # and once more: nobody else wins later
    assert statuses(answers) == {202: 1, 403: 99}
    [winner] = [call.json["node_id"] for call, answer in zip(calls, answers, strict=True) if answer.status_code == 202]
    assert NodeToken.objects.get().node_id == winner
    assert Node.objects.filter(node_id__startswith="racer-").count() == 1


def many_running(node: Node) -> list[Job]:
    """As many as meet at once, each with a claim of its own."""
    keys = [factories.make_job(node).pk for _ in range(TOGETHER)]
    Job.objects.filter(pk__in=keys).update(
        claim_id=RandomUUID(), request_id=RandomUUID(), claimed_at=Now(), status="RUNNING", started_at=Now(),
        lease_expires_at=F("expires_at"),
    )  # fmt: skip
    return list(Job.objects.filter(pk__in=keys))


def running(up: Plane, node: Node) -> Job:
    job = factories.make_job(node)
    factories.claim(job)
    Job.objects.filter(pk=job.pk).update(status="RUNNING", started_at=job.claimed_at, lease_expires_at=job.expires_at)
    job.refresh_from_db()
    return job


def failed(code: int) -> dict[str, Any]:
    return ending(status="failed", reason="exit", exit_code=code, changed=None)


def test_output_and_an_ending_that_meet_do_not_deadlock(up: Plane, web_1: Node) -> None:
    """Both take the job and its transcript; in two orders that would cost one of them a second and a 503."""
    token = factories.make_token(web_1)
    for _ in range(40):
        job = running(up, web_1)
        claim = {"claim_id": str(job.claim_id)}
        first = {"stream": "stdout", "offset": 0, "data": "YWJj"}
        calls = [
            Call("POST", f"/api/jobs/{job.pk}/output", token, {**claim, "chunks": [first] * (1 + number % 2)})
            for number in range(6)
        ]
        end = {**claim, **failed(1), "stdout_bytes": 3}
        answers = up.together([*calls, *[Call("POST", f"/api/jobs/{job.pk}/complete", token, end)] * 3])
        assert {answer.status_code for answer in answers} <= {200, 409}


def test_many_workers_enforce_a_deadline_once(up: Plane, web_1: Node) -> None:
    """Two schedulers at once do no harm: each expiry and each loss is one change and one audit row."""
    queued = [factories.make_job(web_1) for _ in range(250)]
    lost = [running(up, web_1) for _ in range(20)]
    past = timezone.now() - timedelta(seconds=400)
    Job.objects.filter(pk__in=[job.pk for job in queued]).update(expires_at=past)
    Job.objects.filter(pk__in=[job.pk for job in lost]).update(lease_expires_at=past, deadline_at=past)

    async def six_of_them() -> None:
        await asyncio.gather(*(in_thread(deadlines.enforce) for _ in range(6)))

    up.run(six_of_them())
    deadlines.enforce()
    assert Counter(Job.objects.values_list("reason", flat=True)) == {"expired": 250, "lost": 20}
    kinds = Counter(Event.objects.values_list("action", flat=True))
    assert (kinds["job.expired"], kinds["job.lost"]) == (250, 20)
