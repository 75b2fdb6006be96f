"""Node tokens: shown once, kept as a digest, pinned, revoked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from audit.models import Event
from tests import factories
from tokens import secrets, selectors, services
from tokens.errors import BadToken
from tokens.models import NodeToken


def create(api: Any, ada: Any, **body: Any) -> Any:
    return api.by(ada).post("/api/tokens", {"name": "web", **body})


def test_a_token_is_shown_once_and_stored_as_a_digest(api: Any, ada: Any) -> None:
    answer = create(api, ada)
    assert answer.status_code == 201, answer.content
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    token = body["token"]
    assert len(token) == 5 + 8 + 43
    assert token[5:13] == body["prefix"]
    assert token in body["install_command"]
    assert token not in api.by(ada).get("/api/tokens").content.decode()
    row = NodeToken.objects.get()
    assert token.encode() not in bytes(row.digest)
    assert token not in str(list(Event.objects.values()))


def test_a_token_for_a_node_makes_the_node(api: Any, ada: Any) -> None:
    assert create(api, ada, node_id="fresh-1").status_code == 201
    node = api.by(ada).get("/api/nodes/fresh-1").json()
    assert (node["status"], node["last_seen_at"]) == ("UNKNOWN", None)
    assert NodeToken.objects.get().node_id == "fresh-1"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"node_id": "../x"}, "node_id"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"prefix": "aaaaaaaa"}, "prefix"),
    ],
)
def test_bad_input_is_named(api: Any, ada: Any, change: Any, field: str) -> None:
    answer = create(api, ada, **change)
    assert answer.status_code == 400, answer.content
    assert field in answer.json()["error"]["fields"]
    assert not NodeToken.objects.exists()


@pytest.mark.parametrize("who", ["otto", "vera"])
def test_only_admins(api: Any, request: pytest.FixtureRequest, who: str) -> None:
    user = request.getfixturevalue(who)
    assert api.by(user).get("/api/tokens").status_code == 403
    assert create(api, user).status_code == 403
    assert not NodeToken.objects.exists()


def test_revoking_is_final(api: Any, ada: Any) -> None:
    body = create(api, ada).json()
    path = f"/api/tokens/{body['id']}"
    assert api.by(ada).delete(path).status_code == 204
    assert api.by(ada).delete(path).status_code == 409
    with pytest.raises(BadToken):
        selectors.find_presented(body["token"])


def test_an_unknown_token_is_404(api: Any, ada: Any) -> None:
    assert api.by(ada).delete("/api/tokens/00000000-0000-4000-8000-000000000000").status_code == 404


def test_rotation_keeps_the_old_one_for_a_while(api: Any, ada: Any, web_1: Any) -> None:
    old = factories.make_token(web_1)
    row = NodeToken.objects.get()
    answer = api.by(ada).post(f"/api/tokens/{row.pk}/rotate")
    assert answer.status_code == 201
    new = answer.json()["token"]
    assert selectors.find_presented(old).pk == row.pk
    assert selectors.find_presented(new).node_pk == web_1.pk
    services.retire_predecessors([selectors.find_presented(new).pk])
    with pytest.raises(BadToken):
        selectors.find_presented(old)


def test_an_expired_token_is_like_an_unknown_one(db: None) -> None:
    token = factories.make_token()
    factories.leave(factories.token_row(token), expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(BadToken):
        selectors.find_presented(token)


def test_the_right_prefix_with_a_wrong_secret_is_refused(db: None) -> None:
    token = factories.make_token()
    with pytest.raises(BadToken):
        selectors.find_presented(token[:-1] + ("A" if token[-1] != "A" else "B"))


def test_two_tokens_with_one_prefix_are_told_apart(db: None) -> None:
    first, second = factories.make_token(), factories.make_token()
    issued = secrets.issue()
    twin = issued.token[:5] + first[5:13] + issued.token[13:]
    row = factories.token_row(second)
    factories.leave(row, prefix=first[5:13], digest=secrets.parse(twin).digest)
    assert selectors.find_presented(first).pk != selectors.find_presented(twin).pk


@pytest.mark.parametrize(
    "text", ["", "hbnt_", "hbnt_" + "a" * 50, "hbnt_" + "a" * 52, "hbnt_" + "é" * 51, "x" * 10_000]
)
def test_what_is_no_token_is_refused_without_the_database(text: str) -> None:
    with pytest.raises(BadToken):
        secrets.parse(text)
