"""What runs again is what was signed: whoever writes into the database chooses nothing of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts.models import User
from audit.models import Event
from hyprbox.lib.rowmac import RowTampered
from jobs import batches, payloads, services
from jobs.errors import NothingToRetry
from jobs.models import Batch, Job
from jobs.states import Status
from nodes.models import Node
from presets import catalogue
from presets import services as presets
from presets.tests.test_custom import TEXT
from tests import factories
from tests.client import ApiClient

SITE = services.Order(
    "nginx-static-site",
    {"SERVER_NAME": "it.example.org", "CACHE": "1h"},
    mode="apply",
    timeout_seconds=300,
    allow_background=True,
)


def ended(job: Job) -> Job:
    """As if its agent had reported that it failed."""
    now = timezone.now()
    Job.objects.filter(pk=job.pk).update(status=Status.RUNNING, claim_id=uuid.uuid4(), started_at=now)
    Job.objects.filter(pk=job.pk).update(status=Status.FAILED, reason="exit", finished_at=now)
    job.refresh_from_db()
    return job


@pytest.fixture
def job(web_1: Node) -> Job:
    return ended(services.queue_job(by=factories.SYSTEM, order=SITE, node_id="web-1")[0])


@pytest.fixture
def batch(web_1: Node, db_1: Node) -> Batch:
    """Both of its jobs have failed."""
    made, jobs, _ = batches.queue(by=factories.SYSTEM, order=SITE, node_ids=["web-1", "db-1"])
    for each in jobs:
        ended(each)
    return made


# What the processes' own role may write, and so whoever gets SQL into them.
OPEN: dict[str, tuple[str, str]] = {
    "another preset": ("preset = 'admin-user'", "preset"),
    "another value": ("""variables = jsonb_set(variables, '{SERVER_NAME}', '"evil.example"')""", "variables"),
    "one more variable": ("""variables = variables || '{"EXTRA": "1"}'""", "variables"),
    "a variable less": ("variables = variables - 'CACHE'", "variables"),
    "a number for its text": ("""variables = variables || '{"PORT": 80}'""", "variables"),
    "no mapping": ("variables = '[]'", "variables"),
    "another preset with its variables": ("preset = 'system-report', variables = '{}'", "preset, variables"),
    "another mode": ("mode = 'check'", "mode"),
    "a longer time-out": ("timeout_seconds = 86000", "timeout_seconds"),
    "what it leaves running": ("allow_background = false", "allow_background"),
    "another revision": ("revision = repeat('0', 64)", "revision"),
    "another hash": ("script_sha256 = repeat('0', 64)", "script_sha256"),
    "another key": ("key_id = '0123456789abcdef'", ""),
}
# With the trigger lifted that lets nobody change what was signed.
GUARDED: dict[str, tuple[str, str]] = {
    "another script": ("script = 'id'::bytea, script_sha256 = encode(sha256('id'), 'hex')", "script, script_sha256"),
    "another node": ("node_id = (SELECT id FROM nodes_node WHERE node_id = 'new-1')", "node_id"),
    "another payload": (r"payload = replace(convert_from(payload, 'UTF8'), 'apply', 'check')::bytea", ""),
    "another signature": ("signature = 'AAAA'", ""),
}


def edit(job: Job, name: str) -> str:
    """What somebody with SQL does to the row; returns what is to be said of it."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        if name in OPEN:
            cursor.execute("SET ROLE hyprbox")
        else:
            cursor.execute("ALTER TABLE jobs_job DISABLE TRIGGER USER")
        change, wrong = (OPEN | GUARDED)[name]
        cursor.execute(f"UPDATE jobs_job SET {change} WHERE id = %s", [job.pk])
        assert cursor.rowcount == 1
        cursor.execute("RESET ROLE; ALTER TABLE jobs_job ENABLE TRIGGER USER")
    return f"not as it was signed: {wrong}" if wrong else "its signature does not verify"


def by_api(path: str, otto: User) -> Any:
    answer = ApiClient().by(otto).post(f"/api/jobs/{path}/retry", {})
    assert answer.json()["error"]["code"] == "row_tampered"
    return answer


