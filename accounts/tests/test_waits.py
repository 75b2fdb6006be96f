"""Whoever is told to wait is told for how long, on pages as in the API."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
from django.test import Client

from accounts import people, rates
from accounts.errors import TooManyLogins
from accounts.models import User
from accounts.tests.apps import Clock, give_app
from hyprbox.lib.actors import Role
from tests.client import ApiClient
from tests.factories import PASSWORD, as_actor

NEW = "a passphrase nobody guesses"
SECONDS = "37"


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Any:
    """From its call on every counter is full for 37 seconds more."""

    def fill() -> None:
        def refuse(key: str) -> NoReturn:
            raise TooManyLogins(retry_after=int(SECONDS))

        monkeypatch.setattr(rates, "add", lambda counts, **_: dict.fromkeys(counts, (10_000, int(SECONDS))))
        monkeypatch.setattr(rates, "reserve", refuse)

    return fill


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/auth/login", {"email": "otto@example.com", "password": PASSWORD}),
        ("/api/auth/register", {"email": "new@example.com", "name": "New", "password": NEW}),
        ("/api/auth/refresh", {"refresh": "x"}),
        ("/api/auth/reset", {"email": "otto@example.com"}),
    ],
)
def test_the_api(api: ApiClient, otto: User, full: Any, settings: Any, path: str, body: dict[str, str]) -> None:
    settings.HYPRBOX_ALLOW_REGISTRATION = True
    full()
    answer = api.post(path, body)
    assert (answer.status_code, answer["Retry-After"]) == (429, SECONDS)


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/login/", {"email": "otto@example.com", "password": PASSWORD}),
        ("/reset/", {"email": "otto@example.com"}),
    ],
)
def test_pages_for_everybody(client: Client, otto: User, full: Any, path: str, form: dict[str, str]) -> None:
    full()
    answer = client.post(path, form)
    assert (answer.status_code, answer["Retry-After"]) == (429, SECONDS)


def test_a_link(client: Client, ada: User, full: Any) -> None:
    _, secret = people.invite(by=as_actor(ada), email="new@example.com", role=Role.VIEWER)
    full()
    answer = client.post(f"/invitation/{secret}/", {"name": "New", "password": NEW})
    assert (answer.status_code, answer["Retry-After"]) == (429, SECONDS)


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/profile/password/", {"current": PASSWORD, "new": NEW}),
        ("/profile/second-factor/app/", {"password": PASSWORD}),
    ],
)
def test_the_profile(client: Client, otto: User, full: Any, path: str, form: dict[str, str]) -> None:
    client.force_login(otto)
    full()
    answer = client.post(path, form)
    assert (answer.status_code, answer["Retry-After"]) == (429, SECONDS)


def test_the_second_factor(client: Client, ada: User, otto: User, clock: Clock, full: Any) -> None:
    give_app(ada, clock)
    client.post("/login/", {"email": ada.email, "password": PASSWORD})
    signed_in = Client()
    signed_in.force_login(User.objects.get(pk=ada.pk))
    full()
    answers = [
        client.post("/login/second/", {"_otp": "000000"}),
        signed_in.post(f"/settings/people/{otto.pk}/disable/", {"_otp": "000000"}),
    ]
    assert [(answer.status_code, answer["Retry-After"]) for answer in answers] == [(429, SECONDS)] * 2
