"""/api/auth/*: one's own password, sessions and keys, and a forgotten password."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts import keys, passwords, tasks
from accounts.models import ApiKey, PasswordReset, RateCounter, RefreshFamily, User
from audit.models import Event
from hyprbox.lib.actors import Actor, Scope
from hyprbox.lib.errors import HyprBoxError
from tests.factories import PASSWORD, as_actor, leave, lengthen_delays

HERE = Actor.anonymous(ip="127.0.0.1")
NEW = "another long password"


def log_in(api: Any, user: User, password: str = PASSWORD) -> Any:
    return api.post("/api/auth/login", {"email": user.email, "password": password}).json()


def make_key(user: User, *scopes: str, **over: Any) -> str:
    _, plaintext = keys.create_key(by=as_actor(user), name="ci", scopes=list(scopes) or ["read"], **over)
    return plaintext


# --- password ---


def test_the_caller_stays_everyone_else_goes(api: Any, otto: User) -> None:
    mine, other = log_in(api, otto), log_in(api, otto)
    me = {"authorization": f"Bearer {mine['access']}"}
    assert api.post("/api/auth/password", {"current": PASSWORD, "new": NEW}, **me).status_code == 204
    assert api.get("/api/auth/me", **me).status_code == 200
    assert api.post("/api/auth/refresh", {"refresh": mine["refresh"]}).status_code == 200
    assert api.get("/api/auth/me", authorization=f"Bearer {other['access']}").status_code == 401
    assert api.post("/api/auth/refresh", {"refresh": other["refresh"]}).status_code == 401


def test_wrong_current_passwords_are_slowed_down_too(api: Any, otto: User) -> None:
    client = api.by(otto)
    for _ in range(5):
        assert client.post("/api/auth/password", {"current": "nonsense", "new": NEW}).status_code == 400
    lengthen_delays()
    assert client.post("/api/auth/password", {"current": PASSWORD, "new": NEW}).status_code == 429


@pytest.mark.parametrize(
    "password",
    ["elevenchars", "x" * 129, "password1234", "otto@example.com", "hyprbox-hyprbox", "HyprBox1234!"],
)
def test_rules_of_passwords(otto: User, password: str) -> None:
    assert passwords.problems_of(password, otto)


@pytest.mark.parametrize("password", ["a" + "ä" * 71 + "!", "correct horse 🐎 staple", "x7" * 64])
def test_long_and_foreign_ones_work_in_full(api: Any, otto: User, password: str) -> None:
    passwords.set_password(by=Actor.system("test"), email=otto.email, password=password)
    assert "access" in log_in(api, otto, password)
    assert "access" not in log_in(api, otto, password[:-1])


# --- forgotten ---


def ask(api: Any, email: str) -> None:
    """Ask for a link, and let the worker do its part."""
    assert api.post("/api/auth/reset", {"email": email}).status_code == 202
    for job in ProcrastinateJob.objects.filter(task_name="accounts.tasks.send_reset"):
        tasks.send_reset(**job.args)


def test_a_link_sets_a_new_password_once(api: Any, otto: User) -> None:
    old = log_in(api, otto)
    ask(api, otto.email)
    secret = re.findall(r"/reset/(\S+)/", mail.outbox[0].body)[0]
    body = {"token": secret, "new": NEW}
    assert api.post("/api/auth/reset/confirm", {**body, "new": "short"}).status_code == 400
    assert api.post("/api/auth/reset/confirm", body).status_code == 204
    assert api.post("/api/auth/reset/confirm", body).json()["error"]["code"] == "link_invalid"
    assert api.get("/api/auth/me", authorization=f"Bearer {old['access']}").status_code == 401
    assert "access" in log_in(api, otto, NEW)


def test_it_answers_the_same_for_everyone_and_writes_to_nobody_else(api: Any, otto: User, mallory: User) -> None:
    for email in ("nobody@example.com", mallory.email, "OTTO@example.com"):
        ask(api, email)
    assert {message.to[0] for message in mail.outbox} == {"otto@example.com"}


@pytest.mark.parametrize("change", ["expired", "another user", "disabled"])
def test_a_link_that_is_over_or_was_changed_sets_nothing(otto: User, ada: User, change: str) -> None:
    issued = passwords.issue_reset(email=otto.email, by=HERE)
    assert issued is not None
    match change:
        case "expired":
            PasswordReset.objects.update(expires_at=timezone.now())
        case "another user":
            PasswordReset.objects.update(user=ada)
        case "disabled":
            leave(otto, is_active=False)
    with pytest.raises(HyprBoxError, match="not valid any more"):
        passwords.confirm_reset(secret=issued[1], new=NEW, by=HERE)


def test_a_link_ends_the_delay_of_an_account(api: Any, otto: User) -> None:
    for _ in range(5):
        log_in(api, otto, "wrong password")
    issued = passwords.issue_reset(email=otto.email, by=HERE)
    assert issued is not None
    passwords.confirm_reset(secret=issued[1], new=NEW, by=HERE)
    RateCounter.objects.filter(key__startswith="login-ip").delete()
    assert "access" in log_in(api, otto, NEW)


def test_a_mailbox_gets_at_most_five_an_hour(otto: User) -> None:
    issued = [passwords.issue_reset(email=otto.email, by=HERE) for _ in range(6)]
    assert [bool(one) for one in issued] == [True] * 5 + [False]


# --- sessions ---


def test_someone_sees_and_ends_their_own_sessions(api: Any, otto: User, vera: User) -> None:
    mine, other = log_in(api, otto), log_in(api, otto)
    log_in(api, vera)
    me = {"authorization": f"Bearer {mine['access']}"}
    found = api.get("/api/auth/sessions", **me).json()["results"]
    assert sorted(row["is_current"] for row in found) == [False, True]
    ended = next(row["id"] for row in found if not row["is_current"])
    assert api.delete(f"/api/auth/sessions/{ended}", **me).status_code == 204
    assert api.get("/api/auth/me", authorization=f"Bearer {other['access']}").status_code == 401
    foreign = RefreshFamily.objects.get(user=vera).pk
    assert api.delete(f"/api/auth/sessions/{foreign}", **me).status_code == 404


# --- keys ---


def test_a_key_is_shown_once_and_opens_the_api(api: Any, otto: User) -> None:
    made = api.by(otto).post("/api/auth/keys", {"name": "ci", "scopes": ["read"]})
    assert made.status_code == 201, made.content
    plaintext = made.json()["key"]
    assert plaintext.startswith(f"hbak_{made.json()['prefix']}")
    assert made.headers["Cache-Control"] == "no-store"
    listed = api.by(otto).get("/api/auth/keys").json()["results"]
    assert [row["name"] for row in listed] == ["ci"] and plaintext not in str(listed)
    client = api.agent(plaintext)
    assert client.get("/api/auth/me").json()["email"] == otto.email
    assert api.by(otto).delete(f"/api/auth/keys/{made.json()['id']}").status_code == 204
    assert client.get("/api/auth/me").status_code == 401
    assert set(Event.objects.filter(target__startswith="key:").values_list("action", flat=True)) == {
        "key.created",
        "key.revoked",
    }


def test_a_key_does_what_its_scopes_say(api: Any, ada: User, web_1: Any) -> None:
    order = {"preset": "system-report", "node_id": "web-1"}
    tried = {}
    for scope in Scope.values:
        client = api.agent(make_key(ada, scope))
        tried[scope] = [
            client.get("/api/nodes").status_code,
            client.get("/api/audit").status_code,
            client.post("/api/jobs", order).status_code,
            client.get("/api/users").status_code,
            client.post("/api/auth/keys", {"name": "more", "scopes": ["admin"]}).status_code,
            client.post("/api/auth/password", {"current": PASSWORD, "new": NEW}).status_code,
        ]
    assert tried == {
        "read": [200, 200, 403, 403, 403, 403],
        "run": [200, 200, 201, 403, 403, 403],
        "admin": [200, 200, 201, 200, 403, 403],
    }


def test_the_audit_log_knows_which_key_it_was(api: Any, ada: User, web_1: Any) -> None:
    plaintext = make_key(ada, "run")
    api.agent(plaintext).post("/api/jobs", {"preset": "system-report", "node_id": "web-1"})
    event = Event.objects.get(action="job.queued")
    assert (event.actor_name, event.detail["api_key"]) == (ada.email, plaintext[5:13])


def test_a_key_follows_its_owners_role(api: Any, ada: User, web_1: Any) -> None:
    client = api.agent(make_key(ada, "admin"))
    assert client.get("/api/users").status_code == 200
    leave(ada, role="viewer")
    assert client.get("/api/users").status_code == 403
    assert client.post("/api/jobs", {"preset": "system-report", "node_id": "web-1"}).status_code == 403
    leave(ada, is_active=False)
    assert client.get("/api/nodes").status_code == 401


@pytest.mark.parametrize(
    ("over", "field"),
    [
        ({"name": " "}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["admin"]}, "scopes"),
        ({"scopes": ["root"]}, "scopes.0"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": (timezone.now() + timedelta(days=400)).isoformat()}, "expires_at"),
        ({"user": "ada"}, "user"),
    ],
)
def test_keys_that_cannot_be_are_named(api: Any, otto: User, over: Any, field: str) -> None:
    answer = api.by(otto).post("/api/auth/keys", {"name": "ci", "scopes": ["read"], **over})
    assert (answer.status_code, [*answer.json()["error"]["fields"]][:1]) == (400, [field]), answer.content


def test_a_key_that_was_edited_in_the_database_opens_nothing(api: Any, otto: User) -> None:
    client = api.agent(make_key(otto, "read"))
    ApiKey.objects.update(scopes=["read", "run"])
    assert client.get("/api/nodes").status_code == 401


def test_an_expired_key_opens_nothing(api: Any, otto: User) -> None:
    client = api.agent(make_key(otto, "read", expires_at=timezone.now() + timedelta(seconds=30)))
    assert client.get("/api/nodes").status_code == 200
    leave(ApiKey.objects.get(), expires_at=timezone.now() + timedelta(seconds=20))
    assert client.get("/api/nodes").status_code == 200  # it is not the change that ends it
    leave(ApiKey.objects.get(), expires_at=timezone.now())
    assert client.get("/api/nodes").status_code == 401