def by_page(path: str, otto: User) -> Any:
    client = Client()
    client.force_login(otto)
    answer = client.post(f"/jobs/{path}/retry/")
    assert "changed by something else than HyprBox" in answer.content.decode()
    return answer


Door = Callable[[str, User], Any]
DOORS: list[Door] = [by_api, by_page]


def refused(subject: str, target: str, by: User, why: str) -> None:
    """It is in the log, and nothing was queued."""
    [entry] = Event.objects.filter(action="row.tampered")
    assert (entry.target, entry.actor_name) == (target, by.email)
    assert entry.detail == {"row": subject, "why": why}
    assert not Job.objects.filter(status=Status.QUEUED).exists()
    assert not Event.objects.filter(action__in=["job.queued", "batch.queued"], actor_name=by.email).exists()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", OPEN | GUARDED)
def test_an_edited_job_is_not_run_again(job: Job, otto: User, new_1: Node, name: str, door: Door) -> None:
    why = edit(job, name)
    assert door(str(job.pk), otto).status_code == 409
    refused(f"jobs_job:{job.pk}", f"job:{job.pk}", otto, why)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", OPEN | GUARDED)
@pytest.mark.parametrize("which", [0, 1])
def test_one_edited_job_keeps_its_batch_from_running_again(
    batch: Batch, otto: User, new_1: Node, which: int, name: str, door: Door
) -> None:
    edited = Job.objects.filter(batch=batch).order_by("created_at", "id")[which]
    edit(edited, name)
    assert door(f"batches/{batch.pk}", otto).status_code == 409
    assert Batch.objects.count() == 1
    [entry] = Event.objects.filter(action="row.tampered")
    assert (entry.target, entry.actor_name) == (f"batch:{batch.pk}", otto.email)
    assert entry.detail["row"] == f"jobs_job:{edited.pk}"
    assert not Job.objects.filter(status=Status.QUEUED).exists()


@pytest.mark.parametrize(
    "other",
    [
        services.Order("system-report", {}),
        replace(SITE, variables={"SERVER_NAME": "other.example.org"}),
        replace(SITE, timeout_seconds=301),
        replace(SITE, mode="check"),
    ],
)
def test_a_signed_job_that_was_put_into_a_batch_is_noticed(batch: Batch, otto: User, other: services.Order) -> None:
    factories.make_seen_node("web-2")
    strange = ended(services.queue_job(by=factories.SYSTEM, order=other, node_id="web-2")[0])
    Job.objects.filter(pk=strange.pk).update(batch=batch, created_at=timezone.now() + timedelta(hours=1))
    with pytest.raises(RowTampered):
        batches.retry_failed(by=factories.as_actor(otto), batch_id=batch.pk)
    refused(f"jobs_job:{strange.pk}", f"batch:{batch.pk}", otto, "its order is not the one of its batch")


def test_a_batch_of_strange_jobs_only_is_noticed_by_its_preset(batch: Batch, otto: User) -> None:
    factories.make_seen_node("web-2")
    strange = ended(factories.make_job(Node.objects.get(node_id="web-2")))
    Job.objects.filter(batch=batch).update(batch=None)
    Job.objects.filter(pk=strange.pk).update(batch=batch)
    with pytest.raises(RowTampered):
        batches.retry_failed(by=factories.as_actor(otto), batch_id=batch.pk)
    refused(f"jobs_batch:{batch.pk}", f"batch:{batch.pk}", otto, "its preset is not the one of its jobs")


def test_an_untouched_job_runs_again_with_all_that_it_had(job: Job, otto: User) -> None:
    again = services.retry_job(by=factories.as_actor(otto), job_id=job.pk)
    for name in ("preset", "mode", "variables", "timeout_seconds", "allow_background", "script_sha256", "node_id"):
        assert getattr(again, name) == getattr(job, name), name
    assert again.variables["SERVER_NAME"] == "it.example.org" and again.variables["CACHE"] == "3600"
    assert not Event.objects.filter(action="row.tampered").exists()


