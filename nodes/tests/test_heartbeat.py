"""POST /api/nodes/heartbeat, the good and the ordinary."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from audit import checkpoints
from audit.checkpoints import Newest
from audit.models import Event
from hyprbox.lib import signing
from nodes import ingest
from nodes.models import Heartbeat, Node, StatusFlip
from nodes.status import Status
from nodes.tests import lane
from tests.factories import make_node, make_token
from tokens.models import NodeToken

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_heartbeat_becomes_the_nodes_state_and_a_row_of_history() -> None:
    node = make_node("web-1")
    answer = lane.send(
        lane.beat("web-1", metrics={"load_1": 0.5, "net_rx_bps": 1000}, machine_id="m" * 32, instance_id="i", beat=7),
        make_token(node),
    )
    assert answer.status == 202
    assert set(answer.json) - {"audit_checkpoint"} == {"server_time", "work_waiting"}
    assert datetime.fromisoformat(answer.json["server_time"]).tzinfo is not None
    assert answer.json["work_waiting"] is False
    assert answer.headers["x-request-id"]
    node.refresh_from_db()
    assert (node.cpu_percent, node.memory_percent, node.disk_percent) == (12.5, 40.0, 55.5)
    assert node.metrics["load_1"] == 0.5
    assert (node.agent_version, node.interval_seconds, node.beat) == ("0.1.0", 10, 7)
    assert node.first_seen_at == node.last_seen_at
    row = Heartbeat.objects.get()
    assert (row.node, row.cpu_percent, row.load_1, row.net_rx_bps, row.net_tx_bps) == (node.pk, 12.5, 0.5, 1000, None)


def test_unreadable_metrics_are_null() -> None:
    node = make_node("web-1", cpu_percent=50)
    assert lane.send(lane.beat("web-1", metrics={"cpu_percent": None}), make_token(node)).status == 202
    node.refresh_from_db()
    assert node.cpu_percent is None


def test_numbers_too_small_for_history_are_zero_there() -> None:
    node = make_node("web-1")
    tiny = {"cpu_percent": 1e-300, "load_1": 5e-324, "net_rx_bps": 1e18}
    assert lane.send(lane.beat("web-1", metrics=tiny), make_token(node)).status == 202
    row = Heartbeat.objects.get()
    assert (row.cpu_percent, row.load_1) == (0, 0)


def test_the_inventory_is_kept_until_a_new_one_comes() -> None:
    node, inventory = (
        make_node("web-1"),
        {"os": "Debian GNU/Linux", "region": "fsn1", "boot_time": "2026-01-02T03:04:05Z"},
    )
    token = make_token(node)
    lane.send(lane.beat("web-1", inventory=inventory), token)
    lane.send(lane.beat("web-1"), token)
    node.refresh_from_db()
    assert node.inventory == inventory
    assert node.region == "fsn1"
    assert node.inventory_at is not None and node.last_seen_at is not None and node.inventory_at < node.last_seen_at


def test_the_clock_offset_is_measured_by_the_database() -> None:
    node = make_node("web-1")
    ahead = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
    lane.send(lane.beat("web-1", sent_at=ahead), make_token(node))
    node.refresh_from_db()
    assert node.clock_offset_seconds == pytest.approx(600, abs=5)


def test_work_waiting_comes_from_the_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node("web-1")
    monkeypatch.setattr(ingest, "work_waiting", lambda pk: pk == node.pk)
    assert lane.send(lane.beat("web-1"), make_token(node)).json["work_waiting"] is True


def test_the_first_heartbeat_announces_the_node_as_online() -> None:
    node = make_node("web-1")
    lane.send(lane.beat("web-1"), make_token(node))
    flip = StatusFlip.objects.get()
    assert (flip.node_id, flip.before, flip.after) == (node.pk, Status.UNKNOWN, Status.ONLINE)
    node.refresh_from_db()
    assert node.announced_status == Status.ONLINE


def test_the_use_of_a_token_is_noted() -> None:
    node = make_node("web-1")
    lane.send(lane.beat("web-1"), make_token(node))
    assert NodeToken.objects.get().last_used_at is not None


def test_heartbeats_of_one_node_in_one_batch_are_each_a_row_and_the_last_one_is_its_state() -> None:
    node = make_node("web-1")
    token = make_token(node)
    requests = [lane.request(lane.beat("web-1", metrics={"cpu_percent": n}), token) for n in range(10)]
    assert {answer.status for answer in lane.send_at_once(requests)} == {202}
    node.refresh_from_db()
    assert node.cpu_percent == 9
    assert sorted(Heartbeat.objects.values_list("cpu_percent", flat=True)) == list(range(10))


def test_every_accepted_heartbeat_is_one_row() -> None:
    nodes = [make_node() for _ in range(30)]
    requests = [lane.request(lane.beat(node.node_id), make_token(node)) for node in nodes] * 5
    answers = lane.send_at_once(requests)
    assert [answer.status for answer in answers] == [202] * 150
    assert Heartbeat.objects.count() == 150
    assert set(Heartbeat.objects.values_list("node", flat=True)) == {node.pk for node in nodes}


class TestPinning:
    def test_the_first_heartbeat_ties_a_token_to_its_node(self) -> None:
        token = make_token()
        assert lane.send(lane.beat("fresh-1"), token).status == 202
        node, row = Node.objects.get(), NodeToken.objects.get()
        assert (row.node_id, row.node_pk) == ("fresh-1", node.pk)
        assert node.node_id == "fresh-1"
        actions = set(Event.objects.values_list("action", flat=True))
        assert {"node.created", "token.pinned"} <= actions
        assert lane.send(lane.beat("fresh-2"), token).status == 403
        assert lane.send(lane.beat("fresh-1"), token).status == 202

    def test_of_many_first_uses_exactly_one_wins(self) -> None:
        token = make_token()
        answers = lane.send_at_once([lane.request(lane.beat(f"fresh-{n}"), token) for n in range(12)])
        assert sorted({answer.status for answer in answers}) == [202, 403]
        assert [answer.status for answer in answers].count(202) == 1
        assert Node.objects.count() == 1
        assert Heartbeat.objects.count() == 1

    def test_a_token_made_for_a_name_takes_that_name_only(self) -> None:
        token = make_token(None, node_id="web-1")
        assert lane.send(lane.beat("web-2"), token).status == 403
        assert not Node.objects.exists()
        assert lane.send(lane.beat("web-1"), token).status == 202

    def test_a_free_token_cannot_take_over_a_node_that_has_one(self) -> None:
        node = make_node("web-1")
        make_token(node)
        answer = lane.send(lane.beat("web-1"), make_token())
        assert (answer.status, answer.code) == (403, "node_taken")
        assert not Heartbeat.objects.exists()

    def test_a_removed_name_is_a_new_node(self) -> None:
        old = make_node("web-1", removed_at=timezone.now())
        assert lane.send(lane.beat("web-1"), make_token()).status == 202
        assert Node.objects.present().get().pk != old.pk


class TestWithoutTokens:
    def test_development_may_do_without(self, settings: pytest.FixtureRequest) -> None:
        settings.DEBUG, settings.HYPRBOX_REQUIRE_NODE_TOKEN = True, False  # type: ignore[attr-defined]
        assert lane.send(lane.beat("dev-1")).status == 202
        assert lane.send(lane.beat("dev-1")).status == 202
        assert Node.objects.get().node_id == "dev-1"

    def test_production_may_not(self, settings: pytest.FixtureRequest) -> None:
        settings.DEBUG, settings.HYPRBOX_REQUIRE_NODE_TOKEN = False, False  # type: ignore[attr-defined]
        assert lane.send(lane.beat("dev-1")).status == 401
        assert not Node.objects.exists()

    def test_a_node_that_was_removed_is_made_anew(self, settings: pytest.FixtureRequest) -> None:
        settings.DEBUG, settings.HYPRBOX_REQUIRE_NODE_TOKEN = True, False  # type: ignore[attr-defined]
        lane.send(lane.beat("dev-1"))
        Node.objects.update(removed_at=timezone.now())
        assert lane.send(lane.beat("dev-1")).status == 401
        assert lane.send(lane.beat("dev-1")).status == 202
        assert Node.objects.present().count() == 1


def test_the_answer_is_json_even_for_ids_with_dots() -> None:
    node = make_node("a.b-c_D9")
    assert json.loads(lane.send(lane.beat("a.b-c_D9"), make_token(node)).body)
    assert Heartbeat.objects.get().node == node.pk
    assert isinstance(node.pk, uuid.UUID)


def test_a_new_checkpoint_of_the_audit_log_is_handed_to_every_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Newest()
    monkeypatch.setattr(ingest, "newest", held)
    token = make_token(make_node("web-1"))
    assert "audit_checkpoint" not in lane.send(lane.beat("web-1"), token).json
    made = checkpoints.sign(n=7, digest=b"h" * 32, at=timezone.now(), signer=signing.signer())
    held.take(made)
    for _ in range(2):
        handed = lane.send(lane.beat("web-1"), token).json["audit_checkpoint"]
        assert (handed["n"], checkpoints.is_ours(handed, signing.signer())) == (7, True)
    monkeypatch.setattr(checkpoints, "HANDED_SECONDS", -1.0)
    held.take(checkpoints.sign(n=8, digest=b"h" * 32, at=timezone.now(), signer=signing.signer()))
    assert "audit_checkpoint" not in lane.send(lane.beat("web-1"), token).json
