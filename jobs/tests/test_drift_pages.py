"""Drift's pages: what they say, and who sees which button."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from jobs import drift
from jobs.models import Job, Pin
from jobs.tests.test_drift import finish
from nodes.models import Node
from presets import catalogue, inputs
from tests.factories import as_actor


@pytest.fixture
def pin(ada: User, web_1: Node) -> Pin:
    return drift.create_pin(by=as_actor(ada), preset="time-sync", variables={}, tag="web")


def page(client: Client, user: User, path: str) -> str:
    client.force_login(user)
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


def test_an_admin_pins_from_the_presets_page(client: Client, ada: User, web_1: Node) -> None:
    path = "/drift/presets/time-sync/"
    text = page(client, ada, path)
    assert 'value="tag:web"' in text and 'value="node:web-1"' in text
    preset = catalogue.builtin()["time-sync"]
    values = {name: value for name, value in inputs.read_values(preset, {}).items() if value != "false"}
    answer = client.post(path, {"sent": "1", "target": "tag:web", **values})
    assert answer.status_code == 302, answer.content.decode()
    assert Pin.objects.get().tag == "web"
    again = client.post(path, {"sent": "1", "target": "", **values})
    assert again.status_code == 400 and "Name either a node or a tag." in again.content.decode()


def test_drift_is_told_on_every_page_that_it_concerns(client: Client, pin: Pin, ada: User, vera: User) -> None:
    _, (job,) = drift.check_now(by=as_actor(ada), pin_id=pin.pk)
    finish(job, changed=True)
    for path in ("/drift/", "/drift/presets/time-sync/", "/drift/presets/time-sync/line/"):
        assert "1 of 1 drifted since today" in page(client, vera, path)
    node = page(client, vera, "/nodes/web-1/")
    assert "Watched for drift" in node and f"/jobs/{job.pk}/" in node
    assert 'hx-get="/drift/presets/time-sync/line/"' in page(client, vera, "/presets/time-sync/")


def test_a_paused_pin_says_why(client: Client, pin: Pin, ada: User, vera: User) -> None:
    Pin.objects.update(paused_because="Its owner was disabled.")
    assert "Its owner was disabled." in page(client, vera, "/drift/")
    assert "Resume as me" not in page(client, vera, "/drift/")
    assert "Resume as me" in page(client, ada, "/drift/")


def test_the_buttons_do_what_they_say(client: Client, pin: Pin, otto: User, ada: User) -> None:
    client.force_login(otto)
    assert client.post(f"/drift/{pin.pk}/check/").status_code == 302
    assert Job.objects.count() == 1
    assert client.post(f"/drift/{pin.pk}/remove/").status_code == 403
    client.force_login(ada)
    answer: Any = client.post(f"/drift/{pin.pk}/remove/", {"next": "/drift/presets/time-sync/"})
    assert answer.headers["Location"] == "/drift/presets/time-sync/"
    assert not Pin.objects.exists()
