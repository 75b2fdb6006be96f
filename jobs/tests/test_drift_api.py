"""/api/drift and /api/drift/pins."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from accounts.models import User
from jobs import drift
from jobs.models import Job, Pin
from jobs.tests.test_drift import LATE, finish
from nodes.models import Node
from tests.client import ApiClient

PIN = {"preset": "time-sync", "variables": {}, "tag": "web"}


@pytest.fixture
def pin(api: ApiClient, ada: User, web_1: Node) -> Any:
    answer = api.by(ada).post("/api/drift/pins", PIN)
    assert answer.status_code == 201, answer.content
    return answer.json()


def test_a_pin_is_made_read_and_removed(pin: Any, api: ApiClient, ada: User, otto: User) -> None:
    assert (pin["tag"], pin["node_id"], pin["owner"], pin["nodes"]) == ("web", None, ada.email, 1)
    assert pin["results"][0]["state"] == "unchecked"
    path = f"/api/drift/pins/{pin['id']}"
    assert api.by(otto).get(path).json() == pin
    assert api.by(otto).get("/api/drift/pins?preset=time-sync&node_id=web-1").json()["count"] == 1
    assert api.by(otto).get("/api/drift/pins?preset=swap-file").json()["count"] == 0
    assert api.by(otto).delete(path).status_code == 403
    assert api.by(ada).delete(path).status_code == 204
    assert api.by(ada).get(path).status_code == 404


def test_drift_is_in_the_summary_with_its_job(pin: Any, api: ApiClient, otto: User, vera: User) -> None:
    answer = api.by(otto).post(f"/api/drift/pins/{pin['id']}/check", {})
    assert answer.status_code == 201
    finish(Job.objects.get(pk=answer.json()["jobs"][0]["id"]), changed=True)
    body = api.by(vera).get("/api/drift").json()
    assert (body["pins"], body["checks"], body["drifted"], body["failed"], body["paused"]) == (1, 1, 1, 0, 0)
    assert body["results"][0]["node_id"] == "web-1"
    assert body["results"][0]["job"] == answer.json()["jobs"][0]["id"]
    listed = api.by(vera).get("/api/drift/pins").json()["results"][0]
    assert (listed["summary"], listed["variables"]) == ("1 of 1 drifted since today", None)


def test_a_paused_pin_is_resumed_by_an_admin(pin: Any, api: ApiClient, ada: User, otto: User) -> None:
    Pin.objects.update(paused_because="It was paused.")
    path = f"/api/drift/pins/{pin['id']}/resume"
    assert api.by(otto).post(path, {}).status_code == 403
    assert api.by(ada).post(path, {}).json()["paused_because"] is None
    assert drift.queue_due(LATE) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**PIN, "tag": "nobody"}, "tag"),
        ({**PIN, "preset": "system-report"}, "preset"),
        ({**PIN, "node_id": "web-1"}, "node_id"),
        ({**PIN, "variables": {"X": 1}}, "variables.X"),
        ({**PIN, "owner": "me"}, "owner"),
    ],
)
def test_bad_pins_are_400(api: ApiClient, ada: User, web_1: Node, body: Any, field: str) -> None:
    answer = api.by(ada).post("/api/drift/pins", body)
    assert (answer.status_code, list(answer.json()["error"]["fields"])) == (400, [field])


def test_who_may_do_what(pin: Any, api: ApiClient, vera: User, otto: User, ada: User) -> None:
    assert api.by(vera).post("/api/drift/pins", PIN).status_code == 403
    assert api.by(otto).post("/api/drift/pins", PIN).status_code == 403
    assert api.by(ada).post("/api/drift/pins", PIN).status_code == 409
    assert api.by(vera).post(f"/api/drift/pins/{pin['id']}/check", {}).status_code == 403
    assert api.get("/api/drift").status_code == 401
    assert api.by(ada).post(f"/api/drift/pins/{uuid.uuid4()}/check", {}).status_code == 404
