"""The page that changes what people say about a node, and removes it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from audit.models import Event
from nodes.models import Node
from tests import factories
from tokens.models import NodeToken

SAID = {"display_name": " Shop, front ", "group": "nordwind", "tags": "web, nginx  eu", "notes": "Ask Mara\nfirst."}


@pytest.fixture
def operator(client: Client, otto: User) -> Client:
    client.force_login(otto)
    return client


def test_an_operator_says_what_a_node_is(operator: Client, web_1: Node) -> None:
    assert "/nodes/web-1/edit/" in operator.get("/nodes/web-1/").content.decode()
    answer: Any = operator.post("/nodes/web-1/edit/", SAID, follow=True)
    page = answer.content.decode()
    assert answer.redirect_chain == [("/nodes/web-1/", 302)]
    assert "web-1 is changed." in page and "Shop, front" in page and "Ask Mara<br>first." in page
    web_1.refresh_from_db()
    assert (web_1.display_name, web_1.group, web_1.tags) == ("Shop, front", "nordwind", ["web", "nginx", "eu"])
    assert Event.objects.filter(action="node.changed", target="node:web-1").count() == 1
    form = operator.get("/nodes/web-1/edit/").content.decode()
    assert 'value="web nginx eu"' in form and "Remove this node" not in form


def test_what_cannot_be_is_said_beside_its_field(operator: Client, web_1: Node) -> None:
    answer: Any = operator.post("/nodes/web-1/edit/", {**SAID, "group": "x" * 64, "tags": "y" * 64})
    page = answer.content.decode()
    assert answer.status_code == 400
    assert "At most 63 characters." in page and "A tag has 1 to 63 characters" in page and "Shop, front" in page
    assert Node.objects.get(pk=web_1.pk).group == web_1.group


def test_an_admin_removes_a_node(client: Client, ada: User, web_1: Node) -> None:
    factories.make_token(web_1)
    client.force_login(ada)
    assert "Remove this node" in client.get("/nodes/web-1/edit/").content.decode()
    answer: Any = client.post("/nodes/web-1/remove/", follow=True)
    assert "web-1 is removed." in answer.content.decode()
    assert client.get("/nodes/web-1/").status_code == client.post("/nodes/web-1/remove/").status_code == 404
    assert NodeToken.objects.get().revoked_at is not None


def test_who_may_not_is_told_so(client: Client, vera: User, operator: Client, web_1: Node) -> None:
    assert operator.post("/nodes/web-1/remove/").status_code == 403
    client.force_login(vera)
    assert "/edit/" not in client.get("/nodes/web-1/").content.decode()
    assert client.get("/nodes/web-1/edit/").status_code == client.post("/nodes/web-1/edit/", SAID).status_code == 403
    assert Node.objects.get(pk=web_1.pk).removed_at is None


def test_a_token_is_rotated_on_its_page(client: Client, ada: User, web_1: Node) -> None:
    old = factories.token_row(factories.make_token(web_1))
    client.force_login(ada)
    assert "Rotate" not in client.get("/settings/tokens/").content.decode()  # nobody uses it yet
    NodeToken.objects.filter(pk=old.pk).update(last_used_at=old.created_at)
    assert f"/settings/tokens/{old.pk}/rotate/" in client.get("/settings/tokens/").content.decode()
    answer = client.post(f"/settings/tokens/{old.pk}/rotate/")
    new = NodeToken.objects.get(replaces=old)
    page = answer.content.decode()
    assert (
        f"hbnt_{new.prefix}" in page and "goes on with the new token" in page and "no-store" in answer["Cache-Control"]
    )
    assert "hbnt_" + new.prefix + "…" in client.get("/settings/tokens/").content.decode()
    assert client.post(f"/settings/tokens/{uuid.uuid4()}/rotate/").status_code == 404
