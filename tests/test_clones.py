"""Two machines that report as one node: noticed, told, kept from jobs, and settled by a person; and what only looks so."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from agent.state import StateDir
from audit.models import Event
from nodes import errands, ingest
from nodes.models import Node, StatusFlip
from tests import factories
from tests.plane import Call, Plane, bearer, plane
from tokens import services as tokens

pytestmark = pytest.mark.django_db(transaction=True)
FIGURES = {"cpu_percent": 1.0, "memory_percent": 1.0, "disk_percent": 1.0}
CONFIRM = "/api/nodes/web-1/confirm-machine"


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[Plane]:
    monkeypatch.setattr(errands, "PAUSE_SECONDS", 0.0)
    with plane(monkeypatch) as made:
        yield made


@dataclass
class Machine:
    """An agent on a host, as far as its heartbeats show it. `count` is the counter in its state directory."""

    up: Plane
    token: str
    machine_id: str = "m1"
    instance_id: str = "i1"
    count: int = 0
    interval: int = 60

    def body(self, **over: Any) -> dict[str, Any]:
        self.count += 1
        time.sleep(0.003)  # two that were sent within a millisecond may be one that was repeated
        told = {"machine_id": self.machine_id, "instance_id": self.instance_id, "beat": self.count}
        now = datetime.now(UTC).isoformat()
        return {
            "node_id": "web-1", "agent_version": "1", "interval_seconds": self.interval, "metrics": FIGURES,
            "sent_at": now, **told, **over,
        }  # fmt: skip

    def beats(self, times: int = 1, **over: Any) -> None:
        for _ in range(times):
            self.sends(self.body(**over))

    def sends(self, body: dict[str, Any]) -> None:
        answer = self.up.post("/api/nodes/heartbeat", self.token, body)
        assert answer.status_code == 202, answer.text
        self.up.run(ingest.writer._errands.finish())


def is_suspected(node: Node) -> bool:
    node.refresh_from_db()
    return node.clone_suspected_at is not None


def job_for(up: Plane, token: str) -> Any:
    answer = up.poll("web-1", token)
    assert answer.status_code == 200, answer.text
    return answer.json()["job"]


@pytest.fixture
def one(up: Plane, web_1: Node) -> Machine:
    machine = Machine(up, factories.make_token(web_1))
    machine.beats(3)
    return machine


def test_another_machine_is_noticed_told_and_kept_from_jobs(up: Plane, one: Machine, ada: Any, web_1: Node) -> None:
    running = factories.make_job(web_1)
    claimed = factories.claim(running)
    waiting = factories.make_job(web_1)
    thief = Machine(up, one.token, machine_id="m2", instance_id="i2")
    thief.beats()
    assert is_suspected(web_1)
    one.beats(2)
    thief.beats(2)
    assert (job_for(up, one.token), job_for(up, thief.token)) == (None, None)
    [told] = Event.objects.filter(action="node.clone_suspected")
    assert (told.target, told.detail["known"]["machine_id"], told.detail["seen"]["machine_id"]) == (
        "node:web-1", "m1", "m2",
    )  # fmt: skip
    shown = up.get("/api/nodes/web-1", bearer(ada)).json()
    assert shown["clone_suspected_at"] is not None
    assert (shown["status"], [reason["code"] for reason in shown["reasons"]]) == ("CRITICAL", ["clone"])
    assert StatusFlip.objects.latest("at").after == "CRITICAL"
    # What was handed out before goes its way.
    start = up.post(f"/api/jobs/{running.pk}/start", one.token, {"claim_id": str(claimed)})
    end = up.post(f"/api/jobs/{running.pk}/complete", one.token, {"claim_id": str(claimed), **factories.ending()})
    assert (start.status_code, end.status_code) == (200, 200)

    confirmed = up.post(CONFIRM, bearer(ada))
    assert (confirmed.status_code, confirmed.json()["clone_suspected_at"]) == (200, None)
    assert up.post(CONFIRM, bearer(ada)).json()["error"]["code"] == "no_clone_suspected"
    one.beats(3)
    assert not is_suspected(web_1)
    assert job_for(up, one.token)["id"] == str(waiting.pk)
    assert Event.objects.filter(action="node.machine_confirmed", actor_name=ada.email).count() == 1


def test_it_is_suspected_again_while_both_go_on(up: Plane, one: Machine, ada: Any, web_1: Node) -> None:
    other = Machine(up, one.token, machine_id="m2", instance_id="i2")
    other.beats()
    up.post(CONFIRM, bearer(ada))
    other.beats()
    assert not is_suspected(web_1)
    one.beats()
    assert is_suspected(web_1)


def test_the_pages_show_it_and_admins_settle_it(up: Plane, one: Machine, ada: Any, vera: Any, web_1: Node) -> None:
    Machine(up, one.token, machine_id="m2").beats()
    client = Client()
    words, button = "Two machines seem to report as this node", "This is the one machine"
    client.force_login(vera)
    seen = client.get("/nodes/web-1/").content.decode()
    assert words in seen and button not in seen
    assert client.post("/nodes/web-1/confirm-machine/").status_code == 403
    client.force_login(ada)
    assert words in client.get("/").content.decode()  # among who needs someone
    assert button in client.get("/nodes/web-1/").content.decode()
    assert client.post("/nodes/web-1/confirm-machine/").status_code == 302
    assert button not in client.get("/nodes/web-1/").content.decode()


def test_a_restart_an_upgrade_and_a_reinstall_that_keeps_its_folder_are_none(
    up: Plane, web_1: Node, tmp_path: Path
) -> None:
    """With the agent's own state directory."""
    token = factories.make_token(web_1)
    for version in ("1.0", "1.0", "1.1", "1.1"):
        state = StateDir(tmp_path / "state")
        machine = Machine(up, token, instance_id=state.instance_id())
        for _ in range(3):
            machine.count = state.next_beat() - 1
            machine.beats(agent_version=version)
        os.close(state._lock)  # the process has ended
    web_1.refresh_from_db()
    assert (is_suspected(web_1), web_1.beat, web_1.sightings) == (False, 12, {})


