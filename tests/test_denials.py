"""Who is refused is in the log: once for each actor, route and minute, and strangers do not fill it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from accounts import gate
from accounts.models import User
from audit import counting, denials
from audit.models import Denial, Event
from hyprbox.lib import refusals
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import Forbidden, NotAuthenticated
from hyprbox.lib.refusals import Refusal
from nodes.models import Node
from nodes.tests import lane
from presets import services as presets
from presets.tests.test_custom import TEXT, tamper
from tests import factories
from tests.client import ApiClient


@pytest.fixture(autouse=True)
def one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test is torn apart by the end of a minute."""
    monkeypatch.setattr(counting, "_COUNT", counting._COUNT.replace("date_trunc('minute', ", "date_trunc('day', "))


def denied() -> list[Event]:
    return list(Event.objects.filter(action="access.denied").order_by("id"))


def a_minute_passes() -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE audit_denial SET minute = minute - interval '1 minute'")


def test_who_may_not_is_named_once_a_minute(api: ApiClient, vera: User, otto: User) -> None:
    for _ in range(3):
        assert api.by(vera).get("/api/tokens?name=hidden").status_code == 403
    assert api.by(vera).post("/api/jobs/stop", {"reason": "x"}).status_code == 403
    assert api.by(otto).get("/api/tokens").status_code == 403
    found = denied()
    assert [(one.actor_name, one.target) for one in found] == [
        (vera.email, found[0].target),
        (vera.email, found[1].target),
        (otto.email, found[0].target),
    ]
    assert found[0].target.startswith("route:") and found[0].target != found[1].target
    assert found[0].detail == {"route": found[0].target[6:], "method": "GET", "error": "forbidden"}
    assert "hidden" not in str([bytes(one.canonical) for one in found])


def test_the_next_minute_tells_how_many_there_were(api: ApiClient, vera: User) -> None:
    for _ in range(3):
        api.by(vera).get("/api/audit")
    a_minute_passes()
    for _ in range(2):
        api.by(vera).get("/api/audit")
    first, second = denied()
    assert "times_then" not in first.detail
    assert second.detail["times_then"] == 3 and second.detail["last_minute"].endswith("Z")


def test_pages_and_forms_of_another_site_are_told_as_well(otto: User, web_1: Node) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(otto)
    assert strict.get("/settings/tokens/").status_code == 403
    assert strict.post("/logout/").status_code == 403
    assert strict.post("/api/jobs", {}, content_type="application/json").status_code == 403
    assert [one.actor_name for one in denied()] == [otto.email] * 3


def test_a_good_request_counts_nothing(api: ApiClient, ada: User, client: Client) -> None:
    assert api.by(ada).get("/api/audit").status_code == 200
    assert api.by(ada).get("/api/jobs/00000000-0000-0000-0000-000000000000").status_code == 404
    assert client.get("/audit/").status_code == 302  # shown the way to the log-in
    assert not Denial.objects.exists() and not denied()


def test_a_stranger_is_told_of_by_address_and_not_by_path(db: None, api: ApiClient, client: Client) -> None:
    for path in ("/api/nodes", "/api/jobs", "/api/audit"):
        assert api.get(path).status_code == 401
    assert client.post("/audit/verify/").status_code == 401
    assert api.post("/api/auth/refresh", {"refresh": "x" * 40}).status_code == 401
    found = [(one.actor_kind, one.target, one.detail["error"]) for one in denied()]
    stranger = ("anonymous", "address:127.0.0.1")
    assert found == [(*stranger, "not_authenticated"), (*stranger, "refresh_token_invalid")]
    assert Denial.objects.get(key="address:127.0.0.1:not_authenticated").count == 4


def test_a_failed_login_has_its_own_entry_and_one_too_many_is_a_refusal(db: None, client: Client) -> None:
    def wrong() -> int:
        return client.post("/login/", {"email": "x@example.com", "password": "wrong"}).status_code

    statuses = [wrong() for _ in range(5)]
    factories.lengthen_delays()
    statuses += [wrong() for _ in range(3)]
    assert statuses == [401] * 5 + [429] * 3
    assert Event.objects.filter(action="login.failed").count() == 5
    assert [one.detail["error"] for one in denied()] == ["too_many_logins"]


