"""What time does to jobs, to the second; what a cancel finds; how long output is kept."""

from __future__ import annotations

import hashlib
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from audit.models import Event
from jobs import deadlines, output, reports, retention
from jobs.models import Job, OutputChunk, Transcript
from jobs.output import Piece
from nodes import selectors as nodes
from nodes.models import Node
from tests import factories
from tests.factories import ending

pytestmark = pytest.mark.django_db


def ago(seconds: float) -> Any:
    return Now() - timedelta(seconds=seconds)


def start(job: Job) -> Job:
    claim_id = factories.claim(job)
    reports.start(by=factories.agent_of(job.node), job_id=job.pk, claim_id=claim_id)
    job.refresh_from_db()
    return job


def state(job: Job) -> tuple[str, str, bool]:
    job.refresh_from_db()
    return job.status, job.reason, job.outcome_unknown


# --- expiry ---


@pytest.mark.parametrize(("seconds", "expected"), [(-1, "QUEUED"), (1, "FAILED")])
def test_a_queued_job_expires_to_the_second(web_1: Node, seconds: int, expected: str) -> None:
    job = factories.make_job(web_1)
    Job.objects.filter(pk=job.pk).update(expires_at=ago(seconds))
    deadlines.enforce()
    assert state(job)[0] == expected
    deadlines.enforce()
    assert Event.objects.filter(action="job.expired").count() == (expected == "FAILED")


def test_a_job_expires_after_a_day_unless_told_otherwise(web_1: Node) -> None:
    usual, short = factories.make_job(web_1), factories.make_job(web_1, expires_in_seconds=60)
    assert usual.expires_at - usual.created_at == timedelta(hours=24)
    assert short.expires_at - short.created_at == timedelta(seconds=60)


def test_an_expired_claim_cannot_start(web_1: Node) -> None:
    job = factories.make_job(web_1)
    claim_id = factories.claim(job)
    Job.objects.filter(pk=job.pk).update(expires_at=ago(1))
    with pytest.raises(reports.JobFinished):
        reports.start(by=factories.agent_of(web_1), job_id=job.pk, claim_id=claim_id)
    assert state(job) == ("FAILED", "expired", False)


# --- the lease and the deadline ---


@pytest.mark.parametrize(("seconds", "is_lost"), [(-1, False), (1, True)])
def test_contact_is_lost_to_the_second(web_1: Node, seconds: int, is_lost: bool) -> None:
    job = start(factories.make_job(web_1))
    Job.objects.filter(pk=job.pk).update(lease_expires_at=ago(seconds))
    deadlines.enforce()
    assert state(job)[0] == "RUNNING"
    assert (job.contact_lost_at is not None) == is_lost
    assert deadlines.gauges().contact_lost == is_lost


@pytest.mark.parametrize(("seconds", "expected"), [(-1, "RUNNING"), (1, "FAILED")])
def test_a_silent_job_is_given_up_to_the_second(web_1: Node, seconds: int, expected: str) -> None:
    job = start(factories.make_job(web_1, timeout_seconds=900))
    assert job.deadline_at is not None
    assert job.started_at is not None
    assert job.deadline_at - job.started_at == timedelta(seconds=900 + 300)
    Job.objects.filter(pk=job.pk).update(deadline_at=ago(seconds), lease_expires_at=ago(400))
    deadlines.enforce()
    assert state(job)[0] == expected
    if expected == "FAILED":
        assert state(job) == ("FAILED", "lost", True)


def test_a_job_that_is_in_contact_is_not_given_up(web_1: Node) -> None:
    job = start(factories.make_job(web_1))
    Job.objects.filter(pk=job.pk).update(deadline_at=ago(3600))
    deadlines.enforce()
    assert state(job)[0] == "RUNNING"


def test_a_long_time_out_is_left_alone(web_1: Node) -> None:
    """Silent for hours, but allowed to run for a day."""
    job = start(factories.make_job(web_1, timeout_seconds=86_400))
    Job.objects.filter(pk=job.pk).update(
        started_at=ago(80_000), deadline_at=F("deadline_at") - timedelta(seconds=80_000), lease_expires_at=ago(79_000)
    )
    deadlines.enforce()
    assert state(job)[0] == "RUNNING"


def test_a_full_batch_of_others_does_not_hide_one_that_is_due(web_1: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "BATCH", 3)
    for _ in range(5):
        factories.make_job(web_1)
        silent = start(factories.make_job(web_1))
        Job.objects.filter(pk=silent.pk).update(lease_expires_at=ago(100), contact_lost_at=ago(90))
    expired, lost = factories.make_job(web_1), start(factories.make_job(web_1))
    Job.objects.filter(pk=expired.pk).update(expires_at=ago(1))
    Job.objects.filter(pk=lost.pk).update(deadline_at=ago(1), lease_expires_at=ago(400))
    deadlines.enforce()
    assert (state(expired)[1], state(lost)[1]) == ("expired", "lost")
    assert Job.objects.filter(status="FAILED").count() == 2


