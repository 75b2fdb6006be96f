"""Signing in and out on pages."""

from __future__ import annotations

import pytest
from django.test import Client

from accounts.models import User
from audit.models import Event
from tests.factories import PASSWORD


def sign_in(client: Client, email: str, password: str = PASSWORD, **more: str) -> object:
    return client.post("/login/", {"email": email, "password": password, **more})


def test_the_right_password_starts_a_session(client: Client, vera: User) -> None:
    answer = sign_in(client, vera.email, next="/jobs/")
    assert (answer.status_code, answer["Location"]) == (302, "/jobs/")
    assert client.get("/").status_code == 200
    assert Event.objects.filter(action="login.succeeded", actor_name=vera.email).count() == 1


@pytest.mark.parametrize("who", ["unknown", "wrong", "disabled"])
def test_every_wrong_pair_gets_the_same_answer(client: Client, vera: User, mallory: User, who: str) -> None:
    email = {"unknown": "nobody@example.com", "wrong": vera.email, "disabled": mallory.email}[who]
    answer = sign_in(client, email, "wrong password" if who == "wrong" else PASSWORD)
    assert answer.status_code == 401
    assert "The e-mail address and the password do not match." in answer.content.decode()
    assert client.get("/").status_code == 302


def test_the_password_is_never_sent_back(client: Client, vera: User) -> None:
    assert "wrong password" not in sign_in(client, vera.email, "wrong password").content.decode()


def test_empty_fields_say_so(client: Client, db: None) -> None:
    answer = sign_in(client, "", "")
    assert answer.status_code == 400
    assert "Enter your e-mail address." in answer.content.decode()


@pytest.mark.parametrize(
    "target", ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_open_redirects_go_home(client: Client, vera: User, target: str) -> None:
    assert sign_in(client, vera.email, next=target)["Location"] == "/"


def test_who_is_signed_in_is_sent_on(client: Client, vera: User) -> None:
    sign_in(client, vera.email)
    assert client.get("/login/?next=/presets/")["Location"] == "/presets/"


def test_signing_out_needs_a_post_and_ends_the_session(client: Client, vera: User) -> None:
    sign_in(client, vera.email)
    assert client.get("/logout/").status_code == 405
    assert client.post("/logout/")["Location"] == "/login/"
    assert client.get("/").status_code == 302


def test_forms_need_their_token(vera: User) -> None:
    client = Client(enforce_csrf_checks=True)
    answer = sign_in(client, vera.email)
    assert answer.status_code == 403
    assert "open for too long" in answer.content.decode()


def test_the_theme_goes_round(client: Client, db: None) -> None:
    seen = [client.post("/theme/", {"next": "/login/"}).cookies["hb_theme"].value for _ in range(3)]
    assert seen == ["dark", "light", "auto"]
    assert 'data-theme="' not in client.get("/login/").content.decode()
