"""Long lists: counted to a limit, and read to their end all the same."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core.paginator import EmptyPage
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from agent.cli import api as cli
from hyprbox.lib import paging
from hyprbox.lib.paging import LongPaginator
from jobs.models import Job
from nodes.models import Node
from tests.client import ApiClient
from tests.factories import make_job, make_node

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paging.MOST_COUNTED == cli.MOST_COUNTED == 10_000
    monkeypatch.setattr(paging, "MOST_COUNTED", 7)


def nodes(count: int) -> Any:
    for number in range(count):
        make_node(f"n-{number:02d}")
    return Node.objects.order_by("node_id")


def names(page: Any) -> list[str]:
    return [node.node_id for node in page]


def test_pages_go_on_behind_what_is_counted() -> None:
    long = LongPaginator(nodes(12), 5)
    assert (long.count, long.counted, long.is_more) == (8, 7, True)
    pages = [long.page(number) for number in (1, 2, 3)]
    assert [name for page in pages for name in names(page)] == [f"n-{number:02d}" for number in range(12)]
    assert [page.has_next() for page in pages] == [True, True, False]
    assert [(page.start_index(), page.end_index()) for page in pages] == [(1, 5), (6, 10), (11, 12)]
    assert (pages[1].next_page_number(), pages[2].previous_page_number()) == (3, 2)
    for number in (0, -1, 4, 10**30):
        with pytest.raises(EmptyPage):
            long.page(number)
    assert [long.get_page(text).number for text in ("x", "3", "4", "9" * 30)] == [1, 3, 2, 2]


def test_what_is_counted_to_its_end_is_told_exactly() -> None:
    exact = LongPaginator(nodes(7), 5)
    assert (exact.count, exact.is_more, exact.page(2).has_next()) == (7, False, False)
    with pytest.raises(EmptyPage):
        exact.page(3)
    empty = LongPaginator(Node.objects.none(), 5).page(1)
    assert (names(empty), empty.has_other_pages(), empty.end_index()) == ([], False, 0)
    assert LongPaginator(list(range(9)), 5).page(2).object_list == [5, 6, 7, 8]


def test_the_api_leads_on_to_the_last_one(api: ApiClient, vera: User) -> None:
    made = [make_job(node) for node in nodes(12)]
    path, seen = "/api/jobs?page_size=5&status=QUEUED", []
    while path:
        with CaptureQueriesContext(connection) as asked:
            answer = api.by(vera).get(path).json()
        [counted] = [query["sql"] for query in asked if "COUNT(" in query["sql"]]
        assert re.search(r"LIMIT 8\b", counted) and "ORDER BY" not in counted
        assert answer["count"] == 8
        seen += [row["id"] for row in answer["results"]]
        path = (answer["next"] or "").removeprefix("http://testserver")
    assert sorted(seen) == sorted(str(job.pk) for job in made)
    assert api.by(vera).get("/api/jobs?page_size=5&page=4").status_code == 404


def test_the_page_says_that_there_are_more(client: Client, vera: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.views.PAGE_SIZE", 5)
    client.force_login(vera)
    for node in nodes(12):
        make_job(node)
    assert "6 to 10 of more than 7\u00a0jobs" in client.get("/jobs/?page=2").content.decode()
    last = client.get("/jobs/?page=3").content.decode()
    assert "11 to 12 of more than 7\u00a0jobs" in last and 'rel="next"' not in last and 'rel="prev"' in last
    Job.objects.filter(pk__in=list(Job.objects.values_list("pk", flat=True)[:6])).delete()
    assert "1 to 5 of 6\u00a0jobs" in client.get("/jobs/").content.decode()
