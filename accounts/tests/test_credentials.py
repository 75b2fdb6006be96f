"""What a credential has to be: access tokens, cookies, and what comes with cookies."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

import jwt as pyjwt
import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver

from accounts import hashing, jwt
from accounts.models import User
from accounts.tests.apps import Clock, give_app
from audit.models import Event
from tests import aside
from tests.factories import PASSWORD, make_user

KEY = settings.SECRET_KEY


def claims(user: User, **over: Any) -> dict[str, Any]:
    now = int(time.time())
    given = {
        "token_type": "access", "sub": str(user.pk), "ver": 1, "iat": now, "nbf": now, "exp": now + 900,
        "iss": "hyprbox", "aud": "hyprbox", "jti": "0" * 32, **over,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def status(api: Any, token: str) -> int:
    return int(api.get("/api/auth/me", authorization=f"Bearer {token}").status_code)


def test_one_made_by_hand_like_ours_works(api: Any, otto: User) -> None:
    assert status(api, pyjwt.encode(claims(otto), KEY, "HS256")) == 200


@pytest.mark.parametrize(
    "over",
    [
        {"exp": -31},
        {"nbf": 120},
        {"iss": "another"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"token_type": "refresh"},
        {"token_type": None},
        {"ver": 2},
        {"ver": None},
        {"sub": "nobody"},
        {"sub": None},
        {"exp": None},
        {"fam": "00000000-0000-0000-0000-000000000000"},
    ],
    ids=str,
)
def test_every_claim_is_checked(api: Any, otto: User, over: Any) -> None:
    """Times are seconds from now."""
    now = int(time.time())
    over = {name: now + value if name in ("exp", "nbf") and value else value for name, value in over.items()}
    assert status(api, pyjwt.encode(claims(otto, **over), KEY, "HS256")) == 401


def test_clocks_may_differ_by_half_a_minute(api: Any, otto: User) -> None:
    assert status(api, pyjwt.encode(claims(otto, exp=int(time.time()) - 20), KEY, "HS256")) == 200


@pytest.mark.parametrize("algorithm", ["HS384", "HS512", "none"])
def test_one_algorithm_and_no_other(api: Any, otto: User, algorithm: str) -> None:
    key = None if algorithm == "none" else KEY
    assert status(api, pyjwt.encode(claims(otto), key, algorithm)) == 401


def test_a_changed_payload_is_refused(api: Any, otto: User, ada: User) -> None:
    head, _, signature = jwt.access_token(otto).split(".")
    payload = base64.urlsafe_b64encode(json.dumps(claims(ada)).encode()).decode().rstrip("=")
    assert status(api, f"{head}.{payload}.{signature}") == 401


def test_an_access_token_lives_for_fifteen_minutes(otto: User) -> None:
    read = pyjwt.decode(jwt.access_token(otto), KEY, ["HS256"], audience="hyprbox")
    assert read["exp"] - read["iat"] == 900


def work_of_a_failed_login(
    email: str, password: str, monkeypatch: pytest.MonkeyPatch, otp: str = ""
) -> tuple[Any, list[str], list[str]]:
    """The answer's body, the statements in their order, and which hash was made of the password."""
    hashes: list[str] = []

    def counted(verb: Any) -> Any:
        return lambda *args, **kwargs: hashes.append("bcrypt") or verb(*args, **kwargs)

    body = json.dumps({"email": email, "password": password, "otp": otp})
    with monkeypatch.context() as patch, CaptureQueriesContext(connection) as captured:
        for name in ("check_password", "make_password"):
            patch.setattr(hashing.hashers, name, counted(getattr(hashing.hashers, name)))
        answer = Client().post("/api/auth/login", body, content_type="application/json")
    statements = [re.sub(r"'[^']*'|\d+|\\x\w+|NULL", "?", query["sql"]) for query in captured]
    return (answer.status_code, answer.json()), [text.split(" VALUES")[0][:80] for text in statements], hashes


def test_a_failed_login_does_the_same_work(otto: User, mallory: User, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("nobody@example.com", PASSWORD), (otto.email, "wrong password"), (mallory.email, PASSWORD)]
    unknown, wrong, disabled = [work_of_a_failed_login(*pair, monkeypatch) for pair in pairs]
    assert unknown == wrong == disabled
    assert (unknown[0][0], unknown[2]) == (401, ["bcrypt"])


@pytest.mark.parametrize("otp", ["", "000000"])
def test_a_right_password_without_the_factor_does_the_same_work(
    vera: User, monkeypatch: pytest.MonkeyPatch, otp: str
) -> None:
    give_app(vera, Clock(monkeypatch))
    wrong = work_of_a_failed_login(vera.email, "wrong password", monkeypatch, otp)
    right = work_of_a_failed_login(vera.email, PASSWORD, monkeypatch, otp)
    assert wrong == right
    assert wrong[2] == ["bcrypt"]


# --- cookies ---


