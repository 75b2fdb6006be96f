"""What waits in the name of someone who may not run jobs any more is never handed out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from accounts import keys, people
from accounts.models import User
from audit.models import Event
from hyprbox.lib.actors import Actor
from jobs import authors, batches, reports, services, tasks
from jobs.errors import JobFinished
from jobs.models import Job
from jobs.states import Status
from nodes.models import Node
from tests import factories

pytestmark = pytest.mark.django_db

LOST: dict[str, tuple[Callable[[Actor, User], Any], str]] = {
    "disabled": (lambda by, user: people.change_user(by=by, user_id=user.pk, is_active=False), "no active account"),
    "removed": (lambda by, user: people.remove_user(by=by, user_id=user.pk), "no active account"),
    "a viewer": (lambda by, user: people.change_user(by=by, user_id=user.pk, role="viewer"), "may not run jobs"),
    "edited": (lambda by, user: User.objects.filter(pk=user.pk).update(role="admin"), "no active account"),
}


def work() -> None:
    """What the worker does every ten seconds."""
    tasks.enforce_deadlines(0)


def status_of(job: Job) -> str:
    return Job.objects.values_list("status", flat=True).get(pk=job.pk)


@pytest.mark.parametrize("how", LOST)
def test_what_has_not_started_is_cancelled(api: Any, client: Client, ada: User, otto: User, how: str) -> None:
    node = factories.make_seen_node("db-1")
    waiting, claimed = (factories.make_job(node, by=factories.as_actor(otto)) for _ in range(2))
    of_another = factories.make_job(node, by=factories.as_actor(ada))
    claim_id = factories.claim(claimed)
    work()
    assert status_of(waiting) == Status.QUEUED
    lose, word = LOST[how]
    lose(factories.as_actor(ada), otto)
    work()
    assert (status_of(waiting), status_of(claimed), status_of(of_another)) == ("CANCELLED", "CANCELLED", "QUEUED")
    with pytest.raises(JobFinished):
        reports.start(by=factories.agent_of(node), job_id=claimed.pk, claim_id=claim_id)
    entries = {entry.target: entry for entry in Event.objects.filter(action="job.cancelled")}
    assert set(entries) == {f"job:{waiting.pk}", f"job:{claimed.pk}"}
    assert all(entry.actor_name == "authors" and word in entry.detail["why"] for entry in entries.values())
    client.post("/login/", {"email": ada.email, "password": factories.PASSWORD})
    page = client.get(f"/jobs/{waiting.pk}/").content.decode()
    assert f"It was cancelled before it started. {entries[f'job:{waiting.pk}'].detail['why']}" in page


def test_what_runs_goes_on(ada: User, otto: User) -> None:
    node = factories.make_seen_node("db-1")
    job = factories.make_job(node, by=factories.as_actor(otto))
    reports.start(by=factories.agent_of(node), job_id=job.pk, claim_id=factories.claim(job))
    LOST["disabled"][0](factories.as_actor(ada), otto)
    work()
    job.refresh_from_db()
    assert (job.status, job.cancel_requested_at) == (Status.RUNNING, None)


def test_jobs_of_a_program_belong_to_the_owner_of_its_key(api: Any, ada: User, otto: User, web_1: Node) -> None:
    _, secret = keys.create_key(by=factories.as_actor(otto), name="pipeline", scopes=["run"])
    made = api.agent(secret).post("/api/jobs", {"preset": "system-report", "variables": {}, "node_id": "web-1"})
    assert made.status_code == 201, made.json()
    LOST["disabled"][0](factories.as_actor(ada), otto)
    work()
    assert Job.objects.get().status == Status.CANCELLED


def test_a_batch_stops_and_what_it_has_released_is_cancelled_too(ada: User, otto: User) -> None:
    names = [factories.make_seen_node(f"n-{i}").node_id for i in range(5)]
    pace = batches.Pace(wave_size=2)
    batch, _, _ = batches.queue(
        by=factories.as_actor(otto), order=services.Order("system-report", {}), node_ids=names, pace=pace
    )
    LOST["disabled"][0](factories.as_actor(ada), otto)
    work()
    jobs = list(Job.objects.filter(batch=batch).order_by("wave"))
    assert {job.status for job in jobs} == {Status.CANCELLED}
    why = "otto@example.com, who queued it, has no active account any more."
    assert [job.cancelled_because for job in jobs] == [why] * 2 + [f"Its batch stopped: {why}"] * 3
    assert Event.objects.get(action="batch.stopped").detail["cancelled"] == 3
    assert Event.objects.filter(action="job.cancelled").count() == 2


def test_jobs_of_the_host_belong_to_nobody(web_1: Node) -> None:
    job = factories.make_job(web_1)
    work()
    assert (job.author_id, status_of(job)) == (None, Status.QUEUED)


def test_many_are_cancelled_piece_by_piece(monkeypatch: pytest.MonkeyPatch, ada: User, otto: User, web_1: Node) -> None:
    monkeypatch.setattr(authors, "BATCH", 2)
    for _ in range(5):
        factories.make_job(web_1, by=factories.as_actor(otto))
    LOST["disabled"][0](factories.as_actor(ada), otto)
    assert authors.cancel_of_the_rightless() == 5
    assert authors.cancel_of_the_rightless() == 0


def test_a_job_says_who_had_it_cancelled(client: Client, ada: User, web_1: Node) -> None:
    job = factories.make_job(web_1)
    client.post("/login/", {"email": ada.email, "password": factories.PASSWORD})
    client.post(f"/jobs/{job.pk}/cancel/")
    page = client.get(f"/jobs/{job.pk}/").content.decode()
    assert f"It was cancelled before it started. {ada.email} asked for it." in page
