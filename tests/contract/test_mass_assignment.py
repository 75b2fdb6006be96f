"""Every call that writes, from the document: it takes the fields it names and no other, whoever sends them."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from schemathesis.specs.openapi.schemas import OpenApiSchema

from hyprbox.openapi.document import Described
from tests.contract.test_answers import send
from tests.contract.world import World

# What only the server decides, wherever a call does not name it as its own.
READ_ONLY = (
    "id", "pk", "status", "state", "node", "node_pk", "role", "claim_id", "mac", "key_id", "signature", "script_sha256",
    "created_by", "created_at", "finished_at", "is_active", "is_superuser", "is_staff", "token_version", "version",
    "password", "owner", "builtin", "revision", "number", "scopes", "revoked_at", "cancel_requested_at", "exit_code",
    "outcome_unknown", "prefix", "digest",
)  # fmt: skip
WRITES = ("POST", "PUT", "PATCH")


def writers() -> list[str]:
    """The calls that write, those without a body of their own included, by the document's tables."""
    return sorted(key for key in Described.calls if key.split(" ")[0] in WRITES)


def named_fields(contract: OpenApiSchema, key: str) -> set[str]:
    method, path = key.split(" ")
    asked = contract.raw_schema["paths"][path][method.lower()].get("requestBody", {"content": {}})
    schema = asked["content"].get("application/json", {}).get("schema", {})
    while "$ref" in schema:
        schema = contract.raw_schema["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found: set[str] = set(schema.get("properties", {}))
    return found


def answers(contract: OpenApiSchema, world: World, application: WSGIHandler, key: str, more: Any) -> dict[str, Any]:
    """What each kind of caller hears when the call that works comes with more."""
    method, path = key.split(" ")
    names = {name: value for name, value in world.known.items() if f"{{{name}}}" in path}
    case = contract[path][method].Case(
        path_parameters={**names, **world.paths.get(key, {})},
        body={**world.bodies.get(key, {}), **more},
        media_type="application/json",
    )
    return {caller: send(case, application, header) for caller, header in world.callers.items()}


@pytest.mark.django_db
@pytest.mark.parametrize("key", writers())
def test_an_unknown_field_is_refused_by_name(
    contract: OpenApiSchema, world: World, application: WSGIHandler, key: str
) -> None:
    own = named_fields(contract, key)
    more = {name: "x" for name in ("extra_key", *READ_ONLY) if name not in own}
    heard = answers(contract, world, application, key, more)
    assert {answer.status_code for answer in heard.values()} <= {400, 401, 403, 404, 409}, key
    refused = [answer.json()["error"]["fields"] for answer in heard.values() if answer.status_code == 400]
    assert refused, (key, {caller: answer.status_code for caller, answer in heard.items()})
    for fields in refused:
        assert set(more) <= set(fields), (key, set(more) - set(fields))


@pytest.mark.django_db
def test_nobody_changes_their_own_role(contract: OpenApiSchema, world: World, application: WSGIHandler) -> None:
    key = "PATCH /api/users/{user_id}"
    me = send(contract["/api/auth/me"]["GET"].Case(), application, world.callers["admin"]).json()
    case = contract["/api/users/{user_id}"]["PATCH"].Case(
        path_parameters={"user_id": str(me["id"])}, body={"role": "viewer"}, media_type="application/json"
    )
    assert named_fields(contract, key) >= {"role", "is_active"}
    answer = send(case, application, world.callers["admin"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "own_account")
