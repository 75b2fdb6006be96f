"""Who reads what of the log, and that its pages stay as fast at its end as at its beginning."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from accounts import keys, people
from accounts.models import User
from audit import selectors, sequencer, services, verifying
from audit.actions import Action
from audit.models import Event
from audit.selectors import list_events, slice_of
from audit.tests.test_tampering import fill
from hyprbox.lib.actors import Actor, Role
from tests.client import ApiClient
from tests.factories import PASSWORD, SYSTEM, as_actor, make_user
from tests.plane import bearer, plane

MANY = 20_000


@pytest.fixture
def acts(ada: User, otto: User) -> None:
    """One of ada's, two of otto's, and one of an agent with his id."""
    services.record(Action.NODE_CHANGED, by=as_actor(ada), target="node:ada")
    for target in ("node:one", "node:two"):
        services.record(Action.NODE_CHANGED, by=as_actor(otto), target=target)
    services.record(Action.NODE_CHANGED, by=Actor.agent(id=str(otto.pk), name=otto.email), target="node:agent")


def targets(answer: Any) -> list[str]:
    return [row["target"] for row in answer.json()["results"]]


@pytest.mark.usefixtures("acts")
def test_operators_read_what_they_did_and_nothing_else(api: ApiClient, ada: User, otto: User, vera: User) -> None:
    mine = api.by(otto)
    assert targets(mine.get("/api/audit")) == ["node:two", "node:one"]
    assert mine.get(f"/api/audit?actor={ada.email}").json()["count"] == 0
    assert targets(mine.get("/api/audit?target=node:ada")) == []
    assert targets(api.by(ada).get("/api/audit?target=node:ada")) == ["node:ada"]
    lines = b"".join(mine.get("/api/audit/export").streaming_content).decode().splitlines()
    assert [json.loads(line)["target"] for line in lines if "node.changed" in line] == ["node:two", "node:one"]
    for path in ("/api/audit", "/api/audit/export", "/api/audit/verify"):
        assert api.by(vera).get(path).status_code == 403


@pytest.mark.usefixtures("acts")
def test_they_go_by_the_person_not_by_the_name(api: ApiClient, otto: User) -> None:
    """Whoever gets an address that another one had reads none of their acts; who changed it keeps theirs."""
    people.change_email(by=as_actor(otto), email="o@example.com", password=PASSWORD)
    heir = make_user("otto", Role.OPERATOR)
    assert heir.email == "otto@example.com"
    assert targets(api.by(heir).get("/api/audit")) == []
    _, plaintext = keys.create_key(by=as_actor(otto), name="reader", scopes=["read"])
    assert targets(api.agent(plaintext).get("/api/audit"))[1:] == ["user:o@example.com", "node:two", "node:one"]


@pytest.mark.usefixtures("acts")
def test_operators_verify_and_are_not_told_who_else_did(api: ApiClient, client: Client, ada: User, otto: User) -> None:
    sequencer.sequence()
    assert api.by(ada).get("/api/audit/verify").json()["intact"] is True
    assert api.by(otto).get("/api/audit/verify").json()["intact"] is True
    client.force_login(otto)
    page = client.get("/audit/").content.decode()
    assert "Verified" in page and "node:one" in page
    assert ada.email not in page and "node:ada" not in page and "node:agent" not in page
    assert client.post("/audit/verify/").status_code == 302
    assert client.get("/audit/export/?format=csv").status_code == 200


def test_people_verify_one_after_the_other(api: ApiClient, otto: User) -> None:
    """It walks through everything: many at once would leave no core for anybody else."""
    settings = connection.get_connection_params()
    wanted = {name: settings[name] for name in ("dbname", "user", "password", "host", "port") if settings.get(name)}
    with psycopg.connect(**wanted, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [verifying._LOCK])
        refused = api.by(otto).get("/api/audit/verify")
        assert (refused.status_code, refused["Retry-After"]) == (429, "10")
        services.verify_log(by=SYSTEM)  # a command on the host waits for nobody
    assert api.by(otto).get("/api/audit/verify").status_code == 200


def numbers(page: selectors.Slice) -> list[str]:
    return [event.target for event in page.events]


def test_pages_lead_on_without_offsets(db: None) -> None:
    for number in range(7):
        services.record(Action.NODE_CHANGED, by=SYSTEM, target=str(number))
    events = list_events(by=SYSTEM)
    first = slice_of(events, size=3)
    assert (numbers(first), first.newer_than) == (["6", "5", "4"], None)
    second = slice_of(events, size=3, before=first.older_than)
    assert numbers(second) == ["3", "2", "1"]
    last = slice_of(events, size=3, before=second.older_than)
    assert (numbers(last), last.older_than) == (["0"], None)
    back = slice_of(events, size=3, after=last.newer_than)
    assert (numbers(back), bool(back.newer_than), bool(back.older_than)) == (["3", "2", "1"], True, True)
    front = slice_of(events, size=3, after=back.newer_than)
    assert (numbers(front), front.newer_than) == (["6", "5", "4"], None)
    assert numbers(slice_of(events.none(), size=3)) == numbers(slice_of(events, size=3, after=10**9)) == []


def test_the_page_keeps_its_filters(client: Client, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.views.PAGE_SIZE", 2)
    for number in range(5):
        services.record(Action.NODE_CHANGED, by=SYSTEM, target=f"node:{number}")
        services.record(Action.TOKEN_CREATED, by=SYSTEM, target="token:1")
    client.force_login(ada)
    seen, place = [], "?action=node.changed&target="
    while place:
        page = client.get(f"/audit/{place}").content.decode()
        seen += re.findall(r"node:(\d)", page)
        found = re.search(r'rel="next" href="(\?[^"]+)"', page)
        place = found[1].replace("&amp;", "&") if found else ""
        assert not place or "action=node.changed" in place
    assert seen == ["4", "3", "2", "1", "0"]
    for nonsense in ("before=x", "before=-1", "after=" + "9" * 30, "before=%00"):
        assert client.get(f"/audit/?{nonsense}").status_code == 200


def test_the_api_leads_on_too(api: ApiClient, ada: User) -> None:
    for number in range(5):
        services.record(Action.NODE_CHANGED, by=SYSTEM, target=f"node:{number}")
    path, seen = "/api/audit?action=node.changed&page_size=2", []
    while path:
        answer = api.by(ada).get(path).json()
        assert answer["count"] == 5
        seen += [row["target"] for row in answer["results"]]
        path = (answer["next"] or "").removeprefix("http://testserver")
    assert seen == [f"node:{number}" for number in (4, 3, 2, 1, 0)]
    assert targets(api.by(ada).get("/api/audit?action=node.changed&page_size=2&page=2")) == ["node:2", "node:1"]
    assert api.by(ada).get("/api/audit?before=0").status_code == 400


def test_since_and_until_are_exact(db: None) -> None:
    """Whatever narrows the search: an entry belongs to its own time, not to its number's."""
    now = timezone.now()
    with connection.cursor() as cursor:
        for hours in (5, 4, 3, 1, 2, 0):  # one that began early was written late
            cursor.execute(
                "INSERT INTO audit_event (at, action, actor_kind, actor_id, actor_name, target, detail, ip, request_id,"
                " subject, canonical) VALUES (%s, 'x', '', '', '', %s, '{}', '', '', '', '')",
                [now - timedelta(hours=hours), str(hours)],
            )

    def found(**between: Any) -> set[str]:
        return {event.target for event in list_events(by=SYSTEM, **between)}

    def ago(hours: float) -> Any:
        return now - timedelta(hours=hours)

    assert found(since=ago(2)) == {"2", "1", "0"}
    assert found(until=ago(2)) == {"5", "4", "3"}
    assert found(since=ago(4), until=ago(1.5)) == {"4", "3", "2"}
    assert found(since=ago(-1)) == set() and found(until=ago(9)) == set()


