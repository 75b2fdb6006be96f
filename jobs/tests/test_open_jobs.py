"""The table of open jobs says which have not ended, and what it says is never more than a hint."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from hyprbox.lib import db
from hyprbox.lib.actors import Actor
from jobs import claims, deadlines, retention, services, usual
from jobs.connections import SETTINGS, session, uuid_array
from jobs.models import Job, OpenJob
from jobs.reports import Result
from nodes import services as nodes
from tests import factories
from tests.factories import ending

pytestmark = pytest.mark.django_db

ADMIN = Actor.system("tests")


def noted() -> set[uuid.UUID]:
    return set(OpenJob.objects.values_list("pk", flat=True))


def past(job: Job, **moments: str) -> None:
    """Set times of a job to so much from now."""
    with connection.cursor() as cursor:
        for column, interval in moments.items():
            cursor.execute(f"UPDATE jobs_job SET {column} = now() + %s::interval WHERE id = %s", [interval, job.pk])


def completed(job: Job, api: Any) -> None:
    claim_id = str(factories.claim(job))
    agent = api.agent(factories.make_token(job.node))
    assert agent.post(f"/api/jobs/{job.pk}/start", {"claim_id": claim_id}).status_code == 200
    assert agent.post(f"/api/jobs/{job.pk}/complete", {"claim_id": claim_id, **ending()}).status_code == 200


def cancelled(job: Job, api: Any) -> None:
    services.request_cancel(by=ADMIN, job_id=job.pk)


def expired(job: Job, api: Any) -> None:
    past(job, expires_at="-1 second")
    deadlines.enforce()


def lost(job: Job, api: Any) -> None:
    factories.claim(job)
    Job.objects.filter(pk=job.pk).update(status="RUNNING", started_at=timezone.now())
    past(job, deadline_at="-1 second", lease_expires_at="-1 second")
    deadlines.enforce()


def removed(job: Job, api: Any) -> None:
    nodes.remove_node(by=ADMIN, node_id=job.node.node_id)


@pytest.mark.parametrize("end", [completed, cancelled, expired, lost, removed])
def test_a_job_is_noted_until_it_ends(api: Any, web_1: Any, db_1: Any, end: Callable[[Job, Any], None]) -> None:
    job, other = factories.make_job(web_1), factories.make_job(db_1)
    assert noted() == {job.pk, other.pk}
    row = OpenJob.objects.get(pk=job.pk)
    assert (row.node_id, row.created_at) == (web_1.pk, job.created_at)
    end(job, api)
    job.refresh_from_db()
    assert job.is_finished
    assert noted() == {other.pk}


def test_what_comes_as_history_is_not_noted(web_1: Any) -> None:
    jobs = [factories.make_job(web_1) for _ in range(3)]
    Job.objects.all().delete()
    assert noted() == set()
    for number, job in enumerate(jobs):
        job.pk = uuid.uuid4()
        if number:
            job.status, job.reason, job.finished_at = "FAILED", "expired", timezone.now() - timedelta(days=1)
    Job.objects.bulk_create(jobs)
    assert noted() == {jobs[0].pk}


def statement(name: str, text: str, *parameters: bytes) -> list[tuple[Any, ...]]:
    """As the lane runs it, in this test's transaction."""
    with connection.cursor() as cursor:
        marked = text
        for number in range(len(parameters), 0, -1):
            marked = marked.replace(f"${number}", f"%({number})s")
        cursor.execute(marked, {str(number): value.decode() for number, value in enumerate(parameters, 1)})
        return list(cursor.fetchall())


def test_one_that_was_left_behind_is_not_handed_out_and_goes(web_1: Any) -> None:
    ended, waiting = factories.make_job(web_1), factories.make_job(web_1)
    services.request_cancel(by=ADMIN, job_id=ended.pk)
    OpenJob.objects.create(job=ended, node_id=web_1.pk, created_at=ended.created_at)
    OpenJob.objects.create(job_id=uuid.uuid4(), node_id=web_1.pk, created_at=ended.created_at)  # of no job at all
    assert set(Job.objects.unfinished()) == set(Job.objects.unfinished(node_pk=web_1.pk)) == {waiting}
    [row] = statement("claim", claims.CLAIM, uuid_array([web_1.pk]), uuid_array([uuid.uuid4()]))
    assert row[2] == waiting.pk
    assert retention.mend_open_jobs() == (2, 0)
    assert noted() == {waiting.pk}


def test_what_somebody_took_out_comes_back(web_1: Any) -> None:
    jobs = {factories.make_job(web_1).pk for _ in range(3)}
    OpenJob.objects.filter(pk=min(jobs)).delete()
    assert retention.mend_open_jobs() == (0, 1)
    assert noted() == jobs
    assert retention.mend_open_jobs() == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_a_job_that_is_changed_while_its_end_is_written_stays_open_and_noted(web_1: Any) -> None:
    """Between the statement's snapshot and its lock: then the row is not where it was, and the end is tried again alone."""
    job = factories.make_job(web_1)
    claim_id = factories.claim(job)
    asked = [uuid_array([one]) for one in (job.pk, web_1.pk, claim_id)]
    assert statement("start", usual.START, *asked) == [(job.pk,)]
    result = Result("succeeded", 0, 0, "e" * 64, "e" * 64, None, None, exit_code=0, changed=True)
    [(_, parameters)] = usual.calls([usual.Report(job.pk, web_1.pk, claim_id, result, result.sha256())])
    slow = usual.COMPLETE.replace("FROM json_to_recordset($1::json)", "FROM pg_sleep(3), json_to_recordset($1::json)")
    assert slow != usual.COMPLETE
    ended: list[object] = []

    def end() -> None:
        with psycopg.connect(**db.connection_params(), autocommit=True) as lane:
            lane.execute(session(SETTINGS), prepare=False)
            ended.extend(lane.execute(slow.replace("$1", "%s"), [parameters[0].decode()]).fetchall())

    thread = threading.Thread(target=end)
    thread.start()
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    for _ in range(500):
        with connection.cursor() as cursor:
            cursor.execute(sleeping)
            if cursor.fetchone() == (1,):
                break
        time.sleep(0.02)
    services.request_cancel(by=ADMIN, job_id=job.pk)
    assert not ended, "the change came too late to test anything"
    thread.join(30)
    job.refresh_from_db()
    assert (ended, job.status, job.transcript.stdout_sha256) == ([], "RUNNING", "")
    assert noted() == {job.pk}


def test_a_good_end_moves_the_row_in_place(web_1: Any) -> None:
    job = factories.make_job(web_1)
    claim_id = factories.claim(job)
    counted = "SELECT pg_stat_get_xact_tuples_{}('jobs_job'::regclass)"

    def counts() -> tuple[int, int]:
        with connection.cursor() as cursor:
            found = []
            for what in ("updated", "hot_updated"):
                cursor.execute(counted.format(what))
                found.append(cursor.fetchone()[0])
        return found[0], found[1]

    asked = [uuid_array([one]) for one in (job.pk, web_1.pk, claim_id)]
    before = counts()
    assert statement("start", usual.START, *asked) == [(job.pk,)]
    result = Result("succeeded", 0, 0, "e" * 64, "e" * 64, None, None, exit_code=0, changed=True)
    report = usual.Report(job.pk, web_1.pk, claim_id, result, result.sha256())
    [(_, parameters)] = usual.calls([report])
    assert statement("complete", usual.COMPLETE, *parameters) == [(job.pk,)]
    after = counts()
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 2]
    assert noted() == set()
