"""Passkeys as a second factor, with an authenticator in software."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from accounts.models import Passkey, User
from accounts.tests.authenticator import Authenticator
from audit import sealed
from audit.models import Event
from tests.client import ApiClient
from tests.factories import PASSWORD

PAGE = "/profile/second-factor/"


@pytest.fixture(autouse=True)
def public_url(settings: Any) -> None:
    settings.HYPRBOX_PUBLIC_URL = "https://hyprbox.example"


def sign_in(client: Client, user: User) -> Any:
    return client.post("/login/", {"email": user.email, "password": PASSWORD, "next": "/jobs/"})


def options_in(answer: Any) -> Any:
    found = re.search(r'data-options="([^"]+)"', answer.content.decode())
    assert found is not None
    return json.loads(html.unescape(found[1]))


def register(client: Client, key: Authenticator, name: str = "laptop") -> Any:
    begun = client.post(f"{PAGE}passkeys/", {"name": name, "password": PASSWORD})
    return client.post(f"{PAGE}passkeys/confirm/", {"name": name, "answer": key.create(options_in(begun))})


def second_step(user: User, key: Authenticator, **change: Any) -> Any:
    """A log-in in another browser, with the key."""
    client = Client()
    sign_in(client, user)
    options = {**options_in(client.get("/login/second/")), **change}
    return client.post("/login/second/", {"_passkey": key.get(options), "next": "/jobs/"})


@pytest.fixture
def key(client: Client, vera: User) -> Authenticator:
    """Vera's, registered."""
    made = Authenticator()
    sign_in(client, vera)
    assert "Your recovery codes" in register(client, made).content.decode()
    return made


def test_a_passkey_signs_in_after_the_password(key: Authenticator, vera: User, api: ApiClient) -> None:
    answer = second_step(vera, key)
    assert (answer.status_code, answer["Location"]) == (302, "/jobs/")
    row = Passkey.objects.get(user=vera)
    assert (row.name, row.sign_count) == ("laptop", 1) and row.last_used_at is not None
    assert api.post("/api/auth/login", {"email": vera.email, "password": PASSWORD}).status_code == 401
    assert set(Event.objects.values_list("action", flat=True)) >= {"passkey.created", "factor.added"}


def test_what_is_not_the_right_answer_opens_nothing(key: Authenticator, vera: User) -> None:
    wrong = {
        "another key": lambda: second_step(vera, Authenticator(credential_id=key.credential_id)),
        "a key nobody knows": lambda: second_step(vera, Authenticator()),
        "another challenge": lambda: second_step(vera, key, challenge="AAAA"),
        "another site": lambda: second_step(
            vera, Authenticator("https://evil.example", credential_id=key.credential_id, key=key.key, count=50)
        ),
    }
    assert {name: attempt().status_code for name, attempt in wrong.items()} == dict.fromkeys(wrong, 401)


def test_an_answer_works_once(key: Authenticator, vera: User) -> None:
    client = Client()
    sign_in(client, vera)
    answer = key.get(options_in(client.get("/login/second/")))
    assert client.post("/login/second/", {"_passkey": answer}).status_code == 302
    client.post("/logout/")
    sign_in(client, vera)
    client.get("/login/second/")
    assert client.post("/login/second/", {"_passkey": answer}).status_code == 401


def test_a_copied_key_is_noticed_by_its_counter(key: Authenticator, vera: User) -> None:
    copy = Authenticator(credential_id=key.credential_id, key=key.key)
    assert second_step(vera, key).status_code == 302
    assert second_step(vera, copy).status_code == 401


@pytest.mark.parametrize("answer", ["", "{", "[]", '{"id": "x"}', json.dumps({"id": "x", "rawId": "é", "type": 1})])
def test_nonsense_is_a_wrong_factor(key: Authenticator, vera: User, answer: str) -> None:
    client = Client()
    sign_in(client, vera)
    client.get("/login/second/")
    assert client.post("/login/second/", {"_passkey": answer}).status_code == 401


def test_a_passkey_that_was_put_into_the_database_is_none(key: Authenticator, vera: User, ada: User) -> None:
    with connection.cursor() as cursor:
        mine = Authenticator()
        cursor.execute("UPDATE accounts_passkey SET credential_id = %s", [mine.credential_id])
    assert second_step(vera, mine).status_code == 401
    assert [why for _, why in sealed.check_all(Passkey)] == ["its seal does not fit"]


def test_it_steps_up_too(key: Authenticator, client: Client, vera: User) -> None:
    session = client.session
    session["_fresh_until"] = "2020-01-01T00:00:00+00:00"
    session.save()
    asked = client.post(f"{PAGE}codes/")
    assert asked.status_code == 403
    done = client.post(f"{PAGE}codes/", {"_passkey": key.get(options_in(asked))})
    assert "Your recovery codes" in done.content.decode()


def test_a_registration_answers_its_own_challenge(client: Client, vera: User) -> None:
    sign_in(client, vera)
    client.post(f"{PAGE}passkeys/", {"name": "laptop", "password": PASSWORD})
    bad = client.post(
        f"{PAGE}passkeys/confirm/", {"name": "laptop", "answer": Authenticator().create({"challenge": "AAAA"})}
    )
    assert bad.status_code == 400 and "cannot be used" in bad.content.decode()
    late = client.post(f"{PAGE}passkeys/confirm/", {"name": "laptop", "answer": "{}"})
    assert late.status_code == 409
    assert not Passkey.objects.exists()


def test_removing_the_last_one_turns_it_off(key: Authenticator, client: Client, vera: User) -> None:
    row = Passkey.objects.get(user=vera)
    assert client.post(f"{PAGE}passkeys/{row.pk}/remove/", {"password": "wrong password"}).status_code == 400
    assert client.post(f"{PAGE}passkeys/{row.pk}/remove/", {"password": PASSWORD}).status_code == 302
    vera.refresh_from_db()
    assert not vera.has_factor and not vera.recovery_codes


def test_a_site_with_an_ip_address_has_none(client: Client, vera: User, settings: Any) -> None:
    settings.HYPRBOX_PUBLIC_URL = "http://127.0.0.1:8000"
    sign_in(client, vera)
    assert "Passkeys need a host name" in client.get(PAGE).content.decode()
