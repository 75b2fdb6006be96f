"""Removing a node ends its jobs: queued ones at once, running ones by asking."""

from __future__ import annotations

from typing import Any

import pytest

from jobs import reports
from tests import factories


def test_queued_jobs_end_and_running_ones_are_asked_to(api: Any, ada: Any, web_1: Any) -> None:
    running = factories.make_job(web_1)
    claim_id = factories.claim(running)
    reports.start(by=factories.agent_of(web_1), job_id=running.pk, claim_id=claim_id)
    queued = factories.make_job(web_1)
    assert api.by(ada).delete("/api/nodes/web-1").status_code == 204
    queued.refresh_from_db()
    running.refresh_from_db()
    assert queued.status == "CANCELLED"
    assert running.status == "RUNNING"
    assert running.cancel_requested_at is not None


@pytest.mark.django_db(transaction=True)
def test_its_agent_hears_the_cancel_and_may_end_the_job_and_nothing_else(api: Any, ada: Any, web_1: Any) -> None:
    web_1.concurrency = 2
    web_1.save()
    agent = api.agent(factories.make_token(web_1))
    token = factories.make_token(web_1)
    revoked = api.agent(token)
    api.by(ada).delete(f"/api/tokens/{factories.token_row(token).pk}")
    jobs = [factories.make_job(web_1) for _ in range(3)]
    claims = [str(factories.claim(job)) for job in jobs]
    for job, claim in zip(jobs[:2], claims, strict=False):
        assert agent.post(f"/api/jobs/{job.pk}/start", {"claim_id": claim}).status_code == 200
    ended = {"claim_id": claims[1], **factories.ending()}
    assert agent.post(f"/api/jobs/{jobs[1].pk}/complete", ended).status_code == 200
    assert api.by(ada).delete("/api/nodes/web-1").status_code == 204
    alive = {"claim_id": claims[0], "phase": "apply", "chunks": []}
    path = f"/api/jobs/{jobs[0].pk}"
    assert revoked.post(f"{path}/output", alive).status_code == 401  # that one had ended before
    assert agent.post(f"{path}/output", alive).json()["cancel_requested"] is True
    assert agent.post(f"{path}/start", {"claim_id": claims[0]}).status_code == 401
    assert agent.post(f"/api/jobs/{jobs[1].pk}/complete", ended).status_code == 401  # ended before the removal
    assert agent.post(f"/api/jobs/{jobs[2].pk}/output", {**alive, "claim_id": claims[2]}).status_code == 409
    cancelled = {"claim_id": claims[0], **factories.ending(status="cancelled", exit_code=None, signal=15)}
    for _ in range(2):  # the first answer may have been lost
        assert agent.post(f"{path}/complete", cancelled).json()["status"] == "CANCELLED"


def test_a_node_of_the_same_name_inherits_nothing(api: Any, ada: Any, web_1: Any) -> None:
    token = factories.make_token(web_1)
    job = factories.make_job(web_1)
    api.by(ada).delete("/api/nodes/web-1")
    again = factories.make_node("web-1")
    assert again.pk != web_1.pk
    answer = api.agent(token).post(f"/api/jobs/{job.pk}/start", {"claim_id": str(factories.claim(job))})
    assert answer.status_code == 401
