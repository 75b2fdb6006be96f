"""Errors as pages: what happened, that servers are not affected, what to do."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from django.test.client import RequestFactory

from accounts.models import User
from hyprbox import views
from hyprbox.lib import errors
from hyprbox.lib.middleware import error_response


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (errors.Forbidden(), 403, "You may not do that"),
        (errors.NotFound(), 404, "There is no such page"),
        (errors.Conflict(), 409, "not possible in the present state"),
        (errors.RateLimited(), 429, "Too many requests"),
        (errors.HyprBoxError(), 500, "Your servers are not affected"),
        (errors.Unavailable(), 503, "The database cannot be reached"),
    ],
)
def test_every_error_is_a_page(rf: RequestFactory, error: errors.HyprBoxError, status: int, words: str) -> None:
    answer = error_response(rf.get("/nodes/x/"), error)
    page = answer.content.decode()
    assert answer.status_code == status and words in page and f"{status} · /nodes/x/" in page


def test_a_database_that_is_away_in_a_middleware_is_503(client: Client, vera: User, monkeypatch: Any) -> None:
    client.force_login(vera)
    client.raise_request_exception = False
    monkeypatch.setattr("accounts.authentication.actor_for", _away)
    answer = client.get("/")
    assert answer.status_code == 503 and answer["Retry-After"]
    assert "Your servers are not affected" in answer.content.decode()


def _away(*args: Any, **kwargs: Any) -> None:
    raise OperationalError("connection refused")


def test_a_defect_shows_only_its_request_id(client: Client, vera: User, monkeypatch: Any) -> None:
    client.force_login(vera)
    client.raise_request_exception = False
    monkeypatch.setattr("hyprbox.fleet.state.fleet_state", lambda by: 1 / 0)
    answer = client.get("/")
    page = answer.content.decode()
    assert answer.status_code == 500 and "ZeroDivisionError" not in page and answer["X-Request-Id"] in page


def test_htmx_is_led_to_sign_in(client: Client, db: None) -> None:
    answer = client.get("/jobs/", headers={"HX-Request": "true"})
    assert answer["HX-Redirect"] == "/login/" and answer.status_code == 401


def test_the_address_of_a_form_is_a_page_for_who_comes_back_to_it(client: Client, vera: User) -> None:
    client.force_login(vera)
    answer = client.get("/profile/keys/")
    assert (answer.status_code, answer["Allow"]) == (405, "POST")
    assert "This address only takes what a form sends." in answer.content.decode()


def test_an_unknown_api_address_answers_json(rf: RequestFactory) -> None:
    answer = views.api_not_found(rf.get("/api/x"))
    assert answer["Content-Type"] == "application/json" and answer.status_code == 404
