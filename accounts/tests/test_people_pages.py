"""Settings, People; the profile; and the pages that letters lead to."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core import mail
from django.test import Client

from accounts import passwords, people
from accounts.models import ApiKey, Invitation, PageSession, User
from hyprbox.lib.actors import Actor, Role
from tests.factories import PASSWORD, as_actor

HERE = Actor.anonymous(ip="127.0.0.1")
NEW = "another long password"


def signed_in(user: User, password: str = PASSWORD) -> Client:
    client = Client()
    client.post("/login/", {"email": user.email, "password": password})
    return client


def text(answer: Any) -> str:
    return str(answer.content.decode())


@pytest.mark.parametrize("who", ["vera", "otto"])
def test_people_are_for_admins(request: pytest.FixtureRequest, ada: User, who: str) -> None:
    client = signed_in(request.getfixturevalue(who))
    assert client.get("/settings/people/").status_code == 403
    assert client.get(f"/settings/people/{ada.pk}/").status_code == 403
    assert client.post(f"/settings/people/{ada.pk}/remove/").status_code == 403
    assert "/settings/people/" not in text(client.get("/profile/"))


def test_an_admin_invites_and_the_guest_comes_in(ada: User) -> None:
    admin, guest = signed_in(ada), Client()
    answer = admin.post("/settings/people/", {"email": "new@example.com", "role": "operator"}, follow=True)
    assert "is on its way" in text(answer) and "new@example.com" in text(answer)
    path = re.findall(r"https?://[^/]+(/invitation/\S+)", mail.outbox[0].body)[0]
    assert "as operator" in text(guest.get(path))
    assert "too short" in text(guest.post(path, {"name": "New", "password": "short"}))
    answer = guest.post(path, {"name": "New", "password": NEW}, follow=True)
    assert "Your account is ready" in text(answer)
    assert guest.get(path).status_code == 400
    user = User.objects.get(email="new@example.com")
    assert signed_in(user, NEW).get("/").status_code == 200


def test_without_a_mail_server_the_link_is_shown_once(ada: User, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    admin = signed_in(ada)
    assert "/invitation/" in text(admin.post("/settings/people/", {"email": "new@example.com", "role": "viewer"}))
    assert f"{settings.HYPRBOX_PUBLIC_URL}/invitation/" not in text(admin.get("/settings/people/"))


def test_the_list_says_who_is_disabled_where_that_column_has_no_room(ada: User, mallory: User) -> None:
    page = text(signed_in(ada).get("/settings/people/"))
    [row] = [row for row in page.split("<tr>") if mallory.email in row]
    [role] = [cell for cell in row.split("<td") if "only-xs" in cell]
    assert "Operator" in role and "Disabled" in role and "<svg" in role
    assert page.count("only-xs") == 1


def test_without_a_mail_server_a_forgotten_password_is_asked_for_elsewhere(otto: User, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    assert "No e-mail is sent from here" in text(Client().get("/reset/"))
    pages = []
    for email in (otto.email, "nobody@example.com"):
        page = text(Client().post("/reset/", {"email": email}))
        assert "in the log of its worker" in page and "mailbox" not in page
        pages.append(page.replace(email, "-"))
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("email", "sentence"), [("nonsense", "is not an e-mail address"), ("ada@example.com", "exists already")]
)
def test_who_cannot_be_invited_is_said_beside_the_field(ada: User, email: str, sentence: str) -> None:
    answer = signed_in(ada).post("/settings/people/", {"email": email, "role": "viewer"})
    assert answer.status_code in (400, 409) and sentence in text(answer)
    assert not Invitation.objects.exists()


def test_an_admin_changes_disables_enables_and_removes(ada: User, otto: User) -> None:
    admin, page = signed_in(ada), f"/settings/people/{otto.pk}/"
    signed_in(otto)
    assert "End the session" in text(admin.get(page))
    admin.post(f"{page}change/", {"name": "Otto O.", "role": "viewer"})
    otto.refresh_from_db()
    assert (otto.name, otto.role) == ("Otto O.", Role.VIEWER)
    admin.post(f"{page}disable/")
    assert "Enable: they may sign in again." in text(admin.get(page))
    admin.post(f"{page}enable/")
    assert User.objects.get(pk=otto.pk).is_active
    admin.post(f"{page}remove/")
    assert admin.get(page).status_code == 404


def test_an_admin_cannot_harm_themselves(ada: User) -> None:
    admin, page = signed_in(ada), f"/settings/people/{ada.pk}/"
    assert "Another admin changes your role" in text(admin.get(page))
    for act in ("disable", "remove"):
        assert admin.post(f"{page}{act}/").status_code == 403
    assert admin.post(f"{page}change/", {"role": "viewer"}).status_code == 403


def test_a_new_password_keeps_this_session_only(otto: User) -> None:
    here, there = signed_in(otto), signed_in(otto)
    answer = here.post("/profile/password/", {"current": PASSWORD, "new": NEW}, follow=True)
    assert "Your password is changed." in text(answer)
    assert here.get("/profile/").status_code == 200
    assert there.get("/profile/").status_code == 302
    assert PageSession.objects.filter(user=otto).count() == 1


@pytest.mark.parametrize(
    ("path", "form", "sentence"),
    [
        ("password", {"current": "nonsense", "new": NEW}, "This is not your current password."),
        ("password", {"current": PASSWORD, "new": "short"}, "too short"),
        ("password", {}, "Enter your current password."),
        ("email", {"email": "new@example.com", "password": "nonsense"}, "This is not your current password."),
        ("email", {"email": "nonsense", "password": PASSWORD}, "is not an e-mail address"),
        ("email", {"email": "vera@example.com", "password": PASSWORD}, "exists already"),
        ("name", {"name": " "}, "Enter your name."),
        ("keys", {"name": "", "scope": "read", "days": "90"}, "Give the key a name"),
        ("keys", {"name": "x", "scope": "admin", "days": "90"}, "is not a scope that your role allows"),
    ],
)
def test_what_is_wrong_stands_beside_the_field(otto: User, vera: User, path: str, form: Any, sentence: str) -> None:
    answer = signed_in(otto).post(f"/profile/{path}/", form)
    assert answer.status_code in (400, 409) and sentence in text(answer)
    assert "nonsense" not in text(answer).replace("“nonsense”", "").replace('value="nonsense"', "")


def test_name_and_address_change(otto: User) -> None:
    client = signed_in(otto)
    client.post("/profile/name/", {"name": "Otto O."})
    client.post("/profile/email/", {"email": "o@example.com", "password": PASSWORD})
    page = text(client.get("/profile/"))
    assert "Otto O." in page and "o@example.com" in page


def test_a_key_is_shown_once_and_revoked(otto: User) -> None:
    client = signed_in(otto)
    answer = client.post("/profile/keys/", {"name": "ci", "scope": "run", "days": "30"})
    plaintext = re.findall(r"hbak_[A-Za-z0-9_-]{51}", text(answer))[0]
    assert plaintext not in text(client.get("/profile/"))
    assert client.post("/profile/keys/", {"name": "ci", "scope": "admin", "days": "30"}).status_code == 400
    key = ApiKey.objects.get()
    assert client.post(f"/profile/keys/{key.pk}/revoke/")["Location"] == "/profile/"
    assert "ci" not in re.findall(r'<div class="main">([^<]*)', text(client.get("/profile/")))


def test_signing_out_everywhere_and_ending_this_session(otto: User) -> None:
    here, there = signed_in(otto), signed_in(otto)
    mine = PageSession.objects.order_by("created_at").first()
    assert mine is not None
    assert here.post(f"/profile/sessions/{mine.pk}/end/")["Location"] == "/login/"
    assert here.get("/profile/").status_code == 302
    assert there.get("/profile/").status_code == 200
    assert there.post("/profile/sign-out/")["Location"] == "/login/"
    assert there.get("/profile/").status_code == 302


def test_a_forgotten_password(otto: User) -> None:
    client = Client()
    for email in (otto.email, "nobody@example.com"):
        assert "Look into your mailbox" in text(client.post("/reset/", {"email": email}))
    issued = passwords.issue_reset(email=otto.email, by=HERE)
    assert issued is not None
    path = f"/reset/{issued[1]}/"
    assert otto.email in text(client.get(path))
    assert "too short" in text(client.post(path, {"new": "short"}))
    assert "Your password is changed." in text(client.post(path, {"new": NEW}, follow=True))
    assert "This link is over" in text(client.get(path))
    assert signed_in(otto, NEW).get("/").status_code == 200


def test_names_are_escaped(ada: User, otto: User) -> None:
    nasty = "<img src=x onerror=alert(1)>"
    people.change_profile(by=as_actor(otto), name=nasty)
    people.invite(by=as_actor(ada), email="a'b@example.com", role="viewer")
    client = Client(headers={"user-agent": "<script>alert(1)</script>"})
    client.post("/login/", {"email": otto.email, "password": PASSWORD})
    for page in (signed_in(ada).get("/settings/people/"), client.get("/profile/")):
        assert "<img src=x" not in text(page) and "<script>alert" not in text(page)
