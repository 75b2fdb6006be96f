"""Queueing: rendered, frozen, hashed, signed and audited in one transaction."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import nacl.signing
import pytest
from django.db.models.functions import Now

from audit.models import Event
from hyprbox.lib import signing
from jobs.models import IdempotencyKey, Job
from presets import params
from presets import selectors as presets
from presets.errors import UnknownPreset
from tests import factories


@pytest.fixture
def body(web_1: Any) -> dict[str, Any]:
    return {"preset": "system-report", "variables": {}, "node_id": "web-1"}


def test_an_operator_queues_a_job(api: Any, otto: Any, body: dict[str, Any]) -> None:
    answer = api.by(otto).post("/api/jobs", body)
    assert answer.status_code == 201, answer.content
    job = answer.json()
    assert (job["status"], job["node_id"], job["created_by"]) == ("QUEUED", "web-1", "otto@example.com")
    assert hashlib.sha256(job["script"].encode()).hexdigest() == job["script_sha256"]
    assert Event.objects.get(target=f"job:{job['id']}").action == "job.queued"


def test_what_is_signed_is_what_is_stored(otto: Any, web_1: Any) -> None:
    job = factories.make_job(web_1, by=factories.as_actor(otto))
    key = nacl.signing.VerifyKey(base64.b64decode(signing.signer().public_key))
    key.verify(signing.JOB_CONTEXT + bytes(job.payload), base64.b64decode(job.signature))
    payload = json.loads(bytes(job.payload))
    assert base64.b64decode(payload["script"]) == bytes(job.script)
    assert payload["job_id"] == str(job.pk)
    assert payload["node_id"] == "web-1"
    assert payload["script_sha256"] == job.script_sha256


def test_what_a_script_leaves_running_may_go_on(api: Any, otto: Any, body: dict[str, Any]) -> None:
    plain, kept = (
        Job.objects.get(pk=api.by(otto).post("/api/jobs", {**body, **over}).json()["id"])
        for over in ({}, {"allow_background": True})
    )
    assert "allow_background" not in json.loads(bytes(plain.payload))
    assert json.loads(bytes(kept.payload))["allow_background"] is True
    assert [job.allow_background for job in (plain, kept)] == [False, True]
    details = [Event.objects.get(target=f"job:{job.pk}").detail for job in (plain, kept)]
    assert [detail.get("allow_background") for detail in details] == [None, True]


@pytest.mark.parametrize("wrong", ["yes", 1, None])
def test_whether_it_may_is_true_or_false(api: Any, otto: Any, body: dict[str, Any], wrong: Any) -> None:
    answer = api.by(otto).post("/api/jobs", {**body, "allow_background": wrong})
    assert answer.status_code == 400 and "allow_background" in answer.json()["error"]["fields"]


def test_a_secret_stays_a_pointer(
    api: Any, otto: Any, web_1: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where this server has something by that name itself."""
    monkeypatch.setattr(params, "SECRET_FOLDER", f"{tmp_path}/")
    (tmp_path / "restic").write_text("canary of a file")
    monkeypatch.setenv("HYPRBOX_SECRET_S3", "canary of a variable")
    pointers = {"PASSWORD": f"file:{tmp_path}/restic", "S3_KEY": "env:HYPRBOX_SECRET_S3"}
    variables = {"REPOSITORY": "s3:https://host/bucket", "S3_KEY_ID": "key", **pointers}
    order = {"preset": "restic-backup", "node_id": "web-1", "variables": variables}
    answer = api.by(otto).post("/api/jobs", order)
    assert answer.status_code == 201, answer.content
    [row] = Job.objects.values()
    payload = json.loads(bytes(row["payload"]))
    assert (payload["secrets"], payload["environment"]) == (pointers, {})
    assert not set(row["variables"]) & set(pointers)
    seen = [str(answer.json()), str(list(Event.objects.values())), base64.b64decode(payload["script"]).decode()]
    seen += [bytes(value).decode() if isinstance(value, (bytes, memoryview)) else str(value) for value in row.values()]
    assert "canary" not in " ".join(seen)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"node_id": "nowhere"}, "node_id"),
        ({"preset": "no-such-preset"}, "preset"),
        ({"variables": {"NOT_A_VARIABLE": "1"}}, "variables.NOT_A_VARIABLE"),
        ({"mode": "dance"}, "mode"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": "soon"}, "timeout_seconds"),
        ({"expires_in_seconds": 10**9}, "expires_in_seconds"),
        ({"status": "SUCCEEDED"}, "status"),
        ({"variables": "none"}, "variables"),
    ],
)
def test_each_bad_input_is_named(api: Any, otto: Any, body: dict[str, Any], change: Any, field: str) -> None:
    answer = api.by(otto).post("/api/jobs", {**body, **change})
    assert answer.status_code == 400, answer.content
    assert field in answer.json()["error"]["fields"]
    assert not Job.objects.exists()


