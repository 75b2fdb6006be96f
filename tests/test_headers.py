"""What every answer carries, whoever gives it, and what is refused before anybody looks at it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from django.db import OperationalError
from django.test import Client

from accounts.models import User
from hyprbox.gate import door
from hyprbox.lib.errors import Overloaded
from hyprbox.lib.sse import HEADERS
from hyprbox.openapi.document import routes
from nodes.models import Node
from tests.plane import Call, Plane, bearer, plane

UUID = "e3e70682-c209-4cac-a29f-6fbed82c07cd"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "manifest-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
)
EXPECTED = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
ELSEWHERE = "https://elsewhere.example"
TOOLS = "https://tools.example"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    with plane(monkeypatch) as made:
        yield made


def addresses() -> list[str]:
    """Every address of Django's, the lanes and the static files, with something in the place of names."""
    found = {"/" + re.sub(r"<(?:(\w+):)?\w+>", _something, route) for route, _ in routes()}
    plain = sorted(path for path in found if not re.search(r"[\^$(\\]", path))
    return [*plain, "/api/nodes/heartbeat", "/api/jobs/pending", "/static/css/hyprbox.css", "/static/no", "/no/such"]


def _something(match: re.Match[str]) -> str:
    return {"uuid": UUID, "int": "1"}.get(match[1] or "", "nothing")


def check(response: httpx.Response) -> None:
    where = f"{response.request.method} {response.request.url} {response.status_code}"
    for name, value in EXPECTED.items():
        assert response.headers.get_list(name) == [value], f"{where}: {name}"
    assert "x-request-id" in response.headers or response.request.url.path.startswith("/static/"), where
    assert "unsafe" not in response.headers["content-security-policy"]
    assert not [name for name in response.headers if name.startswith("access-control")], where
    if response.request.url.path.startswith("/api/"):
        assert "no-store" in response.headers["cache-control"], where


@pytest.mark.slow
def test_every_answer_has_them(web: Plane, ada: User, web_1: Node) -> None:
    calls = [
        Call(method, path, token, json={}, headers={"origin": ELSEWHERE} if method == "GET" else {})
        for path in addresses()
        for method in ("GET", "POST")
        for token in ("", bearer(ada))
        if not path.startswith(("/events/", "/api/stream")) and (path, token) != ("/logout/", "")
    ]
    seen = set()
    for call in calls:
        response = web.run(web.send(call))
        check(response)
        seen.add(response.status_code)
    assert {200, 302, 401, 403, 404, 405} <= seen
    assert 500 not in seen


def test_a_stream_has_them(web: Plane, ada: User, web_1: Node) -> None:
    told = {name.decode(): value.decode() for name, value in HEADERS}
    assert {name: told[name] for name in EXPECTED} == EXPECTED
    check(web.get("/api/stream/nodes"))  # 401


