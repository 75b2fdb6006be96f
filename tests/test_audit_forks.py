"""An agent that holds two contradicting checkpoints tells us, and the log and the pages say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from agent.keys import KeyRing
from agent.log import Log
from agent.witness import Witness
from audit import checkpoints, sequencer
from audit.models import Event
from hyprbox.lib import signing
from hyprbox.lib.signing import Signer
from nodes.models import Node
from tests import factories
from tests.plane import Plane, plane

pytestmark = pytest.mark.django_db(transaction=True)
FIGURES = {"cpu_percent": 1.0, "memory_percent": 1.0, "disk_percent": 1.0}


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[Plane]:
    with plane(monkeypatch) as made:
        yield made


def checkpoint(n: int, fill: str, signer: Signer | None = None) -> dict[str, Any]:
    digest = bytes.fromhex(fill * 64)
    return checkpoints.as_dict(
        checkpoints.sign(n=n, digest=digest, at=timezone.now(), signer=signer or signing.signer())
    )


def beat(up: Plane, token: str, fork: Any) -> Any:
    body = {"node_id": "web-1", "agent_version": "1", "interval_seconds": 10, "metrics": FIGURES, "audit_fork": fork}
    return up.post("/api/nodes/heartbeat", token, body)


def test_what_a_witness_tells_is_recorded_once_and_shown(
    up: Plane, web_1: Node, ada: Any, vera: Any, tmp_path: Path
) -> None:
    witness = Witness(tmp_path, KeyRing(tmp_path), Log("ERROR"))
    witness._keys.offer(up.get("/api/agent/keys").json())
    for fill in ("a", "b"):
        witness.note(checkpoint(7, fill))
    fork = witness.untold()
    assert fork is not None
    token = factories.make_token(web_1)
    assert [beat(up, token, fork).status_code for _ in range(2)] == [202, 202]  # the first answer may get lost
    [told] = Event.objects.filter(action="audit.forked")
    assert (told.actor_kind, told.actor_name, told.target) == ("agent", "web-1", "audit:7")
    assert (told.detail["kept"], told.detail["refused"]) == (fork["kept"], fork["refused"])
    assert told.detail["log_has"] == "neither"
    client = Client()
    client.force_login(vera)
    assert "The audit log was changed" not in client.get("/").content.decode()
    client.force_login(ada)
    for page in ("/", "/audit/"):
        assert "The audit log was changed" in client.get(page).content.decode()


def test_which_one_the_log_has_is_said(up: Plane, web_1: Node) -> None:
    token = factories.make_token(web_1)  # an act
    sequencer.sequence()
    found = Event.objects.filter(n__isnull=False).latest("n")
    ours = checkpoints.as_dict(
        checkpoints.sign(n=found.n, digest=bytes(found.hash), at=timezone.now(), signer=signing.signer())
    )
    assert beat(up, token, {"kept": checkpoint(found.n, "c"), "refused": ours}).status_code == 202
    assert Event.objects.get(action="audit.forked").detail["log_has"] == "refused"


def test_what_proves_nothing_is_not_recorded(up: Plane, web_1: Node) -> None:
    """A node cannot cry wolf: only our own key makes a contradiction."""
    token, stranger = factories.make_token(web_1), Signer(signing.SigningKey.generate())
    one = checkpoint(7, "a")
    for other in (one, checkpoint(8, "b"), checkpoint(7, "b", stranger), {**checkpoint(7, "b"), "n": 7, "at": "now"}):
        assert beat(up, token, {"kept": one, "refused": other}).status_code == 202
    assert not Event.objects.filter(action="audit.forked").exists()


def test_half_a_fork_is_named(up: Plane, web_1: Node) -> None:
    answer = beat(up, factories.make_token(web_1), {"kept": checkpoint(7, "a")})
    assert (answer.status_code, answer.json()["error"]["fields"]) == (
        400, {"audit_fork.refused": ["This field is required."]},
    )  # fmt: skip
