"""Page sessions: their ends, their keys, and what closes them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import settings
from django.db.models import F
from django.test import Client
from django.utils import timezone

from accounts import authentication, tidying
from accounts.models import PageSession, User
from hyprbox.lib.errors import NotAuthenticated
from hyprbox.lib.opaque import digest_of
from tests.factories import PASSWORD, leave


@pytest.fixture
def browser(client: Client, otto: User) -> Client:
    client.post("/login/", {"email": otto.email, "password": PASSWORD}, headers={"user-agent": "Firefox/140 Linux"})
    return client


def is_in(client: Client) -> bool:
    return client.get("/profile/").status_code == 200


def key_of(client: Client) -> str:
    return str(client.cookies[settings.SESSION_COOKIE_NAME].value)


def age(**over: object) -> None:
    PageSession.objects.update(**over)


def test_idle_for_half_an_hour_ends_it(browser: Client) -> None:
    age(last_used_at=timezone.now() - timedelta(minutes=29))
    assert is_in(browser)
    age(last_used_at=timezone.now() - timedelta(minutes=31))
    assert not is_in(browser)


def test_using_it_keeps_it_for_twelve_hours_and_no_longer(browser: Client) -> None:
    age(last_used_at=timezone.now() - timedelta(minutes=20))
    assert is_in(browser)
    assert PageSession.objects.get().last_used_at > timezone.now() - timedelta(minutes=1)
    left = PageSession.objects.get().expires_at - timezone.now()
    assert timedelta(hours=11, minutes=59) < left <= timedelta(hours=12)
    age(expires_at=F("expires_at") - timedelta(hours=12))
    assert not is_in(browser)


def test_an_open_stream_does_not_keep_it(browser: Client) -> None:
    before = timezone.now() - timedelta(minutes=10)
    age(last_used_at=before)
    scope = {"headers": [(b"cookie", f"{settings.SESSION_COOKIE_NAME}={key_of(browser)}".encode())]}
    assert authentication._scope_proven(scope).user.email == "otto@example.com"
    assert PageSession.objects.get().last_used_at == before
    age(last_used_at=before - timedelta(minutes=30))
    with pytest.raises(NotAuthenticated):
        authentication._scope_proven(scope)


def test_the_key_changes_at_login_and_is_not_stored(browser: Client, otto: User) -> None:
    first = key_of(browser)
    assert first not in str(PageSession.objects.values_list("key_digest", "data"))
    browser.post("/logout/")
    browser.cookies[settings.SESSION_COOKIE_NAME] = first
    assert not is_in(browser)
    browser.post("/login/", {"email": otto.email, "password": PASSWORD})
    assert key_of(browser) != first
    assert is_in(browser)


def test_a_session_from_before_the_login_gets_another_key(client: Client, otto: User) -> None:
    session = client.session  # nobody's
    session["kept"] = "yes"
    session.save()
    before = key_of(client)
    assert PageSession.objects.filter(key_digest=digest_of(before)).exists()
    client.post("/login/", {"email": otto.email, "password": PASSWORD})
    assert key_of(client) != before and is_in(client)
    assert client.session["kept"] == "yes"
    assert is_dead(before)


def is_dead(key: str) -> bool:
    other = Client()
    other.cookies[settings.SESSION_COOKIE_NAME] = key
    return not is_in(other) and not PageSession.objects.filter(key_digest=digest_of(key)).exists()


def test_a_key_that_someone_chose_is_not_taken(client: Client, otto: User) -> None:
    client.cookies[settings.SESSION_COOKIE_NAME] = "chosen-by-an-attacker-000000000"
    client.post("/login/", {"email": otto.email, "password": PASSWORD})
    assert key_of(client) != "chosen-by-an-attacker-000000000"


@pytest.mark.parametrize("change", [{"is_active": False}, {"token_version": 9}, {"password": "!"}])
def test_it_dies_with_its_user(browser: Client, otto: User, change: dict[str, object]) -> None:
    assert is_in(browser)
    leave(otto, **change)
    assert not is_in(browser)


def test_a_session_that_was_ended_is_over_at_once(browser: Client, otto: User) -> None:
    other = Client()
    other.post("/login/", {"email": otto.email, "password": PASSWORD})
    row = PageSession.objects.get(user_agent="Firefox/140 Linux")
    other.post(f"/profile/sessions/{row.pk}/end/")
    assert not is_in(browser) and is_in(other)


def test_what_is_over_is_tidied_away(browser: Client) -> None:
    tidying.forget_old()
    assert PageSession.objects.count() == 1
    age(last_used_at=timezone.now() - timedelta(hours=1))
    tidying.forget_old()
    assert not PageSession.objects.exists()