def test_a_new_state_directory_on_the_same_machine_is_none(up: Plane, one: Machine, web_1: Node) -> None:
    for name in ("i2", "i3", "i4"):
        Machine(up, one.token, instance_id=name).beats(5)
    assert not is_suspected(web_1)
    assert (web_1.instance_id, web_1.beat) == ("i4", 5)


def test_two_agents_that_take_turns_are_noticed(up: Plane, one: Machine, web_1: Node) -> None:
    other = Machine(up, one.token, instance_id="i2")
    other.beats(2)
    assert not is_suspected(web_1)
    one.beats()
    assert is_suspected(web_1)


def test_three_that_take_turns_are_noticed(up: Plane, one: Machine, web_1: Node) -> None:
    for name in ("i2", "i3"):
        Machine(up, one.token, instance_id=name).beats()
    one.beats()
    assert is_suspected(web_1)


def test_an_old_heartbeat_that_arrives_late_is_none(up: Plane, one: Machine, web_1: Node) -> None:
    late = one.body()
    one.sends(late)
    Machine(up, one.token, instance_id="i2").beats(2)
    one.sends(late)
    assert not is_suspected(web_1)
    assert web_1.instance_id == "i2"


def test_copies_of_one_disk_are_noticed(up: Plane, one: Machine, web_1: Node) -> None:
    one.beats(20)
    copy = Machine(up, one.token, count=one.count - 10)
    for _ in range(5):
        one.beats()
        copy.beats()
    assert is_suspected(web_1)
    [told] = Event.objects.filter(action="node.clone_suspected")
    assert "two copies" in told.detail["why"]