def test_nothing_in_a_window_of_an_empty_log(db: None) -> None:
    assert not list_events(by=SYSTEM, since=timezone.now(), until=timezone.now()).exists()


def read(plan: dict[str, Any]) -> tuple[int, set[str]]:
    """How many rows the plan touched, and the kinds of its nodes."""
    touched, kinds = 0, {plan["Node Type"]}
    if "Relation Name" in plan:
        touched = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    for part in plan.get("Plans", []):
        more, others = read(part)
        touched, kinds = touched + more, kinds | others
    return touched, kinds


@pytest.mark.slow
def test_no_page_of_a_long_log_reads_more_than_it_shows(ada: User, otto: User) -> None:
    fill(MANY)
    services.record(Action.NODE_CHANGED, by=as_actor(otto), target="node:otto")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE audit_event")
    lowest = Event.objects.earliest("id").pk
    day = timezone.now() + timedelta(seconds=MANY // 2)
    lists = {
        "the newest": list_events(by=SYSTEM),
        "the oldest": list_events(by=SYSTEM).filter(id__lt=lowest + 150),
        "one actor": list_events(by=SYSTEM, actor="ada@example.com").filter(id__lt=lowest + 150),
        "one action": list_events(by=SYSTEM, action="node.changed").filter(id__lt=lowest + 150),
        "one target": list_events(by=SYSTEM, target="node:web-7"),
        "a rare action": list_events(by=SYSTEM, action="token.revoked"),
        "one's own": list_events(by=as_actor(otto)),
        "from a day on": list_events(by=SYSTEM, since=day - timedelta(seconds=50), until=day),
    }
    for name, events in lists.items():
        [plan] = json.loads(events[:101].explain(format="json", analyze=True))
        touched, kinds = read(plan["Plan"])
        allowed = 8000 if name == "from a day on" else 202  # an hour to each side of the window
        assert touched <= allowed, (name, touched, plan)
        assert "Seq Scan" not in kinds, (name, plan)


@pytest.mark.django_db(transaction=True)
def test_an_export_arrives_whole_and_again(monkeypatch: pytest.MonkeyPatch, ada: User) -> None:
    with transaction.atomic():
        for number in range(1100):
            services.record(Action.NODE_CHANGED, by=SYSTEM, target=f"node:{number}")
    with plane(monkeypatch) as web:
        for _ in range(3):
            answer = web.get("/api/audit/export?action=node.changed", bearer(ada))
            told = [json.loads(line)["target"] for line in answer.text.splitlines()]
            assert told == [f"node:{number}" for number in reversed(range(1100))]
