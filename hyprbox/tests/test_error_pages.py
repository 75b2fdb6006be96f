"""Errors as pages: what happened, that servers are not affected, what to do."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from django.test.client import RequestFactory
from django.urls import get_resolver

from accounts.models import User
from hyprbox import views
from hyprbox.gate import door
from hyprbox.lib import errors
from hyprbox.lib.middleware import error_response
from tests.test_permissions import addresses, is_api


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (errors.Forbidden(), 403, "You may not do that"),
        (errors.NotFound(), 404, "There is no such page"),
        (errors.MethodNotAllowed(), 405, "There is nothing to open here"),
        (errors.Conflict(), 409, "not possible in the present state"),
        (errors.BodyTooLarge(), 413, "That is too large"),
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


def test_an_unknown_api_address_answers_json(rf: RequestFactory) -> None:
    answer = views.api_not_found(rf.get("/api/x"))
    assert answer["Content-Type"] == "application/json" and answer.status_code == 404


def test_the_address_of_a_form_is_a_page_for_who_comes_back_to_it(client: Client, vera: User) -> None:
    client.force_login(vera)
    for path, allowed in (("/jobs/stop/", "POST"), ("/logout/", "POST"), ("/profile/keys/", "POST")):
        answer = client.get(path)
        assert (answer.status_code, answer["Allow"]) == (405, allowed)
        page = answer.content.decode()
        assert "There is nothing to open here" in page and "This address only takes what a form sends." in page
        assert answer["X-Request-Id"] in page
    assert client.post("/jobs/").status_code == 405
    assert client.put("/api/jobs").json()["error"]["code"] == "method_not_allowed"


async def test_a_page_of_the_gate_has_the_request_id_and_the_theme() -> None:
    for theme, cookie in (("dark", b"hb_theme=dark"), ("light", b"a=b; hb_theme=light; c=d"), ("", b"hb_theme=<b>")):
        for request_id in ("first-id", "second-id"):
            sent: list[dict[str, Any]] = []

            async def send(message: dict[str, Any], sent: list[dict[str, Any]] = sent) -> None:
                sent.append(message)

            headers = [(b"cookie", cookie), (b"x-request-id", request_id.encode())]
            await door.refuse({"path": "/jobs/", "headers": headers}, send, errors.RateLimited())
            start, page = sent[0], sent[1]["body"].decode()
            told = dict(start["headers"])
            assert start["status"] == 429 and told[b"content-length"] == b"%d" % len(sent[1]["body"])
            assert told[b"x-request-id"].decode() == request_id and f"request {request_id}" in page
            assert (f'data-theme="{theme}"' in page) if theme else "data-theme" not in page
            assert 'href="">Try again' in page  # wherever this was


def test_every_folder_of_pages_leads_somewhere(client: Client, ada: User) -> None:
    """All that is left when the end of an address is cut away, as long as no part of it is a name or an id."""
    client.force_login(ada)
    known = [address for address, _ in addresses(get_resolver()) if not is_api(address) and address.endswith("/")]
    plain = {"/".join(parts[:length]) + "/" for parts in (one.split("/") for one in known) for length in range(1, 6)}
    folders = sorted(one for one in plain - set(known) if "<" not in one and any(k.startswith(one) for k in known))
    assert folders == []
    assert client.get("/settings/")["Location"] == "/profile/"
    for folder in views.FOLDERS:
        answer = client.get(f"/{folder}", follow=True)
        assert answer.status_code == 200 and answer.redirect_chain, folder
        assert client.post(f"/{folder}").status_code == 405
    assert Client().get("/settings/")["Location"].startswith("/login/?next=")