def test_errors_have_them(web: Plane, ada: User, web_1: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    token = bearer(ada)

    def answered(status: int, *call: Any, **more: Any) -> httpx.Response:
        response = web.run(web.send(Call(*call, **more)))
        check(response)
        assert response.status_code == status, response.text
        return response

    answered(413, "POST", "/api/jobs", token, b"x" * (1024 * 1024 + 1))
    answered(415, "POST", "/api/jobs", token, b"x", headers={"content-type": "text/plain"})
    answered(405, "PUT", "/api/jobs", token)
    answered(400, "GET", "/login/", headers={"host": "elsewhere.example"})
    answered(431, "GET", "/api/jobs", token, headers={"cookie": "a=" + "x" * 16_384})
    answered(401, "GET", "/api/jobs", "not-a-token")
    with monkeypatch.context() as patch:
        patch.setattr("nodes.selectors.list_nodes", _raises(ValueError("a secret of the inside")))
        defect = answered(500, "GET", "/api/nodes", token)
        patch.setattr("nodes.selectors.list_nodes", _raises(OperationalError("gone")))
        answered(503, "GET", "/api/nodes", token)
        patch.setattr("hyprbox.finding.find", _raises(ValueError("a secret of the inside")))
        page = answered(500, "GET", "/palette/?q=web", headers=_session(ada))
    for response in (defect, page):
        assert "a secret" not in response.text and "Traceback" not in response.text
        assert response.headers["x-request-id"] in page.text or response is defect
    with monkeypatch.context() as patch:
        patch.setattr(door.Gate, "_pass", _raises(Overloaded()))
        answered(503, "GET", "/login/")
        answered(503, "GET", "/api/jobs", token)


def _raises(error: Exception) -> Any:
    def raises(*args: Any, **kwargs: Any) -> None:
        raise error

    return raises


def _session(user: User) -> dict[str, str]:
    client = Client()
    client.force_login(user)
    return {"cookie": f"hb_session={client.cookies['hb_session'].value}"}


def test_over_tls_they_say_that_it_stays_so() -> None:
    code = "from hyprbox.lib import headers, lanes; print(headers.EVERYWHERE['Strict-Transport-Security'], lanes._SAME_HEADERS)"
    made = subprocess.run(
        [sys.executable, "-c", f"import django; django.setup(); {code}"],
        env={**os.environ, "HYPRBOX_PUBLIC_URL": "https://hyprbox.example"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stdout.startswith("max-age=31536000; includeSubDomains; preload ")
    assert "strict-transport-security" in made.stdout


def test_other_sites_are_let_in_by_name_alone(web: Plane, ada: User, settings: Any) -> None:
    settings.HYPRBOX_CORS_ORIGINS = [TOOLS]
    token = bearer(ada)
    good = web.run(web.send(Call("GET", "/api/auth/me", token, headers={"origin": TOOLS})))
    assert good.headers["access-control-allow-origin"] == TOOLS
    assert good.headers["access-control-allow-credentials"] == "true"
    for origin in (ELSEWHERE, "null", f"{TOOLS}.evil.example", TOOLS.upper(), "http://tools.example", "*"):
        for call in (
            Call("GET", "/api/auth/me", token),
            Call("OPTIONS", "/api/jobs"),
            Call("GET", "/api/stream/nodes"),
        ):
            asked = {"origin": origin, "access-control-request-method": "POST"}
            response = web.run(web.send(replace(call, headers=asked)))
            assert not [name for name in response.headers if name.startswith("access-control")], (origin, call)
            assert "Origin" in response.headers["vary"]
    page = web.run(web.send(Call("GET", "/login/", headers={"origin": TOOLS})))
    assert "access-control-allow-origin" not in page.headers


def test_a_preflight_needs_no_credential(web: Plane, settings: Any) -> None:
    settings.HYPRBOX_CORS_ORIGINS = [TOOLS]
    asked = {
        "origin": TOOLS,
        "access-control-request-method": "PATCH",
        "access-control-request-headers": "authorization",
    }
    for path in ("/api/nodes/web-1", "/api/stream/nodes", f"/api/jobs/{UUID}/stream"):
        answer = web.run(web.send(Call("OPTIONS", path, headers=asked)))
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == TOOLS
        assert "PATCH" in answer.headers["access-control-allow-methods"]
        assert "Authorization" in answer.headers["access-control-allow-headers"]
        assert answer.headers["content-security-policy"] == POLICY


@pytest.mark.parametrize(
    "origin", ["*", "null", "https://*.example", "https://a.example/", "HTTPS://A.example", "http://a.example"]
)
def test_an_origin_that_is_none_refuses_to_start(origin: str) -> None:
    made = subprocess.run(
        [sys.executable, "-c", "import hyprbox.settings"], check=False,
        env={**os.environ, "HYPRBOX_CORS_ORIGINS": origin}, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode and "HYPRBOX_CORS_ORIGINS" in made.stderr.splitlines()[-1]


def start_with(hosts: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import hyprbox.settings as made; print(made.ALLOWED_HOSTS)"], check=False,
        env={**os.environ, "HYPRBOX_ALLOWED_HOSTS": hosts, **more}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "hosts", ["*", ".example.com", "*.example.com", "hyprbox.example,*", "hyprbox.example,.example"]
)
def test_hosts_that_are_not_named_refuse_to_start(hosts: str) -> None:
    made = start_with(hosts)
    assert made.returncode
    assert f"HYPRBOX_ALLOWED_HOSTS: “{hosts.split(',')[-1]}” stands for" in made.stderr.splitlines()[-1]


def test_hosts_by_name_start_and_any_for_development() -> None:
    assert start_with("hyprbox.example,10.0.0.7,[::1]").stdout.split() == [
        "['hyprbox.example',", "'10.0.0.7',", "'[::1]']",
    ]  # fmt: skip
    assert start_with("*", HYPRBOX_DEBUG="1").stdout.strip() == "['*']"


@pytest.mark.slow
def test_nothing_hostile_in_an_address_is_a_defect(web: Plane, ada: User, web_1: Node) -> None:
    session = _session(ada)
    many = "&".join(f"a{number}=1" for number in range(1100))
    for path in addresses():
        if path.startswith(("/events/", "/api/stream", "/logout/")):
            continue
        for query in ("q=%00&page=%00&name=%00", many):
            response = web.run(web.send(Call("GET", f"{path}?{query}", headers=session)))
            assert response.status_code < 500 or path == "/readyz", (path, query[:20])
            check(response)
    assert web.get("/api/nodes/a%00b", bearer(ada)).status_code in (400, 404)
    assert web.get(f"/api/nodes?{many}", bearer(ada)).status_code == 400


def test_bodies_have_limits(web: Plane, ada: User) -> None:
    token = bearer(ada)
    deep = b'{"variables": ' + b"[" * 30 + b"]" * 30 + b"}"
    wide = b'{"variables": {' + b",".join(b'"k%d": 1' % number for number in range(1001)) + b"}}"
    for body in (deep, wide, b'{"preset": "a\\u0000b"}', b'{"preset": "\\ud800"}', b'{"a": NaN}', b"[1]"):
        answer = web.run(web.send(Call("POST", "/api/jobs", token, body)))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_body"), body[:40]
