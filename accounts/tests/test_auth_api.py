"""/api/auth: login, refresh, me, logout, register, password."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client, override_settings

from accounts.models import User
from audit.models import Event
from tests.factories import PASSWORD, leave, lengthen_delays


def log_in(api: Any, email: str = "otto@example.com", password: str = PASSWORD, **headers: str) -> Any:
    return api.post("/api/auth/login", {"email": email, "password": password}, **headers)


def test_login_gives_tokens_the_user_and_a_cookie(api: Any, otto: Any) -> None:
    answer = log_in(api)
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert set(body) == {"access", "refresh", "user"}
    assert set(body["user"]) == {"id", "email", "name", "role", "created_at"}
    cookie = answer.cookies["hb_token"]
    assert (cookie.value, cookie["httponly"], cookie["samesite"]) == (body["access"], True, "Lax")
    assert Event.objects.get(action="login.succeeded").actor_name == "otto@example.com"


def test_the_address_is_not_case_sensitive(api: Any, otto: Any) -> None:
    assert log_in(api, "Otto@Example.COM").status_code == 200


@pytest.mark.parametrize(
    ("email", "password"),
    [("otto@example.com", "wrong password"), ("nobody@example.com", PASSWORD), ("mallory@example.com", PASSWORD)],
)
def test_unknown_wrong_and_disabled_look_the_same(api: Any, otto: Any, mallory: Any, email: str, password: str) -> None:
    answer = log_in(api, email, password)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "wrong_credentials")
    assert Event.objects.filter(action="login.failed").count() == 1


def test_the_eleventh_login_of_a_minute_waits(api: Any, otto: Any) -> None:
    for number in range(10):
        assert log_in(api, f"someone-{number}@example.com").status_code == 401
    answer = log_in(api)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


def test_five_failures_delay_an_account_but_not_for_ever(api: Any, otto: Any) -> None:
    for _ in range(5):
        log_in(api, password="wrong password")
    lengthen_delays()
    assert log_in(api).status_code == 429
    with connection.cursor() as cursor:
        cursor.execute("UPDATE accounts_ratecounter SET blocked_until = now() - interval '1 second'")
    assert log_in(api).status_code == 200


def test_a_login_from_another_site_is_refused(api: Any, otto: Any) -> None:
    assert log_in(api, origin="https://evil.example").status_code == 403
    assert log_in(api, origin="http://testserver").status_code == 200


def test_me_knows_the_caller(api: Any, otto: Any) -> None:
    assert api.by(otto).get("/api/auth/me").json()["email"] == "otto@example.com"
    assert api.get("/api/auth/me").status_code == 401


@pytest.mark.parametrize(
    "change", [{"is_active": False}, {"token_version": 2}], ids=["disabled", "logged out everywhere"]
)
def test_a_token_dies_with_its_user(api: Any, otto: Any, change: Any) -> None:
    client = api.by(otto)
    assert client.get("/api/auth/me").status_code == 200
    leave(otto, **change)
    assert client.get("/api/auth/me").status_code == 401


def test_logout_ends_the_refresh_token(api: Any, otto: Any) -> None:
    refresh = log_in(api).json()["refresh"]
    assert api.by(otto).post("/api/auth/logout", {"refresh": refresh}).status_code == 204
    assert api.post("/api/auth/refresh", {"refresh": refresh}).status_code == 401


def test_logout_everywhere_ends_access_tokens(api: Any, otto: Any) -> None:
    client = api.by(otto)
    assert client.post("/api/auth/logout", {"everywhere": True}).status_code == 204
    assert client.get("/api/auth/me").status_code == 401


def test_an_access_token_is_no_refresh_token(api: Any, otto: Any) -> None:
    access = log_in(api).json()["access"]
    assert api.post("/api/auth/refresh", {"refresh": access}).status_code == 401


def test_registration_is_closed(api: Any, db: None) -> None:
    body = {"email": "new@example.com", "password": PASSWORD, "name": "New"}
    assert api.post("/api/auth/register", body).status_code == 403
    assert not User.objects.exists()


@override_settings(HYPRBOX_ALLOW_REGISTRATION=True)
def test_the_first_to_register_is_admin_the_next_a_viewer(api: Any, db: None) -> None:
    roles = []
    for name in ("one", "two"):
        body = {"email": f"{name}@example.com", "password": PASSWORD, "name": name}
        roles.append(api.post("/api/auth/register", body).json()["user"]["role"])
    assert roles == ["admin", "viewer"]
    again = api.post("/api/auth/register", {"email": "ONE@example.com", "password": PASSWORD, "name": "x"})
    assert again.status_code == 409


@override_settings(HYPRBOX_ALLOW_REGISTRATION=True)
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"password": "short"}, "password"),
        ({"password": "password12345"}, "password"),
        ({"password": "x" * 129}, "password"),
        ({"email": "not an address"}, "email"),
        ({"role": "admin"}, "role"),
        ({"email": 5}, None),
        ({"name": "a\0b"}, None),
    ],
)
def test_bad_registrations_are_named(api: Any, db: None, change: Any, field: str | None) -> None:
    body = {"email": "new@example.com", "password": PASSWORD, "name": "New", **change}
    answer = api.post("/api/auth/register", body)
    assert answer.status_code == 400, answer.content
    assert field is None or field in answer.json()["error"]["fields"]
    assert not User.objects.exists()


def test_a_new_password_ends_all_other_tokens(api: Any, otto: Any) -> None:
    client = api.by(otto)
    wrong = client.post("/api/auth/password", {"current": "nonsense", "new": "another long password"})
    assert "current" in wrong.json()["error"]["fields"]
    assert client.post("/api/auth/password", {"current": PASSWORD, "new": "another long password"}).status_code == 204
    assert client.get("/api/auth/me").status_code == 401
    assert log_in(api, password="another long password").status_code == 200


def test_a_cookie_needs_the_csrf_token_to_change_anything(api: Any, otto: Any, web_1: Any) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.cookies["hb_token"] = log_in(api).json()["access"]
    assert browser.get("/api/jobs").status_code == 200
    body = {"preset": "system-report", "node_id": "web-1"}
    assert browser.post("/api/jobs", body, content_type="application/json").status_code == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"email": NaN}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"email": "\\ud800"}', 400),
    ],
)
def test_malformed_bodies_get_a_clear_400(api: Any, db: None, body: bytes, status: int) -> None:
    answer = api.post("/api/auth/login", body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message", "fields", "detail"}
    assert answer.headers["X-Request-Id"]


def test_anything_but_json_is_415(api: Any, db: None) -> None:
    assert api.post("/api/auth/login", b"email=a", content_type="application/x-www-form-urlencoded").status_code == 415


def test_an_unknown_address_is_404_in_the_same_shape(api: Any, db: None) -> None:
    answer = api.get("/api/no/such/thing")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