def test_copies_that_count_alike_are_noticed(up: Plane, one: Machine, web_1: Node) -> None:
    copy = Machine(up, one.token, count=one.count)
    for _ in range(5):
        one.beats()
        copy.beats()
    assert is_suspected(web_1)


def test_heartbeats_that_a_network_repeats_are_none(up: Plane, one: Machine, web_1: Node) -> None:
    for _ in range(10):
        first, second = one.body(), one.body()
        for body in (first, first, second, first, second):
            one.sends(body)
    assert not is_suspected(web_1)
    assert web_1.sightings == {}


def test_a_snapshot_that_is_put_back_is_none(up: Plane, one: Machine, web_1: Node) -> None:
    one.beats(10)
    one.count = 2
    one.beats(20)
    assert not is_suspected(web_1)
    assert web_1.beat == 22


def test_a_host_that_loses_its_last_count_in_each_crash_is_none(up: Plane, one: Machine, web_1: Node) -> None:
    for _ in range(4):
        one.beats(3)
        one.count -= 1
        one.beats()
    assert not is_suspected(web_1)


def test_a_heartbeat_that_says_nothing_of_itself_is_none(up: Plane, one: Machine, web_1: Node) -> None:
    """As `hyprnode --once` sends it, beside a running agent."""
    for _ in range(3):
        one.sends({"node_id": "web-1", "agent_version": "1", "interval_seconds": 60, "metrics": FIGURES})
        one.beats()
    assert not is_suspected(web_1)
    assert web_1.machine_id == "m1"


def test_a_new_token_given_out_for_another_machine_is_what_it_says(up: Plane, one: Machine, web_1: Node) -> None:
    tokens.revoke_token(by=factories.SYSTEM, token_id=factories.token_row(one.token).pk)
    replaced = Machine(up, factories.make_token(web_1), machine_id="m2", instance_id="i9")
    replaced.beats(3)
    assert not is_suspected(web_1)
    assert (web_1.machine_id, web_1.instance_id, web_1.beat) == ("m2", "i9", 3)
    Machine(up, replaced.token, machine_id="m3").beats()
    assert is_suspected(web_1)


def test_a_rotated_token_does_not_move_a_node(up: Plane, one: Machine, ada: Any, web_1: Node) -> None:
    answer = up.post(f"/api/tokens/{factories.token_row(one.token).pk}/rotate", bearer(ada))
    Machine(up, str(answer.json()["token"]), machine_id="m2").beats()
    assert is_suspected(web_1)


def test_a_crowd_of_both_at_once_leaves_one_entry(up: Plane, one: Machine, web_1: Node) -> None:
    other = Machine(up, one.token, machine_id="m2", instance_id="i2")
    bodies = [machine.body() for _ in range(10) for machine in (one, other)]
    answers = up.together([Call("POST", "/api/nodes/heartbeat", one.token, body) for body in bodies])
    assert {answer.status_code for answer in answers} == {202}
    up.run(ingest.writer._errands.finish())
    other.beats()
    assert is_suspected(web_1)
    assert Event.objects.filter(action="node.clone_suspected").count() == 1


def test_a_poll_that_sleeps_is_not_woken_for_nothing_and_hears_when_it_is_settled(
    up: Plane, one: Machine, ada: Any, web_1: Node
) -> None:
    Node.objects.filter(pk=web_1.pk).update(clone_suspected_at=timezone.now() - timedelta(minutes=1))
    job = factories.make_job(web_1)

    async def meanwhile() -> Any:
        poll = Call("GET", f"/api/jobs/pending?node_id=web-1&request_id={uuid.uuid4()}&wait=8", one.token)
        sleeping = asyncio.create_task(up.send(poll))
        await asyncio.sleep(0.5)
        assert not sleeping.done()
        await up.send(Call("POST", CONFIRM, bearer_of_ada, {}))
        return (await sleeping).json()["job"]

    bearer_of_ada = bearer(ada)
    assert up.run(meanwhile())["id"] == str(job.pk)