def test_pointers_to_secrets_are_taken_over_from_what_was_signed(web_1: Node) -> None:
    pointer = "env:HYPRBOX_SECRET_REDIS"
    order = services.Order("redis", {"PASSWORD": pointer, "LISTEN_ALSO": "10.0.0.5"})
    job = ended(services.queue_job(by=factories.SYSTEM, order=order, node_id="web-1")[0])
    assert "PASSWORD" not in job.variables
    again = services.retry_job(by=factories.SYSTEM, job_id=job.pk)
    assert payloads.secrets_in(bytes(again.payload)) == {"PASSWORD": pointer}
    Job.objects.filter(pk=job.pk).update(variables={**job.variables, "PASSWORD": "env:HYPRBOX_SECRET_OTHER"})
    with pytest.raises(RowTampered):
        services.retry_job(by=factories.SYSTEM, job_id=job.pk)


def test_values_with_quotes_and_lines_in_them_run_again(ada: User, web_1: Node) -> None:
    presets.create_preset(by=factories.as_actor(ada), text=TEXT)
    text = "it's\nreadonly TEXT='x'\n\nhb_apply() {\n'\\''"
    job = ended(factories.make_job(web_1, preset="motd", variables={"TEXT": text}))
    assert services.retry_job(by=factories.SYSTEM, job_id=job.pk).variables == {"TEXT": text}


def test_a_job_runs_again_after_its_preset_was_revised(job: Job, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another script, one more variable, another order of them: what somebody chose is still what was signed."""
    old = catalogue.builtin()["nginx-static-site"]
    more = replace(old.variables[1], name="EXTRA", default="/srv/extra")
    new = replace(
        old, apply="true\n", variables=(more, *reversed(old.variables)), revision="f" * 64, timeout_seconds=77
    )
    monkeypatch.setattr(catalogue, "find", lambda name: new)
    again = services.retry_job(by=factories.SYSTEM, job_id=job.pk)
    _, jobs = batches.retry_failed(by=factories.SYSTEM, batch_id=batch.pk)
    for each in (again, *jobs):
        assert each.revision == "f" * 64 and each.variables == {**job.variables, "EXTRA": "/srv/extra"}
        assert each.timeout_seconds == 300 and json.loads(bytes(each.payload))["preset"] == "nginx-static-site"
    # The second one is checked against its own script, whose lines stand in the new order.
    assert services.retry_job(by=factories.SYSTEM, job_id=ended(again).pk).variables == again.variables


def queued_by(user: User) -> dict[str, Event]:
    """What the log says of it, by what was queued."""
    found = Event.objects.filter(action__in=["job.queued", "batch.queued"], actor_name=user.email)
    return {event.target: event for event in found}


def test_the_log_says_of_what_a_job_is_a_retry(job: Job, otto: User) -> None:
    again = services.retry_job(by=factories.as_actor(otto), job_id=job.pk)
    entries = queued_by(otto)
    assert list(entries) == [f"job:{again.pk}"]
    assert entries[f"job:{again.pk}"].detail["retry_of"] == str(job.pk)


def test_the_log_says_of_what_a_batch_and_each_of_its_jobs_is_a_retry(batch: Batch, otto: User) -> None:
    again, jobs = batches.retry_failed(by=factories.as_actor(otto), batch_id=batch.pk)
    entries = queued_by(otto)
    assert len(entries) == 3 and entries[f"batch:{again.pk}"].detail["retry_of"] == str(batch.pk)
    for job in jobs:
        failed = Job.objects.get(batch=batch, node_id=job.node_id)
        assert entries[f"job:{job.pk}"].detail["retry_of"] == str(failed.pk) == str(job.retry_of_id)
    for target in (f"batch:{batch.pk}", f"job:{failed.pk}"):  # what is none does not say so
        assert "retry_of" not in Event.objects.get(target=target, action__endswith=".queued").detail


def test_an_untouched_batch_runs_again_once(batch: Batch) -> None:
    _, jobs = batches.retry_failed(by=factories.SYSTEM, batch_id=batch.pk)
    failed = Job.objects.filter(batch=batch)
    assert {job.retry_of_id for job in jobs} == {job.pk for job in failed}
    assert {job.script_sha256 for job in jobs} == {job.script_sha256 for job in failed}
    with pytest.raises(NothingToRetry):
        batches.retry_failed(by=factories.SYSTEM, batch_id=batch.pk)
