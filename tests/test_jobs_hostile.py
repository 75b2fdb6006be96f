"""An agent with a valid token that sends anything at all: it never causes an error of ours, and others do not notice.

HOSTILE_REQUESTS asks for more; the seed is printed when something is found.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.models import Job
from nodes.models import Node
from tests import factories
from tests.factories import ending
from tests.plane import Call, Plane, pending, plane

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
REQUESTS = int(os.environ.get("HOSTILE_REQUESTS", "1500"))
SEED = int(os.environ.get("HOSTILE_SEED", "0")) or random.randrange(2**32)
AT_ONCE = 20
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 255, 256, 2**31, 2**53, 2**63, 2**64, -(2**63), 1e308, -1e308, 5e-324, 0.1, "", " ", "a", "0",
    "\x00", "\ud800", "\u202e", "𝟙", "x" * 300, "x" * 70_000, "null", "NaN", "'; DROP TABLE jobs_job; --", "../../etc/passwd",
    "%s%n", [], {}, [[]], {"": ""}, [None] * 70, {"a": {"b": {"c": {}}}}, "2026-11-24T10:00:00Z", "9999-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00Z", "2026-11-24T10:00:00+99:99", str(uuid.UUID(int=0)), "AAAA", "=", "A" * 400_000,
]  # fmt: skip


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[Plane]:
    with plane(monkeypatch) as made:
        yield made


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def mutated(dice: random.Random, body: Any) -> Any:
    """The same body with one to three places changed. What is put there is a copy, or a list would come to hold itself."""
    body = copy.deepcopy(body)
    for _ in range(dice.randint(1, 3)):
        at, places = body, []
        while isinstance(at, (dict, list)) and at:
            key = dice.choice(list(at)) if isinstance(at, dict) else dice.randrange(len(at))
            places.append((at, key))
            if dice.random() < 0.4:
                break
            at = at[key]
        if not places:
            return copy.deepcopy(dice.choice(ODD))
        parent, key = places[-1]
        match dice.randrange(4):
            case 0 if isinstance(parent, dict):
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[dice.choice(["extra", "", "claim_id ", "__class__", "\x00"])] = copy.deepcopy(dice.choice(ODD))
            case 2 if isinstance(parent, list):
                parent.extend(copy.deepcopy(parent[key]) for _ in range(dice.choice([1, 5, 100])))
            case _:
                parent[key] = copy.deepcopy(dice.choice(ODD))
    return body


def broken(dice: random.Random, body: Any) -> bytes:
    """Not even JSON, or hardly."""
    raw = json.dumps(body).encode()
    at = dice.randrange(len(raw))
    return dice.choice(
        [
            raw[:at],
            raw[:at] + bytes([dice.randrange(256)]) + raw[at + 1 :],
            raw + raw,
            b"[" * 5000,
            b'{"a":' * 2000 + b"1" + b"}" * 2000,
            json.dumps(deep(30)).encode(),
            json.dumps({f"k{n}": n for n in range(1500)}).encode(),
            b"\xff\xfe" + raw,
            b"NaN",
            b'{"claim_id": 1e999}',
            raw.replace(b'"', b"'"),
            b"",
            b"x" * 1_100_000,
        ]
    )


class Hostile:
    def __init__(self, dice: random.Random, node: Node, token: str) -> None:
        self.dice, self.node, self.token = dice, node, token
        self.job = self._running()

    def _running(self) -> Job:
        job = factories.make_job(self.node)
        factories.claim(job)
        Job.objects.filter(pk=job.pk).update(
            status="RUNNING", started_at=job.claimed_at, lease_expires_at=job.expires_at, deadline_at=job.expires_at
        )
        job.refresh_from_db()
        return job

    def honest(self) -> tuple[str, Any]:
        claim = {"claim_id": str(self.job.claim_id)}
        piece = {"stream": "stdout", "offset": 0, "data": base64.b64encode(b"hi").decode(), "skipped": False}
        figures = {
            "cpu_percent": 1.0,
            "memory_percent": 1.0,
            "disk_percent": 1.0,
            "disks": [{"mount": "/", "percent": 1.0}],
        }
        beat = {"node_id": self.node.node_id, "agent_version": "1", "interval_seconds": 10, "metrics": figures}
        path = f"/api/jobs/{self.job.pk}"
        return self.dice.choice(
            [
                (f"{path}/start", claim),
                (f"{path}/output", {**claim, "phase": "apply", "chunks": [piece, piece]}),
                (f"{path}/complete", {**claim, **ending(stdout_bytes=2)}),
                ("/api/nodes/heartbeat", beat),
                (
                    "/api/nodes/heartbeat",
                    {**beat, "inventory": {"hostname": "x", "ip_addresses": ["::1"], "cpu_count": 1}},
                ),
            ]
        )

    def call(self) -> Call:
        path, body = self.honest()
        headers: dict[str, str] = {}
        kind = self.dice.random()
        if kind < 0.1:
            query = {
                name: self.dice.choice([0, "", "x", "1e9", "%00", "-1", "nan", "%ff"]) for name in ("wait", "reconcile")
            }
            return Call("GET", pending(self.node.node_id, **query), self.token)
        if kind < 0.2:
            odd = self.dice.choice([str(uuid.uuid4()), "x", "%00", "..", str(self.job.pk).upper(), "1"])
            return Call("POST", f"/api/jobs/{odd}/start", self.token, body)
        if kind < 0.3:
            headers = self.dice.choice(
                [{"content-type": "text/plain"}, {"content-encoding": "gzip", "content-type": "application/json"},
                 {"x-request-id": "x" * 500}, {"idempotency-key": "\x7f"}]
            )  # fmt: skip
            return Call("POST", path, self.token, json.dumps(body).encode(), headers)
        if kind < 0.55:
            return Call("POST", path, self.token, broken(self.dice, body))
        return Call("POST", path, self.token, json.dumps(mutated(self.dice, body)).encode())


def test_nothing_a_hostile_agent_sends_is_an_error_of_ours(up: Plane, web_1: Node, db_1: Node) -> None:
    dice = random.Random(SEED)
    hostile = Hostile(dice, web_1, factories.make_token(web_1))
    bystander, slowest = factories.make_token(db_1), 0.0
    found: Counter[int] = Counter()
    for _ in range(REQUESTS // AT_ONCE):
        calls = [hostile.call() for _ in range(AT_ONCE)]
        for call, answer in zip(calls, up.together(calls), strict=True):
            found[answer.status_code] += 1
            shown = (SEED, call.path, (call.json or b"")[:500] if isinstance(call.json, bytes) else call.json)
            assert answer.status_code < 500, (*shown, answer.text)
            assert answer.status_code < 400 or "error" in answer.json(), shown
        began = time.monotonic()
        assert up.poll("db-1", bystander, reconcile=1).status_code == 200
        slowest = max(slowest, time.monotonic() - began)
        hostile.job.refresh_from_db()
        if hostile.job.is_finished:
            hostile.job = hostile._running()
    assert slowest < 1.0, SEED
    assert {200, 202, 400, 404, 409, 413, 415} <= set(found), (SEED, found)
    assert not Job.objects.filter(node=db_1).exists()
