"""More of what direct SQL can try: put back what was removed, begin again what is over, edit whatever else is sealed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from accounts import factors, families, keys, passwords, people
from accounts import services as accounts
from accounts.errors import LinkInvalid
from accounts.models import Invitation, PageSession, Passkey, RateCounter, User
from accounts.tests.apps import Clock, give_app
from audit import sealed
from audit import services as audit
from audit.actions import Action
from audit.models import Event
from hyprbox import integrity
from hyprbox.lib.actors import Actor
from hyprbox.lib.opaque import digest_of
from hyprbox.lib.rowmac import Sealed
from jobs import drift
from jobs.models import Job, Pin
from nodes.models import Node
from presets import services as presets
from tests import factories
from tests.client import ApiClient
from tests.factories import PASSWORD, as_actor
from tests.test_tampered_rows import Undo, bad, sql

HERE = Actor.anonymous(ip="127.0.0.1")
DOCUMENT = {"name": "own-preset", "title": "Own", "description": "Says hello.", "category": "other", "risk": "safe",
            "systems": [], "timeout_seconds": 60, "variables": [], "apply": "echo hello\n"}  # fmt: skip


@contextmanager
def put_back(table: str, pk: Any) -> Iterator[None]:
    """Whoever kept a copy of the row puts it back after what happens inside."""
    sql(f"CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT * FROM {table} WHERE id = %s", pk)
    yield
    sql(f"DELETE FROM {table} WHERE id = %s", pk)
    sql(f"INSERT INTO {table} SELECT * FROM kept")


def passkey_of(user: User) -> Passkey:
    with transaction.atomic():
        row = sealed.create(Passkey(user=user, name="laptop", credential_id=b"id", public_key=b"key"))
        audit.record(Action.ROW_SEALED, by=factories.SYSTEM, row=row)
    factories.leave(user, has_factor=True)
    return row


def fresh(user: User) -> Actor:
    return dataclasses.replace(as_actor(user), fresh_until=timezone.now() + timedelta(minutes=5))


# --- what was removed ---


def test_a_user_who_was_removed_stays_so(api: ApiClient, ada: User, otto: User) -> None:
    with put_back("accounts_user", otto.pk):
        people.remove_user(by=as_actor(ada), user_id=otto.pk)
    answer = api.post("/api/auth/login", {"email": otto.email, "password": PASSWORD})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "wrong_credentials")
    assert api.by(otto).get("/api/auth/me").status_code == 401
    assert bad() == [f"accounts_user:{otto.pk}"]


def test_a_passkey_that_was_removed_is_none(vera: User, ada: User) -> None:
    ends = {
        "by its owner": lambda row: factors.remove_passkey(by=fresh(vera), passkey_id=row.pk, password=PASSWORD),
        "by an admin": lambda row: factors.reset(by=as_actor(ada), user_id=vera.pk),
    }
    for name, end in ends.items():
        row = passkey_of(vera)
        with put_back("accounts_passkey", row.pk):
            end(row)
        assert bad() == [f"accounts_passkey:{row.pk}"], name
        with pytest.raises(sealed.RowTampered):
            sealed.first(Passkey.objects.filter(pk=row.pk))
        sql("DROP TABLE kept")
        Passkey.objects.all().delete()
        vera.refresh_from_db()


def test_a_pin_that_was_removed_checks_nothing(ada: User, web_1: Node) -> None:
    pin = drift.create_pin(by=as_actor(ada), preset="time-sync", variables={}, node_id="web-1")
    with put_back("jobs_pin", pin.pk):
        drift.remove_pin(by=as_actor(ada), pin_id=pin.pk)
    assert drift.queue_due(timezone.now().replace(hour=23, minute=59)) == 0
    assert not Job.objects.exists()
    assert "changed by something else" in Pin.objects.get().paused_because
    assert bad() == [f"jobs_pin:{pin.pk}"]


def test_what_was_put_back_is_removed_for_good(ada: User, otto: User) -> None:
    """An older version stands there when it is removed: the newest that ever was must not be valid afterwards."""
    sql("CREATE TEMPORARY TABLE older ON COMMIT DROP AS SELECT * FROM accounts_user WHERE id = %s", otto.pk)
    factories.leave(otto, role="viewer")
    with put_back("accounts_user", otto.pk):
        sql("DELETE FROM accounts_user WHERE id = %s", otto.pk)
        sql("INSERT INTO accounts_user SELECT * FROM older")
        people.remove_user(by=as_actor(ada), user_id=otto.pk)
    assert bad() == [f"accounts_user:{otto.pk}"]


# --- what is over ---


def test_an_invitation_that_is_over_makes_nobody(ada: User) -> None:
    def again(invitation: Invitation) -> None:
        sql(
            "UPDATE accounts_invitation SET accepted_at = NULL, revoked_at = NULL, mac = %s, row_version = %s WHERE id = %s",
            bytes(invitation.mac), invitation.row_version, invitation.pk,
        )  # fmt: skip

    def accept(secret: str) -> User:
        return people.accept_invitation(secret=secret, name="Eve", password=PASSWORD, by=HERE)

    revoked, secret = people.invite(by=as_actor(ada), email="eve@example.com", role="admin")
    people.revoke_invitation(by=as_actor(ada), invitation_id=revoked.pk)
    again(revoked)
    with pytest.raises(LinkInvalid):
        accept(secret)
    assert bad() == [f"accounts_invitation:{revoked.pk}"]
    sql("UPDATE accounts_invitation SET revoked_at = now()")

    used, secret = people.invite(by=as_actor(ada), email="eve@example.com", role="admin")
    people.remove_user(by=as_actor(ada), user_id=accept(secret).pk)
    again(used)
    with pytest.raises(LinkInvalid):
        accept(secret)
    assert Event.objects.filter(action="row.tampered", target=f"accounts_invitation:{used.pk}").count() == 1
    assert not User.objects.filter(email="eve@example.com").exists()


def test_a_link_to_a_new_password_works_once_whatever_its_row_says(otto: User) -> None:
    issued = passwords.issue_reset(email=otto.email, by=HERE)
    assert issued is not None
    passwords.confirm_reset(secret=issued[1], new="a passphrase nobody guesses", by=HERE)
    sql("UPDATE accounts_passwordreset SET used_at = NULL, expires_at = now() + interval '9 years'")
    with pytest.raises(LinkInvalid):
        passwords.confirm_reset(secret=issued[1], new=PASSWORD, by=HERE)


def test_a_link_ends_when_it_says_so_whatever_its_row_says(otto: User, monkeypatch: pytest.MonkeyPatch) -> None:
    issued = passwords.issue_reset(email=otto.email, by=HERE)
    assert issued is not None
    monkeypatch.setattr(passwords, "RESET_LIFETIME", timedelta(seconds=-1))
    with pytest.raises(LinkInvalid):
        passwords.find_reset(issued[1])


# --- sessions ---


def test_a_copied_session_opens_nothing(client: Client, ada: User) -> None:
    client.post("/login/", {"email": ada.email, "password": PASSWORD})
    [row] = PageSession.objects.filter(user=ada)
    mine = "k" * 32
    PageSession.objects.create(user=ada, key_digest=digest_of(mine), data=row.data, expires_at=row.expires_at)
    thief = Client()
    thief.cookies["hb_session"] = mine
    assert thief.get("/")["Location"].startswith("/login/")
    sql("UPDATE accounts_pagesession SET key_digest = %s WHERE id = %s", digest_of("m" * 32), row.pk)
    thief.cookies["hb_session"] = "m" * 32
    assert thief.get("/")["Location"].startswith("/login/")


def test_nobody_is_fresh_by_a_column(
    api: ApiClient, client: Client, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    give_app(ada, clock)
    client.post("/login/", {"email": ada.email, "password": PASSWORD})
    client.post("/login/second/", {"_otp": clock.next()})
    session = client.session
    session["_fresh_until"] = "2020-01-01T00:00:00+00:00"
    session.save()
    login = accounts.log_in(email=ada.email, password=PASSWORD, otp=clock.next(), by=HERE)
    program = ApiClient(f"Bearer {login.tokens.access}")
    assert program.post("/api/tokens", {"name": "while it is fresh"}).status_code == 201
    for table in ("accounts_refreshfamily", "accounts_pagesession"):
        sql(f"UPDATE {table} SET fresh_until = now() + interval '9 years'")
    assert program.post("/api/tokens", {"name": "new"}).json()["error"]["code"] == "step_up_required"
    assert client.post("/settings/tokens/", {"name": "new"}).status_code == 403
    family = ada.refresh_families.get()
    assert families.fresh_until(family) is None and bad() == [f"accounts_refreshfamily:{family.pk}"]


FAMILIES = {
    "of another": "user_id = %(other)s",
    "that lives longer": "expires_at = expires_at + interval '9 years'",
    "of another version": "token_version = token_version + 1",
}


def test_no_edited_session_of_a_program_goes_on(api: ApiClient, ada: User, otto: User) -> None:
    login = accounts.log_in(email=otto.email, password=PASSWORD, by=HERE)
    program = ApiClient(f"Bearer {login.tokens.access}")
    family = otto.refresh_families.get()
    for name, change in FAMILIES.items():
        with pytest.raises(Undo), transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"UPDATE accounts_refreshfamily SET {change}", {"other": ada.pk})
            assert bad() == [f"accounts_refreshfamily:{family.pk}"], name
            if name == "of another version":  # as after it was signed out everywhere
                factories.leave(otto, token_version=otto.token_version + 1)
            assert program.get("/api/auth/me").status_code == 401, name
            assert api.post("/api/auth/refresh", {"refresh": login.tokens.refresh}).status_code == 401, name
            RateCounter.objects.all().delete()
            raise Undo
        otto.refresh_from_db()
    assert program.get("/api/auth/me").status_code == 200


# --- every other target ---


@pytest.fixture
def targets(ada: User, otto: User, web_1: Node, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A row of each kind that leads to access or execution, and otto's second factor."""
    admin = as_actor(ada)
    give_app(otto, Clock(monkeypatch))
    key, _ = keys.create_key(by=admin, name="ci", scopes=["read"])
    invitation, _ = people.invite(by=admin, email="guest@example.com", role="viewer")
    revision = presets.create_preset(by=admin, text=json.dumps(DOCUMENT), kind="json")
    pin = drift.create_pin(by=admin, preset="time-sync", variables={}, tag="web")
    return SimpleNamespace(
        user=otto, key=key, invitation=invitation, revision=revision, preset=revision.preset, pin=pin,
        passkey=passkey_of(ada), other=ada, node=web_1,
    )  # fmt: skip