def test_more_than_a_batch_is_done_at_once(web_1: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "BATCH", 3)
    for _ in range(8):
        factories.make_job(web_1)
    Job.objects.update(expires_at=ago(1))
    assert deadlines.enforce() == 8
    assert set(Job.objects.values_list("reason", flat=True)) == {"expired"}


# --- the gauges ---


def metrics(client: Any) -> dict[str, float]:
    lines = client.get("/metrics").content.decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_the_gauges_show_what_should_never_be(client: Any, settings: Any, web_1: Node) -> None:
    settings.DEBUG = True
    assert metrics(client)["hyprbox_jobs_past_deadline"] == 0
    assert metrics(client)["hyprbox_jobs_queued_oldest_seconds"] == 0
    job, silent = factories.make_job(web_1), start(factories.make_job(web_1))
    Job.objects.filter(pk=job.pk).update(created_at=ago(500), expires_at=ago(75))
    Job.objects.filter(pk=silent.pk).update(deadline_at=ago(75), lease_expires_at=ago(400))
    found = metrics(client)
    assert found["hyprbox_jobs_past_deadline"] == 2
    assert 499 < found["hyprbox_jobs_queued_oldest_seconds"] < 510
    deadlines.note_lost_contact()
    assert metrics(client)["hyprbox_jobs_contact_lost"] == 1
    deadlines.enforce()
    found = metrics(client)
    assert (found["hyprbox_jobs_past_deadline"], found["hyprbox_jobs_contact_lost"]) == (0, 0)


@pytest.mark.parametrize(("seconds", "count"), [(59, 0), (61, 1)])
def test_a_minute_late_is_too_late(web_1: Node, seconds: int, count: int) -> None:
    job = factories.make_job(web_1)
    Job.objects.filter(pk=job.pk).update(expires_at=ago(seconds))
    assert deadlines.gauges().past_deadline == count


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_of_the_web_host_decides_nothing(
    web_1: Node, api: Any, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """An hour off: expiry, lease, deadline and a node's status go by the database's clock."""
    token = factories.make_token(web_1)
    fresh, stale = (factories.make_job(web_1, expires_in_seconds=600) for _ in range(2))
    running, lost = start(factories.make_job(web_1)), start(factories.make_job(web_1))
    Job.objects.filter(pk=stale.pk).update(expires_at=ago(1))
    Job.objects.filter(pk__in=[running.pk, lost.pk]).update(lease_expires_at=ago(-30), deadline_at=ago(-30))
    Job.objects.filter(pk=lost.pk).update(lease_expires_at=ago(2), deadline_at=ago(1))
    Node.objects.filter(pk=web_1.pk).update(last_seen_at=ago(5))
    wrong = timedelta(hours=hours)
    now, seconds = timezone.now, time.time
    monkeypatch.setattr(timezone, "now", lambda: now() + wrong)
    monkeypatch.setattr(time, "time", lambda: seconds() + wrong.total_seconds())
    deadlines.enforce()
    deadlines.note_lost_contact()
    assert [state(job)[0] for job in (fresh, stale, running, lost)] == ["QUEUED", "FAILED", "RUNNING", "FAILED"]
    assert running.contact_lost_at is None
    sent = {"claim_id": str(running.claim_id), "chunks": []}
    assert api.agent(token).post(f"/api/jobs/{running.pk}/output", sent).status_code == 200
    left = Job.objects.annotate(left=F("lease_expires_at") - Now()).get(pk=running.pk).left
    assert timedelta(seconds=55) < left <= timedelta(seconds=60)  # renewed
    assert nodes.judge_node(nodes.find_node("web-1")).status == "ONLINE"


# --- cancelling, at four moments ---


def cancel(api: Any, otto: Any, job: Job) -> Any:
    return api.by(otto).post(f"/api/jobs/{job.pk}/cancel")


def test_before_anybody_came_for_it(api: Any, otto: Any, web_1: Node) -> None:
    job = factories.make_job(web_1)
    assert cancel(api, otto, job).status_code == 200
    assert state(job)[0] == "CANCELLED"


def test_between_claim_and_start(api: Any, otto: Any, web_1: Node) -> None:
    """The agent holds it and is about to run it: it must not."""
    job = factories.make_job(web_1)
    claim_id = factories.claim(job)
    assert cancel(api, otto, job).status_code == 200
    with pytest.raises(reports.JobFinished):
        reports.start(by=factories.agent_of(web_1), job_id=job.pk, claim_id=claim_id)
    assert state(job)[0] == "CANCELLED"


def test_while_it_runs(api: Any, otto: Any, web_1: Node) -> None:
    job = start(factories.make_job(web_1))
    assert cancel(api, otto, job).json()["cancel_requested_at"]
    assert cancel(api, otto, job).status_code == 200
    assert Event.objects.filter(action="job.cancel_requested").count() == 1
    assert state(job)[0] == "RUNNING"


def test_when_it_has_ended(api: Any, otto: Any, web_1: Node) -> None:
    job = start(factories.make_job(web_1))
    agent = api.agent(factories.make_token(web_1))
    agent.post(f"/api/jobs/{job.pk}/complete", {"claim_id": str(job.claim_id), **ending()})
    answer = cancel(api, otto, job)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "job_not_cancellable")
    assert state(job)[0] == "SUCCEEDED"


