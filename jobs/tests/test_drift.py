"""Pins: who may make them, one check per pin, node and night, as the owner, and what the checks told."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone

from accounts.models import User
from audit.models import Event
from hyprbox.lib.actors import Role
from hyprbox.lib.errors import Forbidden, InvalidInput
from hyprbox.lib.rowmac import RowTampered
from jobs import drift, drifted
from jobs.errors import PinExists, PinMatchesNothing, UnknownPin
from jobs.models import DriftCheck, Job, Pin
from nodes.models import Node
from presets import services as presets
from presets.tests.test_custom import TEXT
from tests.factories import as_actor, leave, make_node, make_seen_node, make_user, report

LATE = datetime(2026, 3, 4, 23, 59, tzinfo=UTC)


@pytest.fixture
def pin(ada: User, web_1: Node) -> Pin:
    return drift.create_pin(by=as_actor(ada), preset="time-sync", variables={}, tag="web")


def finish(job: Job, *, changed: bool | None = None, ago: timedelta = timedelta(), **over: Any) -> None:
    """End a check job as its agent would have."""
    at = timezone.now() - ago
    fields = {"status": "SUCCEEDED", "changed": changed, "exit_code": int(bool(changed)), **over}
    Job.objects.filter(pk=job.pk).update(status="RUNNING", started_at=at, claim_id=job.pk)
    Job.objects.filter(pk=job.pk).update(**fields, finished_at=at)


def told(pin: Pin, ada: User) -> drifted.PinState:
    return drifted.state_of(by=as_actor(ada), pin_id=pin.pk)


def why(pin: Pin) -> str:
    return Pin.objects.get(pk=pin.pk).paused_because


@pytest.mark.parametrize("person", ["otto", "vera"])
def test_only_admins_pin(person: str, web_1: Node, request: pytest.FixtureRequest) -> None:
    with pytest.raises(Forbidden):
        drift.create_pin(
            by=as_actor(request.getfixturevalue(person)), preset="time-sync", variables={}, node_id="web-1"
        )


@pytest.mark.parametrize(
    ("over", "field"),
    [
        ({"preset": "nothing"}, "preset"),
        ({"preset": "system-report"}, "preset"),
        ({"node_id": "nothing"}, "node_id"),
        ({"node_id": "", "tag": "nobody"}, "tag"),
        ({"tag": "web"}, "node_id"),
        ({"node_id": ""}, "node_id"),
        ({"variables": {"COLOUR": "red"}}, "variables.COLOUR"),
    ],
)
def test_what_cannot_be_checked_cannot_be_pinned(ada: User, web_1: Node, over: dict[str, Any], field: str) -> None:
    wanted: dict[str, Any] = {"preset": "time-sync", "variables": {}, "node_id": "web-1", **over}
    with pytest.raises(InvalidInput) as caught:
        drift.create_pin(by=as_actor(ada), **wanted)
    assert field in caught.value.fields
    assert not Pin.objects.exists()


def test_the_same_pin_twice_is_refused(pin: Pin, ada: User) -> None:
    with pytest.raises(PinExists):
        drift.create_pin(by=as_actor(ada), preset="time-sync", variables={}, tag="web")
    drift.create_pin(by=as_actor(ada), preset="time-sync", variables={}, node_id="web-1")
    assert Event.objects.filter(action="pin.created").count() == 2


def test_each_node_is_checked_once_a_day_as_the_owner(pin: Pin, ada: User) -> None:
    make_seen_node("web-2", tags=["web"])
    make_seen_node("db-9", tags=["db"])
    assert drift.queue_due(LATE) == 2
    assert drift.queue_due(LATE) == 0
    jobs = Job.objects.select_related("node").order_by("node__node_id")
    assert [(job.node.node_id, job.mode, job.created_by) for job in jobs] == [
        ("web-1", "check", ada.email),
        ("web-2", "check", ada.email),
    ]
    assert drift.queue_due(LATE + timedelta(days=1)) == 2


def test_a_node_that_was_never_seen_is_checked_when_it_has_come_and_keeps_no_pin_from_its_work(
    pin: Pin, ada: User
) -> None:
    awaited = make_node("web-2", tags=["web"])
    assert drift.queue_due(LATE) == 1
    assert len(drift.check_now(by=as_actor(ada), pin_id=pin.pk)[1]) == 1
    pin.refresh_from_db()
    assert pin.paused_because == ""
    report(awaited)
    assert drift.queue_due(LATE) == 1


def test_a_pin_of_a_node_that_was_never_seen_has_nothing_to_check_yet(ada: User) -> None:
    make_node("web-2")
    pin = drift.create_pin(by=as_actor(ada), preset="time-sync", variables={}, node_id="web-2")
    with pytest.raises(PinMatchesNothing):
        drift.check_now(by=as_actor(ada), pin_id=pin.pk)


def test_checks_are_spread_over_the_night(pin: Pin) -> None:
    for number in range(40):
        make_seen_node(f"web-{number + 10}", tags=["web"])
    counts = [
        drift.queue_due(LATE.replace(hour=hour, minute=minute)) for hour, minute in ((0, 59), (2, 0), (3, 0), (5, 0))
    ]
    assert counts[0] == 0
    assert all(1 <= count <= 36 for count in counts[1:]) and sum(counts) == 41


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_queue_each_check_once(pin: Pin) -> None:
    for number in range(5):
        make_seen_node(f"web-{number + 10}", tags=["web"])
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        drift.queue_due(LATE)
        connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Job.objects.count() == DriftCheck.objects.filter(job__isnull=False).count() == 6


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"is_active": False}, "was disabled"), ({"role": Role.VIEWER}, "may not run jobs any more")],
)
def test_an_owner_without_rights_pauses_the_pin(pin: Pin, ada: User, change: dict[str, Any], sentence: str) -> None:
    leave(ada, **change)
    assert drift.queue_due(LATE) == drift.queue_due(LATE) == 0
    assert sentence in why(pin)
    (event,) = Event.objects.filter(action="pin.paused")
    assert sentence in event.detail["why"]


def test_another_admin_takes_a_paused_pin_over(pin: Pin, ada: User, db: None) -> None:
    leave(ada, is_active=False)
    drift.queue_due(LATE)
    grace = make_user("grace", Role.ADMIN)
    drift.resume_pin(by=as_actor(grace), pin_id=pin.pk)
    assert (why(pin), drift.queue_due(LATE), Job.objects.get().created_by) == ("", 1, grace.email)


def test_a_preset_that_lost_what_it_needs_pauses_the_pin(ada: User, web_1: Node) -> None:
    by = as_actor(ada)
    presets.create_preset(by=by, text=TEXT)
    pin = drift.create_pin(by=by, preset="motd", variables={"TEXT": "hello"}, node_id="web-1")
    presets.archive_preset(by=by, name="motd")
    assert drift.queue_due(LATE) == 0
    assert "archived" in why(pin)
    assert not DriftCheck.objects.exists()


@pytest.mark.parametrize(("column", "value"), [("tag", "db"), ("preset", "swap-file"), ("row_version", 0)])
def test_a_pin_that_was_edited_in_the_database_queues_nothing(
    pin: Pin, ada: User, db_1: Node, column: str, value: Any
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE jobs_pin SET {column} = %s", [value])
    assert drift.queue_due(LATE) == 0
    assert not Job.objects.exists()
    assert "something else than HyprBox" in why(pin)
    assert Event.objects.filter(action="row.tampered").count() == 1
    with pytest.raises(RowTampered):
        drift.check_now(by=as_actor(ada), pin_id=pin.pk)
    drift.remove_pin(by=as_actor(ada), pin_id=pin.pk)


def test_checking_now_is_for_operators_and_leaves_the_night_alone(pin: Pin, otto: User, vera: User) -> None:
    with pytest.raises(Forbidden):
        drift.check_now(by=as_actor(vera), pin_id=pin.pk)
    _, jobs = drift.check_now(by=as_actor(otto), pin_id=pin.pk)
    assert [(job.mode, job.created_by) for job in jobs] == [("check", otto.email)]
    assert drift.queue_due(LATE) == 1


def test_a_pin_without_nodes_says_so(pin: Pin, ada: User) -> None:
    Node.objects.update(tags=[])
    with pytest.raises(PinMatchesNothing):
        drift.check_now(by=as_actor(ada), pin_id=pin.pk)
    assert told(pin, ada).sentence == "no node to check"


def test_a_removed_pin_is_gone_and_its_jobs_stay(pin: Pin, ada: User) -> None:
    drift.queue_due(LATE)
    drift.remove_pin(by=as_actor(ada), pin_id=pin.pk)
    with pytest.raises(UnknownPin):
        drift.remove_pin(by=as_actor(ada), pin_id=pin.pk)
    assert (Pin.objects.count(), DriftCheck.objects.count(), Job.objects.count()) == (0, 0, 1)


def test_drift_is_told_with_its_beginning(pin: Pin, ada: User) -> None:
    for number in (2, 3):
        make_seen_node(f"web-{number}", tags=["web"])
    assert told(pin, ada).sentence == "not checked yet"
    history = {"web-1": [False, False, False], "web-2": [False, True, True], "web-3": [True, True, True]}
    for days_ago in (3, 2, 1):
        _, jobs = drift.check_now(by=as_actor(ada), pin_id=pin.pk)
        for job in jobs:
            finish(job, changed=history[job.node.node_id][3 - days_ago], ago=timedelta(days=days_ago))
    state = told(pin, ada)
    began = timezone.now() - timedelta(days=3)
    assert state.sentence == f"2 of 3 drifted since {began:%A}"
    assert [(node.node_id, node.state) for node in state.nodes] == [
        ("web-2", "drifted"),
        ("web-3", "drifted"),
        ("web-1", "in_place"),
    ]
    web_2 = state.nodes[0]
    assert web_2.since is not None and (timezone.now() - web_2.since).days == 2
    assert web_2.job_id is not None and web_2.job_id in {job.pk for job in jobs}


def test_what_is_as_wanted_again_has_not_drifted(pin: Pin, ada: User) -> None:
    for changed, ago in ((True, 2), (False, 1)):
        _, (job,) = drift.check_now(by=as_actor(ada), pin_id=pin.pk)
        finish(job, changed=changed, ago=timedelta(days=ago))
    assert told(pin, ada).sentence == "1 of 1 as wanted"


def test_a_check_that_failed_is_not_called_drift(pin: Pin, ada: User) -> None:
    _, (job,) = drift.check_now(by=as_actor(ada), pin_id=pin.pk)
    finish(job, status="FAILED", reason="exit", exit_code=7)
    state = told(pin, ada)
    assert (state.sentence, state.look, state.nodes[0].job_id) == ("the last check failed", "FAILED", job.pk)


def test_a_running_check_leaves_what_is_known(pin: Pin, ada: User) -> None:
    _, (job,) = drift.check_now(by=as_actor(ada), pin_id=pin.pk)
    finish(job, changed=True)
    drift.check_now(by=as_actor(ada), pin_id=pin.pk)
    (node,) = told(pin, ada).nodes
    assert (node.state, node.is_running, node.job_id) == ("drifted", True, job.pk)


def test_a_node_lists_what_it_is_watched_for(pin: Pin, ada: User, web_1: Node, db_1: Node) -> None:
    assert [state.pin.pk for state, _ in drifted.of_node(by=as_actor(ada), node=web_1)] == [pin.pk]
    assert drifted.of_node(by=as_actor(ada), node=db_1) == []