def test_cookies_are_what_they_should_be(otto: User) -> None:
    client = Client()
    client.post("/login/", {"email": otto.email, "password": PASSWORD})
    body = json.dumps({"email": otto.email, "password": PASSWORD})
    client.post("/api/auth/login", body, content_type="application/json")
    for name in ("hb_session", "hb_token"):
        cookie = client.cookies[name]
        assert (bool(cookie["httponly"]), cookie["samesite"], cookie["domain"]) == (True, "Lax", "")


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("url", ["https://hyprbox.example", "http://127.0.0.1:8000"])
def test_where_there_is_https_they_go_nowhere_else(url: str) -> None:
    otto = make_user("otto")
    made = aside.run("-c", SIGN_IN, url, otto.email, PASSWORD, HYPRBOX_PUBLIC_URL=url)
    assert made.returncode == 0, made.stderr
    secure = url.startswith("https://")
    assert json.loads(made.stdout) == {"hb_csrf": secure, "hb_session": secure, "hb_token": secure}


# By page and by API, in a process that was started with another public address: which cookies are Secure.
SIGN_IN = """
import json, sys
import django
django.setup()
from urllib.parse import urlsplit
from django.test import Client
parts = urlsplit(sys.argv[1])
client = Client(headers={"host": parts.netloc})
given = {"email": sys.argv[2], "password": sys.argv[3]}
secure = {"secure": parts.scheme == "https"}
answers = [
    client.get("/login/", **secure),
    client.post("/login/", given, **secure),
    client.post("/api/auth/login", json.dumps(given), content_type="application/json", **secure),
]
assert [answer.status_code for answer in answers] == [200, 302, 200], answers
print(json.dumps({name: bool(cookie["secure"]) for name, cookie in sorted(client.cookies.items())}))
"""


def _routes(resolver: URLResolver, before: str = "") -> list[str]:
    found = []
    for entry in resolver.url_patterns:
        here = before + str(entry.pattern)
        found += [here] if isinstance(entry, URLPattern) else _routes(entry, here)
    return found


def unsafe_routes() -> list[str]:
    """Every address of ours, with something in the place of each variable."""
    routes = [route for route in _routes(get_resolver()) if "^" not in route and not route.startswith("django-admin")]
    filled = [
        re.sub(r"<int:\w+>", "1", re.sub(r"<uuid:\w+>", "0" * 8 + "-0000-4000-8000-" + "0" * 12, r)) for r in routes
    ]
    return sorted("/" + re.sub(r"<\w+:\w+>", "x", route) for route in filled)


@pytest.mark.parametrize("cookie", [pytest.param("hb_session", marks=pytest.mark.slow), "hb_token"])
def test_nothing_that_a_cookie_opens_is_changed_without_the_csrf_token(ada: User, web_1: Any, cookie: str) -> None:
    client = Client(enforce_csrf_checks=True)
    if cookie == "hb_token":
        client.cookies["hb_token"] = jwt.access_token(ada)
    else:
        client.force_login(ada)
    asked, wrong = 0, {}
    for route in unsafe_routes():
        if cookie == "hb_token" and not route.startswith("/api/"):
            continue  # pages do not read it
        for method in ("post", "put", "patch", "delete") if route.startswith("/api/") else ("post",):
            answer = getattr(client, method)(route, b"{}", content_type="application/json")
            call, asked = f"{method} {route}", asked + 1
            if answer.status_code not in NOT_BY_COOKIE.get(route, NOT_BY_COOKIE.get(call, (403,))):
                wrong[call] = answer.status_code
    assert wrong == {}, wrong
    assert asked > 150
    assert set(Event.objects.values_list("action", flat=True)) <= {"row.sealed", "access.denied"}


NO_ID = "00000000-0000-4000-8000-000000000000"
# What looks at no cookie, and what it answers to `{}` without a credential. Everything else is refused for want of the token.
NOT_BY_COOKIE = {
    "/api/auth/login": (400, 405),
    "/api/auth/register": (400, 405),
    "/api/auth/refresh": (400, 405),
    "/api/auth/reset": (400, 405),
    "/api/auth/reset/confirm": (400, 405),
    "/api/agent/keys": (405,),
    f"/api/jobs/{NO_ID}/start": (401, 403),
    f"/api/jobs/{NO_ID}/complete": (401, 403),
    f"post /api/jobs/{NO_ID}/output": (401, 403),
}


@pytest.mark.parametrize("cookie", ["hb_session", "hb_token"])
@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("", 201),
        ("http://testserver", 201),
        ("https://evil.example", 403),
        ("http://testserver:81", 403),
        ("null", 403),
    ],
)
def test_a_token_that_came_from_elsewhere_is_worth_nothing(
    ada: User, web_1: Any, cookie: str, origin: str, status: int
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    client.get("/profile/")
    token = client.cookies["hb_csrf"].value
    if cookie == "hb_token":
        del client.cookies["hb_session"]
        client.cookies["hb_token"] = jwt.access_token(ada)
    headers = {"x-csrftoken": token, **({"origin": origin} if origin else {})}
    order = {"preset": "system-report", "node_id": "web-1"}
    answer = client.post("/api/jobs", order, content_type="application/json", headers=headers)
    assert answer.status_code == status
    if cookie == "hb_session":
        page = client.post("/profile/name/", {"name": "Countess"}, headers=headers)
        assert page.status_code == (302 if status == 201 else 403)
