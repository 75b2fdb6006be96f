"""Removing a node ends its jobs: queued ones at once, running ones by asking."""

from __future__ import annotations

from typing import Any

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


def test_a_node_of_the_same_name_inherits_nothing(api: Any, ada: Any, web_1: Any) -> None:
    token = factories.make_token(web_1)
    job = factories.make_job(web_1)
    api.by(ada).delete("/api/nodes/web-1")
    again = factories.make_node("web-1")
    assert again.pk != web_1.pk
    answer = api.agent(token).post(f"/api/jobs/{job.pk}/start", {"claim_id": str(factories.claim(job))})
    assert answer.status_code == 401
