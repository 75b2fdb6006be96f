"""Searches: enough letters, two seconds, and not without end."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client

from accounts.models import User
from hyprbox.lib import searching
from hyprbox.lib.errors import InvalidInput, RateLimited, SearchTooSlow
from nodes.models import Node
from tests import factories
from tests.client import ApiClient
from tests.factories import as_actor


@pytest.fixture
def viewer(client: Client, vera: User) -> Client:
    client.force_login(vera)
    return client


@pytest.mark.parametrize(("words", "short"), [("", False), ("  ", False), ("w", True), ("w e", True), ("web", False)])
def test_three_letters_are_enough(words: str, short: bool) -> None:
    assert searching.is_too_short(words) is short


@pytest.mark.parametrize("query", ["q=w", "q=%25", "q=__", "q=tag:web+w", "q=%20w%20"])
def test_the_api_says_how_many_it_wants(api: ApiClient, vera: User, web_1: Node, query: str) -> None:
    answer = api.by(vera).get(f"/api/nodes?{query}")
    assert (answer.status_code, answer.json()["error"]["fields"]) == (400, {"q": ["At least 3 characters."]})


def test_a_tag_is_no_search(api: ApiClient, vera: User, web_1: Node) -> None:
    factories.make_node("x-1", tags=["x"])
    found = api.by(vera).get("/api/nodes?q=tag:x").json()["results"]
    assert [node["node_id"] for node in found] == ["x-1"]


@pytest.mark.parametrize("path", ["/?q=we", "/?q=we&view=table", "/jobs/?q=we"])
def test_a_page_says_it_calmly_and_shows_what_it_had(viewer: Client, web_1: Node, path: str) -> None:
    factories.make_job(web_1)
    for headers in ({}, {"HX-Request": "true"}):
        answer = viewer.get(path, headers=headers)
        page = answer.content.decode()
        assert (answer.status_code, page.count(searching.HINT)) == (200, 1)
        assert "web-1" in page
    assert searching.HINT not in viewer.get(path.replace("we", "web")).content.decode()


def test_the_palette_finds_presets_by_less(viewer: Client, web_1: Node) -> None:
    page = viewer.get("/palette/?q=we", headers={"HX-Request": "true"}).content.decode()
    assert searching.HINT in page and "/nodes/web-1/" not in page
    short = viewer.get("/palette/?q=ng", headers={"HX-Request": "true"}).content.decode()
    assert "/presets/nginx-static-site/" in short
    assert "Nothing is called" not in viewer.get("/palette/?q=zz").content.decode()


def test_it_is_stopped_after_two_seconds(vera: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "SECONDS", 0.2)
    with pytest.raises(SearchTooSlow), searching.limited("web", by=as_actor(vera)), connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(5)")


@pytest.mark.django_db(transaction=True)
def test_two_seconds_are_what_the_database_is_told_and_only_for_the_search(vera: User) -> None:
    def told() -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            return cursor.fetchone()[0]

    before = told()
    with searching.limited("web", by=as_actor(vera)):
        assert told() == "2s"
    with searching.limited("", by=as_actor(vera)):
        assert told() == before
    assert told() == before == "5s"


@pytest.mark.parametrize("path", ["/?q=web", "/jobs/?q=web", "/palette/?q=web", "/api/nodes?q=web"])
def test_every_door_to_a_search_has_the_limit(
    viewer: Client, api: ApiClient, vera: User, web_1: Node, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    searched = []
    take = searching._per_person.take
    monkeypatch.setattr(searching._per_person, "take", lambda key: (searched.append(key), take(key)))
    answer = api.by(vera).get(path) if path.startswith("/api/") else viewer.get(path)
    assert (answer.status_code, searched) == (200, [str(vera.pk)])


def test_one_person_cannot_search_without_end(vera: User) -> None:
    person = as_actor(vera)
    with pytest.raises(RateLimited):
        for _ in range(70):
            with searching.limited("web", by=person):
                pass
    with pytest.raises(InvalidInput):
        searching.require_enough("ab")


def test_no_page_has_more_than_two_hundred_rows(api: ApiClient, ada: User) -> None:
    """Every list of the document that has pages."""
    from hyprbox.lib.openapi import Page
    from hyprbox.openapi.document import Described

    paged = [
        key.removeprefix("GET ")
        for key, call in Described.calls.items()
        if "{" not in key and any(isinstance(answer, Page) for answer in call.answers.values())
    ]
    assert len(paged) >= 6
    for path in paged:
        for size, status in (("201", 400), ("1000000", 400), ("0", 400), ("x", 400), ("200", 200)):
            answer = api.by(ada).get(f"{path}?page_size={size}")
            assert answer.status_code == status, (path, size)
