"""The verbs on nodes: it works, wrong role, bad input, unknown node, twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import User
from audit.models import Event
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import Forbidden, InvalidInput, NotAuthenticated
from nodes import selectors, services
from nodes.errors import UnknownNode
from nodes.models import Node, StatusFlip
from nodes.services import NodeChanges
from nodes.status import Status
from tests.factories import SYSTEM, as_actor, make_node, make_token
from tokens.models import NodeToken

pytestmark = pytest.mark.django_db


class TestEnsureNode:
    def test_it_makes_a_node_that_was_never_seen(self, ada: User) -> None:
        node = services.ensure_node(by=as_actor(ada), node_id="web-1")
        assert selectors.judge_node(node).status == Status.UNKNOWN
        event = Event.objects.get(action="node.created")
        assert (event.target, event.actor_name) == ("node:web-1", ada.email)

    def test_twice_is_the_same_node(self, ada: User) -> None:
        first = services.ensure_node(by=as_actor(ada), node_id="web-1")
        assert services.ensure_node(by=as_actor(ada), node_id="web-1").pk == first.pk
        assert Event.objects.filter(action="node.created").count() == 1

    @pytest.mark.parametrize("name", ["", "-web", "we b", "web\n", "w" * 64, "wéb", "../x"])
    def test_a_name_has_a_form(self, name: str) -> None:
        with pytest.raises(InvalidInput):
            services.ensure_node(by=SYSTEM, node_id=name)

    def test_only_admins(self, otto: User) -> None:
        with pytest.raises(Forbidden):
            services.ensure_node(by=as_actor(otto), node_id="web-1")


class TestUpdateNode:
    def test_an_operator_changes_what_people_say_about_a_node(self, otto: User) -> None:
        make_node("web-1", notes="old")
        changes = NodeChanges(display_name=" Web ", group="acme", tags=["web", "eu", "web"])
        node = services.update_node(by=as_actor(otto), node_id="web-1", changes=changes)
        node.refresh_from_db()
        assert (node.display_name, node.group, node.tags, node.notes) == ("Web", "acme", ["web", "eu"], "old")
        detail = Event.objects.get(action="node.changed").detail
        assert detail["group"] == {"before": "", "after": "acme"}

    def test_nothing_changed_is_nothing_audited(self, otto: User) -> None:
        make_node("web-1", group="acme")
        services.update_node(by=as_actor(otto), node_id="web-1", changes=NodeChanges(group="acme"))
        assert not Event.objects.filter(action="node.changed").exists()

    @pytest.mark.parametrize(
        "over",
        [{"tags": ["a b"]}, {"tags": ["a,b"]}, {"tags": [""]}, {"tags": ["x"] * 0 + [f"t{n}" for n in range(33)]},
         {"group": "g" * 64}, {"display_name": "d" * 121}, {"notes": "n" * 10_001}],
    )  # fmt: skip
    def test_limits(self, otto: User, over: dict[str, Any]) -> None:
        make_node("web-1")
        with pytest.raises(InvalidInput) as caught:
            services.update_node(by=as_actor(otto), node_id="web-1", changes=NodeChanges(**over))
        assert list(caught.value.fields) == list(over)

    def test_viewers_may_not(self, vera: User) -> None:
        make_node("web-1")
        with pytest.raises(Forbidden):
            services.update_node(by=as_actor(vera), node_id="web-1", changes=NodeChanges(group="x"))
        with pytest.raises(NotAuthenticated):
            services.update_node(by=Actor.anonymous(), node_id="web-1", changes=NodeChanges(group="x"))

    def test_an_unknown_node(self, otto: User) -> None:
        with pytest.raises(UnknownNode):
            services.update_node(by=as_actor(otto), node_id="web-1", changes=NodeChanges(group="x"))


class TestRemoveNode:
    def test_its_tokens_die_its_name_is_free_and_its_row_stays(
        self, ada: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[Node] = []
        monkeypatch.setattr(services, "removal_hooks", [lambda by, node: told.append(node)])
        old = make_node("web-1")
        make_token(old)
        services.remove_node(by=as_actor(ada), node_id="web-1")
        assert NodeToken.objects.get().revoked_at is not None
        assert told == [old]
        assert Event.objects.filter(action="node.removed", target="node:web-1").count() == 1
        assert services.ensure_node(by=SYSTEM, node_id="web-1").pk != old.pk
        assert Node.objects.count() == 2

    def test_twice_is_unknown(self, ada: User) -> None:
        make_node("web-1")
        services.remove_node(by=as_actor(ada), node_id="web-1")
        with pytest.raises(UnknownNode):
            services.remove_node(by=as_actor(ada), node_id="web-1")

    def test_operators_may_not(self, otto: User) -> None:
        make_node("web-1")
        with pytest.raises(Forbidden):
            services.remove_node(by=as_actor(otto), node_id="web-1")


@pytest.mark.usefixtures("settled")
class TestAnnounceFlips:
    def test_a_silent_node_is_announced_once(self) -> None:
        make_node("web-1", last_seen_at=timezone.now() - timedelta(hours=1), announced_status=Status.ONLINE)
        assert services.announce_flips() == 1
        flip = StatusFlip.objects.get()
        assert (flip.before, flip.after, flip.reasons[0]["code"]) == (Status.ONLINE, Status.OFFLINE, "silent")
        assert services.announce_flips() == 0
        card = selectors.node_card("web-1")
        assert (card.status, card.status_since) == (Status.OFFLINE, flip.at)

    def test_others_are_left_alone(self) -> None:
        one = make_node("web-1", last_seen_at=timezone.now(), announced_status=Status.UNKNOWN)
        two = make_node("web-2", last_seen_at=timezone.now(), announced_status=Status.UNKNOWN)
        make_node("gone-1", last_seen_at=timezone.now(), removed_at=timezone.now())
        assert services.announce_flips([one.pk]) == 1
        two.refresh_from_db()
        assert two.announced_status == Status.UNKNOWN
        assert services.announce_flips() == 1
