"""The OpenAPI document: whole, without guesses, and served only where it is wanted."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest
from django.test import Client
from django.urls import clear_url_caches
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator

import hyprbox.urls
from accounts.models import User
from hyprbox.asgi import LANES
from hyprbox.live_routes import STREAMS
from hyprbox.openapi.document import Described, routes

METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    GENERATOR_STATS.reset()
    made: dict[str, Any] = SchemaGenerator().get_schema(public=True)
    return made


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": item[method]
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }


def test_nothing_of_it_is_guessed(document: dict[str, Any]) -> None:
    assert [*GENERATOR_STATS._warn_cache, *GENERATOR_STATS._error_cache] == []


def offered() -> set[str]:
    """Every method of every address under /api, of the views themselves."""
    found = {f"{method} {path}" for path in LANES for method in ("POST" if path.endswith("heartbeat") else "GET",)}
    found |= {f"GET /{_braced(route)}" for route in STREAMS if route.startswith("api/")}
    for route, callback in routes():
        view = getattr(callback, "cls", None)
        methods = list(view().allowed_methods) if view else []
        methods += list(getattr(callback, "views", ()))
        if route.startswith("api/"):
            assert methods or route.endswith("^.*$"), f"{route} tells nobody which methods it takes"
        found |= {f"{method} /{_braced(route)}" for method in methods if method not in ("OPTIONS", "HEAD")}
    return found


def _braced(route: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route)


def test_every_address_is_in_it(document: dict[str, Any]) -> None:
    told = {key for key in operations(document) if " /api/" in key}
    assert offered() - told == set()
    assert told - offered() == set()


def test_no_table_tells_of_an_address_that_is_gone(document: dict[str, Any]) -> None:
    assert set(Described.calls) - set(operations(document)) == set()


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in set(_references(document)):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [each for inner in value.values() for each in _references(inner)]
    return [each for inner in value for each in _references(inner)] if isinstance(value, list) else []


def test_every_error_has_the_one_shape_and_every_call_a_credential(document: dict[str, Any]) -> None:
    schemes = set(document["components"]["securitySchemes"])
    for key, operation in operations(document).items():
        assert operation["security"], key
        assert {name for each in operation["security"] for name in each} <= schemes
        errors = {code: answer for code, answer in operation["responses"].items() if int(code) >= 400}
        if " /api/" in key:
            assert {"401", "403", "429", "503"} <= set(errors), key
            assert errors == {code: {"$ref": f"#/components/responses/Error{code}"} for code in errors}, key


def test_names_of_operations_are_unique(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document).values()]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("is_on", [False, True])
def test_document_and_pages_are_there_only_where_they_were_asked_for(settings: Any, ada: User, is_on: bool) -> None:
    given = settings.HYPRBOX_ENABLE_DOCS
    settings.HYPRBOX_ENABLE_DOCS = is_on
    try:
        importlib.reload(hyprbox.urls)
        clear_url_caches()
        client = Client()
        client.force_login(ada)
        for path in ("/api/schema", "/api/docs", "/api/schema?format=json"):
            for asked in (Client().get(path), client.get(path)):
                assert (asked.status_code != 404) is is_on, path
                assert is_on or asked.json()["error"]["code"] == "not_found"
    finally:
        settings.HYPRBOX_ENABLE_DOCS = given
        importlib.reload(hyprbox.urls)
        clear_url_caches()