EDITS = {
    "a factor switched off": ("user", "has_factor = FALSE"),
    "another seed": ("user", "totp_seed = '\\x00'"),
    "another key of the seed": ("user", "totp_key_id = 'other'"),
    "recovery codes of one's own": ("user", "recovery_codes = '{abc}'"),
    "more scopes": ("key", "scopes = '{read,admin}'"),
    "a key of somebody else": ("key", "user_id = %(user)s"),
    "a key that lives longer": ("key", "expires_at = expires_at + interval '9 years'"),
    "another digest of a key": ("key", "digest = sha256('x')"),
    "a passkey of somebody else": ("passkey", "user_id = %(user)s"),
    "another public key": ("passkey", "public_key = 'x'"),
    "a better role for the guest": ("invitation", "role = 'admin'"),
    "another guest": ("invitation", "email = 'eve@example.com'"),
    "a longer invitation": ("invitation", "expires_at = expires_at + interval '9 years'"),
    "another revision in use": ("preset", "head = 2"),
    "a preset that is archived": ("preset", "archived_at = now()"),
    "another document": ("revision", "document = replace(document, 'hello', 'evil')"),
    "another hash of it": ("revision", "sha256 = repeat('0', 64)"),
    "findings waived": ("revision", "waived = '[\"x\"]'"),
    "a pin of another preset": ("pin", "preset = 'docker'"),
    "a pin with other values": ("pin", "variables = '{\"A\": 1}'"),
    "a pin elsewhere": ("pin", "tag = 'db'"),
    "a pin of another owner": ("pin", "owner_id = %(user)s"),
}