def test_a_thousand_addresses_do_not_fill_the_log(db: None) -> None:
    for chunk in range(4):
        strangers = [Actor.anonymous(ip=f"10.{chunk}.0.{number}") for number in range(250)]
        denials.note([Refusal(NotAuthenticated(), by, "bearer", times=2) for by in strangers])
    found = denied()
    assert len(found) == denials.STRANGERS_A_MINUTE + 1
    assert found[-1].target == "address:others"
    a_minute_passes()
    denials.note([Refusal(NotAuthenticated(), Actor.anonymous(ip="10.9.9.9"), "bearer")])
    assert denied()[-1].target == "address:10.9.9.9"


@pytest.mark.django_db(transaction=True)
def test_many_at_once_leave_one_entry() -> None:
    by = Actor.user(id="7", name="vera@example.com", role="viewer")

    def refuse(_number: int) -> None:
        try:
            for _ in range(5):
                refusals.tell(Forbidden(), by=by, route="audit:list")
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(refuse, range(16)))
    assert len(denied()) == 1
    assert Denial.objects.get().count == 80


def test_the_caller_gets_the_answer_when_the_log_cannot_be_written(
    api: ApiClient, vera: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(found: Any) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(refusals, "listener", away)
    assert api.by(vera).get("/api/audit").status_code == 403
    assert not denied()


def test_a_row_that_a_verb_refuses_is_an_entry(api: ApiClient, ada: User) -> None:
    presets.create_preset(by=factories.as_actor(ada), text=TEXT)
    tamper("presets_presetrevision", "document", TEXT.replace("printf", "touch /tmp/owned; printf"))
    for _ in range(2):
        assert api.by(ada).get("/api/presets/motd").status_code == 409
    [entry] = Event.objects.filter(action="row.tampered")
    assert (entry.actor_name, entry.target.split(":")[0]) == (ada.email, "presets_presetrevision")
    assert entry.detail["why"] == "its seal does not fit"
    assert not denied()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Waits until what was gathered on the event loop is told."""
    monkeypatch.setattr(refusals, "GATHER_SECONDS", 0.01)
    refusals._gathered.clear()  # other tests' refusals that nobody was told of

    async def told() -> None:
        assert refusals._flush is not None
        await refusals._flush

    return told


@pytest.mark.django_db(transaction=True)
def test_what_the_lanes_refuse_is_told_from_a_thread(soon: Callable[[], Any]) -> None:
    node = factories.make_seen_node("web-1")
    token = factories.make_token(node)

    async def scenario() -> list[int]:
        good = await lane.call(lane.request(lane.beat("web-1"), token))
        foreign = [await lane.call(lane.request(lane.beat("db-1"), token)) for _ in range(3)]
        await soon()
        bad = await lane.call(lane.request(lane.beat("web-1"), "hbnt_" + "a" * 51))
        await soon()
        return [good.status, *(one.status for one in foreign), bad.status]

    assert lane.run(scenario) == [202, 403, 403, 403, 401]
    found = [(one.actor_kind, one.actor_name, one.target, one.detail["error"]) for one in denied()]
    assert found == [
        ("agent", "web-1", "route:heartbeat", "other_node"),
        ("anonymous", "anonymous", "address:127.0.0.1", "bad_token"),
    ]
    assert Denial.objects.get(key__startswith="agent:").count == 3


@pytest.mark.django_db(transaction=True)
def test_bad_bearers_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "FLUSH_SECONDS", 0.01)

    async def scenario() -> None:
        bad = gate.BadBearers()
        for _ in range(20):
            bad.note("10.0.0.1")
        assert bad._flush is not None
        await bad._flush

    asyncio.run(scenario())
    [entry] = denied()
    assert (entry.target, entry.detail["route"]) == ("address:10.0.0.1", "bearer")
    assert Denial.objects.get(key="address:10.0.0.1:not_authenticated").count == 20
