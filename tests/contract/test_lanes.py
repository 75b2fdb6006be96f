"""The two calls that are mounted before Django, against the same document: made-up ones, over the real application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import given
from schemathesis import Case
from schemathesis.specs.openapi.schemas import OpenApiSchema

from accounts.models import User
from jobs import waiting
from nodes.models import Node
from nodes.tests import lane
from tests import factories
from tests.contract.test_answers import BAD, CHECKS, GOOD, bounded
from tests.contract.test_mass_assignment import READ_ONLY
from tests.plane import Plane, bearer, plane

pytestmark = pytest.mark.django_db(transaction=True)
LANES = ["POST /api/nodes/heartbeat", "GET /api/jobs/pending"]
METRICS = {"cpu_percent": 1.0, "memory_percent": 2.0, "disk_percent": 3.0}


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    """Nobody waits for work: a poll answers at once, however long it asked to wait."""
    seconds = waiting._seconds
    monkeypatch.setattr(waiting, "_seconds", lambda text: None if seconds(text) is None else 0.0)
    with plane(monkeypatch) as made:
        yield made


@pytest.fixture
def callers(web_1: Node, db_1: Node, otto: User) -> dict[str, str]:
    return {
        "own": f"Bearer {factories.make_token(web_1)}",
        "another": f"Bearer {factories.make_token(db_1)}",
        "person": f"Bearer {bearer(otto)}",
        "anonymous": "",
    }


def send(web: Plane, case: Case, authorization: str) -> Any:
    headers = {"Authorization": authorization} if authorization else {}
    asked = case.as_transport_kwargs(base_url="http://127.0.0.1:8000", headers=headers)
    ready = requests.Request(**asked).prepare()
    body = ready.body.encode() if isinstance(ready.body, str) else ready.body
    return web.run(
        web._client.request(str(ready.method), str(ready.url), content=body, headers=dict(ready.headers), timeout=None)
    )


@pytest.mark.parametrize("key", LANES)
def test_every_answer_is_as_the_document_says(
    contract: OpenApiSchema, web: Plane, callers: dict[str, str], key: str
) -> None:
    method, path = key.split(" ")
    operation = contract[path][method]
    statuses = set()

    @bounded(25)
    @given(case=operation.as_strategy(GOOD) | operation.as_strategy(BAD))
    def each_caller_hears_what_the_document_says(case: Case) -> None:
        for authorization in callers.values():
            response = send(web, case, authorization)
            case.validate_response(response, checks=CHECKS)
            statuses.add(response.status_code)

    each_caller_hears_what_the_document_says()
    assert {400, 401} <= statuses


@pytest.mark.parametrize("key", LANES)
def test_it_works_for_the_node_itself_alone(
    contract: OpenApiSchema, web: Plane, callers: dict[str, str], key: str
) -> None:
    method, path = key.split(" ")
    beat = {"node_id": "web-1", "agent_version": "1", "interval_seconds": 10, "metrics": METRICS}
    poll = {"node_id": "web-1", "request_id": "0b9f2a1c-0000-4000-8000-000000000000", "wait": 0}
    given = {"body": beat, "media_type": "application/json"} if method == "POST" else {"query": poll}
    case = contract[path][method].Case(**given)
    heard = {}
    for caller, authorization in callers.items():
        response = send(web, case, authorization)
        case.validate_response(response, checks=CHECKS)
        heard[caller] = response.status_code
    good = 202 if method == "POST" else 200
    assert heard == {"own": good, "another": 403, "person": 401, "anonymous": 401}


@pytest.mark.parametrize("name", ("extra_key", *READ_ONLY))
def test_a_heartbeat_takes_its_own_fields_alone(web_1: Node, name: str) -> None:
    token = factories.make_token(web_1)
    for body in (lane.beat("web-1", **{name: "x"}), lane.beat("web-1", inventory={name: "x"})):
        answer = lane.send(body, token)
        assert (answer.status, answer.code) == (400, "invalid_input")
        assert any(field.rpartition(".")[2] == name for field in answer.json["error"]["fields"]), answer.json
