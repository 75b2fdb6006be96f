"""/api/users: people, for admins."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from django.utils import timezone

from accounts import people
from accounts.errors import LastAdmin
from accounts.models import Invitation, User
from audit.models import Event
from hyprbox.lib.actors import Actor, Role
from hyprbox.lib.errors import HyprBoxError
from tests.factories import PASSWORD, as_actor, leave, make_user

HERE = Actor.anonymous(ip="127.0.0.1")
NEW = {"email": "new@example.com", "password": PASSWORD, "name": "New", "role": "operator"}


def events(action: str) -> int:
    return Event.objects.filter(action=action).count()


@pytest.mark.parametrize("who", ["vera", "otto"])
def test_only_admins_see_and_change_people(api: Any, request: Any, ada: User, who: str) -> None:
    client = api.by(request.getfixturevalue(who))
    for answer in (
        client.get("/api/users"),
        client.post("/api/users", NEW),
        client.post("/api/users/invite", {"email": "new@example.com"}),
        client.patch(f"/api/users/{ada.pk}", {"role": "viewer"}),
        client.delete(f"/api/users/{ada.pk}"),
        client.get(f"/api/users/{ada.pk}/sessions"),
    ):
        assert answer.status_code == 403, answer.content
    assert User.objects.get(pk=ada.pk).role == Role.ADMIN


def test_an_admin_makes_lists_changes_and_removes_someone(api: Any, ada: User) -> None:
    client = api.by(ada)
    made = client.post("/api/users", NEW)
    assert made.status_code == 201, made.content
    assert (made.json()["role"], made.json()["is_active"]) == ("operator", True)
    assert client.post("/api/users", NEW).status_code == 409
    assert [row["email"] for row in client.get("/api/users").json()["results"]] == [ada.email, "new@example.com"]
    address = f"/api/users/{made.json()['id']}"
    assert client.patch(address, {"role": "viewer", "name": "Newer"}).json()["name"] == "Newer"
    assert client.delete(address).status_code == 204
    assert client.delete(address).status_code == 404
    assert (events("user.created"), events("user.changed"), events("user.removed")) == (1, 1, 1)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "owner"}, "role"),
        ({"is_active": "no"}, "is_active"),
        ({"token_version": 7}, "token_version"),
        ({"email": "other@example.com"}, "email"),
        ({"name": ""}, "name"),
    ],
)
def test_what_cannot_be_changed_is_named(api: Any, ada: User, otto: User, body: Any, field: str) -> None:
    answer = api.by(ada).patch(f"/api/users/{otto.pk}", body)
    assert (answer.status_code, list(answer.json()["error"]["fields"])) == (400, [field])


@pytest.mark.parametrize("change", [{"role": "viewer"}, {"is_active": False}])
def test_another_role_or_none_ends_every_token(api: Any, ada: User, otto: User, change: Any) -> None:
    client = api.by(otto)
    assert client.get("/api/auth/me").status_code == 200
    assert api.by(ada).patch(f"/api/users/{otto.pk}", change).status_code == 200
    assert client.get("/api/auth/me").status_code == 401


def test_nobody_changes_their_own_role(api: Any, ada: User) -> None:
    make_user("second", Role.ADMIN)
    client = api.by(ada)
    for answer in (
        client.patch(f"/api/users/{ada.pk}", {"role": "viewer"}),
        client.patch(f"/api/users/{ada.pk}", {"is_active": False}),
        client.delete(f"/api/users/{ada.pk}"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "own_account")


def test_the_last_admin_stays(ada: User) -> None:
    for act in (
        lambda: people.change_user(by=Actor.system("test"), user_id=ada.pk, role="viewer"),
        lambda: people.change_user(by=Actor.system("test"), user_id=ada.pk, is_active=False),
        lambda: people.remove_user(by=Actor.system("test"), user_id=ada.pk),
    ):
        with pytest.raises(LastAdmin):
            act()
    assert User.objects.get(pk=ada.pk).token_version == ada.token_version


@pytest.mark.django_db(transaction=True)
def test_two_admins_who_remove_each_other_leave_one() -> None:
    one, two = make_user("one", Role.ADMIN), make_user("two", Role.ADMIN)

    def remove(pair: tuple[User, User]) -> bool:
        try:
            people.remove_user(by=as_actor(pair[0]), user_id=pair[1].pk)
        except HyprBoxError:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(remove, [(one, two), (two, one)])) == 1
    assert User.objects.count() == 1


def test_an_invitation_makes_an_account_once(api: Any, ada: User) -> None:
    answer = api.by(ada).post("/api/users/invite", {"email": "new@example.com", "role": "operator"})
    assert answer.status_code == 201, answer.content
    assert answer.json()["link"] is None  # the letter has it
    secret = re.findall(r"/invitation/(\S+)/", mail.outbox[0].body)[0]
    user = people.accept_invitation(secret=secret, name="New", password=PASSWORD, by=HERE)
    assert (user.email, user.role) == ("new@example.com", "operator")
    with pytest.raises(HyprBoxError):
        people.accept_invitation(secret=secret, name="New", password=PASSWORD, by=HERE)
    assert Event.objects.get(action="user.created").detail["invited_by"] == ada.email


def test_where_no_letter_is_sent_the_admin_gets_the_link(api: Any, ada: User, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    link = api.by(ada).post("/api/users/invite", {"email": "new@example.com"}).json()["link"]
    assert link.startswith(f"{settings.HYPRBOX_PUBLIC_URL}/invitation/")


@pytest.mark.parametrize("change", ["expired", "revoked", "another role", "another address", "forged"])
def test_a_link_that_is_over_or_was_changed_makes_nobody(ada: User, change: str) -> None:
    invitation, secret = people.invite(by=as_actor(ada), email="new@example.com", role="viewer")
    match change:
        case "expired":
            leave(invitation, expires_at=timezone.now())
        case "revoked":
            people.revoke_invitation(by=as_actor(ada), invitation_id=invitation.pk)
        case "another role":
            Invitation.objects.update(role="admin")
        case "another address":
            Invitation.objects.update(email="evil@example.com")
        case "forged":
            secret = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    with pytest.raises(HyprBoxError, match="not valid any more"):
        people.accept_invitation(secret=secret, name="New", password=PASSWORD, by=HERE)
    assert not User.objects.filter(email="new@example.com").exists()


def test_a_second_invitation_ends_the_first(ada: User) -> None:
    _, first = people.invite(by=as_actor(ada), email="new@example.com", role="viewer")
    Invitation.objects.update(created_at=timezone.now() - timedelta(minutes=1))
    _, second = people.invite(by=as_actor(ada), email="NEW@example.com", role="operator")
    with pytest.raises(HyprBoxError):
        people.find_invitation(first)
    assert people.find_invitation(second).role == "operator"


def test_an_admin_sees_and_ends_anyones_sessions(api: Any, ada: User, otto: User) -> None:
    pair = api.post("/api/auth/login", {"email": otto.email, "password": PASSWORD}, user_agent="curl").json()
    admin = api.by(ada)
    found = admin.get(f"/api/users/{otto.pk}/sessions").json()["results"]
    assert [(row["kind"], row["user_agent"]) for row in found] == [("api", "curl")]
    assert admin.delete(f"/api/auth/sessions/{found[0]['id']}").status_code == 204
    assert api.get("/api/auth/me", authorization=f"Bearer {pair['access']}").status_code == 401
    assert api.post("/api/auth/refresh", {"refresh": pair["refresh"]}).status_code == 401
    assert admin.delete(f"/api/users/{otto.pk}/sessions").status_code == 204
    assert events("session.ended") == 1
