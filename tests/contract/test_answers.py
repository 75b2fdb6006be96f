"""Calls made up from the OpenAPI document, as every kind of caller: no defects, and no answer that it does not tell of.

Bounded and always the same; `HYPRBOX_TEST_EXAMPLES=200` looks harder, at other calls every time.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.db import transaction
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema

from hyprbox.lib.openapi import AGENT, ANYONE, PERSON, Call
from hyprbox.openapi.document import Described
from tests.contract.world import World

pytestmark = pytest.mark.django_db
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
GOOD, BAD = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
# Nobody of this world has a second factor; in accounts/tests somebody does.
WORKS_ELSEWHERE = {"POST /api/auth/step-up", "DELETE /api/users/{user_id}/second-factor"}
# What belongs to one person: that one and admins.
OF_THE_VIEWER = {"DELETE /api/auth/sessions/{session_id}"}
OF_THE_ADMIN = {"DELETE /api/auth/keys/{key_id}"}
EXAMPLES = int(os.environ.get("HYPRBOX_TEST_EXAMPLES", "0"))


def bounded(examples: int) -> hypothesis_settings:
    return hypothesis_settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


class Undone(Exception):
    """Ends a transaction so that nothing of a call stays."""


def send(case: Case, application: WSGIHandler, authorization: str) -> Response:
    """The answer to a call of which nothing stays."""
    headers = {"Authorization": authorization} if authorization else {}
    answered: list[Response] = []
    try:
        with transaction.atomic():
            answered.append(case.call(app=application, headers=headers))
            raise Undone
    except Undone:
        return answered[0]


def generated(operation: Any, world: World, key: str) -> SearchStrategy[Case]:
    """Calls that fit the document and calls that do not, most of them of things that exist."""
    names = {name: value for name, value in world.known.items() if f"{{{name}}}" in key}
    known = {"path_parameters": {**names, **world.paths.get(key, {})}}
    cases: SearchStrategy[Case] = operation.as_strategy(GOOD, **known) | operation.as_strategy(BAD, **known)
    return cases | operation.as_strategy(GOOD) if names else cases


@pytest.mark.slow
@pytest.mark.parametrize("key", sorted(Described.calls))
def test_every_answer_is_as_the_document_says(
    contract: OpenApiSchema, world: World, application: WSGIHandler, key: str
) -> None:
    method, path = key.split(" ")
    operation = contract[path][method]

    @bounded(5)
    @given(case=generated(operation, world, key))
    def each_caller_hears_what_the_document_says(case: Case) -> None:
        for authorization in world.callers.values():
            response = send(case, application, authorization)
            case.validate_response(response, checks=CHECKS)

    each_caller_hears_what_the_document_says()


@pytest.mark.parametrize("key", sorted(set(Described.calls) - WORKS_ELSEWHERE))
def test_what_the_document_describes_works_for_whom_it_says(
    contract: OpenApiSchema, world: World, application: WSGIHandler, key: str
) -> None:
    """A call that nobody succeeds with would leave its answer unlooked at."""
    method, path = key.split(" ")
    names = {name: value for name, value in world.known.items() if f"{{{name}}}" in path}
    case = contract[path][method].Case(
        path_parameters={**names, **world.paths.get(key, {})},
        query=world.queries.get(key, {}),
        **({"body": world.bodies[key], "media_type": "application/json"} if key in world.bodies else {}),
    )
    heard = {}
    for caller, authorization in world.callers.items():
        response = send(case, application, authorization)
        case.validate_response(response, checks=CHECKS)
        heard[caller] = response.status_code
    succeeded = {caller for caller, status in heard.items() if status < 300}
    assert succeeded, heard
    call = Described.calls[key]
    if call.who == PERSON:
        assert heard["anonymous"] == heard["agent"] == 401, heard
    assert call.who == ANYONE or succeeded == expected(key, call), heard


def expected(key: str, call: Call) -> set[str]:
    if call.who == AGENT:
        return {"agent"}
    if key in OF_THE_VIEWER:
        return {"viewer", "admin"}
    if key in OF_THE_ADMIN or call.role == "admins":
        return {"admin"}
    return {"operator", "admin"} if call.role == "operators" else {"viewer", "operator", "admin"}