# --- retrying ---


def test_a_retry_runs_what_the_first_ran_and_nothing_is_retried_by_itself(api: Any, otto: Any, web_1: Node) -> None:
    job = factories.make_job(web_1, timeout_seconds=77)
    Job.objects.filter(pk=job.pk).update(expires_at=ago(1))
    deadlines.enforce()
    assert Job.objects.count() == 1
    answer = api.by(otto).post(f"/api/jobs/{job.pk}/retry").json()
    assert (answer["retry_of"], answer["timeout_seconds"], answer["script_sha256"], answer["status"]) == (
        str(job.pk),
        77,
        job.script_sha256,
        "QUEUED",
    )
    assert state(job) == ("FAILED", "expired", False)


# --- keeping output ---


def with_output(node: Node, *, ended_days_ago: int | None) -> Job:
    job = start(factories.make_job(node))
    transcript = output.lock_transcript(job.pk)
    pieces = [Piece("stdout", number * 3, b"abc") for number in range(4)] + [Piece("stderr", 0, b"oops")]
    output.append(transcript, pieces, phase="apply")
    Transcript.objects.filter(pk=job.pk).update(stdout_sha256=hashlib.sha256(b"abc" * 4).hexdigest())
    if ended_days_ago is not None:
        ended = Now() - timedelta(days=ended_days_ago)
        Job.objects.filter(pk=job.pk).update(created_at=ended, status="SUCCEEDED", finished_at=ended)
    else:
        Job.objects.filter(pk=job.pk).update(created_at=Now() - timedelta(days=200))
    return job


def test_output_is_kept_for_ninety_days(web_1: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    monkeypatch.setattr(retention, "BATCH_JOBS", 1)
    old = [with_output(web_1, ended_days_ago=91) for _ in range(3)]
    kept = [with_output(web_1, ended_days_ago=89), with_output(web_1, ended_days_ago=None)]
    assert retention.forget_old_output() == 3 * 5
    assert set(OutputChunk.objects.values_list("job_id", flat=True)) == {job.pk for job in kept}
    for job in old:
        read = output.read(job.pk, "stdout")
        assert (read.data, read.first_offset, read.total) == (b"", 12, 12)
        left = Transcript.objects.get(pk=job.pk)
        assert (left.stdout_bytes, left.stderr_bytes) == (12, 4)
        assert left.stdout_sha256 == hashlib.sha256(b"abc" * 4).hexdigest()
    assert output.read(kept[0].pk, "stdout").data == b"abc" * 4
    assert retention.forget_old_output() == 0


def test_forgotten_output_can_be_asked_for(api: Any, otto: Any, web_1: Node) -> None:
    job = with_output(web_1, ended_days_ago=91)
    retention.forget_old_output()
    answer = api.by(otto).get(f"/api/jobs/{job.pk}/output?stream=stdout")
    assert (answer.status_code, answer.content, answer.headers["X-Total-Bytes"]) == (200, b"", "12")


def test_output_that_waited_behind_the_ending_is_refused(web_1: Node) -> None:
    """It read the job before it ended and got the transcript's lock after: what is stored stays what was hashed."""
    job = start(factories.make_job(web_1))
    Transcript.objects.filter(pk=job.pk).update(stdout_sha256=factories.EMPTY_SHA256)
    assert job.claim_id is not None
    with pytest.raises(reports.JobFinished):
        reports.add_output(
            by=factories.agent_of(web_1),
            job_id=job.pk,
            claim_id=job.claim_id,
            pieces=[Piece("stdout", 0, b"x")],
            phase="",
        )
    assert output.read(job.pk, "stdout").data == b""


def test_metrics_with_a_token_are_for_who_has_it(client: Any, settings: Any, db: None) -> None:
    assert client.get("/metrics").status_code == 404
    settings.HYPRBOX_METRICS_TOKEN = "scrape"
    for sent in ("", "Bearer other"):
        answer = client.get("/metrics", headers={"authorization": sent})
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert client.get("/metrics", headers={"authorization": "Bearer scrape"}).status_code == 200