def test_every_other_edit_is_found(targets: SimpleNamespace) -> None:
    assert bad() == []
    sql("SET CONSTRAINTS ALL IMMEDIATE")
    sql("ALTER TABLE presets_presetrevision DISABLE TRIGGER USER")  # as the owner of the tables may
    for name, (kind, change) in EDITS.items():
        row: Sealed = getattr(targets, kind)
        table = row._meta.db_table
        with pytest.raises(Undo), transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(
                    f"UPDATE {table} SET {change} WHERE id = %(id)s", {"id": row.pk, "user": targets.user.pk}
                )
                assert cursor.rowcount == 1, name
            assert bad() == [f"{table}:{row.pk}"], name
            raise Undo


def test_a_seed_or_codes_of_ones_own_open_nothing(targets: SimpleNamespace, api: ApiClient) -> None:
    body = {"email": targets.user.email, "password": PASSWORD, "otp": "000000"}
    for change in ("has_factor = FALSE", "totp_seed = '', has_factor = FALSE", "recovery_codes = '{abc}'"):
        with pytest.raises(Undo), transaction.atomic():
            sql(f"UPDATE accounts_user SET {change} WHERE id = %s", targets.user.pk)
            assert api.post("/api/auth/login", body).status_code == 401, change
            assert api.post("/api/auth/login", {**body, "otp": ""}).status_code == 401, change
            RateCounter.objects.all().delete()
            raise Undo


def test_a_renamed_node_gets_no_one_elses_jobs(ada: User, web_1: Node, db_1: Node, api: ApiClient) -> None:
    """A job for web-1 is signed for web-1: an agent that answers to another name refuses it."""
    sql("UPDATE nodes_node SET node_id = 'was-web' WHERE id = %s", web_1.pk)
    sql("UPDATE nodes_node SET node_id = 'web-1' WHERE id = %s", db_1.pk)
    db_1.refresh_from_db()
    job = factories.make_job(db_1, by=as_actor(ada))
    assert json.loads(bytes(job.payload))["node_id"] == "web-1"
    assert integrity.verify(by=factories.SYSTEM).bad == []  # nothing that was signed has changed
