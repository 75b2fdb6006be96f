"""What the lane refuses, with which status; and that it then changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from hyprbox.lib import lanes
from nodes import ingest, services
from nodes.models import Heartbeat, Node
from nodes.tests import lane
from tests.factories import SYSTEM, leave, make_node, make_token, token_row
from tokens import secrets
from tokens.models import NodeToken

pytestmark = pytest.mark.django_db(transaction=True)
GOOD = lane.beat("web-1")


@pytest.fixture
def node() -> Node:
    return make_node("web-1")


@pytest.fixture
def token(node: Node) -> Iterator[str]:
    """A good token. After the test nothing of the heartbeat may be found."""
    yield make_token(node)
    node.refresh_from_db()
    assert node.last_seen_at is None
    assert not Heartbeat.objects.exists()
    assert Node.objects.count() == 1


def with_metrics(**over: Any) -> dict[str, Any]:
    return lane.beat("web-1", metrics=over)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != key}


def raw(old: str, new: str) -> bytes:
    return json.dumps(GOOD).replace(old, new).encode("utf-8", "surrogatepass")


BAD_BODIES: list[Any] = [
    ("empty", b"", "malformed_body"),
    ("no JSON", b"{nope", "malformed_body"),
    ("an array", b"[]", "invalid_input"),
    ("a string", b'"x"', "invalid_input"),
    ("null", b"null", "invalid_input"),
    ("cut short", json.dumps(GOOD).encode()[:-5], "malformed_body"),
    ("two documents", json.dumps(GOOD).encode() * 2, "malformed_body"),
    ("invalid UTF-8", json.dumps(GOOD).encode().replace(b"0.1.0", b"\xff\xfe"), "malformed_body"),
    ("a raw NUL", json.dumps(GOOD).encode().replace(b"0.1.0", b"\0"), "malformed_body"),
    ("an escaped NUL", raw("0.1.0", "a\\u0000b"), "malformed_body"),
    ("an escaped NUL in the inventory", lane.beat("web-1", inventory={"os": "a\0"}), "malformed_body"),
    ("half a surrogate pair", raw("0.1.0", "\\ud800"), "malformed_body"),
    ("no node_id", without("node_id"), "invalid_input"),
    ("no metrics", without("metrics"), "invalid_input"),
    ("no interval", without("interval_seconds"), "invalid_input"),
    ("an extra key", {**GOOD, "extra": 1}, "invalid_input"),
    ("10,000 keys", {**GOOD, **{f"key{n}": n for n in range(10_000)}}, "invalid_input"),
    ("10,000 metrics", with_metrics(**{f"key{n}": n for n in range(10_000)}), "invalid_input"),
    (
        "nesting",
        json.dumps(GOOD).encode()[:-1] + b', "inventory": ' + b"[" * 9000 + b"]" * 9000 + b"}",
        "malformed_body",
    ),
    ("NaN", raw("12.5", "NaN"), "malformed_body"),
    ("Infinity", raw("12.5", "Infinity"), "malformed_body"),
    ("a number without end", raw("12.5", "1e999"), "invalid_input"),
    ("a percentage over 100", with_metrics(cpu_percent=100.5), "invalid_input"),
    ("a negative percentage", with_metrics(disk_percent=-1), "invalid_input"),
    ("text for a number", with_metrics(memory_percent="40"), "invalid_input"),
    ("a boolean for a number", with_metrics(memory_percent=True), "invalid_input"),
    (
        "a missing percentage",
        lane.beat("web-1") | {"metrics": {"cpu_percent": 1, "memory_percent": 1}},
        "invalid_input",
    ),
    ("too many bytes of memory", with_metrics(memory_total_bytes=2**70), "invalid_input"),
    ("an unknown key of a disk", with_metrics(disks=[{"mount": "/", "percent": 1, "x": 1}]), "invalid_input"),
    ("a mount of 256 characters", with_metrics(disks=[{"mount": "/" * 256, "percent": 1}]), "invalid_input"),
    ("a host name of 256 characters", lane.beat("web-1", inventory={"hostname": "h" * 256}), "invalid_input"),
    ("a number for a host name", lane.beat("web-1", inventory={"hostname": 7}), "invalid_input"),
    ("300 disks", with_metrics(disks=[{"mount": "/", "percent": 1}] * 300), "invalid_input"),
    ("no interval at all", lane.beat("web-1", interval_seconds=0), "invalid_input"),
    ("a name with a slash", lane.beat("web/1"), "invalid_input"),
    ("a name with a line end", lane.beat("web-1\n"), "invalid_input"),
    ("a long name", lane.beat("w" * 64), "invalid_input"),
    ("an empty name", lane.beat(""), "invalid_input"),
    ("a negative beat", lane.beat("web-1", beat=-1), "invalid_input"),
    ("a beat over 64 bits", lane.beat("web-1", beat=2**64), "invalid_input"),
    ("a time without a zone", lane.beat("web-1", sent_at="2026-01-01T00:00:00"), "invalid_input"),
    ("an unknown key of the inventory", lane.beat("web-1", inventory={"colour": "red"}), "invalid_input"),
    ("a long word in the inventory", lane.beat("web-1", inventory={"os": "x" * 300}), "invalid_input"),
]


@pytest.mark.parametrize(("body", "code"), [case[1:] for case in BAD_BODIES], ids=[case[0] for case in BAD_BODIES])
def test_a_bad_body_is_400(token: str, body: Any, code: str) -> None:
    answer = lane.send(body, token)
    assert (answer.status, answer.code) == (400, code)
    assert len(answer.body) < 2_000


def test_a_field_is_named_with_its_path(token: str) -> None:
    fields = lane.send(with_metrics(cpu_percent=101), token).json["error"]["fields"]
    assert list(fields) == ["metrics.cpu_percent"]
    assert list(lane.send(lane.beat("web-1", inventory={"x": 1}), token).json["error"]["fields"]) == ["inventory.x"]


def test_a_body_over_the_limit_is_read_and_answered_with_413(token: str) -> None:
    answer = lane.send(b" " * 5_000_000, token)
    assert (answer.status, answer.code) == (413, "body_too_large")


def test_an_inventory_over_its_own_limit_is_413(token: str) -> None:
    answer = lane.send(lane.beat("web-1", inventory={"os": "x" * 300_000}), token)
    assert (answer.status, answer.code) == (413, "inventory_too_large")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_what_does_not_call_itself_json_is_415(token: str, kind: str) -> None:
    assert lane.send(GOOD, token, content_type=kind).status == 415


def test_a_compressed_body_is_415(token: str) -> None:
    assert lane.send(GOOD, token, headers={"content-encoding": "gzip"}).status == 415


def test_json_with_a_charset_is_json(node: Node) -> None:
    assert lane.send(GOOD, make_token(node), content_type="application/json; charset=utf-8").status == 202


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_are_405(token: str, method: str) -> None:
    assert lane.send(GOOD, token, method=method).status == 405


class TestTokens:
    def test_all_that_is_no_token_gets_the_same_401(self, token: str) -> None:
        wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
        unknown = "hbnt_" + "z" * 8 + "x" * 43
        answers = [lane.send(GOOD, t) for t in (wrong, unknown, "hbnt_short", "x", "hbnt_" + "é" * 51)]
        assert {answer.status for answer in answers} == {401}
        assert len({answer.body for answer in answers}) == 1
        assert answers[0].headers["www-authenticate"] == "Bearer"
        assert lane.send(GOOD, None).status == 401

    def test_another_scheme_is_401(self, token: str) -> None:
        assert lane.send(GOOD, None, headers={"authorization": f"Basic {token}"}).status == 401

    def test_a_revoked_token_is_401(self, token: str) -> None:
        leave(token_row(token), revoked_at=timezone.now())
        assert lane.send(GOOD, token).status == 401

    def test_an_expired_token_is_401(self, token: str) -> None:
        leave(token_row(token), expires_at=timezone.now() - timedelta(seconds=1))
        assert lane.send(GOOD, token).status == 401

    def test_a_token_whose_row_was_edited_is_401(self, token: str) -> None:
        NodeToken.objects.update(expires_at=timezone.now() + timedelta(days=3650))
        assert lane.send(GOOD, token).status == 401

    def test_another_nodes_token_is_403(self, token: str) -> None:
        answer = lane.send(lane.beat("web-2"), token)
        assert (answer.status, answer.code) == (403, "other_node")

    def test_the_token_of_a_removed_node_is_401(self, node: Node) -> None:
        token = make_token(node)
        services.remove_node(by=SYSTEM, node_id="web-1")
        assert lane.send(GOOD, token).status == 401
        leave(token_row(token), revoked_at=None)  # even if its token were still good
        ingest.writer.tokens.drop(secrets.parse(token).prefix)
        assert lane.send(GOOD, token).status == 401
        assert not Heartbeat.objects.exists()

    def test_a_bad_token_is_refused_before_its_body_is_looked_at(self, token: str) -> None:
        assert lane.send(b"{", "hbnt_nothing").status == 401


class TestRates:
    def test_a_token_has_a_burst_of_60(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            ingest, "_by_token", lanes.TokenBucket(rate=1)
        )  # a slow machine gives back little meanwhile
        token = make_token(node)
        answers = lane.send_at_once([lane.request(GOOD, token)] * 90)
        statuses = [answer.status for answer in answers]
        assert 60 <= statuses.count(202) <= 65
        assert set(statuses) == {202, 429}
        assert answers[-1].headers["retry-after"] == "1"
        assert Heartbeat.objects.count() == statuses.count(202)

    def test_bad_tokens_are_counted_by_address(self, token: str) -> None:
        bad = "hbnt_" + "z" * 8 + "x" * 43
        statuses = [answer.status for answer in lane.send_at_once([lane.request(GOOD, bad)] * 40)]
        assert set(statuses) == {401, 429}
        assert 30 <= statuses.count(401) <= 32

    def test_an_address_that_guesses_is_refused_before_the_database(
        self, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []
        look_up = ingest.writer.look_up

        async def counted(presented: secrets.Presented) -> Any:
            asked.append(presented.prefix)
            return await look_up(presented)

        monkeypatch.setattr(ingest.writer, "look_up", counted)

        async def guess() -> list[lane.Answer]:
            made_up = ["hbnt_" + f"{number:08}" + "x" * 43 for number in range(300)]
            return [await lane.call(lane.request(GOOD, one)) for one in made_up]

        answers = lane.run(guess)
        assert [answer.status for answer in answers[:30]] == [401] * 30
        assert {answer.status for answer in answers[32:]} == {429}
        assert {int(answer.headers["retry-after"]) for answer in answers[-9:]} <= {1, 2, *range(55, 61)}
        assert 90 <= len(asked) <= 100

    def test_a_good_token_passes_beside_bad_ones(self, node: Node) -> None:
        bad = "hbnt_" + "z" * 8 + "x" * 43
        lane.send_at_once([lane.request(GOOD, bad)] * 40)
        assert lane.send(GOOD, make_token(node)).status == 202


def test_who_sends_comes_before_what_they_send() -> None:
    assert lane.send(b"no json", None, content_type="text/plain").status == 401