def test_a_node_may_be_named_before_its_agent_first_reports(
    api: Any, otto: Any, body: dict[str, Any], new_1: Any
) -> None:
    assert api.by(otto).post("/api/jobs", {**body, "node_id": "new-1"}).status_code == 201


def test_a_viewer_may_not(api: Any, vera: Any, body: dict[str, Any]) -> None:
    assert api.by(vera).post("/api/jobs", body).status_code == 403
    assert not Job.objects.exists()


def test_nobody_may_not(api: Any, body: dict[str, Any]) -> None:
    assert api.post("/api/jobs", body).status_code == 401


def test_a_deactivated_user_may_not(api: Any, mallory: Any, body: dict[str, Any]) -> None:
    assert api.by(mallory).post("/api/jobs", body).status_code == 401


def test_a_repeated_key_gives_the_same_job(api: Any, otto: Any, body: dict[str, Any]) -> None:
    first = api.by(otto).post("/api/jobs", body, idempotency_key="k-1")
    again = api.by(otto).post("/api/jobs", body, idempotency_key="k-1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert Job.objects.count() == 1


def test_a_key_for_another_body_is_refused(api: Any, otto: Any, body: dict[str, Any]) -> None:
    api.by(otto).post("/api/jobs", body, idempotency_key="k-1")
    answer = api.by(otto).post("/api/jobs", {**body, "timeout_seconds": 60}, idempotency_key="k-1")
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "key_reused"


@pytest.mark.parametrize(("hours", "is_new"), [(23.9, False), (24.1, True)])
def test_a_key_is_kept_for_a_day(api: Any, otto: Any, body: dict[str, Any], hours: float, is_new: bool) -> None:
    first = api.by(otto).post("/api/jobs", body, idempotency_key="k-1")
    IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=hours))
    again = api.by(otto).post("/api/jobs", body, idempotency_key="k-1")
    assert (again.json()["id"] != first.json()["id"], again.status_code) == (is_new, 201 if is_new else 200)


def test_keys_are_each_users_own(api: Any, otto: Any, ada: Any, body: dict[str, Any]) -> None:
    first = api.by(otto).post("/api/jobs", body, idempotency_key="k-1")
    other = api.by(ada).post("/api/jobs", body, idempotency_key="k-1")
    assert other.status_code == 201
    assert first.json()["id"] != other.json()["id"]


def test_a_viewer_sees_no_script_variables_or_output(api: Any, vera: Any, web_1: Any) -> None:
    job = factories.make_job(web_1)
    seen = api.by(vera).get(f"/api/jobs/{job.pk}").json()
    assert (seen["script"], seen["variables"], seen["signature"]) == (None, None, None)
    assert api.by(vera).get(f"/api/jobs/{job.pk}/output").status_code == 403


def test_a_batch_is_all_or_nothing(api: Any, otto: Any, web_1: Any, db_1: Any) -> None:
    order = {"preset": "system-report", "variables": {}}
    bad = api.by(otto).post("/api/jobs/batches", {**order, "node_ids": ["web-1", "nowhere"]})
    assert bad.status_code == 400
    assert not Job.objects.exists()
    good = api.by(otto).post("/api/jobs/batches", {**order, "node_ids": ["web-1", "db-1"]})
    assert good.status_code == 201
    assert {job["node_id"] for job in good.json()["jobs"]} == {"web-1", "db-1"}


def test_a_repeat_gets_its_job_though_the_preset_is_gone(
    api: Any, otto: Any, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = api.by(otto).post("/api/jobs", body, idempotency_key="k-1")
    monkeypatch.setattr(presets, "find_preset", _no_preset)
    again = api.by(otto).post("/api/jobs", body, idempotency_key="k-1")
    assert (first.status_code, again.status_code, again.json()["id"]) == (201, 200, first.json()["id"])
    # Another request is that before it is anything else.
    assert api.by(otto).post("/api/jobs", {**body, "preset": "x"}, idempotency_key="k-1").status_code == 422


def _no_preset(name: str) -> Any:
    raise UnknownPreset()
