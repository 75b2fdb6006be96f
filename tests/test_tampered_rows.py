"""Rows edited behind HyprBox's back: nothing runs, nobody gets in, and every one is found."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client

from accounts import passwords, people
from accounts.errors import LinkInvalid
from accounts.models import RateCounter, User
from audit.models import Event
from hyprbox import integrity
from hyprbox.lib import opaque
from hyprbox.lib.actors import Actor
from jobs.models import Job
from nodes.models import Node
from tests import factories
from tests.client import ApiClient
from tokens import selectors, services
from tokens.models import NodeToken


def sql(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)


class Undo(Exception):
    """Ends a transaction without a trace."""


def bad() -> list[str]:
    return [subject for subject, _ in integrity.verify(by=factories.SYSTEM).bad]


def opens(api: ApiClient, token: str) -> bool:
    """Whether an agent with this token is let in, to be told that there is no such job."""
    return bool(_start(api, token).status_code == 404)


def _start(api: ApiClient, token: str) -> Any:
    return api.agent(token).post(f"/api/jobs/{uuid.uuid4()}/start", {"claim_id": str(uuid.uuid4())})


TOKENS: dict[str, str] = {
    "another digest": "UPDATE tokens_nodetoken SET digest = sha256('hbnt_') WHERE id = %(a)s",
    "another's digest": "UPDATE tokens_nodetoken a SET digest = b.digest, prefix = b.prefix FROM tokens_nodetoken b"
    " WHERE a.id = %(a)s AND b.id = %(b)s",
    "another node": "UPDATE tokens_nodetoken SET node_pk = %(other)s, node_id = 'db-1' WHERE id = %(a)s",
    "a longer life": "UPDATE tokens_nodetoken SET expires_at = now() + interval '9 years' WHERE id = %(a)s",
    "no seal": "UPDATE tokens_nodetoken SET mac = '', row_version = 0 WHERE id = %(a)s",
    "a version ahead": "UPDATE tokens_nodetoken SET row_version = 2 WHERE id = %(a)s",
    "another's seal": "UPDATE tokens_nodetoken a SET mac = b.mac FROM tokens_nodetoken b"
    " WHERE a.id = %(a)s AND b.id = %(b)s",
}


def test_no_edited_token_opens_anything(db: None, api: ApiClient, web_1: Node, db_1: Node) -> None:
    first, second = factories.make_token(web_1), factories.make_token(db_1)
    one, two = factories.token_row(first), factories.token_row(second)
    assert opens(api, first) and opens(api, second)
    assert bad() == []
    values = {"a": one.pk, "b": two.pk, "other": db_1.pk}
    for name, statement in TOKENS.items():
        with suppress(Undo), transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
            assert not opens(api, first), name
            assert bad() == [f"tokens_nodetoken:{one.pk}"], name
            raise Undo
    assert opens(api, first)


def test_a_row_that_was_made_up_opens_nothing(db: None, api: ApiClient, web_1: Node) -> None:
    token = factories.make_token(web_1)
    sql("UPDATE tokens_nodetoken SET id = %s", uuid.uuid4())  # as a copy would be
    assert not opens(api, token)
    assert len(bad()) == 1


def test_a_token_that_was_valid_once_stays_revoked(db: None, api: ApiClient, web_1: Node) -> None:
    token = factories.make_token(web_1)
    row = factories.token_row(token)
    services.revoke_token(by=factories.SYSTEM, token_id=row.pk)
    # All columns as they were, its own old seal among them; and an entry of the log that speaks for it.
    sql(
        "UPDATE tokens_nodetoken SET revoked_at = NULL, mac = %s, row_version = %s WHERE id = %s",
        bytes(row.mac), row.row_version, row.pk,
    )  # fmt: skip
    subject = f"tokens_nodetoken:{row.pk}"
    Event.objects.create(action="token.created", actor_name="eve", subject=subject, subject_version=row.row_version)
    assert not opens(api, token)
    assert bad() == [subject]


def test_a_refusal_is_audited_once_a_minute(db: None, api: ApiClient, web_1: Node) -> None:
    token = factories.make_token(web_1)
    sql("UPDATE tokens_nodetoken SET expires_at = now() + interval '9 years'")
    for _ in range(3):
        answer = _start(api, token)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "bad_token")
    [entry] = Event.objects.filter(action="row.tampered")
    assert entry.target == f"tokens_nodetoken:{factories.token_row(token).pk}"
    assert entry.detail["why"] == "its seal does not fit"


def test_an_edited_token_cannot_be_rotated_but_revoked(db: None, web_1: Node) -> None:
    row = factories.token_row(factories.make_token(web_1))
    sql("UPDATE tokens_nodetoken SET node_id = 'db-1'")
    with pytest.raises(services.sealed.RowTampered), transaction.atomic():
        services.rotate_token(by=factories.SYSTEM, token_id=row.pk)
    assert NodeToken.objects.count() == 1
    services.revoke_token(by=factories.SYSTEM, token_id=row.pk)
    assert not selectors.list_tokens(by=factories.SYSTEM).usable().exists()


USERS: dict[str, str] = {
    "another role": "role = 'admin'",
    "another password": "password = %(theirs)s",
    "active again": "is_active = TRUE",
    "an earlier token version": "token_version = token_version - 1",
    "another address": "email = 'eve@example.com'",
    "no seal": "mac = '', row_version = 0",
}


def test_no_edited_user_logs_in_or_is_known(db: None, api: ApiClient, otto: User, vera: User) -> None:
    theirs = make_password("of the attacker 123")
    factories.leave(otto, token_version=2)
    for name, change in USERS.items():
        with suppress(Undo), transaction.atomic():
            if name == "active again":
                factories.leave(otto, is_active=False)
            with connection.cursor() as cursor:
                cursor.execute(
                    f"UPDATE accounts_user SET {change} WHERE id = %(id)s", {"id": otto.pk, "theirs": theirs}
                )
            otto.refresh_from_db()
            assert api.by(otto).get("/api/auth/me").status_code == 401, name
            for password in (factories.PASSWORD, "of the attacker 123"):
                answer = api.post("/api/auth/login", {"email": otto.email, "password": password})
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "wrong_credentials"), name
            assert bad() == [f"accounts_user:{otto.pk}"], name
            RateCounter.objects.all().delete()
            raise Undo
        otto.refresh_from_db()
    assert api.by(otto).get("/api/auth/me").status_code == 200
    assert api.by(vera).get("/api/auth/me").status_code == 200


def test_a_page_session_ends_when_its_user_is_edited(db: None, client: Client, otto: User) -> None:
    client.post("/login/", {"email": otto.email, "password": factories.PASSWORD})
    assert client.get("/").status_code == 200
    sql("UPDATE accounts_user SET role = 'admin' WHERE id = %s", otto.pk)
    assert client.get("/").status_code == 302
    assert Event.objects.filter(action="row.tampered", target=f"accounts_user:{otto.pk}").count() == 1


def test_no_key_or_link_that_was_made_up_works(db: None, api: ApiClient, ada: User) -> None:
    key = opaque.issue("hbak_")
    sql(
        "INSERT INTO accounts_apikey (id, user_id, name, prefix, digest, scopes, created_at, expires_at, mac, row_version)"
        " VALUES (gen_random_uuid(), %s, 'x', %s, %s, '{admin}', now(), now() + interval '1 day', '', 1)",
        ada.pk, key.prefix, key.digest,
    )  # fmt: skip
    assert api.agent(key.token).get("/api/auth/me").status_code == 401
    secret, digest = opaque.issue_link("invitation", "eve@example.com", "viewer")
    sql(
        "INSERT INTO accounts_invitation (id, email, role, digest, invited_by, created_at, expires_at, mac, row_version)"
        " VALUES (gen_random_uuid(), 'eve@example.com', 'admin', %s, 'ada', now(), now() + interval '1 day', '', 1)",
        digest,
    )
    with pytest.raises(LinkInvalid):
        people.accept_invitation(secret=secret, name="Eve", password=factories.PASSWORD, by=Actor.anonymous())
    sql(
        "INSERT INTO accounts_passwordreset (id, user_id, digest, created_at, expires_at)"
        " VALUES (gen_random_uuid(), %s, %s, now(), now() + interval '1 hour')",
        ada.pk, digest,
    )  # fmt: skip
    with pytest.raises(LinkInvalid):
        passwords.confirm_reset(secret=secret, new=factories.PASSWORD, by=Actor.anonymous())
    assert len(bad()) == 2  # the key and the invitation; a link to a new password bears its facts, signed, in itself
    assert User.objects.count() == 1


def _set(name: str) -> Callable[[Job], None]:
    return lambda job: sql(f"UPDATE jobs_job SET {name} WHERE id = %s", job.pk)


JOBS: dict[str, Callable[[Job], None]] = {
    "another script": _set("script = 'rm -rf /'::bytea"),
    "another script with its hash": _set("script = 'rm'::bytea, script_sha256 = encode(sha256('rm'::bytea), 'hex')"),
    "another payload": _set(r"payload = replace(convert_from(payload, 'UTF8'), 'apply', 'check')::bytea"),
    "another signature": _set("signature = 'AAAA'"),
    "another key": _set("key_id = '0123456789abcdef'"),
    "a longer time-out": _set("timeout_seconds = 86000"),
    "another time": _set("expires_at = expires_at + interval '1 hour'"),
    "another revision": _set("revision = repeat('0', 64)"),
    "other variables": _set("""variables = '{"KEY": "ssh-ed25519 AAAA"}'"""),
}


@pytest.mark.parametrize("name", JOBS)
def test_every_edited_job_is_found(db: None, web_1: Node, name: str) -> None:
    job, other = factories.make_job(web_1), factories.make_job(web_1)
    assert bad() == []
    sql("SET CONSTRAINTS ALL IMMEDIATE")
    sql("ALTER TABLE jobs_job DISABLE TRIGGER USER")
    JOBS[name](job)
    assert bad() == [f"jobs_job:{job.pk}"]
    assert other.pk != job.pk


def test_the_command_names_them(db: None, web_1: Node, capsys: Any) -> None:
    row = factories.token_row(factories.make_token(web_1))
    factories.make_job(web_1)
    with pytest.raises(SystemExit) as ended:
        call_command("integrity_verify")
    assert ended.value.code == 0
    assert "2 rows checked, 0 not" in capsys.readouterr().out
    sql("UPDATE tokens_nodetoken SET node_id = 'db-1'")
    with pytest.raises(SystemExit) as ended:
        call_command("integrity_verify", "--json")
    assert ended.value.code == 1
    said = json.loads(capsys.readouterr().out)
    assert said["bad"] == [{"row": f"tokens_nodetoken:{row.pk}", "why": "its seal does not fit"}]
    assert Event.objects.filter(action="integrity.verified").count() == 2
