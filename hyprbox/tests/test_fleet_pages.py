"""Overview, node and live pages: what they show, to whom, and in how many queries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from nodes.models import Node
from nodes.status import Status
from tests import factories


@pytest.fixture
def viewer(client: Client, vera: User) -> Client:
    client.force_login(vera)
    return client


def html(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer
    return answer.content.decode()


def test_nobody_is_sent_to_sign_in(client: Client, db: None) -> None:
    answer = client.get("/nodes/web-1/?range=7d")
    assert answer["Location"] == "/login/?next=%2Fnodes%2Fweb-1%2F%3Frange%3D7d"


def test_an_empty_fleet_shows_how_to_begin(client: Client, ada: User) -> None:
    client.force_login(ada)
    assert "Add your first server" in html(client, "/")


@pytest.mark.parametrize("view", ["cards", "table", "map"])
def test_every_view_shows_every_node(viewer: Client, web_1: Node, db_1: Node, new_1: Node, view: str) -> None:
    page = html(viewer, f"/?view={view}")
    assert all(f"/nodes/{node.node_id}/" in page for node in (web_1, db_1, new_1))


def test_the_first_sentence_is_about_the_worst(viewer: Client, web_1: Node, db_1: Node) -> None:
    Node.objects.filter(pk=db_1.pk).update(announced_status=Status.OFFLINE)
    assert "<h1>1\u00a0node is offline</h1>" in html(viewer, "/")
    Node.objects.filter(pk=web_1.pk).update(cpu_percent=99, last_seen_at=timezone.now())
    page = html(viewer, "/")
    assert "<h1>1\u00a0node is critical</h1>" in page and "CPU is at 99 %." in page


def test_who_is_not_named_is_counted(viewer: Client) -> None:
    for _ in range(5):
        factories.make_node(last_seen_at=timezone.now(), first_seen_at=timezone.now(), cpu_percent=92)
    assert "Three more need a look." in html(viewer, "/")


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("status=ONLINE", {"web-1"}),
        ("tag=db", {"db-1"}),
        ("q=tag:web", {"web-1"}),
        ("q=nothing", set()),
        ("status=x", {"web-1", "db-1"}),
    ],
)
def test_filters(viewer: Client, web_1: Node, db_1: Node, query: str, shown: set[str]) -> None:
    answer = viewer.get(f"/?{query}", headers={"HX-Request": "true"})
    page = answer.content.decode()
    assert {name for name in ("web-1", "db-1") if f"/nodes/{name}/" in page} == shown
    assert answer["HX-Push-Url"] == f"/?{query.replace(':', '%3A')}"


@pytest.mark.parametrize(
    "query",
    ["status=%00", "q=%00", "range=99d", "sort=x", "view=x", "colour=x", "page=x", "page=-1", "tag=" + "x" * 500],
)
def test_bad_addresses_show_a_page_all_the_same(viewer: Client, web_1: Node, query: str) -> None:
    html(viewer, f"/?{query}")


def test_the_number_of_queries_does_not_grow_with_the_fleet(viewer: Client) -> None:
    paths = ("/?view=cards", "/?view=table", "/?view=map", "/live/", "/jobs/")

    def fill(count: int) -> None:
        for _ in range(count):
            node = factories.make_node(last_seen_at=timezone.now(), first_seen_at=timezone.now(), cpu_percent=99)
            factories.make_job(node)

    def queries(path: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            html(viewer, path)
        return len(captured)

    fill(2)
    for path in paths:  # the first request of a process fills caches
        queries(path)
    few = {path: queries(path) for path in paths}
    fill(18)
    assert {path: queries(path) for path in paths} == few


def test_a_node_page_tells_what_is_known(viewer: Client, web_1: Node) -> None:
    Node.objects.filter(pk=web_1.pk).update(
        inventory={"kernel": "6.12.48", "os": "Debian GNU/Linux", "os_version": "13", "ip_addresses": ["203.0.113.7"]},
        last_seen_at=timezone.now(),
    )
    page = html(viewer, "/nodes/web-1/")
    assert all(
        text in page for text in ("6.12.48", "Debian GNU/Linux 13", "203.0.113.7", "Everything is below its limits.")
    )
    assert "Run a preset here" not in page


def test_hostile_names_stay_text(viewer: Client, web_1: Node) -> None:
    evil = '"><script>alert(1)</script>'
    Node.objects.filter(pk=web_1.pk).update(display_name=evil, group=evil, inventory={"os": evil, "hostname": evil})
    for path in ("/", "/?view=table", "/?view=map", "/nodes/web-1/", "/live/", "/palette/?q=web"):
        assert "<script>alert" not in html(viewer, path)


def test_an_unknown_node_is_a_page(viewer: Client) -> None:
    answer = viewer.get("/nodes/nobody/")
    assert answer.status_code == 404 and "There is no such page" in answer.content.decode()


def test_a_silent_node_shows_no_old_figures(viewer: Client, db_1: Node) -> None:
    two_days_ago = timezone.now() - timedelta(days=2)
    Node.objects.filter(pk=db_1.pk).update(cpu_percent=77, last_seen_at=two_days_ago, announced_status=Status.OFFLINE)
    assert ">77" not in str(html(viewer, "/?view=table").partition("<tbody>")[2])


def test_only_operators_are_offered_to_run(client: Client, otto: User, web_1: Node) -> None:
    client.force_login(otto)
    page = html(client, "/nodes/web-1/")
    assert "Run a preset here" in page
    tokens: Any = client.get("/settings/tokens/")
    assert tokens.status_code == 403 and "/settings/tokens/" not in page


def test_a_page_that_fetches_itself_takes_no_message_away(client: Client, ada: User) -> None:
    """The page one is on hears of the act, too, and may ask before the next page is there to show the message."""
    client.force_login(ada)
    token = factories.token_row(factories.make_token(name="spare"))
    assert client.post(f"/settings/tokens/{token.pk}/revoke/").status_code == 302
    resync = client.get("/settings/tokens/", headers={"X-Resync": "1"}).content.decode()
    assert "spare" in resync and "is revoked" not in resync
    assert "is revoked" in html(client, "/settings/tokens/")
    assert "is revoked" not in html(client, "/settings/tokens/")
