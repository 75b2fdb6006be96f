"""/api/nodes for people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from nodes import history, selectors, services, timeline
from nodes.models import Heartbeat, Node
from nodes.selectors import ActivityItem, NodeFilter
from nodes.status import Status
from tests.client import ApiClient
from tests.factories import make_node, make_token

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("settled")]


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [node["node_id"] for node in answer.json()["results"]]


@pytest.fixture
def fleet() -> None:
    now = timezone.now()
    make_node("web-1", last_seen_at=now, cpu_percent=10, group="acme", tags=["web", "eu"], inventory={"os": "Debian"})
    make_node("web-2", last_seen_at=now, cpu_percent=95, tags=["web"], inventory={"ip_addresses": ["10.1.2.3"]})
    make_node("db-1", last_seen_at=now - timedelta(days=1), group="acme", display_name="Main database")
    make_node("new-1")
    make_node("gone-1", removed_at=now)


@pytest.fixture
def person(api: ApiClient, vera: User) -> ApiClient:
    return api.by(vera)


@pytest.mark.usefixtures("fleet")
class TestList:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("", ["db-1", "new-1", "web-1", "web-2"]),
            ("?status=ONLINE", ["web-1"]),
            ("?status=offline,unknown", ["db-1", "new-1"]),
            ("?status=OFFLINE&status=WARNING", ["db-1", "web-2"]),
            ("?group=acme", ["db-1", "web-1"]),
            ("?tag=web", ["web-1", "web-2"]),
            ("?tag=we", []),
            ("?q=main", ["db-1"]),
            ("?q=debian", ["web-1"]),
            ("?q=10.1.2", ["web-2"]),
            ("?q=tag:eu", ["web-1"]),
            ("?q=web+group:acme", ["web-1"]),
            ("?q=%25%25%25", []),
            ("?ordering=-cpu_percent", ["web-2", "web-1", "db-1", "new-1"]),
            ("?ordering=status", ["db-1", "web-2", "new-1", "web-1"]),
            ("?page_size=2&page=2", ["web-1", "web-2"]),
        ],
    )
    def test_filters_and_orders(self, person: ApiClient, query: str, expected: list[str]) -> None:
        assert names(person.get(f"/api/nodes{query}")) == expected

    @pytest.mark.parametrize(
        "query",
        ["status=GREEN", "ordering=secret", "ordering=--node_id", "page_size=500", "page_size=0", "x=1", "q=%00"],
    )
    def test_bad_queries_are_400(self, person: ApiClient, query: str) -> None:
        answer = person.get(f"/api/nodes?{query}")
        assert answer.status_code == 400
        assert answer.json()["error"]["fields"]

    def test_the_number_of_queries_does_not_grow(self, person: ApiClient) -> None:
        def count() -> int:
            with CaptureQueriesContext(
                connection,
            ) as queries:
                assert person.get("/api/nodes").status_code == 200
            return len(queries)

        few = count()
        for _ in range(20):
            make_node(last_seen_at=timezone.now())
        assert count() == few


def test_nobody_without_a_credential(api: ApiClient) -> None:
    node = make_node("web-1")
    for path in ("", "/web-1", "/web-1/status", "/web-1/history", "/web-1/activity", "/sparks?node_id=web-1"):
        assert api.get(f"/api/nodes{path}").status_code == 401
        assert api.agent(make_token(node)).get(f"/api/nodes{path}").status_code == 401


def test_unknown_and_removed_nodes_are_404(person: ApiClient) -> None:
    make_node("gone-1", removed_at=timezone.now())
    for node_id in ("nobody", "gone-1", "%00", "a" * 300):
        for path in ("", "/status", "/history", "/activity"):
            assert person.get(f"/api/nodes/{node_id}{path}").status_code == 404


class TestDetail:
    def test_one_node_in_full(self, person: ApiClient) -> None:
        make_node("web-1", last_seen_at=timezone.now(), disk_percent=99, inventory={"os": "Debian", "os_version": "13"})
        body = person.get("/api/nodes/web-1").json()
        assert body["status"] == "CRITICAL"
        assert body["reasons"] == [{"code": "disk_percent", "status": "CRITICAL", "message": "Disk is at 99 %."}]
        assert body["os"] == "Debian 13"
        assert body["inventory"]["os"] == "Debian"

    def test_operators_change_it(self, api: ApiClient, otto: User) -> None:
        make_node("web-1")
        answer = api.by(otto).patch("/api/nodes/web-1", {"group": "acme", "tags": ["web"], "notes": "Mind the fan."})
        assert answer.status_code == 200
        assert (answer.json()["group"], answer.json()["tags"]) == ("acme", ["web"])
        node = Node.objects.get()
        assert node.notes == "Mind the fan."

    @pytest.mark.parametrize(
        "body", [{"node_id": "x"}, {"tags": "web"}, {"tags": ["a b"]}, {"group": None}, {"group": "a\0"}]
    )
    def test_bad_changes_are_400(self, api: ApiClient, otto: User, body: Any) -> None:
        make_node("web-1")
        assert api.by(otto).patch("/api/nodes/web-1", body).status_code == 400

    def test_viewers_change_and_operators_remove_nothing(self, api: ApiClient, vera: User, otto: User) -> None:
        make_node("web-1")
        assert api.by(vera).patch("/api/nodes/web-1", {"group": "x"}).status_code == 403
        assert api.by(otto).delete("/api/nodes/web-1").status_code == 403

    def test_admins_remove_it(self, api: ApiClient, ada: User) -> None:
        make_node("web-1")
        assert api.by(ada).delete("/api/nodes/web-1").status_code == 204
        assert api.by(ada).delete("/api/nodes/web-1").status_code == 404
        assert Node.objects.get().is_removed


def test_status_has_reasons_and_since(person: ApiClient) -> None:
    make_node("web-1", last_seen_at=timezone.now() - timedelta(hours=3), announced_status=Status.ONLINE)
    services.announce_flips()
    body = person.get("/api/nodes/web-1/status").json()
    assert (body["status"], body["reasons"][0]["code"]) == ("OFFLINE", "silent")
    assert body["since"].endswith("Z")


class TestHistory:
    @pytest.mark.parametrize(("chosen", "step"), [("1h", 15), ("24h", 300), ("7d", 1800), ("30d", 7200)])
    def test_a_range(self, person: ApiClient, chosen: str, step: int) -> None:
        node = make_node("web-1")
        Heartbeat.objects.create(node=node.pk, at=timezone.now(), cpu_percent=12.5)
        body = person.get(f"/api/nodes/web-1/history?range={chosen}").json()
        assert (body["range"], body["step_seconds"]) == (chosen, step)
        [[at, average, highest]] = body["series"]["cpu_percent"]
        assert at.endswith("Z")
        assert (average, highest) == (12.5, 12.5)

    def test_another_range_is_400(self, person: ApiClient) -> None:
        make_node("web-1")
        assert person.get("/api/nodes/web-1/history?range=1y").status_code == 400


class TestSparks:
    def test_many_nodes_in_one_answer(self, person: ApiClient) -> None:
        for name in ("web-1", "web-2"):
            Heartbeat.objects.create(node=make_node(name).pk, at=timezone.now(), cpu_percent=5)
        body = person.get("/api/nodes/sparks?node_id=web-1&node_id=web-2&node_id=nobody&range=1h").json()
        assert set(body["nodes"]) == {"web-1", "web-2"}
        assert len(body["nodes"]["web-1"]["cpu_percent"]) == 48

    def test_it_names_1_to_200_nodes(self, person: ApiClient) -> None:
        many = "&".join(f"node_id=n{n}" for n in range(201))
        for query in ("", many):
            assert person.get(f"/api/nodes/sparks?{query}").status_code == 400


class TestActivity:
    def test_flips_tokens_and_what_others_add_newest_first(
        self, person: ApiClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        node = make_node("web-1", last_seen_at=timezone.now(), announced_status=Status.OFFLINE)
        make_token(node, name="first")
        services.announce_flips()
        job = ActivityItem(timezone.now() + timedelta(hours=1), "job", "Ran system-report")
        monkeypatch.setattr(timeline, "activity_sources", [lambda node, before, limit: [job]])
        items = person.get("/api/nodes/web-1/activity").json()["results"]
        assert items[0]["kind"] == "job"
        assert {item["kind"] for item in items} == {"job", "status", "token"}
        assert items == sorted(items, key=lambda item: item["at"], reverse=True)
        assert len(person.get("/api/nodes/web-1/activity?limit=1").json()["results"]) == 1

    def test_what_began_earlier_and_ended_later_is_on_the_first_page_alone(
        self, person: ApiClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_node("web-1")
        now = timezone.now()
        job = timeline.ActivityItem(now, "job", "A job that began long ago")
        monkeypatch.setattr(timeline, "activity_sources", [lambda node, before, limit: [job]])
        pages = [f"?before={at:%Y-%m-%dT%H:%M:%S.%fZ}" for at in (now, now + timedelta(seconds=1))]
        shown = [person.get(f"/api/nodes/web-1/activity{page}").json()["results"] for page in ("", *pages)]
        assert [len(items) for items in shown] == [1, 0, 1]

    def test_another_nodes_are_not_shown(self, person: ApiClient) -> None:
        make_node("web-1")
        make_token(make_node("web-2"))
        assert person.get("/api/nodes/web-1/activity").json() == {"results": []}


class TestOverview:
    def budget(self) -> int:
        with CaptureQueriesContext(connection) as queries:
            selectors.counts()
            selectors.facets()
            cards = selectors.cards(selectors.list_nodes(NodeFilter(ordering="status")))
            selectors.fleet_json(with_sparks=True)
            assert all(card.status for card in cards)
        return len(queries)

    def test_four_statements_however_many_nodes(self) -> None:
        for _ in range(2):
            make_node(last_seen_at=timezone.now(), first_seen_at=timezone.now())
        history.redraw_sparklines()
        assert self.budget() == 4  # counts, facets, cards with sparklines, the JSON list
        for _ in range(18):
            make_node(last_seen_at=timezone.now(), first_seen_at=timezone.now())
        assert self.budget() == 4

    def test_counts_and_averages_leave_silent_nodes_out(self) -> None:
        now = timezone.now()
        make_node("web-1", last_seen_at=now, cpu_percent=10, memory_percent=20)
        make_node("web-2", last_seen_at=now, cpu_percent=98, memory_percent=40)
        make_node("db-1", last_seen_at=now - timedelta(days=1), cpu_percent=77)
        make_node("new-1")
        counts = selectors.counts()
        assert counts.by_status == {"ONLINE": 1, "WARNING": 0, "CRITICAL": 1, "OFFLINE": 1, "UNKNOWN": 1}
        assert (counts.total, counts.online, counts.needing_attention) == (4, 2, 2)
        assert (counts.cpu_percent, counts.memory_percent) == (54, 30)

    def test_facets(self) -> None:
        make_node("web-1", group="acme", tags=["web", "eu"])
        make_node("web-2", group="", tags=["web"])
        make_node("gone-1", group="old", tags=["x"], removed_at=timezone.now())
        assert selectors.facets() == selectors.Facets(["acme"], ["eu", "web"])
