"""/events/: who may open it, and that its fragments are the pages' own partials."""

from __future__ import annotations

from datetime import timedelta
from unittest import mock

import pytest
from django.utils import timezone

from accounts.models import User
from hyprbox import fragments
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import Forbidden, InvalidInput
from hyprbox.lib.live import Event
from nodes.models import Node
from tests import factories
from tests.factories import as_actor
from tokens import services as tokens
from tokens.models import NodeToken


@pytest.fixture
def by(vera: User) -> Actor:
    return as_actor(vera)


def ids(frames: object) -> list[str]:
    return [data.get("id", name) for name, data in frames]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "topic", ["nothing", "cells-evil", "node-1-24h", "job-x", "job-" + "0" * 36, "CARDS", "cards\n"]
)
def test_unknown_topics_are_refused(by: Actor, topic: str) -> None:
    with pytest.raises(InvalidInput):
        fragments.source(topic, by=by)


def test_a_viewer_cannot_watch_a_token(by: Actor) -> None:
    with pytest.raises(Forbidden):
        fragments.source("enrol-00000000-0000-0000-0000-000000000000", by=by)


@pytest.mark.parametrize(("topic", "prefix"), [("cards", "card"), ("rows", "row"), ("cells-mem", "cell")])
def test_a_changed_node_is_one_fragment(by: Actor, web_1: Node, db_1: Node, topic: str, prefix: str) -> None:
    source = fragments.source(topic, by=by)
    [(name, data)] = source.changes([Event("nodes", {"node": [str(web_1.pk)]})])
    assert (name, data["id"], data["list"]) == ("fragment", f"{prefix}-{web_1.pk}", "nodes")
    assert f'id="{prefix}-{web_1.pk}"' in data["html"]


def test_a_hint_without_names_brings_all_that_were_touched(by: Actor, web_1: Node, db_1: Node) -> None:
    source = fragments.source("cards", by=by)
    Node.objects.filter(pk=web_1.pk).update(last_seen_at=timezone.now() + timedelta(seconds=1))
    assert ids(source.changes([Event("nodes", {"node": None})])) == [f"card-{web_1.pk}"]


def test_a_removed_node_brings_nothing(by: Actor, web_1: Node) -> None:
    Node.objects.filter(pk=web_1.pk).update(removed_at=timezone.now())
    assert ids(fragments.source("rows", by=by).changes([Event("nodes", {"node": [str(web_1.pk)]})])) == []


def test_fragments_replace_what_the_pages_hold(by: Actor, client: object, vera: User, web_1: Node) -> None:
    client.force_login(vera)  # type: ignore[attr-defined]
    pages = {
        "fleet": "/",
        f"node-{web_1.pk}-24h": "/nodes/web-1/?range=24h",
        "feed": "/live/",
        "nav": "/",
        "jobs": "/jobs/",
    }
    for topic, path in pages.items():
        page = client.get(path).content.decode()  # type: ignore[attr-defined]
        source = fragments.source(topic, by=by)
        found = [id for id in ids(source.changes([Event(source.topics[0], {"node": None})])) if id != "line"]
        assert found and all(f'id="{id}"' in page for id in found), topic


def test_a_job_is_a_row_and_a_page(by: Actor, web_1: Node) -> None:
    job = factories.make_job(web_1)
    hint = [Event("jobs", {"job": str(job.pk), "node": str(web_1.pk)})]
    assert f"job-{job.pk}" in ids(fragments.source("jobs", by=by).changes(hint))
    assert "node-jobs" in ids(fragments.source(f"node-{web_1.pk}-1h", by=by).changes(hint))
    shown = list(fragments.source(f"job-{job.pk}", by=by).snapshot())
    assert ids(shown) == ["job-header", "job-steps", "job-facts"]
    assert bytes(job.script).decode() not in "".join(data["html"] for _, data in shown)


def test_the_feed_tells_heartbeats_flips_and_jobs(by: Actor, web_1: Node) -> None:
    source = fragments.source("feed", by=by)
    Node.objects.filter(pk=web_1.pk).update(last_seen_at=timezone.now() + timedelta(seconds=1))
    job = factories.make_job(web_1)
    hints = [Event("nodes", {"node": [str(web_1.pk)]}), Event("jobs", {"job": str(job.pk), "node": str(web_1.pk)})]
    lines = [data["html"] for name, data in source.changes(hints) if name == "line"]
    assert any('class="hb new"' in line for line in lines) and any('class="job new"' in line for line in lines)


def test_an_enrolment_turns_green_with_the_first_heartbeat(ada: User, new_1: Node) -> None:
    factories.make_token(new_1)
    token = NodeToken.objects.get(node_pk=new_1.pk)
    source = fragments.source(f"enrol-{token.pk}", by=as_actor(ada))
    assert list(source.snapshot()) == []
    Node.objects.filter(pk=new_1.pk).update(first_seen_at=timezone.now(), last_seen_at=timezone.now())
    [(_, data)] = source.changes([Event("nodes", {"node": [str(new_1.pk)]})])
    assert data["id"] == f"enrol-{token.pk}" and "reports" in data["html"]


def test_a_list_of_tokens_hears_of_a_first_use_and_of_no_other(ada: User, vera: User, new_1: Node) -> None:
    factories.make_token(new_1)
    token = NodeToken.objects.get(node_pk=new_1.pk)
    source = fragments.source("tokens", by=as_actor(ada))
    assert list(source.snapshot()) == [] and "uses" in source.topics
    assert list(source.changes([Event("uses")])) == [("resync", {})]
    with pytest.raises(Forbidden):
        fragments.source("tokens", by=as_actor(vera))
    for more in (1, 0):
        NodeToken.objects.update(last_used_at=None if more else timezone.now() - timedelta(hours=1))
        with mock.patch("tokens.services.live.publish") as told:
            tokens.mark_used([token.pk])
        token.refresh_from_db()
        assert told.call_count == more and timezone.now() - token.last_used_at < timedelta(minutes=1)


def test_the_web_hosts_clock_decides_nothing(
    by: Actor, web_1: Node, db_1: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fragments.source("cards", by=by)
    wrong = timezone.now() + timedelta(hours=1)
    monkeypatch.setattr(timezone, "now", lambda: wrong)
    list(source.snapshot())
    assert ids(source.changes([Event("nodes", {"node": None})])) == [f"card-{web_1.pk}"]
