"""Node tokens as agents meet them: rotation, revocation in an open poll, and a name that was taken before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from nodes.models import Node
from tests import factories
from tests.house import wait_for
from tests.plane import Plane, bearer, plane

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[Plane]:
    with plane(monkeypatch) as made:
        yield made


def beat(up: Plane, token: str, node_id: str = "web-1") -> int:
    figures = {"cpu_percent": 1.0, "memory_percent": 1.0, "disk_percent": 1.0}
    body = {"node_id": node_id, "agent_version": "1", "interval_seconds": 10, "metrics": figures}
    return up.post("/api/nodes/heartbeat", token, body).status_code


def rotated(up: Plane, admin: str, token: str) -> str:
    answer = up.post(f"/api/tokens/{factories.token_row(token).pk}/rotate", admin)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


def test_the_old_token_works_until_the_new_one_was_used(up: Plane, ada: Any, web_1: Node) -> None:
    old = factories.make_token(web_1)
    new = rotated(up, bearer(ada), old)
    assert (beat(up, old), up.poll("web-1", old).status_code) == (202, 200)
    assert beat(up, new) == 202
    began = time.monotonic()
    wait_for(lambda: beat(up, old) == 401, seconds=5)
    wait_for(lambda: up.poll("web-1", old).status_code == 401, seconds=5)
    assert time.monotonic() - began <= 5
    assert (beat(up, new), up.poll("web-1", new).status_code) == (202, 200)


def test_a_poll_with_the_new_token_ends_the_old_one(up: Plane, ada: Any, web_1: Node) -> None:
    old = factories.make_token(web_1)
    new = rotated(up, bearer(ada), old)
    assert up.poll("web-1", old).status_code == 200
    assert up.poll("web-1", new).status_code == 200
    wait_for(lambda: up.poll("web-1", old).status_code == 401, seconds=5)
    assert factories.token_row(old).revoked_at is not None


def test_an_unused_successor_leaves_the_old_token_a_day(up: Plane, ada: Any, web_1: Node) -> None:
    old = factories.make_token(web_1)
    rotated(up, bearer(ada), old)
    row = factories.token_row(old)
    assert row.expires_at is not None
    assert timedelta(hours=23, minutes=59) < row.expires_at - timezone.now() <= timedelta(hours=24)
    factories.leave(row, expires_at=timezone.now() - timedelta(seconds=1))
    assert beat(up, old) == 401
    assert up.poll("web-1", old).status_code == 401
    assert up.post(f"/api/jobs/{web_1.pk}/start", old, {"claim_id": str(web_1.pk)}).status_code == 401


def test_a_token_that_expires_sooner_is_not_prolonged(up: Plane, ada: Any, web_1: Node) -> None:
    soon = timezone.now() + timedelta(hours=1)
    old = factories.make_token(web_1, expires_at=soon)
    rotated(up, bearer(ada), old)
    assert factories.token_row(old).expires_at == soon


@pytest.mark.slow
def test_revoking_ends_open_polls_within_five_seconds(up: Plane, ada: Any, web_1: Node) -> None:
    tokens = [factories.make_token(web_1) for _ in range(8)]
    with ThreadPoolExecutor(len(tokens)) as threads:
        polls = [threads.submit(up.poll, "web-1", token, wait=25) for token in tokens]
        time.sleep(1)
        assert not any(poll.done() for poll in polls)
        began = time.monotonic()
        for token in tokens:
            assert up.delete(f"/api/tokens/{factories.token_row(token).pk}", bearer(ada)).status_code == 204
        assert {poll.result().status_code for poll in polls} == {401}
        assert time.monotonic() - began <= 5
    assert {beat(up, token) for token in tokens} == {401}


def test_removing_a_node_ends_its_open_polls(up: Plane, ada: Any, web_1: Node) -> None:
    token = factories.make_token(web_1)
    with ThreadPoolExecutor(1) as threads:
        poll = threads.submit(up.poll, "web-1", token, wait=25)
        time.sleep(0.5)
        began = time.monotonic()
        assert up.delete("/api/nodes/web-1", bearer(ada)).status_code == 204
        assert poll.result().status_code == 401
        assert time.monotonic() - began <= 5


def test_a_name_that_was_taken_before_inherits_nothing(up: Plane, ada: Any, web_1: Node) -> None:
    admin, old = bearer(ada), factories.make_token(web_1)
    job = factories.make_job(web_1)
    claim_id = str(factories.claim(job))
    assert up.delete("/api/nodes/web-1", admin).status_code == 204
    answer = up.post("/api/tokens", admin, {"name": "again", "node_id": "web-1"})
    assert answer.status_code == 201, answer.text
    new = answer.json()["token"]
    again = Node.objects.present().get(node_id="web-1")
    assert again.pk != web_1.pk
    assert (again.last_seen_at, again.tags, again.cpu_percent) == (None, [], None)
    assert beat(up, new) == 202
    body = up.poll("web-1", new, reconcile=1).json()
    assert (body["job"], body["cancel"], body["holding"]) == (None, [], [])
    assert up.post(f"/api/jobs/{job.pk}/start", new, {"claim_id": claim_id}).status_code == 404
    assert beat(up, old) == 401
